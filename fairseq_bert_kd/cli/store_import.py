"""``fairseq-bert-kd store import``: the top-k dump of Chen et al. 2020's released code, as a store of ours.

Their ``dump_teacher_topk.py`` writes a shelve: line number of the sentence -> pickled bytes -> ``torch.save`` of
(logits float16, ids int64), each ``(target tokens + 1, 128)``, best first, the last row for the end of sentence.
Ids are those of the student's ONMT vocabulary. Nothing of it is unpickled: a dump is somebody else's file.
"""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import fairseq_bert_kd
from fairseq_bert_kd.cli.authors_shelve import Dump, load_pair, unwrap
from fairseq_bert_kd.storage.fairseq_data import Pairs, open_pairs, read_dictionary, sentence_hash
from fairseq_bert_kd.storage.records import ChunkData, empty_records
from fairseq_bert_kd.storage.store_info import (
    NOT_FINITE,
    NOT_IMPORTED,
    SCORED,
    StoreInfo,
    dictionary_digest,
    store_path,
)
from fairseq_bert_kd.storage.topk_writer import TopKWriter

logger = logging.getLogger(__name__)

HELP = "turn a top-k dump of the code of Chen et al. 2020 into a store beside the binarised data"
EPILOG = """example: fairseq-bert-kd store import targets/teacher/topk --data data-bin --vocabulary vocab.txt \\
    --source-lang de --target-lang en

The data must be binarised from the .bert files that the dump was made from (fairseq-preprocess on
train.de.bert and train.en.bert), line by line. The vocabulary is the ONMT one, one token a line in the order of
ids. DEEN.vocab.pt holds pickled objects of OpenNMT, which are not loaded here; write the text where their code
runs (their Docker image, in the folder of their repository):
  python -c "import sys, torch; sys.path.insert(0, 'opennmt'); v = torch.load('DEEN.vocab.pt')['tgt']; \\
    open('vocab.txt', 'w', encoding='utf-8').writelines(t + '\\n' for t in v.fields[0][1].vocab.itos)\""""

ORIGIN = "import of the authors' shelve"
TEACHER_TOKENS = 512  # their code drops pairs that are longer, [CLS] and both [SEP] included
COPIES = 7  # num_samples in their dump_teacher_hiddens.py
MASK_RATIO = 0.15  # random_word in their cmlm/data.py
RENAMED = {"<blank>": "<pad>"}  # ONMT's padding and the host's; the other special tokens have the same names
LOW_AGREEMENT = 0.1  # a trained teacher names the target's token far more often


class NotFiniteError(ValueError):
    """A sentence's logits hold NaN or infinity."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("shelve", help="the dump `topk`, without the ending that dbm adds (.dat, .dir, .db)")
    parser.add_argument(
        "--data", required=True, help="folder that fairseq-preprocess wrote; the store goes there"
    )
    parser.add_argument("--subset", default="train", help="split that was dumped (default: %(default)s)")
    parser.add_argument("--source-lang", required=True, help="as in the data's file names")
    parser.add_argument("--target-lang", required=True, help="as in the data's file names")
    parser.add_argument("--vocabulary", required=True, help="ONMT target vocabulary as text, see below")
    parser.add_argument(
        "--topk", type=int, default=8, help="tokens per position (default: %(default)s, as in the paper)"
    )
    parser.add_argument(
        "--teacher", default="unknown", help="name of the teacher, for the header (default: %(default)s)"
    )
    parser.add_argument(
        "--absent-tokens",
        choices=("refuse", "skip"),
        default="refuse",
        help="what to do about a teacher token that the student's dictionary lacks: stop, or take the next best of "
        "the dump's (128) tokens, as `dump` does with tokens that can be no target (default: %(default)s)",
    )
    parser.add_argument(
        "--allow-missing",
        action="store_true",
        help=f"go on without sentences that the dump lacks though they have at most {TEACHER_TOKENS} tokens, and "
        "without those with logits that are not finite; both are marked as missing",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing store")


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fairseq-bert-kd store import", description=HELP)
    add_arguments(parser)
    return parser


# ---------------------------------------------------------------- vocabulary


@dataclass(frozen=True)
class TokenMap:
    """The dump's ids to the student's.

    Attributes:
        tokens: of the ONMT vocabulary, in id order.
        student_ids: ``(ONMT vocabulary,)`` int64 [ONMT id -> student id], -1 where the student lacks the token.
        skip: take the next best token instead of one that the student lacks.
    """

    tokens: Sequence[str]
    student_ids: NDArray[np.int64]
    skip: bool = False

    def refuse(self, position: int, unknown: int) -> ValueError:
        """The error for a token that the student lacks."""
        absent = int((self.student_ids < 0).sum())
        return ValueError(
            f"position {position}: the student's dictionary lacks the teacher's token {self.tokens[unknown]!r} (and "
            f"{absent - 1} more of the vocabulary's {len(self.tokens)}); binarise with a dictionary that has them "
            "(--joined-dictionary, as the authors share theirs), or take the next best with --absent-tokens skip"
        )


def read_vocabulary(path: str | Path) -> list[str]:
    """Tokens in id order, one a line.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no such text, an empty line, a token twice, or a line of several.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"vocabulary {path} does not exist; `store import --help` says how to write it"
        )
    raw = path.read_bytes()
    try:
        tokens = raw.decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError:
        tokens = []
    if not tokens or b"\0" in raw:
        raise ValueError(
            f"{path} is no text; objects of OpenNMT are not loaded here because that could run foreign code: write the "
            "vocabulary as text, `store import --help` says how"
        )
    seen: dict[str, int] = {}
    for number, token in enumerate(tokens, start=1):
        if token.split() != [token]:
            raise ValueError(f"{path}, line {number}: expected one token, got {token[:40]!r}; write it again")
        if token in seen:
            raise ValueError(
                f"{path}, line {number}: {token!r} stands on line {seen[token]} too; write it again"
            )
        seen[token] = number
    return tokens


def map_tokens(tokens: Sequence[str], symbols: Sequence[str], skip: bool = False) -> TokenMap:
    """Map by symbol; ONMT's ``<blank>`` is the student's ``<pad>``."""
    places = {symbol: index for index, symbol in enumerate(symbols)}  # of two, the host takes the last
    ids = [places.get(RENAMED.get(token, token), -1) for token in tokens]
    return TokenMap(tokens, np.array(ids, dtype=np.int64), skip)


# ---------------------------------------------------------------- rows


def sentence_rows(
    value: bytes, rows: int, topk: int, token_map: TokenMap
) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    """A sentence's student ids and logits minus the row's best, each ``(rows, topk)``.

    The difference is made in float32 and rounded to float16: exact wherever a float16 can hold it, else off
    by at most half a step, which is 2**-7 below a difference of 32 and 2**-6 below 64.

    Args:
        value: as in the shelve.
        rows: tokens of the target, end of sentence included.
        topk: tokens of the result.
        token_map: to the student's ids.

    Raises:
        NotFiniteError: NaN or infinity.
        ValueError: anything else that is not as their code writes it, and tokens that the student lacks.
    """
    logits_tensor, ids_tensor = load_pair(unwrap(value))
    stored_rows, stored_k = logits_tensor.shape
    if stored_rows != rows:
        raise ValueError(
            f"it has {stored_rows} rows, the target {rows} tokens, end of sentence included; binarise the .bert files that "
            "the dump was made from"
        )
    if not topk <= stored_k <= len(token_map.tokens):
        raise ValueError(
            f"it has {stored_k} tokens per position, --topk is {topk} and the vocabulary holds {len(token_map.tokens)}; "
            "lower --topk or give the dump's own vocabulary"
        )
    kept = stored_k if token_map.skip else topk
    logits = logits_tensor[:, :kept].numpy().astype(np.float32)
    ids = ids_tensor[:, :kept].numpy()
    if not np.isfinite(logits).all():
        raise NotFiniteError(
            f"position {_first_row(~np.isfinite(logits))}: a logit is not finite; dump the sentence again in float32, "
            "or leave it out with --allow-missing"
        )
    if (logits[:, 1:] > logits[:, :-1]).any():
        raise ValueError(f"position {_first_row(logits[:, 1:] > logits[:, :-1])}: logits must descend")
    outside = (ids < 0) | (ids >= len(token_map.tokens))
    if outside.any():
        raise ValueError(
            f"position {_first_row(outside)}: id {ids[outside][0]} is not in the vocabulary of {len(token_map.tokens)} "
            "tokens; give the dump's own vocabulary"
        )
    return _to_student(ids, logits, topk, token_map)


def _to_student(
    ids: NDArray[np.int64], logits: NDArray[np.float32], topk: int, token_map: TokenMap
) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    student = token_map.student_ids[ids]  # (rows, kept)
    if token_map.skip:
        known = student >= 0
        if (known.sum(axis=1) < topk).any():
            position = _first_row(known.sum(axis=1, keepdims=True) < topk)
            raise ValueError(
                f"position {position}: the student's dictionary has only {known[position].sum()} of the dump's "
                f"{ids.shape[1]} tokens; lower --topk, or binarise with --joined-dictionary"
            )
        best = np.argsort(~known, axis=1, kind="stable")[:, :topk]  # known ones first, still descending
        student, logits = np.take_along_axis(student, best, 1), np.take_along_axis(logits, best, 1)
    elif (student < 0).any():
        raise token_map.refuse(_first_row(student < 0), int(ids[student < 0][0]))
    with np.errstate(over="ignore"):
        differences = (logits - logits[:, :1]).astype(np.float16)
    if not np.isfinite(differences).all():
        raise NotFiniteError(
            f"position {_first_row(~np.isfinite(differences))}: logits lie too far apart for float16; leave the "
            "sentence out with --allow-missing"
        )
    return student, differences


def _first_row(bad: NDArray[np.bool_]) -> int:
    return int(bad.any(axis=1).argmax())


# ---------------------------------------------------------------- import


@dataclass(frozen=True)
class Importer:
    """Turns sentences of a dump into chunks of a store.

    Attributes:
        dump: the authors' shelve.
        pairs: the binarised data.
        token_map: to the student's ids.
        info: of the store.
        allow_missing: mark what is missing without a known reason instead of stopping.
    """

    dump: Dump
    pairs: Pairs
    token_map: TokenMap
    info: StoreInfo
    allow_missing: bool = False

    def chunk(self, sentences: range, lengths: NDArray[np.int64]) -> ChunkData:
        """The chunk of these corpus indices.

        Raises:
            ValueError: a sentence whose rows do not fit, or that the dump lacks; named by its number.
        """
        records = empty_records(int(lengths.sum()), self.info)
        status = np.zeros(len(sentences), dtype=np.uint8)
        starts = np.cumsum(lengths) - lengths
        for local, sentence in enumerate(sentences):
            rows = records[starts[local] : starts[local] + lengths[local]]
            status[local] = self._fill(sentence, rows)
        source_hashes, target_hashes = (
            np.array([sentence_hash(side[sentence]) for sentence in sentences], dtype=np.uint64)
            for side in self.pairs
        )
        return ChunkData(source_hashes, target_hashes, lengths, status, records)

    def _fill(self, sentence: int, rows: NDArray[Any]) -> int:
        """Put a sentence's rows in place; its status."""
        source, target = (int(side.sizes[sentence]) for side in self.pairs)
        if source <= 1 or target <= 1:  # their make_db stores the pair before a blank line once more
            return NOT_IMPORTED
        if not self.dump.present[sentence]:
            if source + target + 1 > TEACHER_TOKENS or self.allow_missing:  # [CLS] X [SEP] Y [SEP]
                return NOT_IMPORTED
            raise ValueError(
                f"sentence {sentence} is not in {self.dump.path} though it has at most {TEACHER_TOKENS} tokens: the dump is "
                "incomplete or of other data; finish it, or go on without such sentences with --allow-missing"
            )
        try:
            ids, logits = sentence_rows(self.dump.value(sentence), len(rows), self.info.k, self.token_map)
        except ValueError as error:
            if self.allow_missing and isinstance(error, NotFiniteError):
                return NOT_FINITE
            raise type(error)(f"sentence {sentence} of {self.dump.path}: {error}") from None
        rows["topk_ids"], rows["topk_logits"] = ids, logits
        return SCORED

    def agreement(self, sentences: range, data: ChunkData) -> int:
        """Scored rows whose best token is the target's."""
        target = np.concatenate([np.asarray(self.pairs.target[sentence]) for sentence in sentences])
        return int((data.records["topk_ids"][:, 0] == target)[data.scored].sum())


def make_info(
    args: argparse.Namespace, symbols: Sequence[str], tokens: Sequence[str], dump: Dump
) -> StoreInfo:
    """Header fields; the origin identifies dump, vocabulary and rule, so that no other work is continued."""
    source = Path(args.data) / f"dict.{args.source_lang}.txt"
    return StoreInfo(
        k=args.topk,
        dictionary_size=len(symbols),
        dictionary_digest=dictionary_digest(symbols),
        split=args.subset,
        source_lang=args.source_lang,
        target_lang=args.target_lang,
        passes=COPIES,
        teacher=args.teacher,
        teacher_digest="",
        mask_ratio=MASK_RATIO,
        versions={"fairseq-bert-kd": fairseq_bert_kd.__version__},
        temperatures=(),
        source_dictionary_digest=dictionary_digest(read_dictionary(source)),
        precision="fp16",
        origin=f"{ORIGIN} (dump {dump.digest()[:16]}, vocabulary {dictionary_digest(tokens)[:16]}, absent tokens: "
        f"{args.absent_tokens})",
    )


def main(args: argparse.Namespace) -> None:
    if args.topk < 1:
        raise ValueError(f"--topk must be at least 1, got {args.topk}; the paper uses 8")
    pairs = open_pairs(args.data, args.subset, args.source_lang, args.target_lang)
    symbols = read_dictionary(Path(args.data) / f"dict.{args.target_lang}.txt")
    tokens = read_vocabulary(args.vocabulary)
    path = store_path(args.data, args.subset, args.source_lang, args.target_lang)
    with Dump(args.shelve, len(pairs.target)) as dump:
        info = make_info(args, symbols, tokens, dump)
        token_map = map_tokens(tokens, symbols, args.absent_tokens == "skip")
        importer = Importer(dump, pairs, token_map, info, args.allow_missing)
        with TopKWriter(path, info, pairs.target.sizes, symbols, overwrite=args.overwrite) as writer:
            if writer.complete:
                print(f"{path} holds this dump already")
                return
            agreed = import_chunks(importer, writer)
            summary = writer.finish()
    report(path, summary, agreed, len(pairs.target))


def import_chunks(importer: Importer, writer: TopKWriter) -> int:
    """Write what is not written yet; rows whose best token is the target's."""
    agreed = 0
    with tqdm(total=len(importer.pairs.target), unit="sent", desc="import") as progress:
        for chunk in writer.chunks():
            sentences = writer.sentences(chunk)
            data = writer.read_chunk(chunk)
            if data is None:
                data = importer.chunk(sentences, writer.lengths(chunk))
                writer.write_chunk(chunk, data)
            agreed += importer.agreement(sentences, data)
            progress.update(len(sentences))
    return agreed


def report(path: Path, summary: dict[str, Any], agreed: int, sentences: int) -> None:
    """Print what was imported; warn when the teacher hardly ever names the target's token."""
    rows, missing = summary["scored_rows"], summary["missing_sentences"]
    share = agreed / max(rows, 1)
    print(f"{path}: {rows:,} positions, {sentences - sum(missing.values()):,} of {sentences:,} sentences")
    print(
        f"not imported: {missing['not_imported']:,} sentences (above {TEACHER_TOKENS} tokens, blank lines, or absent with "
        f"--allow-missing), not finite: {missing['not_finite']:,}"
    )
    print(f"the teacher's best token is the target's at {100 * share:.2f} % of the positions")
    if rows and share < LOW_AGREEMENT:
        logger.warning(
            "the teacher's best token is the target's at only %.2f %% of the positions: the vocabulary or the data are "
            "probably not those of the dump",
            100 * share,
        )
