"""Loads the masked language model that smooths input words, for one text's dictionary."""

from types import SimpleNamespace
from typing import Any

import torch

from fairseq_bert_kd import compat
from fairseq_bert_kd.functional.masking import Replacement
from fairseq_bert_kd.storage.fairseq_data import dictionary_digest
from fairseq_bert_kd.teachers.load import Teacher, is_token_teacher, reads_single_texts, weights_digest
from fairseq_bert_kd.teachers.load_masked_lm import MODEL, names_transformers
from fairseq_bert_kd.teachers.probe import check_token_teacher
from fairseq_bert_kd.tokenization.dictionary import teacher_vocabulary
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

OF_BERT = Replacement(keep=0.1, random=0.1)


def load_smoother(path: str, dictionary: Any, where: str, unmasked: bool) -> Teacher:
    """A masked language model of single sentences in evaluation mode.

    Args:
        path: checkpoint of ``--task conditional_masked_lm --cmlm-one-sided``; or a transformers folder or hub name of a masked
            language model with its pre-trained head, which is taken to be trained as BERT was.
        dictionary: fairseq dictionary of the text.
        where: the dictionary's file, for messages.
        unmasked: whether it is to predict at positions that it sees.

    Raises:
        ValueError: another kind of checkpoint, one of another dictionary, a model that never predicted at positions that
            it saw, or one without a pre-trained head or of another tokenizer.
        FileNotFoundError: no such checkpoint.
    """
    if names_transformers(path):
        model, digest = _of_transformers(path, dictionary)
        name = f"`{path}`"
    else:
        model, digest = _of_checkpoint(path, dictionary, where, unmasked), compat.file_digest(path)
        name = f"checkpoint `{path}`"
    check_token_teacher(model, name)
    return Teacher(model.eval(), SimpleNamespace(target_dictionary=dictionary), digest)


def _of_transformers(path: str, dictionary: Any) -> tuple[Any, str]:
    """The model, its head cut to the dictionary, and the digest of its weights."""
    from fairseq.models import MODEL_REGISTRY

    vocabulary = teacher_vocabulary(HfTokenizer(path), {"target": dictionary})
    ids, layout = torch.from_numpy(vocabulary.to_teacher["target"]), vocabulary.text_format
    model = MODEL_REGISTRY[MODEL].of_transformers(path, ids, layout, vocabulary.digests, OF_BERT)
    return model, weights_digest(model)


def _of_checkpoint(path: str, dictionary: Any, where: str, unmasked: bool) -> Any:
    """The model of a checkpoint, which must have been trained with the same dictionary."""
    from fairseq.models import MODEL_REGISTRY

    state = compat.load_checkpoint(path)
    arch = compat.model_settings(state)["_name"]
    if not (is_token_teacher(arch) and reads_single_texts(state)):
        raise ValueError(
            f"checkpoint `{path}` is not a masked language model of single sentences; text smoothing needs one that "
            "fairseq-train wrote with --task conditional_masked_lm --cmlm-one-sided --cmlm-keep 0.1 --cmlm-random 0.1, or a "
            "transformers folder"
        )
    model = MODEL_REGISTRY[arch].of_checkpoint(state)
    if unmasked and not model.replacement.keep:
        raise ValueError(
            f"checkpoint `{path}` never saw the right token at a position that it predicted (--cmlm-keep 0), so its predictions at "
            "unmasked positions mean nothing; train it with --cmlm-keep 0.1 --cmlm-random 0.1 (BERT's), or dump --view masked"
        )
    known, here = model.digests.get("target_dictionary", ""), dictionary_digest(dictionary.symbols)
    if known != here:
        raise ValueError(
            f"checkpoint `{path}` was trained with another dictionary than {where} (sha256 {known[:12]} against {here[:12]}); "
            "prepare both texts with one dictionary (prepare-sentences --full-dictionary, fairseq-preprocess --srcdict)"
        )
    return model
