"""The console command ``fairseq-bert-kd``: one module per subcommand, imported when it runs."""

import argparse
import errno
import logging
import sys
from collections.abc import Sequence

import fairseq_bert_kd
from fairseq_bert_kd.cli import dispatch
from fairseq_bert_kd.cli.dispatch import Command

PROG = "fairseq-bert-kd"
CLI = "fairseq_bert_kd.cli"
COMMANDS = {
    "tokenize": Command(f"{CLI}.tokenize_corpus", "text to the teacher's pieces, losslessly"),
    "prepare-sentences": Command(
        f"{CLI}.prepare_sentences", "labelled sentences or pairs as a data folder for fairseq"
    ),
    "augment": Command(
        f"{CLI}.augment", "copies of labelled sentences with words replaced by a masked language model"
    ),
    "evaluate-sentences": Command(
        f"{CLI}.evaluate_sentences",
        "accuracy, F1 or correlation of a sentence model, with intervals and tests",
    ),
    "entity-vectors": Command(
        f"{CLI}.entity_vectors", "vectors of a graph's entities by TransE, with their filtered ranking"
    ),
    "entities": Command(
        f"{CLI}.entities", "which pieces of prepared sentences name which entity, and how many have vectors"
    ),
    "dump": Command(f"{CLI}.dump_teacher_topk", "store a teacher's top-k logits for every target position"),
    "vectors": Command(f"{CLI}.vectors", "store a teacher's vector of every sentence"),
    "encode": Command(f"{CLI}.encode", "vectors of a text's lines as a .npy file"),
    "score": Command(
        f"{CLI}.score_translations", "sacreBLEU of fairseq-generate's output on detokenised text"
    ),
    "gains": Command(f"{CLI}.gains", "where a system gains over its baseline: by length, and by position"),
    "compare-runs": Command(
        f"{CLI}.compare_runs", "paired tests over the runs of several experiments: sign test and Wilcoxon's"
    ),
    "mine-negatives": Command(
        f"{CLI}.mine_negatives",
        "pairs of paraphrases, and mined pairs that are none, to train an evaluator on",
    ),
    "rerank": Command(
        f"{CLI}.rerank", "the best of several outputs per sentence, by a reward or by agreement"
    ),
    "store": Command(f"{CLI}.store_tools", "verify, show, merge, convert the stored logits"),
    "export-student": Command(
        f"{CLI}.export_student", "a student for stock fairseq and CTranslate2, or for transformers"
    ),
    "report": Command(f"{CLI}.report", "experiments as one page, figures and a results file"),
    "options": Command(
        f"{CLI}.options", "our options of fairseq-train and fairseq-generate, with their help"
    ),
}


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROG, description="BERT's knowledge for fairseq sequence-to-sequence models."
    )
    dispatch.add_commands(parser, COMMANDS)
    parser.add_argument(
        "--version", action="version", version=f"fairseq-bert-kd {fairseq_bert_kd.__version__}"
    )
    parser.add_argument(
        "--user-dir", action="store_true", help="print the folder to give to fairseq's --user-dir, and exit"
    )
    return parser


def cli_main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; its exit status. A user error prints one line on standard error and gives 2."""
    parser = get_parser()
    args = parser.parse_args(argv)
    if args.user_dir:
        print(next(iter(fairseq_bert_kd.__path__)))
        return 0
    if args.command is None:
        parser.print_help()
        return 2
    logging.basicConfig(level=logging.INFO, format="%(asctime)s | %(levelname)s | %(name)s | %(message)s")
    # fairseq's task of speech asks whoever imports it to install tensorboardX, which none of ours needs
    logging.getLogger("fairseq.tasks.text_to_speech").setLevel(logging.WARNING)
    try:
        return dispatch.run(COMMANDS, PROG, [args.command, *args.arguments])
    except BrokenPipeError:  # an OSError, so before them
        return 1
    except (ValueError, OSError, ImportError) as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = (
            ". The disk (or your share of it) is full: make room, or write to another folder" if full else ""
        )
        print(f"fairseq-bert-kd {args.command}: {error}{advice}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(cli_main())
