"""Translate lines with a converted student: standard input to standard output, or a small HTTP server.

Needs ctranslate2, transformers and this package; neither torch nor fairseq has to be installed.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import ctranslate2

from fairseq_bert_kd.text_lines import STANDARD_STREAM, batches, open_lines, text_lines
from fairseq_bert_kd.tokenization.dictionary import check_pieces
from fairseq_bert_kd.tokenization.hf_tokenizer import HfTokenizer

LONGEST_SOURCE = 1023  # pieces: fairseq's --max-source-positions of 1,024 less the end of sentence
LARGEST_REQUEST = 1_000_000  # bytes
CONVERTED_PADDING = "<blank>"  # the converter's name of fairseq's <pad>
logger = logging.getLogger("translate")


class Student:
    """Raw lines to raw lines: tokenizer, CTranslate2, tokenizer.

    Raises:
        ValueError: the model is no converted one, or its vocabulary is of another tokenizer.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        if not (Path(args.model) / "model.bin").is_file():
            raise ValueError(
                f"--model `{args.model}` is no folder that ct2-fairseq-converter wrote (no model.bin); give its --output_dir"
            )
        self.tokenizer = HfTokenizer(args.tokenizer)
        check_vocabulary(self.tokenizer, args.model)
        computing = {"device": args.device, "compute_type": args.compute_type}
        workers = {"inter_threads": args.workers, "intra_threads": args.threads}
        self.translator = ctranslate2.Translator(args.model, **computing, **workers)
        # as fairseq-generate --beam 5 --lenpen 0.6 --max-len-b 200
        self.search = {
            "beam_size": args.beam,
            "length_penalty": args.lenpen,
            "max_decoding_length": args.max_len,
        }
        self.search |= {"max_batch_size": args.batch_size, "max_input_length": LONGEST_SOURCE + 1}

    def translate(self, lines: Sequence[str]) -> list[str]:
        """A translation of every line; an empty one of an empty line."""
        sources = self.tokenizer.encode_batch(lines)
        for source in sources:
            if len(source) > LONGEST_SOURCE:
                logger.warning("a line of %d pieces is cut to %d", len(source), LONGEST_SOURCE)
        filled = [place for place, source in enumerate(sources) if source]
        results = self.translator.translate_batch([sources[place] for place in filled], **self.search)
        texts = [""] * len(sources)
        for place, result in zip(filled, results, strict=True):
            texts[place] = self.tokenizer.decode(result.hypotheses[0])
        return texts


def check_vocabulary(tokenizer: HfTokenizer, model: str) -> None:
    """Raise ValueError for a converted model whose pieces come from another tokenizer."""
    for path in sorted(Path(model).glob("*vocabulary.json")):  # shared, or source and target
        pieces = [
            piece for piece in json.loads(path.read_text(encoding="utf-8")) if piece != CONVERTED_PADDING
        ]
        check_pieces(tokenizer, pieces, f"`{path}`")


def handler(student: Student) -> type[BaseHTTPRequestHandler]:
    """Answers ``POST /`` with UTF-8 text, one sentence per line; requests run side by side in CTranslate2."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if not length.isdigit() or int(length) > LARGEST_REQUEST:
                self.send_error(413, f"send Content-Length of at most {LARGEST_REQUEST} bytes")
                return
            body = self.rfile.read(int(length))
            try:
                lines = list(text_lines(body, "request"))
            except ValueError as error:
                self.send_error(400, "send UTF-8 text", str(error))
                return
            answer = "\n".join(student.translate(lines)).encode()
            if body.endswith(b"\n"):
                answer += b"\n"
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    return Handler


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="folder that ct2-fairseq-converter wrote")
    parser.add_argument("--tokenizer", required=True, help="the teacher's: folder or hub name")
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--lenpen", type=float, default=0.6, help="exponent of the length (the paper's)")
    parser.add_argument("--max-len", type=int, default=200, help="pieces of a translation, as --max-len-b")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda", "auto"])
    parser.add_argument("--compute-type", default="default", help="default: as converted; int8, float32, ...")
    parser.add_argument("--batch-size", type=int, default=32, help="sentences")
    parser.add_argument("--workers", type=int, default=1, help="batches at a time, on the CPU")
    parser.add_argument("--threads", type=int, default=0, help="of each worker; 0: CTranslate2's choice")
    parser.add_argument("--port", type=int, help="serve on this port instead; 0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve on (default: %(default)s)")
    return parser


def main() -> None:
    args = get_parser().parse_args()
    logging.basicConfig(format="%(levelname)s | %(message)s", level=logging.INFO)
    try:
        student = Student(args)
        if args.port is None:
            for lines in batches(open_lines(STANDARD_STREAM), 100 * args.batch_size):
                sys.stdout.buffer.write("".join(f"{line}\n" for line in student.translate(lines)).encode())
                sys.stdout.buffer.flush()
            return
    except ValueError as error:  # of the lines before, the translations stand in the output
        sys.exit(f"translate.py: {error}")
    try:
        server = ThreadingHTTPServer((args.host, args.port), handler(student))
    except OSError as error:
        sys.exit(
            f"translate.py: cannot serve on --host {args.host} --port {args.port} ({error}); give another port"
        )
    with server:
        print(f"listening on http://{args.host}:{server.server_port}", file=sys.stderr, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
