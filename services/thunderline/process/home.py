"""The node's own folder: its id, and files written so that a crash leaves the old or the new one."""

import contextlib
import hashlib
import json
import os
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path

from thunderline.cluster import NodeId
from thunderline.process.entry import CannotStart

MODEL_ROOTS, PORTS, LEFT_STORE = "model_roots", "run/ports.json", "left_store"
# A Unix socket's path holds 107 bytes on Linux, 103 on macOS.
SOCKET_PATH_BYTES_MAX = 100


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replaces the file, synced to disk. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise


def node_id(home: Path) -> NodeId:
    """The id in node.json, made once; whichever process comes first makes it. Raises OSError, CannotStart."""
    path = home / "node.json"
    if not path.exists():
        home.mkdir(parents=True, exist_ok=True)
        draft = home / f".node.json.{uuid.uuid4()}"
        write_atomically(draft, (json.dumps({"node_id": str(uuid.uuid4())}) + "\n").encode())
        with contextlib.suppress(FileExistsError):
            # A hard link is refused when the name is taken: the first process wins, the others read.
            os.link(draft, path)
        draft.unlink()
    try:
        return NodeId(str(uuid.UUID(json.loads(path.read_text())["node_id"])))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CannotStart(f"{path} holds no node_id; remove it to be another node from now on") from None


def allow_model_root(home: Path, folder: Path) -> None:
    """Remembers a folder that the operator gave as a model, beside [runner] model_roots. Raises OSError."""
    known = allowed_model_roots(home)
    if str(folder) not in known and not folder.is_relative_to(home / "models"):
        write_atomically(home / MODEL_ROOTS, "".join(f"{one}\n" for one in [*known, folder]).encode())


def allowed_model_roots(home: Path) -> list[str]:
    """Folders given to `thunderline up --model`, one a line."""
    try:
        return [line for line in (home / MODEL_ROOTS).read_text().splitlines() if line]
    except FileNotFoundError:
        return []


def remember_ports(home: Path, ports: Mapping[str, int]) -> None:
    """Where the roles of this home listen, for the command line. Raises OSError."""
    write_atomically(home / PORTS, json.dumps(dict(ports)).encode())


def forget_ports(home: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        (home / PORTS).unlink()


def remembered_ports(home: Path) -> dict[str, int]:
    """Empty when no `thunderline up` runs here."""
    try:
        return {str(role): int(port) for role, port in json.loads((home / PORTS).read_text()).items()}
    except (FileNotFoundError, ValueError, AttributeError):
        return {}


def leave_store(home: Path, store: str) -> None:
    """For the runner's next start: this node does not belong to that store's scheduler any more. Raises OSError."""
    write_atomically(home / LEFT_STORE, f"{store}\n".encode())


def left_store(home: Path) -> str:
    """ "" when none was left."""
    try:
        return (home / LEFT_STORE).read_text().strip()
    except (OSError, ValueError):
        return ""


def forget_left_store(home: Path) -> None:
    (home / LEFT_STORE).unlink(missing_ok=True)


def socket_path(home: Path, name: str) -> Path:
    """Where a Unix socket of this home lies: in run/, or for a long home in a private folder under /tmp."""
    path = home / "run" / name
    if len(str(path).encode()) <= SOCKET_PATH_BYTES_MAX:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path
    digest = hashlib.sha256(str(home).encode()).hexdigest()[:16]
    folder = Path("/tmp") / f"thunderline-{os.getuid()}-{digest}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o077:
        raise PermissionError(f"{folder} is not ours alone: remove it or set THUNDERLINE_HOME to a shorter path")
    return folder / name
