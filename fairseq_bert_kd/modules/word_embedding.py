"""Where a model's word embedding starts: random numbers, a transformers encoder's input embedding, or a file of vectors."""

import logging
from pathlib import Path
from typing import Any, Optional

import torch
from torch import Tensor

from fairseq_bert_kd.modules.pretrained_encoder import check_embedded, encoder_from_pretrained
from fairseq_bert_kd.storage.word_vectors import read_word_vectors

logger = logging.getLogger(__name__)

RANDOM = "random"
TEACHER = "teacher"
DEFAULT_WIDTH = 300  # that of common word vectors; our own choice
LEAST_COVERAGE = 0.5  # of the dictionary's pieces in a file; our own choice
_SPREAD = 0.1  # random numbers are drawn from U(-0.1, 0.1), as fairseq's LSTM does


def initial_embedding(
    origin: str, width: Optional[int], encoder: Optional[str], vocabulary: Any, symbols: list[str]
) -> Tensor:
    """The weights with which a word embedding starts.

    Args:
        origin: "random", "teacher" for the input embedding of ``encoder``, or the path of a text file of word vectors.
        width: numbers of an embedding; None for those of the origin, or `DEFAULT_WIDTH`.
        encoder: folder or hub name of a transformers encoder.
        vocabulary: map from the dictionary to the encoder's ids, and their number.
        symbols: the dictionary in id order.

    Returns:
        ``(encoder ids, width)`` float32.

    Raises:
        ValueError: no encoder, or one that is narrower than ``width``; a file of another width, or of few of the pieces.
    """
    if origin == RANDOM:
        return _random(vocabulary.encoder_size, width or DEFAULT_WIDTH)
    if origin == TEACHER:
        return _of_encoder(encoder, width, vocabulary)
    return _of_file(origin, width, vocabulary, symbols)


def _random(rows: int, width: int) -> Tensor:
    return torch.empty(rows, width).uniform_(-_SPREAD, _SPREAD)


def _of_encoder(name: Optional[str], width: Optional[int], vocabulary: Any) -> Tensor:
    if not name:
        raise ValueError(
            "--embedding-init teacher takes the input embedding of --encoder-model, which is not given"
        )
    encoder = encoder_from_pretrained(name)[0].base_model
    check_embedded(encoder, int(vocabulary.token_to_encoder.max()), name)
    matrix = encoder.get_input_embeddings().weight.detach().float()
    if width in (None, matrix.size(1)):
        return matrix.clone()
    return reduced(matrix, width, name)


def reduced(matrix: Tensor, width: int, name: str) -> Tensor:
    """The rows' first principal components.

    Args:
        matrix: ``(rows, d)``.
        width: number of components, at most d.
        name: origin of the rows, for the message.

    Returns:
        ``(rows, width)``.

    Raises:
        ValueError: more components than columns.
    """
    if width > matrix.size(1):
        raise ValueError(
            f"--embedding-dim {width} is above the {matrix.size(1)} numbers of an embedding of `{name}`; principal components "
            "only make it smaller"
        )
    centred = (matrix - matrix.mean(dim=0)).double()
    values, directions = torch.linalg.eigh(centred.T @ centred)  # ascending
    directions = directions[:, -width:].flip(1)
    # the sign of a direction is arbitrary: its largest number is made positive, so that machines agree
    signs = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True)).sign()
    kept = float(values[-width:].sum() / values.sum())
    logger.info(
        "embedding of %s: %d of %d components hold %.1f %% of the variance",
        name,
        width,
        matrix.size(1),
        100 * kept,
    )
    return (centred @ (directions * signs)).float()


def _of_file(path: str, width: Optional[int], vocabulary: Any, symbols: list[str]) -> Tensor:
    if not Path(path).is_file():
        raise ValueError(
            f"--embedding-init must be {RANDOM}, {TEACHER} or a text file of word vectors, got `{path}`, which does not exist"
        )
    found = read_word_vectors(path)
    dim = found.vectors.shape[1]
    if width not in (None, dim):
        raise ValueError(
            f"--embedding-init `{path}` has vectors of {dim} numbers, --embedding-dim is {width}; leave that out, or give "
            "another file"
        )
    places = {word: place for place, word in enumerate(found.words)}
    covered = {
        int(vocabulary.token_to_encoder[index]): places[symbol]
        for index, symbol in enumerate(symbols)
        if symbol in places
    }
    pieces = len(set(vocabulary.token_to_encoder.tolist()))
    share = f"{len(covered):,} of {pieces:,} pieces ({100 * len(covered) / pieces:.1f} %)"
    if len(covered) < LEAST_COVERAGE * pieces:
        raise ValueError(
            f"--embedding-init `{path}` has vectors for {share} of the dictionary, fewer than half: it is of another language, "
            "case or tokenisation; give another file, or --embedding-init random"
        )
    matrix = _random(vocabulary.encoder_size, dim)
    ids, rows = torch.tensor(list(covered)), torch.tensor(list(covered.values()))
    matrix[ids] = torch.from_numpy(found.vectors)[rows]
    logger.info("embedding of %s: vectors for %s, the others are random", path, share)
    return matrix
