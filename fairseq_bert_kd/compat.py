"""Every branch on "which version is installed". Importing this file imports neither torch, fairseq nor transformers.

Each function names its reason and when it can be removed.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.util
import os
import pickle
import re
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the tokenizer also runs where torch is not installed
    import torch

PairAttention = Callable[["torch.Tensor", "torch.dtype"], "torch.Tensor"]  # see `pair_attention_form`

FAIRSEQ_REQUIREMENT = "fairseq-fixed==0.12.3.1"
FAIRSEQ_INSTALL = (
    "pip install cython wheel 'setuptools<81' numpy && "
    f"pip install --no-build-isolation --no-deps {FAIRSEQ_REQUIREMENT}"
)

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


class InstallationError(ImportError):
    """A package that we need is missing or cannot be loaded; the message says how to fix it."""


def allow_fairseq_checkpoints() -> None:
    """Let torch's safe loading read what fairseq itself puts into checkpoints, and nothing more.

    torch >= 2.6 loads checkpoints with ``weights_only=True``. fairseq's carry an ``argparse.Namespace``
    (a plain attribute holder) and, after ``--eval-bleu``, the meters' numpy numbers and arrays; these are
    allowed by name. numpy 2 moved ``numpy.core`` to ``numpy._core``, and a checkpoint may come from either.
    Remove when fairseq stores plain dicts.
    """
    import numpy as np
    import torch

    # the functions by which numpy unpickles arrays and numbers
    reconstruct, scalar = np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0]
    allowed: list[Any] = [argparse.Namespace, np.ndarray, np.dtype]
    allowed += [type(np.dtype(code)) for code in ("int64", "float64", "int32", "float32", "bool")]
    for home in ("numpy._core.multiarray", "numpy.core.multiarray"):
        allowed += [(reconstruct, f"{home}._reconstruct"), (scalar, f"{home}.scalar")]
    torch.serialization.add_safe_globals(allowed)


def broadcast_to_own_workers() -> None:
    """Let several workers resume: what worker 0 read safely from a checkpoint reaches the others.

    fairseq serialises that state with ``torch.save`` and reads it with ``torch.load``, which since torch 2.6
    refuses the settings in it (omegaconf), so every worker but the first dies. The bytes come from our own
    worker 0 and never from a file; torch's broadcast of Python objects sends them as they are.
    Remove when fairseq names ``weights_only`` in ``fairseq.distributed.utils._broadcast_object_slow``.
    """
    import torch

    utils: Any = importlib.import_module("fairseq.distributed.utils")

    def broadcast(obj: Any, src_rank: int, group: Any, dist_device: torch.device) -> Any:
        held = [obj]
        torch.distributed.broadcast_object_list(held, src=src_rank, group=group, device=dist_device)
        return held[0]

    utils._broadcast_object_slow = broadcast


def leave_whole_numbers_to_ema() -> None:
    """Let ``--store-ema`` copy a model's whole numbers, such as maps of ids, and average the others.

    fairseq's moving average multiplies every entry of a model's state, and torch ends the run at the first one of whole
    numbers. Remove when fairseq averages floating-point numbers alone.
    """
    ema: Any = importlib.import_module("fairseq.models.ema.ema").EMA
    make = ema.__init__

    def start(self: Any, model: Any, config: Any, device: Any = None, skip_keys: Any = None) -> None:
        whole = {name for name, value in model.state_dict().items() if not value.is_floating_point()}
        make(self, model, config, device, whole | set(skip_keys or ()))

    ema.__init__ = start


def shuffle_after_curriculum() -> None:
    """Let ``--curriculum N`` shuffle the batches from epoch N + 1 on.

    fairseq keeps the first epoch's data loader, and with it whether batches are shuffled: every epoch would go from short to
    long sentences, in an unbroken run. Remove when fairseq's `EpochBatchIterator` tells its sampler in each epoch.
    """
    iterator: Any = importlib.import_module("fairseq.data.iterators").EpochBatchIterator
    of_epoch = iterator._get_iterator_for_epoch

    def follow(self: Any, epoch: int, shuffle: bool, *arguments: Any, **settings: Any) -> Any:
        if self.dataloader is not None:
            self.epoch_batch_sampler.shuffle = shuffle
        return of_epoch(self, epoch, shuffle, *arguments, **settings)

    iterator._get_iterator_for_epoch = follow


def cpu_has_bfloat16() -> bool | None:
    """Whether the CPU multiplies matrices in bfloat16 natively; None where torch cannot tell.

    Older versions of torch do not list a CPU's capabilities. Remove when the oldest supported one does.
    """
    import torch

    if not hasattr(torch.cpu, "get_capabilities"):
        return None
    found = torch.cpu.get_capabilities()
    return any(bool(found.get(name)) for name in ("avx512_bf16", "amx_bf16", "bf16", "arm_bf16"))


def keep_freed_memory() -> bool:
    """Let a process without a GPU keep the memory that it frees, for the next tensor; whether it does.

    torch has no pool for tensors on a CPU, and glibc gives what it frees back to the system: every block above 32 MiB, and the
    end of the heap. So each step of a training waits while the system clears hundreds of megabytes of pages anew (``python -m
    benchmarks freed-memory``). The process then holds about what it has needed at most. Left alone: a process that sees a GPU, other C
    libraries than glibc, and settings of the user's own in the environment. Remove when torch pools these tensors.
    """
    import ctypes

    import torch

    own = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    library: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if own or not hasattr(library, "gnu_get_libc_version") or torch.cuda.is_available():
        return False
    trim_threshold, mmap_threshold, most = -1, -3, 2**31 - 1  # of malloc.h
    return all(library.mallopt(option, most) for option in (trim_threshold, mmap_threshold))


def limit_matrix_programs() -> None:
    """Let oneDNN, torch's library for bfloat16 on a CPU, keep 100 of its compiled products instead of 1,024.

    It compiles one for each shape of a product, and batches of sentences hardly ever have the same shapes again. A thousand take
    some 300 MiB, and they lie scattered in the memory that a process keeps, so that a training with ``--autocast bf16`` went on growing
    (``python -m benchmarks freed-memory``). A step of an encoder-decoder needs some 50. To be called before the first
    product, when oneDNN reads the environment; a setting of the user's own stays. Remove when oneDNN's cache is bounded by bytes.
    """
    if "DNNL_PRIMITIVE_CACHE_CAPACITY" not in os.environ:  # the older name of the same
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "100")


def load_tensors(path: str) -> Any:
    """What torch.save wrote into a file, on the CPU, without running any code that it may carry.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is not a torch checkpoint, or holds objects other than tensors and settings.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"checkpoint `{path}` does not exist; give the .pt file that fairseq-train wrote"
        )
    import torch

    allow_fairseq_checkpoints()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch and pickle raise many types on a file that is something else
        named = r"GLOBAL (?P<object>\S+)|but got <class '(?P<type>[^']+)'"
        foreign = re.search(named, str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if foreign:
            raise ValueError(
                f"checkpoint `{path}` was refused: it carries objects other than tensors and settings "
                f"({foreign['object'] or foreign['type']}), and loading them could run foreign code. None was run. Use a checkpoint that "
                "fairseq-train wrote on a machine you trust."
            ) from None
        if is_lfs_pointer(path):
            raise ValueError(file_fault(path)) from None
        raise ValueError(
            f"`{path}` is not a readable torch checkpoint: it is damaged or something else; give the .pt file that "
            "fairseq-train wrote. If a full disk cut it short, remove it, and go on from the newest whole one of its folder (--restore-file)"
        ) from None
    return state


def load_checkpoint(path: str) -> dict[str, Any]:
    """Content of a fairseq checkpoint, on the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: see `load_tensors`, or the file is no checkpoint.
    """
    state = load_tensors(path)
    if not isinstance(state, dict) or "model" not in state or not (state.get("cfg") or state.get("args")):
        raise ValueError(f"`{path}` is not a fairseq checkpoint: it lacks the entries `model` and `cfg`")
    return state


def is_lfs_pointer(path: str | os.PathLike[str]) -> bool:
    """Whether a file is the few lines that stand for a large one in a git clone without Git LFS."""
    with open(path, "rb") as file:
        return file.read(len(_LFS_POINTER)) == _LFS_POINTER


def file_fault(path: str | os.PathLike[str]) -> str:
    """Why a library cannot read a file that has the right name, and the next step; a whole sentence."""
    if os.path.getsize(path) == 0:
        return f"`{path}` is empty: copy or download it again."
    if is_lfs_pointer(path):
        return f"`{path}` is a Git LFS pointer, not the file itself: run `git lfs pull` in its repository."
    return f"`{path}` is damaged or cut off: copy or download it again."


def model_settings(state: dict[str, Any]) -> dict[str, Any]:
    """Options of the model of a checkpoint, and its registered name as ``_name``."""
    model = (state.get("cfg") or {}).get("model") or state.get("args") or {}
    settings = dict(model) if isinstance(model, dict) else vars(model)
    return {"_name": settings.get("arch"), **settings}


def file_digest(path: str | os.PathLike[str]) -> str:
    """sha256 of a file, hexadecimal. Remove when Python 3.11 is the oldest: `hashlib.file_digest`."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def require_fairseq() -> None:
    """Import fairseq, or say in one sentence what is wrong and which command fixes it.

    fairseq 0.12.2 does not import on Python >= 3.11 (mutable dataclass defaults) and its declared
    requirements cannot be resolved by pip >= 24.1; ``fairseq-fixed`` is the same code with both fixed.

    Raises:
        InstallationError: fairseq is missing, or is there and cannot be imported.
    """
    if importlib.util.find_spec("fairseq") is None:
        raise InstallationError(f"fairseq is not installed. Install it with:\n  {FAIRSEQ_INSTALL}")
    try:
        importlib.import_module("fairseq.options")
    except Exception as error:  # dataclass, hydra and ABI faults raise very different types
        hint = FAIRSEQ_INSTALL
        if "numpy.ndarray size changed" in str(error) or "numpy.dtype size changed" in str(error):
            hint = FAIRSEQ_INSTALL.replace("--no-deps", "--no-deps --force-reinstall --no-cache-dir")
        elif importlib.util.find_spec("hydra") is None or importlib.util.find_spec("omegaconf") is None:
            hint = "pip install hydra-core==1.3.2 omegaconf==2.3.0"
        raise InstallationError(
            f"fairseq is installed but cannot be imported on Python {sys.version.split()[0]} "
            f"({type(error).__name__}: {first_line(error)}). Fix it with:\n  {hint}"
        ) from error


def import_transformers(models: bool = True) -> Any:
    """The transformers module with its tokenizers importable, and with its model classes unless ``models`` is False.

    Model classes cost seconds of start-up that a tokenizer does not need. A torchaudio built for another torch (a CUDA wheel
    beside a CPU torch) makes transformers fail deep inside an unrelated import; fairseq declares torchaudio as a
    requirement, so this is common.

    Raises:
        InstallationError: transformers is missing, or a broken torchaudio is in its way.
    """
    if importlib.util.find_spec("transformers") is None:
        raise InstallationError(
            "the teacher needs transformers. Install it with:\n  pip install transformers"
        )
    try:
        transformers = importlib.import_module("transformers")
        # transformers imports lazily: touch what fails when torchaudio is broken
        transformers.AutoTokenizer  # noqa: B018
        if models:
            transformers.AutoModelForMaskedLM, transformers.BertForMaskedLM  # noqa: B018
    except Exception as error:
        fix = "pip install --upgrade transformers"
        if "torchaudio" in traceback.format_exc():
            fix = "pip uninstall --yes torchaudio  # built for another torch; text models do not need it"
        raise InstallationError(
            f"transformers cannot be imported ({type(error).__name__}: {first_line(error)}). Fix it with:\n  {fix}"
        ) from error
    return transformers


def mismatched_sizes(model: Any, info: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Weights of another size than the model's: name, size in the file or None where it is not known, size in the model.

    transformers 4 gives the names alone.
    Remove when transformers 4 is no longer supported.

    Args:
        model: what ``from_pretrained`` gave.
        info: what it gave with ``output_loading_info=True``.
    """
    found = list(info["mismatched_keys"])
    if not any(isinstance(entry, str) for entry in found):
        return found
    weights = model.state_dict()
    return [(name, None, tuple(weights[name].shape)) for name in found]


def import_extra(module: str, extra: str = "report", what: str = "a report") -> Any:
    """A module of one of our extras.

    Args:
        module: its name.
        extra: the extra that installs it.
        what: what needs it, for the message.

    Raises:
        InstallationError: it is not installed; the message names the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = {"comet": "unbabel-comet"}.get(module, module.split(".")[0].replace("_", "-"))
        raise InstallationError(
            f"{what} needs {package} ({error}). Install it with:\n  pip install 'fairseq-bert-kd[{extra}]'"
        ) from error


def pair_attention_form(encoder: Any) -> PairAttention | None:
    """The form in which an encoder takes a mask of which position attends to which; None if it takes no such mask.

    transformers 5 takes what is added to the attention's scores, ``(batch, 1, length, length)``; 4.x takes ones and
    zeros, ``(batch, length, length)``; and some models of either take neither, or use a part of it only. So the
    encoder is tried on four tokens: a position's output must depend on exactly the positions that it may attend to.
    Remove when the oldest transformers that we support takes one form for all models.

    Returns:
        ``(mask, dtype)`` to what the encoder takes, ``mask`` being ``(batch, length, length)`` bool.
    """
    if getattr(encoder.config, "local_attention", None):
        return None  # ModernBERT: the mask would take the place of the window of its local layers
    return next((form for form in (_added_to_scores, _of_ones) if _obeys(encoder, form)), None)


def _added_to_scores(allowed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    import torch

    scores = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return scores.masked_fill_(~allowed, torch.finfo(dtype).min)[:, None]


def _of_ones(allowed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return allowed.to(dtype)


def _obeys(encoder: Any, form: PairAttention) -> bool:
    """Whether position i of four depends on position j if and only if the mask allows it."""
    import torch

    allowed = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]], dtype=torch.bool)
    weights, padding = next(encoder.parameters()), encoder.config.pad_token_id
    *tokens, other = [token for token in range(6) if token != padding][:5]
    inputs = torch.tensor([tokens] * 5)
    inputs[range(1, 5), range(4)] = other  # row j + 1 differs from the first in position j
    mask, was_training = form(allowed[None], weights.dtype).to(weights.device), encoder.training
    encoder.eval()
    try:
        with torch.no_grad():  # one by one: in a batch, equal rows may differ in their last bits
            first, *others = [
                encoder(input_ids=row[None].to(weights.device), attention_mask=mask)[0][0] for row in inputs
            ]
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, KeyError):
        return False
    finally:
        encoder.train(was_training)
    depends = torch.stack([(states != first).any(dim=1) for states in others], dim=1)  # (i, j)
    return torch.equal(depends.cpu(), allowed)


def first_line(error: BaseException) -> str:
    """First line of an error's message; the name of its type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
