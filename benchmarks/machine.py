"""Where and how a benchmark was run: the line above every results table."""

import datetime
import os
import platform
import sys
from pathlib import Path

import torch

from gpnp_cli import __version__


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def header() -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    words = [Path(word).name if os.sep in word else word for word in sys.argv]
    return (
        f"{datetime.date.today()}, {cpu_name()}, {cores} cores, PyTorch {torch.__version__}, gpnp {__version__}: "
        f"`python benchmarks/{' '.join(words)}`"
    )
