"""What `doctor` looks at on this machine: files, disks, memory, ports. Blocking; nothing is changed."""

import itertools
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil

from thunderline.cli.findings.machine import Blocked, Disk, Engine, Memory, Owner
from thunderline.cli.findings.trust import Kept, Own
from thunderline.cli.roles import ROLES
from thunderline.cluster.errors import Unauthenticated
from thunderline.cluster.transport import is_loopback
from thunderline.process import log_files
from thunderline.process.authority import AUTHORITY
from thunderline.process.entry import CannotStart
from thunderline.process.home import allowed_model_roots, node_id
from thunderline.process.settings import Settings
from thunderline.process.trust import FOLDER, NODE, Wallet

# Python starts in 0.1 s; a cold disk takes longer.
ENGINE_S = 10.0
LAST_BYTES = 4096
# What the runner starts loads its BLAS by this module before mlx; imported here it would stay in this process.
ENGINE = """
import importlib.metadata, json
from thunderline.rank import blas
found = blas.load()
try:
    mlx = importlib.metadata.version("mlx")
except importlib.metadata.PackageNotFoundError:
    mlx = ""
print(json.dumps({"blas": found.name, "is_fast": found.is_fast, "mlx": mlx}))
"""


def own(settings: Settings, wallet: Wallet) -> Own:
    """What this node is by its files and settings."""
    node, id_fault, fault, identity = "", "", "", None
    key = settings.home / FOLDER / NODE
    try:
        # It would be made by being asked for.
        node = node_id(settings.home) if (settings.home / "node.json").exists() else ""
    except (OSError, CannotStart) as error:
        id_fault = str(error)
    try:
        identity = wallet.identity()
    except Unauthenticated as error:
        fault = error.message
    named = zip(settings.discovery.seeds, settings.discovery.seed_targets, strict=True)
    far = [one for one, target in named if not is_loopback(target.rpartition(":")[0].strip("[]"))]
    return Own(
        cluster=settings.cluster.name,
        now_s=wallet.now_s,
        node_id=node,
        id_fault=id_fault,
        facts=identity.facts if identity else None,
        fault=fault,
        has_authority=(settings.home / FOLDER / AUTHORITY).exists(),
        is_exposed=key.exists() and bool(key.stat().st_mode & 0o077),
        scheduler=settings.cluster.scheduler,
        bind=settings.node.bind,
        far_seeds=tuple(far),
        home=str(settings.home),
    )


def kept(home: Path) -> tuple[list[Kept], bool]:
    """The home and what is private in it; whether we may write to it."""
    folder = home / FOLDER
    paths = [home, folder, *sorted(folder.glob("*.pem"))]
    found = [Kept(str(path), path.stat().st_mode, path.is_dir()) for path in paths if path.exists()]
    return found, os.access(_nearest(home), os.W_OK | os.X_OK)


def _nearest(path: Path) -> Path:
    """The folder itself, or the one in which it would be made."""
    return next((one for one in (path, *path.parents) if one.exists()), Path("/"))


def disks(settings: Settings) -> list[Disk]:
    """One for each file system that holds a folder of ours."""
    roots = [Path(one).expanduser() for one in [*settings.runner.model_roots, *allowed_model_roots(settings.home)]]
    by_device: dict[int, tuple[list[str], Path]] = {}
    found = []
    for path in dict.fromkeys([_nearest(settings.home), *roots]):
        try:
            by_device.setdefault(path.stat().st_dev, ([], path))[0].append(str(path))
        except OSError as error:
            found.append(Disk((str(path),), problem=str(error.strerror)))
    for uses, path in by_device.values():
        usage = shutil.disk_usage(path)
        found.append(Disk(tuple(uses), usage.free, usage.total))
    return found


def memory() -> Memory:
    virtual, swap = psutil.virtual_memory(), psutil.swap_memory()
    return Memory(virtual.total, virtual.available, swap.used)


def file_limit() -> tuple[int, int]:
    """Soft and hard; a limit that is not there is a large number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    none = sys.maxsize
    return none if soft == resource.RLIM_INFINITY else soft, none if hard == resource.RLIM_INFINITY else hard


def engine() -> Engine | None:
    """What a rank that starts now computes with, found out the way it does; None when that cannot be run here."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", ENGINE], capture_output=True, text=True, timeout=ENGINE_S, check=True
        )
        return Engine(**json.loads(done.stdout))
    except (OSError, subprocess.SubprocessError, ValueError, TypeError):
        return None


def up_pid(home: Path) -> int:
    """Of the `thunderline up` that runs in this home; 0 when none does."""
    try:
        pid = int((home / "run" / "up.lock").read_text())
        return pid if "up" in psutil.Process(pid).cmdline() else 0
    except (OSError, ValueError, psutil.Error):
        return 0


def listeners() -> Mapping[int, Owner]:
    """Who listens on which TCP port, as far as the system tells this user."""
    try:
        found = psutil.net_connections("tcp")
    except (OSError, psutil.Error):
        return {}
    pids = {one.laddr.port: one.pid for one in found if one.laddr and one.pid and one.status == psutil.CONN_LISTEN}
    return {port: owner for port, pid in pids.items() if (owner := _owner(pid))}


def _owner(pid: int) -> Owner | None:
    try:
        process = psutil.Process(pid)
        return Owner(pid, process.name(), _role(process.cmdline()))
    except (OSError, psutil.Error):
        return None


def _role(words: list[str]) -> str:
    """As the process was started: `.../thunderline ROLE ...`."""
    pairs = itertools.pairwise(words)
    return next((role for program, role in pairs if Path(program).name == "thunderline" and role in ROLES), "")


def blocked(wanted: Iterable[tuple[str, str, int]]) -> list[Blocked]:
    """Of (what, host, port) those where nobody of ours could listen now."""
    found = []
    for what, host, port in wanted:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                found.append(Blocked(what, host, port, error.errno or 0))
    return found


def last_words(log: Path, role: str) -> str:
    """Why a role said that it cannot start, when that was the last thing that it said."""
    lines = log_files.tail(log, LAST_BYTES).strip().splitlines()
    prefix = f"thunderline {role}: "
    return lines[-1].removeprefix(prefix) if lines and lines[-1].startswith(prefix) else ""
