"""A folder on a small disk of its own, which a test can fill: a tmpfs, or what comes nearest without root."""

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

FILLER = "filler"
PIECES_BYTES = (1024 * 1024, 4096, 1)


@dataclass
class SmallDisk:
    """`is_real`: otherwise processes that are named stand for it: they can write no file."""

    folder: Path
    is_real: bool

    def fill(self, pids: Iterable[int]) -> None:
        """No byte more fits in. `pids`: who writes there."""
        if not self.is_real:
            _limit_files(pids, 0)
            return
        with (self.folder / FILLER).open("wb", buffering=0) as filler:
            for size_bytes in PIECES_BYTES:
                with contextlib.suppress(OSError):
                    while True:
                        filler.write(bytes(size_bytes))

    def make_room(self, pids: Iterable[int]) -> None:
        if not self.is_real:
            _limit_files(pids, resource.RLIM_INFINITY)
        (self.folder / FILLER).unlink(missing_ok=True)


def _limit_files(pids: Iterable[int], size_bytes: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size_bytes, hard))


def must_be_real() -> bool:
    """Figures are of the real thing; and where CI may mount, it has to."""
    return bool(os.environ.get("PROVE") or (os.environ.get("CI") and os.geteuid() == 0))


@contextlib.contextmanager
def small_disk(folder: Path, size_mib: int) -> Iterator[SmallDisk]:
    """At an empty folder, until it is left. Linux wants root for it, macOS does not."""
    folder.mkdir(parents=True, exist_ok=True)
    if sys.platform == "darwin":
        image = folder.parent / f"{folder.name}.dmg"
        _run("hdiutil", "create", "-size", f"{size_mib}m", "-fs", "HFS+", str(image))
        _run("hdiutil", "attach", "-nobrowse", "-mountpoint", str(folder), str(image))
        leave = ["hdiutil", "detach", "-force", str(folder)]
    else:
        options = f"size={size_mib}m,mode=0700"
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False
        )
        if mounted.returncode != 0:
            assert not must_be_real(), f"no small disk: {mounted.stderr.decode().strip()}"
            yield SmallDisk(folder, is_real=False)
            return
        # Lazily: whoever still has a file open there is about to end.
        leave = ["umount", "-l", str(folder)]
    try:
        yield SmallDisk(folder, is_real=True)
    finally:
        _run(*leave)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)
