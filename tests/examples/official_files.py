"""A few lines in the layouts of the official files that the paper's recipes read."""

import random
import tarfile
import zipfile
from pathlib import Path

IWSLT14_TESTS = ("TED.dev2010", "TEDX.dev2012", "TED.tst2010", "TED.tst2011", "TED.tst2012")
SENTENCES = ["Hello there .", "Jack &apos;s low @-@ cost shop", "You &amp; me", "Two men walk"]


def lines(count, seed=0, sentences=SENTENCES):
    """Sentences in any order, all different."""
    rng = random.Random(seed)
    return [f"{rng.choice(sentences)} {number}" for number in range(count)]


def write(path, texts):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")


def iwslt14(folder: Path, pairs: int = 46, tests: int = 2, packed: bool = True) -> Path:
    """``de-en.tgz`` (or ``de-en/``): tagged training text, five test sets; both sides are the same text."""
    official = folder / "de-en"
    sentences = ["Don't you know?", "Jack's low-cost shop.", "He & she [laugh].", "Two men walk."]
    for language in ("de", "en"):
        write(
            official / f"train.tags.de-en.{language}",
            [
                "<url>http://www.ted.com/talks/x.html</url>",
                "<keywords>talks, x</keywords>",
                "<talkid>1</talkid>",
                "<title>A Title</title>",
                "<description>About it.</description>",
                *lines(pairs, sentences=sentences),
            ],
        )
        for number, name in enumerate(IWSLT14_TESTS):
            segments = [
                f'<seg id="{place + 1}"> It\u2019s set {number}, line {place}. </seg>'
                for place in range(tests)
            ]
            header = [
                '<?xml version="1.0" encoding="UTF-8"?>',
                "<mteval>",
                '<doc docid="1" genre="lectures">',
            ]
            write(
                official / f"IWSLT14.{name}.de-en.{language}.xml", [*header, *segments, "</doc>", "</mteval>"]
            )
    if packed:
        with tarfile.open(folder / "de-en.tgz", "w:gz") as archive:
            archive.add(official, arcname="de-en")
        for path in official.iterdir():
            path.unlink()
        official.rmdir()
    return folder


def iwslt15(folder: Path, pairs: int = 40) -> Path:
    """Stanford's ``{train,tst2012,tst2013}.{en,vi}``; one training pair has an empty side."""
    for name, count in (("train", pairs), ("tst2012", 6), ("tst2013", 5)):
        english = lines(count)
        vietnamese = [f"T\u00f4i &quot; {line} &quot;" for line in english]
        if name == "train":
            vietnamese[3] = ""
        write(folder / f"{name}.en", english)
        write(folder / f"{name}.vi", vietnamese)
    return folder


def wmt14(folder: Path, pairs: int = 40, subwords: bool = True) -> Path:
    """What ``wmt16_en_de.tar.gz`` holds: tokenised and cleaned, with subwords or without, and the raw tests."""
    ending = ".bpe.32000" if subwords else ""
    for name, count in (("train.tok.clean", pairs), ("newstest2013.tok", 6), ("newstest2014.tok", 5)):
        words = lines(count, sentences=["Hello there .", "Jack &apos;s low-cost shop", "You &amp; me"])
        for language in ("en", "de"):
            split = [line.replace("shop", "sh@@ op") if subwords else line for line in words]
            write(folder / f"{name}{ending}.{language}", split)
        if name != "train.tok.clean":
            raw = [line.replace(" &apos;", "'").replace(" &amp;", " &").replace(" .", ".") for line in words]
            write(folder / f"{name.removesuffix('.tok')}.de", raw)
    return folder


def gigaword(
    folder: Path, layout: str = "org_data", pairs: int = 40, valid: int = 30, tests: int = 4
) -> Path:
    """UniLM's or the first release's layout, with ``<unk>`` and, in the test, ``UNK``."""
    files = {
        "org_data": ("train.{}.txt", "dev.{}.txt", "test.{}.txt"),
        "sumdata": ("train/train.{}.txt", "train/valid.{}.filter.txt", "Giga/{}.txt"),
    }[layout]
    sides = {"org_data": ("src", "tgt"), "sumdata": ("article", "title")}[layout]
    for name, count, unknown in zip(files, (pairs, valid, tests), ("<unk>", "<unk>", "UNK"), strict=True):
        articles = [f"{unknown} said {line} to {unknown}" for line in lines(count, sentences=["he", "she"])]
        titles = [f"{unknown} says {number}" for number in range(count)]
        endings = ("input", "task1_ref0") if name.startswith("Giga") else sides
        for ending, texts in zip(endings, (articles, titles), strict=True):
            write(folder / layout / name.format(ending), texts)
    return folder


def zipped(folder: Path, name: str) -> None:
    """Everything of ``folder`` as the archive ``name`` in it."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    with zipfile.ZipFile(folder / name, "w") as archive:
        for path in paths:
            archive.write(path, path.relative_to(folder))
    for path in paths:
        path.unlink()
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            path.rmdir()
