"""``python -m benchmarks``: the tables of docs/benchmarks.md, measured on this machine."""

import argparse
import importlib
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

from benchmarks.table import markdown

MODULES = {
    "store": "benchmarks.store",
    "dump": "benchmarks.dump",
    "step": "benchmarks.step",
    "operations": "benchmarks.operations",
    "loading": "benchmarks.loading",
    "teacher-training": "benchmarks.teacher_training",
}


def machine() -> str:
    """Hardware, versions and the command, as a Markdown list."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    cpu = next(
        (line.split(":", 1)[1].strip() for line in lines if "model name" in line), platform.processor()
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    mount = subprocess.run(
        ["df", "--output=fstype", tempfile.gettempdir()], capture_output=True, text=True, check=False
    ).stdout.split()
    import torch  # here, so that the benchmarks' child processes do not pay for it

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    names = ["numpy", "torch", "transformers", "fairseq-fixed"]
    versions = {name: metadata.version(name) for name in names}
    return "\n".join(
        [
            f"- {cpu}, {os.cpu_count()} cores, {memory:.0f} GiB, temporary files on {mount[-1] if mount else '?'}; GPU: {gpu}",
            f"- Python {platform.python_version()}, "
            + ", ".join(f"{name} {v}" for name, v in versions.items()),
            f"- `python -m benchmarks {shlex.join(sys.argv[1:])}`, {time.strftime('%Y-%m-%d')}; load of the machine "
            f"before it: {os.getloadavg()[0]:.1f}",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"one of {', '.join(MODULES)} (default: all)"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, to check that it runs")
    parser.add_argument("--markdown", metavar="FILE", help="also write the tables to this file")
    args = parser.parse_args()
    unknown = set(args.names) - set(MODULES)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(MODULES)}")
    parts = [machine()]
    for name in [name for name in MODULES if not args.names or name in args.names]:
        print(f"{name} ...", file=sys.stderr, flush=True)
        parts.append(markdown(importlib.import_module(MODULES[name]).run(args.quick)))
    text = "\n\n".join(parts) + "\n"
    print(text)
    if args.markdown:
        Path(args.markdown).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
