"""Words that may stand in the place of a sentence's words (Jiao et al. 2020, Algorithm 1).

A word of one piece: the best whole words of a masked language model at its place. A word of several pieces: the whole words
with the nearest vectors.
"""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fairseq_bert_kd.functional.augmentation import nearest_rows
from fairseq_bert_kd.functional.text_input import assemble_texts
from fairseq_bert_kd.storage.word_vectors import WordVectors
from fairseq_bert_kd.teachers.interface import WordPredictor
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer
from fairseq_bert_kd.tokenization.replaceable_words import SplitSentence, Word

ORIGINAL = "original"
MASKED_ONLY = "masked-only"
CONTEXTS = (ORIGINAL, MASKED_ONLY)

Candidates = dict[int, list[str]]  # what may stand in the place of a word, by its place in the sentence


class WordCandidates:
    """Finds candidates for the words of sentences.

    Args:
        model: a masked language model in evaluation mode on its device.
        tokenizer: its tokenizer.
        count: candidates of a word, before those that are no whole words are dropped.
        context: ``original``: the masked sentence, a separator and the sentence as it is, as the authors' code does;
            ``masked-only``: the masked sentence alone, as their paper says.
        batch_size: masked sentences that go through the model together; all of one sentence always do.
        word_vectors: vectors for words of several pieces; None for the mean of the model's own input embeddings.
    """

    def __init__(
        self,
        model: WordPredictor,
        tokenizer: HfTokenizer,
        count: int,
        context: str,
        batch_size: int,
        word_vectors: WordVectors | None = None,
    ):
        layout = model.text_layout()
        self._model, self._format, self._closing = model, layout.text_format, tokenizer.closing_id
        self._count, self._context, self._batch_size = count, context, batch_size
        self._device = layout.to_teacher[-1].device
        whole = tokenizer.whole_words()
        # whole word of each of the model's symbols; None for continuing pieces and special symbols
        self._words = [whole.get(piece) for piece in layout.to_teacher[-1].tolist()]
        self._neighbours = (
            _EmbeddedWords(model.input_embeddings(), whole, count)
            if word_vectors is None
            else _ListedWords(word_vectors, count)
        )

    def fits(self, sentence: SplitSentence) -> bool:
        """Whether the model has positions for the sentence in its context."""
        texts = 2 if self._context == ORIGINAL else 1
        tokens = len(sentence.pieces) * texts + 1 + self._format.overhead(texts)
        return tokens <= self._model.max_positions() + self._format.overhead(1)

    def of(self, sentences: Sequence[SplitSentence]) -> list[Candidates]:
        """Candidates for the replaceable words of each sentence that `fits`; words without any are left out."""
        found: list[Candidates] = [{} for _ in sentences]
        masked = {
            row: [place for place, (start, stop) in sentence.spans.items() if stop - start == 1]
            for row, sentence in enumerate(sentences)
        }
        for batch in _batches(sentences, masked, self._batch_size):
            for row, place, words in self._predicted(sentences, batch):
                found[row][place] = words
        rare = [
            (row, place, sentence.words[place].core, sentence.pieces[start:stop])
            for row, sentence in enumerate(sentences)
            for place, (start, stop) in sentence.spans.items()
            if stop - start > 1
        ]
        nearest = self._neighbours.of([(core, pieces) for _, _, core, pieces in rare])
        for (row, place, *_), words in zip(rare, nearest, strict=True):
            found[row][place] = words
        return [
            {place: _in_place(sentence.words[place], words) for place, words in one.items() if words}
            for sentence, one in zip(sentences, found, strict=True)
        ]

    def _predicted(
        self, sentences: Sequence[SplitSentence], batch: Sequence[tuple[int, int]]
    ) -> Iterable[tuple[int, int, list[str]]]:
        """Row, place and candidates of the words that a batch of ``(row, place)`` masks."""
        starts = [sentences[row].spans[place][0] for row, place in batch]
        shown = [torch.tensor([*sentences[row].pieces, self._closing]) for row, _ in batch]
        masked = [text.clone() for text in shown]
        for text, start in zip(masked, starts, strict=True):
            text[start] = self._format.mask
        texts = [masked]
        if self._context == ORIGINAL:
            texts = [[text[:-1] for text in masked], shown]
        lengths = [torch.tensor([len(text) for text in side]) for side in texts]
        inputs = assemble_texts(
            [pad_sequence(side, batch_first=True) for side in texts], lengths, self._format
        )
        rows = torch.arange(len(batch))
        columns = inputs.positions[0][rows, torch.tensor(starts)]
        best = self._best(
            rows * inputs.input_ids.size(1) + columns,
            inputs.input_ids,
            inputs.token_type_ids,
            None if bool(inputs.attention_mask.all()) else inputs.attention_mask,
        )
        for (row, place), symbols in zip(batch, best.tolist(), strict=True):
            words = (self._words[symbol] for symbol in symbols)
            yield row, place, list(dict.fromkeys(word for word in words if word is not None))

    @torch.inference_mode()
    def _best(
        self, positions: Tensor, input_ids: Tensor, token_type_ids: Tensor, attention_mask: Tensor | None
    ) -> Tensor:
        """``(rows, count)`` best symbols, on the CPU."""
        inputs = {"input_ids": input_ids, "token_type_ids": token_type_ids}
        if attention_mask is not None:
            inputs["attention_mask"] = attention_mask
        inputs = {name: tensor.to(self._device) for name, tensor in inputs.items()}
        logits = self._model.project(self._model.extract_features(positions.to(self._device), **inputs))
        return torch.topk(logits, min(self._count, logits.size(1)), dim=1).indices.cpu()


def _in_place(word: Word, candidates: Sequence[str]) -> list[str]:
    """Candidates between the punctuation of the word that they replace."""
    return [f"{word.before}{candidate}{word.after}" for candidate in candidates]


def _batches(
    sentences: Sequence[SplitSentence], masked: dict[int, list[int]], batch_size: int
) -> Iterable[list[tuple[int, int]]]:
    """``(row, place)`` of masked words, whole sentences of similar length together."""
    batch: list[tuple[int, int]] = []
    for row in sorted(masked, key=lambda row: len(sentences[row].pieces)):
        if batch and len(batch) + len(masked[row]) > batch_size:
            yield batch
            batch = []
        batch += [(row, place) for place in masked[row]]
    if batch:
        yield batch


class _EmbeddedWords:
    """Nearest whole words of letters by the model's input embeddings; a word's vector is the mean over its pieces (ours)."""

    def __init__(self, embeddings: Tensor, whole: dict[int, str], count: int):
        # the first piece of each word of letters
        kept = {word: piece for piece, word in reversed(whole.items()) if word.isalpha()}
        self._embeddings, self._words, self._count = embeddings, list(kept), count
        self._vectors = F.normalize(embeddings[list(kept.values())].float(), dim=1)
        self._found: dict[tuple[int, ...], list[str]] = {}

    @torch.inference_mode()
    def of(self, words: Sequence[tuple[str, tuple[int, ...]]]) -> list[list[str]]:
        """Candidates of words given as text and pieces."""
        new = list({pieces: None for _, pieces in words if pieces not in self._found})
        if new:
            queries = torch.stack([self._embeddings[list(pieces)].float().mean(dim=0) for pieces in new])
            best = nearest_rows(queries, self._vectors, self._count).tolist()
            for pieces, rows in zip(new, best, strict=True):
                self._found[pieces] = [self._words[row] for row in rows]
        return [self._found[pieces] for _, pieces in words]


class _ListedWords:
    """Nearest words of a list of vectors, the word itself left out; none for a word that is not in the list."""

    def __init__(self, word_vectors: WordVectors, count: int):
        self._words, self._count = word_vectors.words, count
        self._rows = {word: row for row, word in enumerate(word_vectors.words)}
        self._vectors = F.normalize(torch.from_numpy(word_vectors.vectors), dim=1)
        self._found: dict[int, list[str]] = {}

    def of(self, words: Sequence[tuple[str, tuple[int, ...]]]) -> list[list[str]]:
        """Candidates of words given as text and pieces."""
        rows = [self._rows.get(core, self._rows.get(core.lower(), -1)) for core, _ in words]
        new = sorted(set(rows) - self._found.keys() - {-1})
        if new:
            best = nearest_rows(self._vectors[new], self._vectors, self._count + 1).tolist()
            for row, near in zip(new, best, strict=True):
                others = [self._words[other] for other in near if other != row][: self._count]
                self._found[row] = [word for word in others if not any(map(str.isspace, word))]
        return [self._found.get(row, []) for row in rows]
