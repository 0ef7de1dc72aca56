"""The commands of docs/paraphrase.md, in order, on a few pairs and a tiny encoder."""

import random
import re
from pathlib import Path

from tests.test_docs import run
from tests.tiny_chain import WORDS, build_teacher_folder

PAGE = (Path(__file__).parents[1] / "docs/paraphrase.md").read_text(encoding="utf-8")
# the hub name becomes a folder, and a generator of one layer translates quickly
SMALLER = {
    "ENCODER=sentence-transformers/all-MiniLM-L6-v2": "ENCODER=bert",
    "--arch distilled_transformer_small": "--arch distilled_transformer_small --encoder-layers 1 --decoder-layers 1",
    "--max-len-a 1.2 --max-len-b 10": "--max-len-a 1.2 --max-len-b 3",
}
CLUSTERS = {"train": 20, "valid": 8, "test": 8}


def commands():
    part = PAGE[PAGE.index("<!-- paraphrase:") : PAGE.index("<!-- end of paraphrase -->")]
    script = "\n".join(re.findall(r"```bash\n(.*?)```", part, flags=re.S))
    for printed, tried in SMALLER.items():
        assert printed in script, f"the page no longer says {printed}"
        script = script.replace(printed, tried)
    return script


def write_text(folder):
    """Pairs of sentences with the same words in another order, each pair a cluster; labelled ones are of the valid set."""
    rng = random.Random(0)
    (folder / "text").mkdir()
    sentences = iter(dict.fromkeys(tuple(rng.sample(WORDS, 5)) for _ in range(100)))
    pairs = {
        split: [
            (" ".join(words), " ".join(reversed(words)))
            for words, _ in zip(sentences, range(count), strict=False)
        ]
        for split, count in CLUSTERS.items()
    }
    for split, of_split in pairs.items():
        for side, texts in zip(("source", "target"), zip(*of_split, strict=True), strict=True):
            (folder / "text" / f"{split}.{side}").write_text("".join(f"{text}\n" for text in texts))
    rows = [f"{number}\t{source}\t{target}" for number, (source, target) in enumerate(pairs["train"])]
    (folder / "pairs.tsv").write_text("\n".join(["cluster\tsource\ttarget", *rows]) + "\n")
    valid = pairs["valid"]
    rows = [f"{source}\t{target}\t1" for source, target in valid]
    rows += [f"{source}\t{valid[i - 1][1]}\t0" for i, (source, _) in enumerate(valid)]
    (folder / "labelled.tsv").write_text("\n".join(["question1\tquestion2\tis_duplicate", *rows]) + "\n")


def test_commands_of_the_page(tmp_path):
    build_teacher_folder("bert", tmp_path / "bert")
    write_text(tmp_path)
    said = run(commands(), tmp_path)
    assert "mined.tsv: 20 pairs of paraphrases and 20 that are none (hard, random), of 40 sentences" in said
    for name in ("evaluator", "likelihood", "rewarded"):
        assert (tmp_path / name / "checkpoint_best.pt").is_file(), name
    chosen = (tmp_path / "chosen.out").read_text().splitlines()
    nbest = set(re.findall(r"^D-(\d+)\t[^\t]*\t(.*)$", (tmp_path / "nbest.out").read_text(), flags=re.M))
    assert len(chosen) == 8
    assert {(line.split("\t")[0][2:], line.split("\t")[2]) for line in chosen} <= nbest
    for name in ("rewarded", "reranked"):
        assert len(re.findall(rf"^{name} +1 ", said, flags=re.M)) >= 1, said[-2000:]
