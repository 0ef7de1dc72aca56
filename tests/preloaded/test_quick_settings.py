"""What the tests' quicker hydra composes is what hydra composes."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from fairseq import options
import fairseq_bert_kd.tasks
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from omegaconf import OmegaConf
from tests.preloaded import quick_settings

def composed(lr):
    words = ["data", "--task", "translation_with_teacher", "--arch", "transformer", "--criterion",
             "label_smoothed_cross_entropy_with_distillation", "--optimizer", "adam", "--lr", lr, "--adam-betas",
             "(0.9,0.98)", "--lr-scheduler", "inverse_sqrt", "--eval-bleu-args", '{"beam": 1}', "--save-dir", "a=b, [c]/d e"]
    config = convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_training_parser(), words))
    return OmegaConf.to_yaml(config)

before = [composed(lr) for lr in ("0.1", "0.2", "0.1")]
quick_settings.set_up()
after = [composed(lr) for lr in ("0.1", "0.2", "0.1", "0.1")]
assert before[0] == before[2] != before[1] and "a=b, [c]/d e" in before[0]
assert after == [*before, before[0]]
"""


def test_the_same_settings():
    child = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr[-2000:]
