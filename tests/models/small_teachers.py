"""Teachers over two short sentences, built as fairseq builds them but for the task."""

import torch
from fairseq.data import Dictionary
from omegaconf import OmegaConf

from fairseq_bert_kd.functional.masking import ALWAYS_MASKED
from fairseq_bert_kd.models.masked_lm_teacher import HfMaskedLM, HfMaskedLMConfig
from fairseq_bert_kd.tokenization.dictionary import teacher_vocabulary
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

SOURCE = ["zwei kinder", "ein haus"]
TARGET = ["two men stand", "a house"]


class Task:
    """The part of a fairseq task that `build_model` looks at."""

    def __init__(self, source, target, vocabulary=None):
        self.source_dictionary, self.target_dictionary = source, target
        self.dictionaries = {"source": source, "target": target}
        self.teacher_vocabulary = vocabulary
        self.replacement = ALWAYS_MASKED


def build_teacher(folder, **options):
    """A teacher of a model folder in evaluation mode, its tokenizer and task; options without ``teacher_``."""
    tokenizer = HfTokenizer(str(folder))
    source, target = Dictionary(), Dictionary()
    for dictionary, lines in ((source, SOURCE), (target, TARGET)):
        for line in lines:
            for piece in tokenizer.encode(line):
                dictionary.add_symbol(piece)
    task = Task(source, target, teacher_vocabulary(tokenizer, {"source": source, "target": target}))
    named = {f"teacher_{name}": value for name, value in options.items()}
    config = OmegaConf.structured(HfMaskedLMConfig(teacher_model=str(folder), **named))
    return HfMaskedLM.build_model(config, task).eval(), tokenizer, task


def rebuild(spec, task, **options):
    """The model of a checkpoint's description, without its weights."""
    config = OmegaConf.structured(HfMaskedLMConfig(teacher_model="gone", teacher_spec=spec, **options))
    return HfMaskedLM.build_model(config, Task(task.source_dictionary, task.target_dictionary)).eval()


def encode(tokenizer, dictionary, lines, eos):
    """Student ids, right-padded, and lengths."""
    rows = [[dictionary.index(piece) for piece in tokenizer.encode(line)] for line in lines]
    rows = [row + [dictionary.eos()] * eos for row in rows]
    lengths = torch.tensor([len(row) for row in rows])
    padded = [row + [dictionary.pad()] * (int(lengths.max()) - len(row)) for row in rows]
    return torch.tensor(padded), lengths


def inputs_of(tokenizer, task):
    """What the model takes, every target position to be predicted."""
    src_tokens, src_lengths = encode(tokenizer, task.source_dictionary, SOURCE, eos=False)
    tgt_tokens, tgt_lengths = encode(tokenizer, task.target_dictionary, TARGET, eos=True)
    return {
        "texts": (src_tokens, tgt_tokens),
        "lengths": (src_lengths, tgt_lengths),
        "predicted": torch.arange(tgt_tokens.size(1)) < tgt_lengths[:, None],
    }
