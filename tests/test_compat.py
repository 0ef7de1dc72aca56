import argparse
import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fairseq_bert_kd import compat

ROOT = Path(__file__).parents[1]


# --- checkpoints


class Foreign:
    """Unpickling one calls ``action``."""

    def __init__(self, *action):
        self.action = action

    def __reduce__(self):
        return self.action[0], self.action[1:]


class Stranger:
    """An object of a class that torch does not know."""


def save(path, **entries):
    torch.save({"model": {"w": torch.zeros(2)}, "cfg": {"model": None}} | entries, path)
    return str(path)


def test_checkpoint_of_tensors_and_settings_is_read(tmp_path):
    state = compat.load_checkpoint(save(tmp_path / "c.pt", extra_state={"epoch": 3}))
    assert torch.equal(state["model"]["w"], torch.zeros(2))
    assert state["extra_state"] == {"epoch": 3}


def test_namespace_of_an_older_fairseq_is_read(tmp_path):
    path = save(tmp_path / "c.pt", cfg=None, args=argparse.Namespace(arch="transformer", lr=[0.1]))
    assert compat.load_checkpoint(path)["args"] == argparse.Namespace(arch="transformer", lr=[0.1])


def test_numpy_numbers_and_arrays_of_fairseqs_meters_are_read(tmp_path):
    meters = {"bleu": np.float64(31.5), "counts": np.arange(3), "totals": np.ones(2, np.float32)}
    read = compat.load_checkpoint(save(tmp_path / "c.pt", extra_state=meters))["extra_state"]
    assert read["bleu"] == 31.5
    assert read["counts"].tolist() == [0, 1, 2]
    assert read["totals"].dtype == np.float32


def test_foreign_code_inside_a_numpy_array_is_refused_and_not_run(tmp_path):
    trace = tmp_path / "was_run"
    array = np.array([Foreign(open, str(trace), "w")], dtype=object)
    path = save(tmp_path / "c.pt", extra_state=array)
    with pytest.raises(ValueError, match="objects other than tensors and settings"):
        compat.load_checkpoint(path)
    assert not trace.exists()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("by", ["open", "os.system"])
def test_foreign_code_is_refused_and_not_run(tmp_path, by, zipped):
    trace = tmp_path / "was_run"
    actions = {"open": (open, str(trace), "w"), "os.system": (os.system, f"touch {trace}")}
    path = tmp_path / "c.pt"
    state = {"model": {}, "cfg": {"a": 1}, "extra_state": Foreign(*actions[by])}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match="objects other than tensors and settings") as refusal:
        compat.load_checkpoint(str(path))
    assert not trace.exists()
    assert f"checkpoint `{path}` was refused" in str(refusal.value)
    assert "None was run. Use a checkpoint that fairseq-train wrote" in str(refusal.value)

    torch.load(path, weights_only=False)  # it would have, or this test shows nothing
    assert trace.exists()


def test_refusal_names_the_foreign_object_and_does_not_advise_to_load_it_anyway(tmp_path):
    path = save(tmp_path / "c.pt", extra_state=Stranger())
    with pytest.raises(ValueError, match="was refused") as refusal:
        compat.load_checkpoint(path)
    message = str(refusal.value)
    assert "Stranger" in message
    assert "\033" not in message  # torch's text comes with terminal colours
    assert "do those steps" not in message
    assert "weights_only" not in message


@pytest.mark.parametrize(
    "content",
    [b"", b"hello world\n", b"<html>404</html>", b"abc\n", b"\x80\x02X\x01", b"PK\x03\x04junk"],
    ids=["empty", "text", "html", "letters", "cut pickle", "cut zip"],
)
def test_file_that_is_not_a_checkpoint_is_an_error(tmp_path, content):
    path = tmp_path / "c.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"`.*c\.pt` is not a readable torch checkpoint") as refusal:
        compat.load_checkpoint(str(path))
    assert "foreign code" not in str(refusal.value)


def test_half_a_checkpoint_is_refused(tmp_path):
    path = Path(save(tmp_path / "c.pt"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="is not a readable torch checkpoint: "):
        compat.load_checkpoint(str(path))


@pytest.mark.parametrize(
    "state",
    [[1, 2], {"cfg": {"a": 1}}, {"model": {}}, {"model": {}, "cfg": None}],
    ids=["list", "no model", "no settings", "empty settings"],
)
def test_torch_file_of_something_else_is_refused(tmp_path, state):
    path = tmp_path / "c.pt"
    torch.save(state, path)
    with pytest.raises(
        ValueError, match="is not a fairseq checkpoint: it lacks the entries `model` and `cfg`"
    ):
        compat.load_checkpoint(str(path))


@pytest.mark.parametrize("name", ["absent.pt", "."], ids=["absent", "folder"])
def test_missing_file_is_named(tmp_path, name):
    with pytest.raises(
        FileNotFoundError, match=r"does not exist; give the \.pt file that fairseq-train wrote"
    ):
        compat.load_checkpoint(str(tmp_path / name))


# --- packages that are missing or broken


def fake_importlib(monkeypatch, absent=(), error=None):
    """compat finds every package but the absent ones, and importing any raises ``error``."""

    def import_module(name):
        raise error

    monkeypatch.setattr(
        compat,
        "importlib",
        SimpleNamespace(
            import_module=import_module,
            util=SimpleNamespace(find_spec=lambda name: None if name in absent else object()),
        ),
    )


def test_missing_fairseq_is_said_with_its_command(monkeypatch):
    fake_importlib(monkeypatch, absent=["fairseq"])
    with pytest.raises(
        compat.InstallationError, match="fairseq is not installed. Install it with:"
    ) as refusal:
        compat.require_fairseq()
    assert str(refusal.value).splitlines()[1:] == [f"  {compat.FAIRSEQ_INSTALL}"]


def test_fairseq_without_hydra_is_mended_by_hydra(monkeypatch):
    fake_importlib(monkeypatch, absent=["hydra"], error=ModuleNotFoundError("No module named 'hydra'"))
    with pytest.raises(compat.InstallationError, match="No module named 'hydra'") as refusal:
        compat.require_fairseq()
    assert str(refusal.value).splitlines()[1:] == ["  pip install hydra-core==1.3.2 omegaconf==2.3.0"]


def test_fairseq_built_for_another_numpy_is_built_again(monkeypatch):
    fake_importlib(monkeypatch, error=ValueError("numpy.dtype size changed, may indicate incompatibility"))
    with pytest.raises(compat.InstallationError, match="numpy.dtype size changed") as refusal:
        compat.require_fairseq()
    assert "--force-reinstall --no-cache-dir" in str(refusal.value)


def test_fairseq_that_works_is_accepted():
    compat.require_fairseq()


def test_missing_transformers_is_said_with_its_command(monkeypatch):
    fake_importlib(monkeypatch, absent=["transformers"])
    with pytest.raises(
        compat.InstallationError, match=r"needs transformers\. .*\n  pip install transformers$"
    ):
        compat.import_transformers()


def test_transformers_that_fails_by_itself_is_upgraded(monkeypatch):
    fake_importlib(monkeypatch, error=RuntimeError("no\nmore"))
    with pytest.raises(compat.InstallationError, match=r"imported \(RuntimeError: no\)") as refusal:
        compat.import_transformers()
    assert str(refusal.value).endswith("\n  pip install --upgrade transformers")


def test_transformers_that_works_is_returned():
    assert compat.import_transformers().BertForMaskedLM.__name__ == "BertForMaskedLM"


def test_installation_error_is_an_import_error():
    assert issubclass(compat.InstallationError, ImportError)  # what the command line turns into one message


# --- the same in a fresh interpreter, as a user meets it


def write_package(folder, name, code):
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(code, encoding="utf-8")


def run_command(fakes, *arguments):
    """``python -m fairseq_bert_kd`` with the folder of fake packages in front of everything."""
    environment = os.environ | {"PYTHONPATH": f"{fakes}{os.pathsep}{ROOT}"}
    return subprocess.run(
        [sys.executable, "-m", "fairseq_bert_kd", *map(str, arguments)],
        cwd=fakes, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_broken_fairseq_is_one_message_with_one_command(tmp_path):
    cause = "mutable default <class 'fairseq.dataclass.configs.CommonConfig'> for field common is not allowed"
    write_package(tmp_path, "fairseq", f'raise ValueError("{cause}: use default_factory")\n')
    checkpoint = save(tmp_path / "teacher.pt", cfg={"model": {"_name": "hf_masked_lm"}})
    child = run_command(tmp_path, "dump", tmp_path, "--path", checkpoint)
    assert child.returncode == 2
    assert child.stdout == ""
    assert "Traceback" not in child.stderr
    version = sys.version.split()[0]
    assert (
        f"fairseq is installed but cannot be imported on Python {version} (ValueError: {cause}"
        in child.stderr
    )
    assert child.stderr.endswith(f"Fix it with:\n  {compat.FAIRSEQ_INSTALL}\n")
    assert child.stderr.count("pip install --no-build-isolation") == 1


def test_broken_torchaudio_is_said_to_be_in_the_way_of_transformers(tmp_path):
    cause = "libc10_cuda.so: cannot open shared object file: No such file or directory"
    write_package(tmp_path, "torchaudio", f'raise OSError("{cause}")\n')
    write_package(tmp_path, "transformers", "def __getattr__(name):\n    import torchaudio\n")
    (tmp_path / "text").write_text("a\n", encoding="utf-8")
    child = run_command(
        tmp_path, "tokenize", "--tokenizer", tmp_path, "--input", tmp_path / "text", "--output", tmp_path / "out"
    )  # fmt: skip
    assert child.returncode == 2
    assert "Traceback" not in child.stderr
    assert f"transformers cannot be imported (OSError: {cause})" in child.stderr
    assert "Fix it with:\n  pip uninstall --yes torchaudio  # built for another torch" in child.stderr
    assert not (tmp_path / "out").exists()


# --- attention masks


def small_encoder(model_type, implementation="eager", **settings):
    import transformers

    sizes = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 16, "hidden_dim": 16, "pad_token_id": 0}
    config = transformers.AutoConfig.for_model(model_type, **sizes | settings)
    model = transformers.AutoModelForMaskedLM.from_config(config, attn_implementation=implementation)
    return model.base_model


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("model_type", ["bert", "camembert", "roberta", "xlm-roberta"])
def test_form_of_a_pair_mask_makes_slots_depend_on_what_it_allows(model_type, implementation):
    """Any pattern, not only the one that the form was found with: here slot 3 sees itself and slot 0."""
    encoder = small_encoder(model_type, implementation).eval()
    form = compat.pair_attention_form(encoder)
    allowed = torch.eye(4, dtype=torch.bool)
    allowed[3, 0] = True
    ids = torch.tensor([[5, 6, 7, 8]])
    mask = form(allowed[None], torch.float32)
    before = encoder(input_ids=ids, attention_mask=mask)[0][0]
    for slot, seen_by in ((0, [0, 3]), (1, [1]), (2, [2]), (3, [3])):
        other = ids.clone()
        other[0, slot] = 9
        after = encoder(input_ids=other, attention_mask=mask)[0][0]
        assert (after != before).any(dim=1).nonzero().flatten().tolist() == seen_by


@pytest.mark.parametrize("model_type", ["deberta", "deberta-v2"])
def test_encoder_that_takes_no_pair_mask_has_no_form(model_type):
    assert compat.pair_attention_form(small_encoder(model_type)) is None


def test_window_of_local_layers_is_not_lifted():
    special = dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 1)
    assert compat.pair_attention_form(small_encoder("modernbert", **special)) is None


@pytest.mark.parametrize("training", [True, False])
def test_looking_for_the_form_leaves_mode_and_random_numbers_alone(training):
    encoder, state = small_encoder("bert").train(training), torch.get_rng_state()
    assert compat.pair_attention_form(encoder) is not None
    assert all(module.training == training for module in encoder.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(weights.grad is None for weights in encoder.parameters())


class Heedless(torch.nn.Module):
    """An encoder that takes every mask and looks at none."""

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(pad_token_id=None)
        self.embeddings = torch.nn.Embedding(6, 4)

    def forward(self, input_ids, attention_mask):
        return (self.embeddings(input_ids).cumsum(dim=1),)


def test_encoder_that_ignores_the_mask_has_no_form():
    assert compat.pair_attention_form(Heedless()) is None


# --- memory


FREED = """
import os
import platform
import torch
from fairseq_bert_kd import compat

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

kept = compat.keep_freed_memory()
torch.ones(50_000_000).sum()  # 191 MiB, freed at once
print(kept, resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such setting")
def test_freed_memory_stays_with_the_process_unless_the_user_has_settings_of_their_own():
    plain = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MALLOC_") and name != "GLIBC_TUNABLES"
    }
    plain["CUDA_VISIBLE_DEVICES"] = ""

    def found(**settings):
        command = [sys.executable, "-c", FREED]
        said = subprocess.run(
            command, env=plain | settings, capture_output=True, text=True, check=True, cwd=ROOT
        )
        kept, resident = said.stdout.split()
        return kept == "True", float(resident)

    kept, resident = found()
    untouched, without = found(MALLOC_TOP_PAD_="131072")  # glibc's default
    assert (kept, untouched) == (True, False)
    assert resident - without > 100


SHAPES = """
import torch
from fairseq_bert_kd import compat

compat.limit_matrix_programs()
kept = []
weights = torch.ones(64, 64, dtype=torch.bfloat16)
for rows in range(1, 601):
    torch.nn.functional.linear(torch.ones(rows, 64, dtype=torch.bfloat16), weights)
with open("/proc/self/status") as file:
    print(next(line.split()[1] for line in file if line.startswith("RssAnon")))
"""


@pytest.mark.skipif(not compat.cpu_has_bfloat16(), reason="oneDNN compiles for bfloat16 of the CPU's own")
def test_products_of_many_shapes_do_not_pile_up_unless_the_user_says_so():
    environment = {name: value for name, value in os.environ.items() if "PRIMITIVE_CACHE" not in name}

    def held(**settings):
        command = [sys.executable, "-c", SHAPES]
        said = subprocess.run(
            command, env=environment | settings, capture_output=True, text=True, check=True, cwd=ROOT
        )
        return int(said.stdout) / 1024

    own, older = (held(**{f"{name}_PRIMITIVE_CACHE_CAPACITY": "1024"}) for name in ("ONEDNN", "DNNL"))
    limited = held()
    assert min(own, older) - limited > 20


# --- moving averages


class Counted(torch.nn.Module):
    """A weight, and a map of whole numbers."""

    def __init__(self, weight):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([weight]))
        self.register_buffer("ids", torch.tensor([30521, 7]))


@pytest.mark.parametrize("ema_fp32", [False, True])
def test_moving_averages_leave_whole_numbers_alone(ema_fp32):
    from fairseq.dataclass.configs import EMAConfig
    from fairseq.models.ema import build_ema

    compat.leave_whole_numbers_to_ema()
    config = EMAConfig(store_ema=True, ema_decay=0.75, ema_fp32=ema_fp32)
    average = build_ema(Counted(0.0), config, device="cpu")
    average.step(Counted(1.0), 1)
    average.step(Counted(1.0), 2)
    assert average.get_model().weight.item() == 0.4375  # 1 - 0.75 ** 2
    assert average.get_model().ids.tolist() == [30521, 7]
