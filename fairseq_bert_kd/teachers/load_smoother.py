"""Loads the masked language model that smooths input words, for one text's dictionary."""

from types import SimpleNamespace
from typing import Any

from fairseq_bert_kd import compat
from fairseq_bert_kd.storage.fairseq_data import dictionary_digest
from fairseq_bert_kd.teachers.load import Teacher, is_token_teacher, reads_single_texts
from fairseq_bert_kd.teachers.probe import check_token_teacher


def load_smoother(path: str, dictionary: Any, where: str, unmasked: bool) -> Teacher:
    """A masked language model of single sentences in evaluation mode.

    Args:
        path: checkpoint of ``--task conditional_masked_lm --cmlm-one-sided``.
        dictionary: fairseq dictionary of the text.
        where: the dictionary's file, for messages.
        unmasked: whether it is to predict at positions that it sees.

    Raises:
        ValueError: another kind of checkpoint, one of another dictionary, or a model that never predicted at positions that
            it saw.
        FileNotFoundError: no such checkpoint.
    """
    from fairseq.models import MODEL_REGISTRY

    state = compat.load_checkpoint(path)
    arch = compat.model_settings(state)["_name"]
    if not (is_token_teacher(arch) and reads_single_texts(state)):
        raise ValueError(
            f"checkpoint `{path}` is not a masked language model of single sentences; text smoothing needs one that "
            "fairseq-train wrote with --task conditional_masked_lm --cmlm-one-sided --cmlm-keep 0.1 --cmlm-random 0.1"
        )
    model = MODEL_REGISTRY[arch].of_checkpoint(state)
    if unmasked and model.replacement.always_masked:
        raise ValueError(
            f"checkpoint `{path}` was trained with its mask token at every position that it predicted, so its predictions at "
            "unmasked positions mean nothing; train it with --cmlm-keep 0.1 --cmlm-random 0.1 (BERT's), or dump --view masked"
        )
    known, here = model.digests.get("target_dictionary", ""), dictionary_digest(dictionary.symbols)
    if known != here:
        raise ValueError(
            f"checkpoint `{path}` was trained with another dictionary than {where} (sha256 {known[:12]} against {here[:12]}); "
            "prepare both texts with one dictionary (prepare-sentences --full-dictionary, fairseq-preprocess --srcdict)"
        )
    check_token_teacher(model, f"checkpoint `{path}`")
    return Teacher(model.eval(), SimpleNamespace(target_dictionary=dictionary), compat.file_digest(path))
