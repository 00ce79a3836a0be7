"""How a rank's process ends from inside, by name: for the hooks of test builds, which run on the engine thread."""

import ctypes
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

CODE = 41
LAST_WORDS = "the driver is gone"
INJECTED = "injected by a test"
# What a process that is short of memory may still take.
SPARE_BYTES = 64 * 2**20
# Above that, and above what an allocator may have kept of what was freed (a gibibyte: runner/rank_process.py). Without
# the limit it is had, since nothing of it is touched: then nothing ends, and the test fails.
TOO_MANY_BYTES = 2 * 2**30


def limit_memory(spare_bytes: int = SPARE_BYTES) -> None:
    """No more address space than there is now, but for this: what a system without memory says to an allocation."""
    limit = psutil.Process().memory_info().vms + spare_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def exits() -> None:
    """As a library that knows no better: nothing of ours runs any more."""
    print(LAST_WORDS, flush=True)
    os._exit(CODE)


def raises() -> None:
    raise RuntimeError(INJECTED)


def leaves() -> None:
    """No Exception: nothing that means to catch those sees it."""
    sys.exit(CODE)


def has_no_memory() -> None:
    limit_memory()
    bytes(TOO_MANY_BYTES)


def has_no_memory_in_cpp() -> None:
    """And nobody catches what C++ throws: its own last words, and SIGABRT."""
    limit_memory()
    library = ctypes.CDLL("libc++.1.dylib" if sys.platform == "darwin" else "libstdc++.so.6")
    library._Znwm(ctypes.c_size_t(TOO_MANY_BYTES))


def stands() -> None:
    """In C, with the interpreter's lock: no other thread runs, no handler of a signal."""
    ctypes.PyDLL(None).sleep(ctypes.c_uint(1000))


ENDINGS: dict[str, Callable[[], None]] = {
    one.__name__: one for one in (exits, raises, leaves, has_no_memory, has_no_memory_in_cpp, stands)
}


def end_as_told(order: Path) -> None:
    """What the file names, once: the file goes first, so that the next epoch lives."""
    try:
        name = order.read_text()
    except FileNotFoundError:
        return
    order.unlink()
    ENDINGS[name]()
