"""``fairseq-bert-kd encode``: the vector of every line of a text, as a NumPy file."""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from fairseq_bert_kd.output_files import check_new_file, whole_file
from fairseq_bert_kd.storage.sentence_data import check_tokenizer
from fairseq_bert_kd.text_lines import STANDARD_STREAM, batches, open_lines

HELP = "vectors of a text's lines as a .npy file, for search and clustering"
EXAMPLE = """examples:
  fairseq-bert-kd encode questions.txt --path student/checkpoint_best.pt --output questions.npy --normalise
  zcat corpus.gz | fairseq-bert-kd encode - --path student/checkpoint_best.pt --output corpus.npy --dtype float16

Lines are read as they come and vectors written as they are made, so that any number of them needs the same memory."""
ERROR, ZEROS = "error", "zeros"
TOGETHER = 4096  # lines that are sorted by length and encoded in batches; our own choice


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", help="text, one sentence per line; may end in .gz, `-` is standard input")
    parser.add_argument(
        "--path",
        required=True,
        metavar="PATH",
        help="checkpoint of a model that gives sentence vectors, or folder or hub name of a transformers encoder",
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="file to write, (lines, width)")
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="folder of prepared sentences with the model's dictionary (default: the one that it was trained on)",
    )
    parser.add_argument(
        "--tokenizer",
        metavar="PATH",
        help="folder or hub name of the tokenizer (default: the one that the data were prepared with)",
    )
    parser.add_argument(
        "--vector", help="which of the model's vectors, such as mean or cls (default: its own)"
    )
    parser.add_argument("--normalise", action="store_true", help="give every vector the length 1")
    parser.add_argument(
        "--empty",
        choices=(ERROR, ZEROS),
        default=ERROR,
        help="what becomes of a line of which the tokenizer leaves nothing: an end with an error, or a vector of zeros, so that "
        "every line keeps its row (default: %(default)s)",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16"),
        default="float32",
        help="type of the numbers (default: %(default)s)",
    )
    parser.add_argument(
        "--max-tokens",
        type=int,
        default=8192,
        help="tokens of a batch, padding included (default: %(default)s)",
    )
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing --output")


def main(args: argparse.Namespace) -> None:
    """Encode all lines; the file gets its name when it is complete.

    Raises:
        FileExistsError: the output exists.
        FileNotFoundError: no such input, or no folder for the output.
        ValueError: an empty line without ``--empty zeros``, a model without vectors, or data of another tokenizer.
    """
    output = Path(args.output)
    if args.input != STANDARD_STREAM and not Path(args.input).is_file():
        raise FileNotFoundError(f"`{args.input}` does not exist, or is no file. Check its path")
    check_new_file("--output", output, args.overwrite)
    if args.max_tokens < 1:
        raise ValueError(f"--max-tokens must be at least 1, got {args.max_tokens}; 8192 is the default")
    encoder = LineEncoder(args)
    started = time.monotonic()
    with whole_file(output) as temporary:
        rows = write_array(temporary, encoder.vectors(open_lines(args.input)), np.dtype(args.dtype))
    seconds = max(time.monotonic() - started, 1e-9)
    print(
        f"{output}: {rows:,} vectors of {encoder.width} numbers, {rows / seconds:,.0f} sentences and "
        f"{encoder.tokens / seconds:,.0f} tokens per second"
    )
    if encoder.empty:
        print(f"warning: {encoder.empty:,} empty lines have a vector of zeros")
    if encoder.cut:
        print(f"warning: {encoder.cut:,} lines were cut to the model's {encoder.limit:,} tokens")
    if encoder.unknown:
        print(
            f"warning: {encoder.unknown:,} pieces are not in the model's dictionary and read as unknown; data that were prepared with "
            "--full-dictionary have all"
        )


class LineEncoder:
    """Lines of text to vectors.

    Args:
        args: options of the command.

    Attributes:
        width: numbers of a vector; 0 before the first.
        tokens: tokens so far.
        limit: most tokens of a line; None for no limit.
        cut: lines so far that were longer.
        empty: lines so far without any token.
        unknown: pieces so far that the model's dictionary does not have.
    """

    def __init__(self, args: argparse.Namespace):
        from fairseq_bert_kd.cli.sentence_predictions import load
        from fairseq_bert_kd.teachers.interface import SentenceEncoder
        from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

        loaded = load(args.path, args.data, args.cpu, args.vector)
        self.model: Any = loaded.model
        self.limit: int | None = loaded.model.max_positions()
        if not isinstance(loaded.model, SentenceEncoder):
            raise ValueError(
                f"`{args.path}` holds a {type(loaded.model).__name__}, which gives no sentence vectors"
            )
        self.device, self.name = loaded.device, args.input
        self.dictionary, spec = loaded.task.dictionary, loaded.task.spec
        self.tokenizer = HfTokenizer(args.tokenizer or spec.tokenizer_name)
        check_tokenizer(f"`{args.path}`", spec.tokenizer, self.tokenizer.digest(), self.tokenizer.name)
        self.vector, self.normalise, self.max_tokens = args.vector, args.normalise, args.max_tokens
        self.keep_empty = args.empty == ZEROS
        self.width = self.tokens = self.cut = self.empty = self.unknown = self._lines = 0

    def vectors(self, lines: Iterator[str]) -> Iterator[NDArray[np.float32]]:
        """``(n, width)`` vectors of consecutive lines.

        Raises:
            ValueError: a line without any token, without ``--empty zeros``.
        """
        with tqdm(unit=" tok", unit_scale=True, desc="encode", file=sys.stderr) as progress:
            for together in batches(lines, TOGETHER):
                texts = [self._ids(pieces) for pieces in self.tokenizer.encode_batch(together)]
                yield self._encode(texts)
                progress.update(sum(map(len, texts)))

    def _ids(self, pieces: list[str]) -> NDArray[np.int64]:
        """Ids of a line, with end of sentence; of an empty one that alone."""
        self._lines += 1
        if not pieces and not self.keep_empty:
            raise ValueError(
                f"`{self.name}`, line {self._lines:,}: the tokenizer leaves nothing of it, and an empty sentence has no "
                "vector. Remove the line, or give --empty zeros"
            )
        self.empty += not pieces
        kept = pieces if self.limit is None else pieces[: self.limit - 1]
        self.cut += len(kept) < len(pieces)
        self.tokens += len(kept) + 1
        ids = np.array([*map(self.dictionary.index, kept), self.dictionary.eos()], np.int64)
        self.unknown += int((ids == self.dictionary.unk()).sum())
        return ids

    def _encode(self, texts: list[NDArray[np.int64]]) -> NDArray[np.float32]:
        from fairseq_bert_kd.data.sentence_dataset import padded
        from fairseq_bert_kd.teachers.plan import plan_texts

        lengths = np.array([len(text) for text in texts])
        found: Any = None
        for places in plan_texts(lengths, np.ones(len(texts), np.bool_), self.max_tokens):
            tokens = padded([texts[place] for place in places], self.dictionary.pad()).to(self.device)
            with torch.inference_mode():
                sizes = torch.from_numpy(lengths[places]).to(self.device)
                rows = self.model.sentence_vectors(tokens, sizes, self.vector).float()
                rows = torch.nn.functional.normalize(rows, dim=1) if self.normalise else rows
            found = np.empty((len(texts), rows.size(1)), np.float32) if found is None else found
            found[places] = rows.cpu().numpy()
        self.width = found.shape[1]
        found[lengths == 1] = 0.0  # nothing but the end of sentence
        return found


def write_array(path: Path, parts: Iterator[NDArray[Any]], dtype: np.dtype[Any]) -> int:
    """Write a .npy file part by part; its number of rows.

    NumPy leaves room in a header for the number of rows to grow, so the header is written again at the end.

    Raises:
        ValueError: there are no rows, or a number that is not finite in this type.
    """
    rows, width = 0, 0
    with open(path, "wb") as file:
        for part in parts:
            if not rows:
                width = part.shape[1]
                _write_header(file, (0, width), dtype)
            with np.errstate(over="ignore"):  # refused next
                converted = np.ascontiguousarray(part, dtype=dtype)
            if (wrong := ~np.isfinite(converted).all(axis=1)).any():
                raise ValueError(
                    f"line {rows + int(wrong.argmax()) + 1:,}: its vector is not finite in {dtype.name}; give --dtype float32 or "
                    "--normalise, and if it is not finite there either, check the model"
                )
            file.write(converted.tobytes())
            rows += len(part)
        if not rows:
            raise ValueError("there are no lines to encode; check the input")
        data = file.tell() - rows * width * dtype.itemsize
        file.seek(0)
        _write_header(file, (rows, width), dtype)
        assert file.tell() == data, (file.tell(), data)
    return rows


def _write_header(file: Any, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
    description = np.lib.format.dtype_to_descr(dtype)
    stated = {"descr": description, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, stated)
