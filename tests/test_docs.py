"""Every command in docs/ and in the examples' README files is run by a test, or says what it needs that is not at hand.

A block of commands stands between ``<!-- NAME: tests/FILE ... -->`` and ``<!-- end of NAME -->``, and that test file
names the page's file; or ``<!-- needs: WHAT -->`` stands right above it.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny_chain import PLUGIN, train_student

ROOT = PLUGIN.parent
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("README.md")])
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", flags=re.M | re.S)
SHELLS = {"sh", "shell", "console", "zsh", "bash"}
OPENED = re.compile(r"<!-- (\w+): (tests/[\w/]+\.py)[^>]*-->")
NEEDS = re.compile(r"<!-- needs: \S[^>]*-->\s*\Z")
LIMIT = 1800  # seconds

# The commands of a page as they stand, with little models and few updates; the last of a repeated option counts.
SMALL = """
set -eo pipefail
trap 'kill $(jobs -p) 2> /dev/null || true' EXIT  # a server that a failed command left
fairseq-train() {
    local small="--cpu --num-workers 0 --max-update 2 --update-freq 1 --no-progress-bar"
    case " $* " in *" distilled_transformer_base "*) small="$small $SMALL_STUDENT" ;; esac
    command fairseq-train "$@" $small
}
fairseq-bert-kd() { case "$1" in dump) command fairseq-bert-kd "$@" --cpu ;; *) command fairseq-bert-kd "$@" ;; esac; }
"""
SIZES = (
    "--encoder-layers 1 --decoder-layers 1 --encoder-embed-dim 32 --decoder-embed-dim 32 "
    "--encoder-ffn-embed-dim 32 --decoder-ffn-embed-dim 32"
)


def faults(text, page, folder=ROOT):
    """What is wrong with the commands of a page, by their first line."""
    wrong = []
    for match in FENCE.finditer(text):
        language, commands, before = match[2], match[3], text[: match.start()]
        if language not in SHELLS:
            continue
        opened = [
            found
            for found in OPENED.finditer(before)
            if f"<!-- end of {found[1]} -->" not in before[found.end() :]
        ]
        first = commands.strip().split("\n")[0]
        if opened:
            name, file = opened[-1].groups()
            test = folder / file
            if language != "bash":
                wrong.append(f"{first}: tests run `bash` blocks only, this is `{language}`")
            elif f"<!-- end of {name} -->" not in text[match.end() :]:
                wrong.append(f"{first}: `{name}` is not closed")
            elif not test.is_file() or page not in test.read_text(encoding="utf-8"):
                wrong.append(f"{first}: {file} does not name {page}")
        elif not NEEDS.search(before):
            wrong.append(f"{first}: neither run by a test nor marked with what it needs")
    return wrong


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_is_run_or_says_what_it_needs(path):
    assert faults(path.read_text(encoding="utf-8"), path.name) == []


RUN = "<!-- chain: tests/test_docs.py runs this -->\n```bash\nls\n```\n<!-- end of chain -->\n"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("no commands\n```python\nx\n```\n", []),
        (RUN, []),
        ("<!-- needs: a GPU -->\n```bash\nls\n```\n", []),
        ("<!-- needs: a GPU -->\n\n```bash\nls\n```\n", []),
        ("```bash\nls -l\nrm x\n```\n", ["ls -l: neither"]),
        ("- item\n  ```bash\n  ls\n  ```\n", ["ls: neither"]),
        ("```console\n$ ls\n```\n", ["$ ls: neither"]),
        ("<!-- needs: a GPU -->\nwords\n```bash\nls\n```\n", ["ls: neither"]),
        ("<!-- needs: -->\n```bash\nls\n```\n", ["ls: neither"]),
        (RUN + "```bash\nrm\n```\n", ["rm: neither"]),
        (RUN.replace("<!-- end of chain -->", ""), ["ls: `chain` is not closed"]),
        (RUN.replace("bash", "sh"), ["ls: tests run `bash` blocks only"]),
        (RUN.replace("test_docs", "test_nothing"), ["ls: tests/test_nothing.py does not name guide.md"]),
        (RUN.replace("test_docs", "test_compat"), ["ls: tests/test_compat.py does not name guide.md"]),
    ],
)
def test_unmarked_commands_are_seen(text, wrong):
    found = faults(text, "guide.md")
    assert len(found) == len(wrong)
    assert all(said.startswith(expected) for said, expected in zip(found, wrong, strict=True))


def commands(page):
    """The blocks of a page's chain, joined, with a local teacher."""
    text = (ROOT / page).read_text(encoding="utf-8")
    part = text[text.index("<!-- chain:") : text.index("<!-- end of chain -->")]
    script = "\n".join(re.findall(r"```bash\n(.*?)```", part, flags=re.S))
    assert "TEACHER=bert-base-multilingual-cased" in script
    return script.replace("TEACHER=bert-base-multilingual-cased", "TEACHER=bert")


@pytest.fixture
def finished(chain, tmp_path):
    """A folder in which the README's seven steps have been done."""
    for name, path in (("text", chain.raw), ("data-bin", chain.data), ("bert", chain.bert)):
        shutil.copytree(path, tmp_path / name)
    (tmp_path / "teacher").mkdir()
    shutil.copy(chain.teacher, tmp_path / "teacher" / "checkpoint_best.pt")
    # in one process fairseq remembers the best loss of earlier runs, so it may write no best checkpoint
    last = train_student(chain.data, tmp_path / "student", *SIZES.split(), "--kd-weight", 0)
    shutil.copy(last, last.with_name("checkpoint_best.pt"))
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


def run(script, folder):
    """Standard output and error of the commands."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "SMALL_STUDENT": SIZES,
    }
    child = subprocess.run(
        ["bash", "-c", SMALL + script], cwd=folder, env=environment, capture_output=True, text=True,
        timeout=LIMIT, check=False,
    )  # fmt: skip
    assert child.returncode == 0, child.stdout[-1000:] + child.stderr[-3000:]
    return child.stdout + child.stderr


def test_commands_of_the_guide(finished):
    said = run(commands("docs/guide.md"), finished)
    assert (
        "loading pretrained model from baseline/checkpoint_best.pt: optimizer, lr scheduler, meters" in said
    )
    assert "no teacher rows for train1: 20 sentences of --kd-label-only" in said
    assert re.search(r"teacher rows for train1: .*k=8 of 8, 20 of 20 sentences covered", said)
    assert "loading pretrained model from teacher/checkpoint_best.pt" in said
    assert re.search(r"teacher rows for train: .*train.de-en.en.small.topk, k=4 of 4", said)
    for name in ("baseline", "continued", "mixed", "scored", "pair2-teacher", "frugal"):
        assert (finished / name / "checkpoint_best.pt").is_file(), name
    assert (finished / "pair2-bin" / "train.en-de.de.topk").is_file()


@pytest.mark.skipif(not shutil.which("curl"), reason="the page asks the server with curl")
def test_commands_of_serving(finished):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = commands("docs/serving.md")
    assert script.count("8123") == 2
    script = script.replace("8123", str(port)).replace(
        "--retry 30", "--retry 300"
    )  # a busy machine starts it late
    said = run(script.replace("--threads 1", "--threads 1 --turns 1"), finished)
    translated = (finished / "test.translated.en").read_text(encoding="utf-8")
    assert translated.count("\n") == 20
    assert translated.rstrip("\n") == (finished / "served.en").read_text(encoding="utf-8").rstrip("\n")
    assert (finished / "test.normalised.en").read_text(encoding="utf-8").count("\n") == 20
    assert '"name": "BLEU"' in said
    assert "| CTranslate2, float32 |" in said
    assert "its seven passes over the test set took" in said
