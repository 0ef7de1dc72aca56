"""Text to the symbols of a teacher's tokenizer, one output line per input line, in constant memory."""

import argparse
import collections
import contextlib
import functools
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import BinaryIO

from tqdm import tqdm

from fairseq_bert_kd.output_files import whole_file
from fairseq_bert_kd.text_lines import STANDARD_STREAM, batches, open_lines
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer
from fairseq_bert_kd.tokenization.piece_codecs import BYTE_SYMBOL

HELP = "text to the teacher's pieces, losslessly, ready for fairseq-preprocess"
EXAMPLE = """example:
  fairseq-bert-kd tokenize --tokenizer bert-base-multilingual-cased --parallel \\
      --input train.de train.en --output train.tok.de train.tok.en
"""
CHUNK_LINES = 1000  # lines that a worker gets at a time
CHUNKS_AHEAD = 4  # chunks in flight per worker: bounds the memory

# of the output: "lines", "symbols", "empty" lines, and lines "with_bytes", which have a byte symbol; of the input: lines "with_tabs"
Counts = collections.Counter[str]
Encode = Callable[[Iterable[list[str]]], Iterator[tuple[bytes, Counts]]]  # see `_encoded`


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tokenizer", required=True, metavar="PATH", help="folder or hub name of the teacher's tokenizer"
    )
    parser.add_argument(
        "--input",
        required=True,
        nargs="+",
        metavar="FILE",
        help="UTF-8 text, one sentence per line; gzip if the name ends in .gz; - for standard input",
    )
    parser.add_argument(
        "--output", required=True, nargs="+", metavar="FILE", help="one file per input; - for standard output"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes (default: the number of CPUs, here %(default)s); 1 works in this process",
    )
    parser.add_argument(
        "--parallel",
        action="store_true",
        help="two inputs are translations of each other: their numbers of lines must be equal",
    )
    parser.add_argument(
        "--full-dictionary",
        metavar="FILE",
        help="also write the tokenizer's whole vocabulary as a dictionary for fairseq-preprocess --srcdict (and --tgtdict or "
        "--joined-dictionary): no piece of any text is <unk> then, at the price of larger embeddings",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace outputs that exist")


def main(args: argparse.Namespace) -> None:
    """Tokenise every input; the outputs get their names only when all are complete.

    Raises:
        ValueError: options that contradict each other, an output that exists, text that is not UTF-8, or
            with ``--parallel`` unequal numbers of lines.
        FileNotFoundError: a missing input, or a missing folder for an output.
    """
    check_options(args)
    tokenizer = HfTokenizer(args.tokenizer)  # an error is raised here, not in every worker
    with contextlib.ExitStack() as stack:
        pool = None
        if args.workers > 1:
            pool = ProcessPoolExecutor(args.workers, initializer=_start_worker, initargs=(tokenizer,))
            stack.callback(pool.shutdown, cancel_futures=True)
        encode = functools.partial(
            _encoded, tokenizer=tokenizer, pool=pool, in_flight=args.workers * CHUNKS_AHEAD
        )
        counts = []
        for source, target in zip(args.input, args.output, strict=True):
            stream = stack.enter_context(_output(target))
            try:
                counts.append(_tokenize_file(source, stream, encode)["lines"])
            except BrokenProcessPool:
                raise ValueError(
                    f"a process of --workers {args.workers} was ended from outside, probably for lack of memory; give a lower number"
                ) from None
        if args.parallel and counts[0] != counts[1]:
            raise ValueError(
                f"a parallel corpus must have as many source as target lines, but `{args.input[0]}` has {counts[0]:,} "
                f"and `{args.input[1]}` has {counts[1]:,}. No output was written. Look for missing or split lines."
            )
        if args.full_dictionary:
            # as fairseq writes `full_dictionary`
            lines = "".join(f"{symbol} 1\n" for symbol in tokenizer.all_symbols())
            stack.enter_context(_output(args.full_dictionary)).write(lines.encode())


def check_options(args: argparse.Namespace) -> None:
    """Check the options before any work is done.

    Raises:
        ValueError, FileNotFoundError: as in `main`.
    """
    if len(args.input) != len(args.output):
        raise ValueError(
            f"--input and --output must name the same number of files, but name {len(args.input)} and "
            f"{len(args.output)}. Give one output per input, in the same order."
        )
    if args.workers < 1:
        raise ValueError(f"--workers must be at least 1, but is {args.workers}. 1 works without a pool.")
    if args.parallel and len(args.input) != 2:
        raise ValueError(
            f"--parallel compares exactly two inputs, but --input names {len(args.input)}. "
            "Give source and target, or leave --parallel out."
        )
    if STANDARD_STREAM in (*args.input, *args.output) and len(args.input) > 1:
        raise ValueError(
            f"`-` (a standard stream) can serve one pair only, but --input names {len(args.input)} files. "
            "Run the command once for each."
        )
    if args.full_dictionary == STANDARD_STREAM:
        raise ValueError("--full-dictionary must be a file, got `-`. Give the name of a file to write.")
    _check_files(args)


def _check_files(args: argparse.Namespace) -> None:
    """Check that the inputs are there and the outputs can be written; raises as `main`."""
    inputs = {os.path.realpath(name) for name in args.input if name != STANDARD_STREAM}
    for name in args.input:
        if name != STANDARD_STREAM and (not os.path.exists(name) or os.path.isdir(name)):
            raise FileNotFoundError(
                f"input `{name}` does not exist, or is a folder. Check the path after --input."
            )
    names = [name for name in (*args.output, args.full_dictionary) if name and name != STANDARD_STREAM]
    outputs = [os.path.realpath(name) for name in names]
    for name, path in zip(names, outputs, strict=True):
        if path in inputs:
            raise ValueError(f"output `{name}` must not be an input as well. Choose another name.")
        if outputs.count(path) > 1:
            raise ValueError(f"output `{name}` is named twice. Choose one name per input.")
        if name.endswith(".gz"):
            raise ValueError(
                f"output `{name}` ends in .gz, but fairseq-preprocess reads plain text only. Leave .gz out."
            )
        if not os.path.isdir(os.path.dirname(path)):
            raise FileNotFoundError(f"the folder of output `{name}` does not exist. Create it first.")
        if os.path.exists(path) and not os.path.isfile(path):  # a folder, a device
            raise ValueError(f"output `{name}` must be a file. Give a file's name, or - for standard output.")
        if os.path.exists(path) and not args.overwrite:
            raise ValueError(
                f"output `{name}` exists already. Choose another name, or replace it with --overwrite."
            )


@contextlib.contextmanager
def _output(name: str) -> Iterator[BinaryIO]:
    """A file that gets its name when the block has succeeded, and is removed otherwise."""
    if name == STANDARD_STREAM:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with whole_file(name) as temporary, open(temporary, "wb") as stream:
        yield stream


def _encoded(
    chunks: Iterable[list[str]], tokenizer: HfTokenizer, pool: ProcessPoolExecutor | None, in_flight: int
) -> Iterator[tuple[bytes, Counts]]:
    """Tokenised chunks in their order, with at most ``in_flight`` of them in memory.

    Where reading fails, the chunks before come out first. multiprocessing.Pool.imap is shorter, but reads ahead without a
    bound and waits for ever for a worker that was killed.
    """
    if pool is None:
        yield from (tokenize_chunk(tokenizer, chunk) for chunk in chunks)
        return
    waiting: collections.deque[Future[tuple[bytes, Counts]]] = collections.deque()
    reading, failure = iter(chunks), None
    while failure is None:
        try:
            chunk = next(reading)
        except StopIteration:
            break
        except (ValueError, OSError) as error:
            failure = error
        else:
            waiting.append(pool.submit(_tokenize_in_worker, chunk))
            if len(waiting) >= in_flight:
                yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
    if failure is not None:
        raise failure


_worker_tokenizer: HfTokenizer


def _start_worker(tokenizer: HfTokenizer) -> None:
    global _worker_tokenizer
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    _worker_tokenizer = tokenizer


def _tokenize_in_worker(chunk: list[str]) -> tuple[bytes, Counts]:
    return tokenize_chunk(_worker_tokenizer, chunk)


def tokenize_chunk(tokenizer: HfTokenizer, chunk: list[str]) -> tuple[bytes, Counts]:
    """UTF-8 output of some lines, each closed by a line feed, and its counts."""
    counts = Counts(lines=len(chunk), with_tabs=sum("\t" in line for line in chunk))
    out = []
    for symbols in tokenizer.encode_batch(chunk):
        line = " ".join(symbols)
        counts["symbols"] += len(symbols)
        counts["empty"] += not symbols
        counts["with_bytes"] += "<0x" in line and BYTE_SYMBOL.search(line) is not None
        out.append(line + "\n")
    return "".join(out).encode(), counts


def _tokenize_file(source: str, stream: BinaryIO, encode: Encode) -> Counts:
    counts = Counts()
    started = time.monotonic()
    with tqdm(desc=os.path.basename(source), unit=" lines", unit_scale=True, file=sys.stderr) as progress:
        for content, part in encode(batches(open_lines(source), CHUNK_LINES)):
            stream.write(content)
            counts.update(part)
            progress.update(part["lines"])
    _summarise(source, counts, time.monotonic() - started)
    return counts


def _summarise(source: str, counts: Counts, seconds: float) -> None:
    print(
        f"{source}: {counts['lines']:,} lines, {counts['symbols']:,} pieces, {seconds:.1f} seconds, "
        f"{counts['with_bytes']:,} lines with byte symbols",
        file=sys.stderr,
    )
    if not counts["lines"]:
        print(f"warning: {source} has no line; fairseq cannot read a split without one", file=sys.stderr)
    if counts["with_bytes"]:
        print(
            f"warning: {source}: {counts['with_bytes']:,} of {counts['lines']:,} lines hold text that the tokenizer's "
            "vocabulary lacks; it is kept as byte symbols, which the teacher reads as its unknown token",
            file=sys.stderr,
        )
    if counts["empty"]:
        print(
            f"warning: {source}: {counts['empty']:,} of {counts['lines']:,} lines are empty; fairseq-preprocess keeps "
            "such a line as a lone end-of-sentence, so consider removing the pair from both files",
            file=sys.stderr,
        )
    if 2 * counts["with_tabs"] > counts["lines"]:
        print(
            f"warning: {source}: {counts['with_tabs']:,} of {counts['lines']:,} lines have a tab. If this is a table, its columns are "
            "now one sentence: give one file for each language (`cut -f1`, `cut -f2`)",
            file=sys.stderr,
        )
