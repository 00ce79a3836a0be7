"""The node's folder: an id that all processes agree on, files that are old or new, sockets that fit."""

import json
import os
import shutil
import stat
import uuid
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from thunderline.process.entry import CannotStart
from thunderline.process.home import SOCKET_PATH_BYTES_MAX, node_id, socket_path, write_atomically


def test_the_id_of_a_node_is_made_once(tmp_path: Path) -> None:
    home = tmp_path / "home"
    made = node_id(home)
    assert str(uuid.UUID(made)) == made
    assert node_id(home) == made
    assert [path.name for path in home.iterdir()] == ["node.json"]


def test_processes_that_start_at_once_agree_on_the_id(tmp_path: Path) -> None:
    with ProcessPoolExecutor(4, get_context("spawn")) as pool:
        found = {one for batch in range(5) for one in pool.map(node_id, [tmp_path / f"home{batch}"] * 4)}
    assert len(found) == 5


@pytest.mark.parametrize("text", ["", "{}", '{"node_id": "me"}'], ids=["empty", "without an id", "no uuid"])
def test_a_broken_id_is_no_new_id(tmp_path: Path, text: str) -> None:
    (tmp_path / "node.json").write_text(text)
    with pytest.raises(CannotStart, match=r"node\.json"):
        node_id(tmp_path)
    assert (tmp_path / "node.json").read_text() == text


def test_a_file_is_replaced_as_a_whole_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "new" / "state.json"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_a_mode_is_as_asked(tmp_path: Path) -> None:
    write_atomically(tmp_path / "state.json", b"x", mode=0o644)
    assert stat.S_IMODE((tmp_path / "state.json").stat().st_mode) == 0o644


def test_a_write_that_fails_leaves_the_old_and_no_draft(tmp_path: Path) -> None:
    target = tmp_path / "state.json"
    target.mkdir()
    (target / "kept").write_text("old")
    with pytest.raises(OSError):
        write_atomically(target, b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]
    assert (target / "kept").read_text() == "old"


def test_a_socket_of_a_short_home_lies_in_it(tmp_path: Path) -> None:
    home = Path("/tmp") / f"h{uuid.uuid4().hex[:8]}"
    try:
        path = socket_path(home, "runner.sock")
        assert path == home / "run" / "runner.sock"
        assert path.parent.is_dir()
    finally:
        shutil.rmtree(home)


def test_a_socket_of_a_long_home_fits_and_is_private(tmp_path: Path) -> None:
    home = tmp_path / ("long" * 30)
    path = socket_path(home, "runner.sock")
    try:
        assert len(str(path).encode()) <= SOCKET_PATH_BYTES_MAX
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert path == socket_path(home, "runner.sock")
        assert path.parent != socket_path(tmp_path / ("other" * 30), "runner.sock").parent
    finally:
        shutil.rmtree(path.parent)
        shutil.rmtree(socket_path(tmp_path / ("other" * 30), "runner.sock").parent)


def test_a_folder_for_sockets_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    home = tmp_path / ("open" * 30)
    folder = socket_path(home, "runner.sock").parent
    try:
        folder.chmod(0o755)
        with pytest.raises(PermissionError, match="THUNDERLINE_HOME"):
            socket_path(home, "runner.sock")
    finally:
        shutil.rmtree(folder)


def test_the_length_is_counted_in_bytes() -> None:
    # 66 characters would fit; as 111 bytes they do not.
    home = Path("/tmp") / ("ü" * 45)
    path = socket_path(home, "runner.sock")
    try:
        assert path.parent.name.startswith(f"thunderline-{os.getuid()}-")
    finally:
        shutil.rmtree(path.parent)


def test_the_id_is_json_that_others_can_read(tmp_path: Path) -> None:
    made = node_id(tmp_path)
    assert json.loads((tmp_path / "node.json").read_text()) == {"node_id": made}
