import subprocess
import sys

import pytest
from fairseq.criterions import CRITERION_REGISTRY
from fairseq.data.encoders import BPE_REGISTRY
from fairseq.models import ARCH_MODEL_REGISTRY, MODEL_REGISTRY
from fairseq.tasks import TASK_REGISTRY

from fairseq_bert_kd.criterions.conditional_masked_lm import ConditionalMaskedLMCriterion
from fairseq_bert_kd.criterions.distillation_loss import LabelSmoothedCrossEntropyWithDistillationCriterion
from fairseq_bert_kd.tasks.conditional_masked_lm import ConditionalMaskedLMTask
from fairseq_bert_kd.tasks.translation_with_teacher import TranslationWithTeacherTask
from fairseq_bert_kd.tokenization import bpe
from tests.tiny_chain import PLUGIN

PRESETS = {
    "distilled_transformer_base": "transformer",
    "distilled_transformer_small": "transformer",
    "distilled_lstm": "lstm",
    "distilled_lstm_small": "lstm",
}


def test_names_are_ours():
    """fairseq answers a name that is taken with the older class, without a message."""
    assert TASK_REGISTRY["conditional_masked_lm"] is ConditionalMaskedLMTask
    assert TASK_REGISTRY["translation_with_teacher"] is TranslationWithTeacherTask
    assert CRITERION_REGISTRY["conditional_masked_lm"] is ConditionalMaskedLMCriterion
    name = "label_smoothed_cross_entropy_with_distillation"
    assert CRITERION_REGISTRY[name] is LabelSmoothedCrossEntropyWithDistillationCriterion
    assert BPE_REGISTRY["hf_tokenizer"].__module__ == bpe.__name__


def parse(*arguments):
    from fairseq import options

    return options.parse_args_and_arch(
        options.get_training_parser(), ["data", "--user-dir", str(PLUGIN), *arguments]
    )


@pytest.mark.parametrize(("preset", "stock"), PRESETS.items())
def test_presets_are_stock_architectures_with_sizes(preset, stock):
    assert ARCH_MODEL_REGISTRY[preset] is MODEL_REGISTRY[stock]
    args = parse("--arch", preset)
    assert args.arch == stock  # what the checkpoint will say
    assert args.share_all_embeddings


def test_base_preset_is_the_papers_student():
    args = parse("--arch", "distilled_transformer_base")
    sizes = args.encoder_layers, args.decoder_layers, args.encoder_embed_dim, args.encoder_ffn_embed_dim
    assert sizes == (6, 6, 512, 2048)
    assert (args.encoder_attention_heads, args.decoder_attention_heads, args.dropout) == (8, 8, 0.3)
    assert args.encoder_normalize_before
    assert args.decoder_normalize_before


def test_given_options_win_over_the_preset():
    args = parse("--arch", "distilled_transformer_small", "--encoder-layers", "2", "--dropout", "0.05")
    assert (args.encoder_layers, args.decoder_layers, args.dropout) == (2, 3, 0.05)


def test_every_option_of_ours_reaches_the_command_line():
    """fairseq drops an option whose name is taken, without a message."""
    args = parse(
        "--arch", "distilled_transformer_small", "--task", "translation_with_teacher",
        "--criterion", "label_smoothed_cross_entropy_with_distillation",
        "--kd-weight", "0.25", "--kd-temperature", "3", "--kd-topk", "5",
    )  # fmt: skip
    assert (args.kd_weight, args.kd_temperature, args.kd_topk) == (0.25, 3.0, 5)
    args = parse(
        "--arch", "hf_masked_lm", "--task", "conditional_masked_lm", "--criterion", "conditional_masked_lm",
        "--teacher-model", "m", "--teacher-tokenizer", "t", "--cmlm-mask-prob", "0.3",
    )  # fmt: skip
    assert (args.teacher_model, args.teacher_tokenizer, args.cmlm_mask_prob) == ("m", "t", 0.3)


def test_help_says_what_weighs_and_divides_what():
    """fairseq's own --help stops before it knows the criterion, so read what it would show."""
    from fairseq_bert_kd.criterions.distillation_loss import DistillationConfig

    helps = {
        name: field.metadata.get("help", "")
        for name, field in DistillationConfig.__dataclass_fields__.items()
    }
    assert "loss = (1 - W) * label-smoothed cross-entropy + W * loss against" in helps["kd_weight"]
    assert "divides the teacher's logits" in helps["kd_temperature"]
    assert "at most as many as the store has" in helps["kd_topk"]


def test_plugin_loads_from_its_folder_alone():
    """--user-dir PATH without the package installed, as from a plain clone."""
    code = (
        "import sys; sys.path = [p for p in sys.path if p not in ('', '.')]\n"
        "import argparse; from fairseq import utils, tasks, criterions\n"
        f"utils.import_user_module(argparse.Namespace(user_dir={str(PLUGIN)!r}))\n"
        "assert 'translation_with_teacher' in tasks.TASK_REGISTRY\n"
        "assert 'conditional_masked_lm' in criterions.CRITERION_REGISTRY\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd="/")


def test_importing_the_tasks_registers_whatever_was_imported_before():
    """A program of one's own may import our package, fairseq and ours again, in any order."""
    code = (
        "import fairseq_bert_kd\n"
        "from fairseq import tasks, criterions, models\n"
        "assert 'translation_with_teacher' not in tasks.TASK_REGISTRY\n"
        "import fairseq_bert_kd.tasks\n"
        "assert 'translation_with_teacher' in tasks.TASK_REGISTRY\n"
        "assert 'conditional_masked_lm' in criterions.CRITERION_REGISTRY\n"
        "assert 'hf_masked_lm' in models.MODEL_REGISTRY\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=PLUGIN.parent)
