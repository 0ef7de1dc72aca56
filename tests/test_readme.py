"""The README's chain, command by command, on a tiny corpus and a tiny teacher."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from unittest import mock

from tests.tiny_chain import build_teacher_folder, write_corpus

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
STORE = (ROOT / "docs" / "store.md").read_text(encoding="utf-8")
OPTIONS = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
# Only amounts are made smaller, and the hub name becomes a folder.
SMALLER = {
    "TEACHER=bert-base-multilingual-cased": "TEACHER=bert",
    "--max-update 100000": "--max-update 2 --cpu --num-workers 0",
    "--total-num-update 100000": "--total-num-update 10",
    "--warmup-updates 5000": "--warmup-updates 5",
    "--arch distilled_transformer_base": "--arch distilled_transformer_base --encoder-layers 1 --decoder-layers 1 "
    "--encoder-embed-dim 32 --decoder-embed-dim 32 --encoder-ffn-embed-dim 32 --decoder-ffn-embed-dim 32",
    "--beam 5": "--beam 2 --max-len-b 8",
    "--required-batch-size-multiple 1": "--required-batch-size-multiple 1 --max-len-b 8",
}


def blocks(name, page=README):
    """The commands between ``<!-- name:`` and ``<!-- end of name -->``."""
    part = page[page.index(f"<!-- {name}:") : page.index(f"<!-- end of {name} -->")]
    return "\n".join(re.findall(r"```bash\n(.*?)```", part, flags=re.S))


def test_every_command_of_the_chain_runs(tmp_path):
    script = blocks("chain") + blocks("store", STORE)
    for printed, tried in SMALLER.items():
        assert printed in script, f"the README no longer says {printed}"
        script = script.replace(printed, tried)
    build_teacher_folder("bert", tmp_path / "bert")
    write_corpus(tmp_path / "text", train=60)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-1000:] + result.stderr[-3000:]
    scores = re.findall(r"^student +1 +(\d+\.\d\d) ", result.stdout, flags=re.M)
    assert len(scores) == 2
    assert result.stdout.count("all well: 60 sentences") == 1
    assert "suggested --kd-topk" in result.stdout
    assert len(re.findall(r"^D-\d+\t", result.stdout, flags=re.M)) == 2  # fairseq-interactive


def test_options_of_the_table_exist_with_their_defaults():
    from fairseq_bert_kd.criterions.distillation_loss import DistillationConfig
    from fairseq_bert_kd.criterions.layer_distillation_options import LayerDistillationConfig
    from fairseq_bert_kd.criterions.policy_gradient import PolicyGradientConfig
    from fairseq_bert_kd.criterions.sentence_representation import SentenceRepresentationConfig
    from fairseq_bert_kd.models.entity_encoder import EntityEncoderConfig
    from fairseq_bert_kd.models.hf_encoder import HfEncoderConfig
    from fairseq_bert_kd.models.masked_lm_teacher import HfMaskedLMConfig
    from fairseq_bert_kd.optim.adam_by_part import AdamByPartConfig
    from fairseq_bert_kd.tasks.conditional_masked_lm import ConditionalMaskedLMConfig
    from fairseq_bert_kd.tasks.entity_sentence_prediction import EntitySentencePredictionConfig
    from fairseq_bert_kd.tasks.sentence_prediction_with_teacher import SentencePredictionWithTeacherConfig
    from fairseq_bert_kd.tasks.sentence_vectors import SentenceVectorsConfig
    from fairseq_bert_kd.tasks.translation_with_reward import TranslationWithRewardConfig
    from fairseq_bert_kd.tasks.translation_with_teacher import TranslationWithTeacherConfig
    from fairseq_bert_kd.tokenization.bpe import HfTokenizerConfig

    fields = {}
    for config in (
        DistillationConfig,
        LayerDistillationConfig,
        HfMaskedLMConfig,
        EntityEncoderConfig,
        EntitySentencePredictionConfig,
        HfEncoderConfig,
        ConditionalMaskedLMConfig,
        HfTokenizerConfig,
        SentencePredictionWithTeacherConfig,
        SentenceRepresentationConfig,
        SentenceVectorsConfig,
        TranslationWithTeacherConfig,
        PolicyGradientConfig,
        TranslationWithRewardConfig,
        AdamByPartConfig,
    ):
        fields |= config.__dataclass_fields__
    rows = re.findall(r"^\| (`--[^|]*) \| ([^|]*)\|", OPTIONS, flags=re.M)
    assert len(rows) == OPTIONS.count("\n| `--") > 20
    for options, default in rows:
        for option in re.findall(r"`--([a-z-]+)`", options):
            field = fields[option.replace("-", "_")]
            if match := re.match(r"[\d.]+", default):
                assert field.default == float(match[0]), option
            elif field.default and isinstance(field.default, str):
                assert default.split()[0].strip("`,;") == field.default, option


def test_versions_of_the_installation_page_are_those_of_the_constraints():
    page = (ROOT / "docs" / "installation.md").read_text(encoding="utf-8")
    pinned = set(re.findall(r"==([\d.]+)", (ROOT / "constraints.txt").read_text(encoding="utf-8")))
    rows = re.findall(r"^\| (?:torch|transformers|numpy|fairseq) \| ([^|]*) \|", page, flags=re.M)
    found = [version for row in rows for version in re.findall(r"\d+\.\d+\.\d+(?:\.\d+)?", row)]
    assert len(rows) == 4
    assert set(found) <= pinned
    assert len(found) == 6


def test_every_package_of_make_setup_has_its_version_in_the_constraints():
    pinned = re.findall(r"^([\w-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), flags=re.M)
    with mock.patch("setuptools.setup") as setup:
        runpy.run_path(str(ROOT / "setup.py"))
    required = [
        *setup.call_args.kwargs["install_requires"],
        *setup.call_args.kwargs["extras_require"]["test"],
    ]
    names = {re.match(r"[\w-]+", requirement)[0].lower() for requirement in required}
    assert len(names) > 20
    assert names <= set(pinned)
