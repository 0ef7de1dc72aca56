"""examples/hydra: the commands of its README, and that the configs say what the main README says."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from tests.test_chain import hypotheses
from tests.tiny_chain import PLUGIN

ROOT = PLUGIN.parent
CONFIGS = ROOT / "examples" / "hydra"
STEPS = {"teacher": 3, "student": 5}  # of the main README
OUR_NAMES = {
    "task": "_name",
    "criterion": "_name",
    "arch": "_name",
    "optimizer": "_name",
    "lr_scheduler": "_name",
}
LIMIT = 300  # seconds

# The commands of the README with small models; the second training where the script is not on the path.
SMALL = """
set -eo pipefail
fairseq-hydra-train() {
    case " $* " in
    *" teacher "*) command fairseq-hydra-train "$@" $SMALL_RUN ;;
    *" student "*) python -m fairseq_cli.hydra_train "$@" $SMALL_RUN $SMALL_STUDENT ;;
    esac
}
fairseq-bert-kd() { case "$1" in dump) command fairseq-bert-kd "$@" --cpu ;; *) command fairseq-bert-kd "$@" ;; esac; }
fairseq-generate() { command fairseq-generate "$@" --cpu --max-len-b 10; }
"""
SMALL_RUN = "common.cpu=true optimization.max_update=2 dataset.num_workers=0"
SMALL_STUDENT = (
    "model.encoder_embed_dim=32 model.decoder_embed_dim=32 model.encoder_layers=1 model.decoder_layers=1 "
    "+task.kd_check=all criterion.kd_topk=4"
)


def block(path: Path) -> str:
    """The tested block of a README."""
    text = path.read_text(encoding="utf-8")
    return "\n".join(
        re.findall(r"```bash\n(.*?)```", text.split("<!-- chain")[1].split("<!-- end of")[0], flags=re.S)
    )


@pytest.fixture(scope="module")
def folder(chain, tmp_path_factory):
    """Where the commands of examples/hydra/README.md ran."""
    folder = tmp_path_factory.mktemp("hydra")
    shutil.copytree(chain.data, folder / "data-bin")
    for store in (folder / "data-bin").glob("*.topk"):
        store.unlink()
    (folder / "examples").symlink_to(ROOT / "examples")
    commands = re.sub(r"^TEACHER=.*$", f"TEACHER={chain.bert}", block(CONFIGS / "README.md"), flags=re.M)
    environment = os.environ | {
        "PATH": f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "SMALL_RUN": SMALL_RUN,
        "SMALL_STUDENT": SMALL_STUDENT,
    }
    child = subprocess.run(
        ["bash", "-c", SMALL + commands], cwd=folder, env=environment, capture_output=True, text=True,
        timeout=LIMIT, check=False,
    )  # fmt: skip
    assert child.returncode == 0, child.stdout[-2000:] + child.stderr[-3000:]
    return folder


def settings(folder: Path, name: str):
    return torch.load(folder / name / "checkpoint_last.pt", weights_only=False)["cfg"]


def test_readme_commands_end_in_translations(folder):
    assert sorted(hypotheses((folder / "student.out").read_text(encoding="utf-8"))) == list(range(20))
    for name in STEPS:
        assert (folder / name / "hydra_train.log").exists()


def test_student_learns_from_the_store_of_the_teacher(folder):
    log = (folder / "student" / "hydra_train.log").read_text(encoding="utf-8")
    assert re.search(r"teacher rows for train: .*k=4 of 8, 120 of 120 sentences covered", log)
    assert "kd_coverage 100" in log


def test_overrides_and_defaults_reach_the_run(folder):
    """fairseq merges a plugin's defaults only once it has imported it; what no file names must be there too."""
    student, teacher = settings(folder, "student"), settings(folder, "teacher")
    assert student["model"]["encoder_layers"] == student["model"]["decoder_layers"] == 1
    assert student["model"]["encoder_normalize_before"] is True
    assert student["criterion"]["kd_topk"] == 4
    assert student["criterion"]["ignore_prefix_size"] == 0
    assert student["task"]["kd_check"] == "all"
    assert student["task"]["kd_tokenizer"] is None
    assert student["optimizer"]["adam_betas"] == "(0.9, 0.98)"
    assert teacher["task"]["cmlm_seed"] == teacher["common"]["seed"]
    assert teacher["model"]["teacher_spec"]
    weights = torch.load(folder / "student" / "checkpoint_last.pt", weights_only=True)["model"]
    assert "encoder.layer_norm.weight" in weights  # pre-norm
    assert torch.equal(weights["encoder.embed_tokens.weight"], weights["decoder.output_projection.weight"])


def readme_options(name: str) -> list[str]:
    """Arguments of the main README's fairseq-train command for the teacher or the student."""
    step = re.search(
        rf"^# {STEPS[name]}\. .*?(?=^# {STEPS[name] + 1}\. )", block(ROOT / "README.md"), flags=re.M | re.S
    )
    command = re.search(r"^fairseq-train (.*)", step[0].replace("\\\n", " "), flags=re.M)
    return [word.replace("$PLUGIN", str(PLUGIN)) for word in shlex.split(command[1])]


def command_line_config(arguments: list[str]):
    from fairseq import options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    return convert_namespace_to_omegaconf(
        options.parse_args_and_arch(options.get_training_parser(), input_args=arguments)
    )


@pytest.mark.parametrize("name", STEPS)
def test_config_says_what_the_main_readme_says(name):
    config = OmegaConf.load(CONFIGS / f"{name}.yaml")
    there = command_line_config(readme_options(name))
    compared = 0
    for section, values in config.items():
        for key in values:
            if OmegaConf.is_missing(values, key) or (section, key) == ("common", "log_interval"):
                continue  # paths; only how much is logged
            found = getattr(there[section], key)
            found = OmegaConf.to_container(found) if OmegaConf.is_config(found) else found
            here = OmegaConf.to_container(values)[key]
            assert found == here, f"{section}.{key}"
            compared += 1
    assert compared > 15


@pytest.mark.parametrize("name", STEPS)
def test_config_leaves_out_no_option_of_the_main_readme(name):
    config = OmegaConf.load(CONFIGS / f"{name}.yaml")
    named = {key for values in config.values() for key in values}
    options = {word[2:].replace("-", "_") for word in readme_options(name) if word.startswith("--")}
    assert {OUR_NAMES.get(option, option) for option in options} <= named


def test_our_options_in_the_configs_are_the_defaults():
    from fairseq.criterions import CRITERION_DATACLASS_REGISTRY
    from fairseq.tasks import TASK_DATACLASS_REGISTRY

    registries = {"task": TASK_DATACLASS_REGISTRY, "criterion": CRITERION_DATACLASS_REGISTRY}
    compared = []
    for name in STEPS:
        config = OmegaConf.to_container(OmegaConf.load(CONFIGS / f"{name}.yaml"))
        for section, registry in registries.items():
            dataclass = registry.get(config[section]["_name"])
            defaults = {item.name: item.default for item in fields(dataclass)} if dataclass else {}
            ours = [key for key in config[section] if key.startswith(("kd_", "cmlm_"))]
            assert {key: config[section][key] for key in ours} == {key: defaults[key] for key in ours}
            compared += ours
    assert sorted(compared) == ["cmlm_mask_prob", "kd_temperature", "kd_topk", "kd_weight"]
