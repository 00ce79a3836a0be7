"""The rank's mark: whole records, whoever writes."""

import fcntl
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from thunderline.cluster.rank_map import SIZE_BYTES, RankMark, Stand, decode
from thunderline.cluster.ranks import RankState
from thunderline.rank.mark import Mark

ROUNDS = 30_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "rank.map"
    found.write_bytes(bytes(SIZE_BYTES))
    return found


@pytest.fixture
def mark(path: Path) -> Iterator[Mark]:
    found = Mark(path)
    yield found
    found.close()


@pytest.fixture
def eager() -> Iterator[None]:
    """Threads take turns after every few instructions."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def read(path: Path) -> RankMark:
    found = decode(path.read_bytes())
    assert found is not None, "torn"
    return found


def test_the_first_hello_makes_it_prepared(path: Path, mark: Mark) -> None:
    assert mark.prepared() is RankState.PREPARED
    assert read(path).state is RankState.PREPARED


@pytest.mark.parametrize("state", [one for one in RankState if one is not RankState.STARTING], ids=lambda one: one.name)
def test_a_later_hello_changes_nothing(path: Path, mark: Mark, state: RankState) -> None:
    mark.enter(state)
    mark.step(7, Stand.COMPUTE)
    before = path.read_bytes()
    assert mark.prepared() is state
    assert path.read_bytes() == before


def test_who_ends_itself_leaves_its_code_and_its_phase(path: Path, mark: Mark) -> None:
    mark.enter(RankState.WARMING)
    assert read(path).exit_code is None
    mark.leave(4)
    assert (read(path).exit_code, read(path).state) == (4, RankState.WARMING)


def test_who_looks_whether_a_rank_lives_does_not_keep_it_from_its_map(path: Path) -> None:
    with path.open("rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.05, fcntl.flock, (looking, fcntl.LOCK_UN)).start()
        Mark(path).close()


@pytest.mark.usefixtures("eager")
def test_two_writers_lose_nothing_of_each_other(path: Path, mark: Mark) -> None:
    together = threading.Barrier(2)

    def enter() -> None:
        together.wait(10)
        for _ in range(ROUNDS):
            mark.enter(RankState.READY)

    other = threading.Thread(target=enter)
    other.start()
    together.wait(10)
    for step in range(1, ROUNDS + 1):
        mark.step(step, Stand.COMPUTE)
    other.join(60)
    # The first word after the magic is the sequence: two for each write, the one of the start among them.
    assert int.from_bytes(path.read_bytes()[8:16], "little") == 2 * (2 * ROUNDS + 1)
    assert (read(path).state, read(path).step) == (RankState.READY, ROUNDS)


def test_each_entry_has_its_deadline_and_arms_the_timer_anew(path: Path) -> None:
    armed: list[float] = []
    mark = Mark(path, {RankState.STARTING: 60.0, RankState.LOADING: 120.0}, armed.append)
    said = read(path)
    assert said.deadline_s == pytest.approx(said.entered_s + 60)
    for change, allowed_s in (
        (lambda: mark.prepared(), 0.0),
        (lambda: mark.enter(RankState.LOADING), 120.0),
        (lambda: mark.enter(RankState.READY), 0.0),
        (lambda: mark.step(1, Stand.COMPUTE, 11.5), 11.5),
        (lambda: mark.step(1, Stand.IDLE), 0.0),
    ):
        change()
        said = read(path)
        assert said.deadline_s == (pytest.approx(said.entered_s + allowed_s) if allowed_s else 0.0)
    assert armed == [60.0, 0.0, 120.0, 0.0, 11.5, 0.0]
    mark.close()
