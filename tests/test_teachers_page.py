"""The commands of docs/teachers.md, on a tiny corpus and a tiny model."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from fairseq_bert_kd.storage.topk_store import TopKReader, store_path
from fairseq_bert_kd.teachers.load import load_teacher
from tests.tiny_chain import PLUGIN

PAGE = (Path(__file__).parents[1] / "docs" / "teachers.md").read_text(encoding="utf-8")
# only amounts are made smaller
SMALLER = {
    "--max-update 100000": "--max-update 2 --cpu --num-workers 0",
    "--teacher-layers 6": "--teacher-layers 1",
    "--arch distilled_transformer_base": "--arch distilled_transformer_base --encoder-layers 1 --decoder-layers 1 "
    "--encoder-embed-dim 32 --decoder-embed-dim 32 --encoder-ffn-embed-dim 32 --decoder-ffn-embed-dim 32",
}


def test_every_command_of_the_page_runs(chain, tmp_path):
    (script,) = re.findall(r"<!-- teachers:.*?```bash\n(.*?)```", PAGE, flags=re.S)
    for printed, tried in SMALLER.items():
        assert printed in script, f"the page no longer says {printed}"
        script = script.replace(printed, tried)
    shutil.copytree(chain.data, tmp_path / "data-bin")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "PLUGIN": str(PLUGIN),
        "TEACHER": str(chain.bert),
    }
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-1000:] + result.stderr[-3000:]
    store = TopKReader(store_path(tmp_path / "data-bin", "train", "de", "en", "l2r"))
    assert store.info.mask_plan == "left-to-right"
    assert (tmp_path / "student-l2r" / "checkpoint_best.pt").is_file()
    small = load_teacher(str(tmp_path / "teacher-small" / "checkpoint_best.pt"), str(chain.data))
    assert small.model.encoder.config.num_hidden_layers == 1
