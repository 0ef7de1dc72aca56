"""The commands of docs/augmentation.md, on a tiny corpus and a tiny encoder."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.one_sided_chain import without_head
from tests.tiny_chain import PLUGIN

PAGE = (Path(__file__).parents[1] / "docs" / "augmentation.md").read_text(encoding="utf-8")
# only amounts, and the folder of a tiny encoder for the hub's name
SMALLER = {
    "--max-update 20000": "--max-update 2 --cpu --num-workers 0",
    "ENCODER=sentence-transformers/all-MiniLM-L6-v2": "ENCODER=encoder",
}


def test_every_command_of_the_page_runs(chain, tmp_path):
    (script,) = re.findall(r"<!-- augmentation:.*?```bash\n(.*?)```", PAGE, flags=re.S)
    for printed, tried in SMALLER.items():
        assert printed in script, f"the page no longer says {printed}"
        script = script.replace(printed, tried)
    for name, split in (("sentences.txt", "train.en"), ("others.txt", "valid.en")):
        shutil.copy(chain.raw / split, tmp_path / name)
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / name).write_text("label\tsentence\n1\tpeople near the man\n0\tmen eat\n")
    without_head(chain.bert, tmp_path / "encoder")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": str(PLUGIN.parent),
    }
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-1000:] + result.stderr[-3000:]
    rows = (tmp_path / "train.augmented.tsv").read_text(encoding="utf-8").splitlines()
    assert rows[:2] == ["row\tsentence\tlabel", "0\tpeople near the man\t1"]
    assert len(rows) > 3
    assert (tmp_path / "data-augmented" / "labels.json").is_file()
