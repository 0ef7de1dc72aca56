import json
import subprocess
import sys
from pathlib import Path

from tests.report.small_experiments import BETTER, REFERENCE, WORSE, write_experiment, write_output

SCRIPT = Path(__file__).parents[2] / "examples" / "length_penalty.py"
# stands for fairseq-generate: long outputs above a penalty of 1, for the plain student only
DECODER = """
import sys
short, full = sys.argv[1:3]
plain, penalty = "students/plain." in sys.argv[3], float(sys.argv[sys.argv.index("--lenpen") + 1])
print(open(full if plain and penalty > 1 else short, encoding="utf-8").read())
"""


def test_each_student_is_scored_with_the_penalty_that_is_best_on_validation(tmp_path):
    folder = write_experiment(tmp_path / "toy", store=False)
    (folder / "decode.py").write_text(DECODER)
    write_output(folder / "short", WORSE)
    write_output(folder / "full", REFERENCE)
    for system, texts in (("plain", WORSE), ("distilled", BETTER)):
        for seed in (1, 2):
            (folder / f"students/{system}.{seed}/checkpoint_best.pt").write_bytes(b"")
            write_output(folder / f"outputs/{system}.{seed}.valid.out", texts)
    command = f"{sys.executable} decode.py short full students/plain.1/checkpoint_best.pt"
    steps = [
        {"step": f"outputs/plain.1.{subset}", "seconds": 1, "command": f"{command} > somewhere", "ended": ""}
        for subset in ("valid", "test")
    ]
    lines = "".join(json.dumps(step) + "\n" for step in steps)
    (folder / "steps.jsonl").write_text(lines + '{"step": "outputs/pl')  # its last line was cut short
    run = [sys.executable, SCRIPT, folder, "--penalties", "1", "2"]
    printed = subprocess.run(run, capture_output=True, text=True, check=True).stdout.replace("\u00a0", " ")
    rows = [line for line in printed.splitlines() if line.startswith(("| plain", "| distilled"))]
    assert ["penalty 1" in row for row in rows] == [True, True, False, False]
    plain, distilled = rows[2:]
    assert plain.startswith(
        "| plain | test, chosen penalty | 1, 2 | 100.00 ± 0.00 (100, 100) | 2.00 ± 0.00 (2, 2) | 100.00 ± 0.00 (100, 100) | 1.000"
    )
    assert "| 1.00 ± 0.00 (1, 1) |" in distilled
    assert "−" in distilled  # against the plain student with a penalty of its own
    record = json.loads((folder / "scores-length-penalty.json").read_text())
    assert record["signatures"]["test"]["length penalty"] == "best of 1.0, 2.0 on the validation set"
    assert [row["length penalty"] for row in record["scores"]] == [1, 1, 1, 1, 2, 2, 1, 1]
    assert not (
        folder / "lenpen" / "distilled.1.test.1.0.out"
    ).exists()  # decoded so by the experiment itself

    # checkpoints that are gone, and a student that is still training
    for name in ("plain.1", "plain.2"):
        (folder / f"students/{name}/checkpoint_best.pt").unlink()
    (folder / "lenpen/plain.2.valid.2.0.out").unlink()  # of the other one all outputs are kept
    (folder / "outputs/distilled.2.test.out").unlink()
    printed = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert "plain.2 is left out: students/plain.2/checkpoint_best.pt is not there; train it again" in printed
    assert "distilled.2 is left out: there is no outputs/distilled.2.test.out yet; finish the" in printed
    record = json.loads((folder / "scores-length-penalty.json").read_text())
    assert {(row["system"], row["seed"]) for row in record["scores"]} == {("plain", 1), ("distilled", 1)}
    assert not (folder / "outputs/distilled.2.test.out").exists()

    (folder / "decode.py").write_text("raise SystemExit('no such checkpoint')")
    failed = subprocess.run([*run, "3"], capture_output=True, text=True, check=False)
    assert "decoding distilled.1 ended with 1:\nno such checkpoint" in failed.stderr
    (folder / "steps.jsonl").write_text("")
    failed = subprocess.run(run, capture_output=True, text=True, check=False)
    assert "has no output of a main student; finish the experiment first" in failed.stderr
