"""What has to happen before mlx is imported: a real BLAS, pinned threads, no network.

On Linux MLX's wheel brings netlib's reference BLAS (2 GFLOP/s where OpenBLAS does 60). libmlx calls cblas_* through the
dynamic linker, so a CBLAS that is loaded first with RTLD_GLOBAL wins; no compiler is needed.
"""

import ctypes
import os
import sys
from dataclasses import dataclass
from pathlib import Path

OPENBLAS = "libopenblas.so.0"
ENVIRONMENT = {
    # Waiting fences of the fast kind can wedge a GPU until reboot (mlx#3142, #3830).
    "MLX_METAL_FAST_SYNCH": "0",
    # A ring's connection attempts then say their errno.
    "MLX_RING_VERBOSE": "1",
    # Two threads spin on a busy machine: decoding fell from 15 to 1.5 tokens/s.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    # Serving never downloads.
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(frozen=True, slots=True)
class Blas:
    """Which BLAS computes: a file, or a remark that explains why it is slow."""

    name: str
    is_fast: bool

    def __str__(self) -> str:
        return self.name


def load() -> Blas:
    """Call before the first import of mlx; again it changes nothing. What the user has set stays."""
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    if sys.platform != "linux":
        return Blas("Accelerate", is_fast=True)
    if "mlx.core" in sys.modules:
        raise RuntimeError("mlx was imported before its BLAS")
    try:
        library = ctypes.CDLL(OPENBLAS, mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return Blas("netlib reference BLAS of the wheel: 20 times slower; install libopenblas0-pthread", is_fast=False)
    return Blas(_file_of(library) or OPENBLAS, is_fast=True)


def _file_of(library: ctypes.CDLL) -> str:
    """The path that the linker chose, from the process's own mappings."""
    try:
        with Path("/proc/self/maps").open() as maps:
            return next((line.split()[-1] for line in maps if "openblas" in line), "")
    except OSError:
        return str(library._name)
