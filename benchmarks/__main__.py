"""``python -m benchmarks``: the tables of docs/benchmarks.md, measured on this machine."""

import argparse
import importlib
import os
import platform
import re
import shlex
import sys
import time
from importlib import metadata
from pathlib import Path

import torch

from benchmarks.table import Length, markdown
from fairseq_bert_kd import compat

MODULES = {
    "store": "benchmarks.store",
    "dump": "benchmarks.dump",
    "step": "benchmarks.step",
    "operations": "benchmarks.operations",
    "optimizer": "benchmarks.optimizer",
    "loading": "benchmarks.loading",
    "startup": "benchmarks.startup",
    "teacher-training": "benchmarks.teacher_training",
    "sampling": "benchmarks.sampling",
    "layer-distillation": "benchmarks.layer_distillation",
    "text-smoothing": "benchmarks.text_smoothing",
    "freed-memory": "benchmarks.freed_memory",
    "attention": "benchmarks.attention",
}


def machine() -> str:
    """Hardware, versions and the command, as a Markdown list."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    cpu = re.search(r"model name\s*: (.*)", cpuinfo)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    names = ("numpy", "torch", "transformers", "fairseq-fixed")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    return (
        f"- {cpu[1] if cpu else platform.processor()}, {os.cpu_count()} cores, {memory:.0f} GiB; GPU: {gpu}\n"
        f"- Python {platform.python_version()}, {versions}\n"
        f"- `python -m benchmarks {shlex.join(sys.argv[1:])}`, {time.strftime('%Y-%m-%d')}; load of the machine "
        f"before it: {os.getloadavg()[0]:.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MODULES)} (default: all)")
    length = parser.add_mutually_exclusive_group()
    length.set_defaults(length=Length.FULL)
    for name, text in (
        ("quick", "small sizes, to check that it runs"),
        ("short", "the rows with a goal, fewer rounds"),
    ):
        length.add_argument(f"--{name}", dest="length", action="store_const", const=Length(name), help=text)
    args = parser.parse_args()
    unknown = set(args.names) - set(MODULES)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(MODULES)}")
    compat.keep_freed_memory()  # as in training
    print(machine())
    for name in args.names or MODULES:
        print(f"{name} ...", file=sys.stderr, flush=True)
        print("\n" + markdown(importlib.import_module(MODULES[name]).run(args.length)), flush=True)


if __name__ == "__main__":
    main()
