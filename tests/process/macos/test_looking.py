"""Where a command is, when its folder answers and when it hangs."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from discovery.little_discovery import until
from process.macos.little_mac import LittleMac
from thunderline.process.macos.looking import program

# Who answers has more time than the busiest machine needs; who does not is given up soon.
ANSWERS_S, SOON_S = 60.0, 0.05


class LittleDisk:
    """Answers when `may_answer` is set."""

    def __init__(self) -> None:
        self.count = 0
        self.may_answer = threading.Event()

    def __call__(self, name: str, path: str | None) -> str | None:
        self.count += 1
        self.may_answer.wait(ANSWERS_S)
        return f"{path}/{name}"


@pytest.fixture
def disk() -> Iterator[LittleDisk]:
    found = LittleDisk()
    yield found
    found.may_answer.set()


async def test_a_command_is_found_where_it_is_and_when_it_is_there(tmp_path: Path) -> None:
    mac = LittleMac(tmp_path)
    assert await program("little", str(tmp_path), ANSWERS_S) is None
    mac.does("little", "")
    assert await program("little", str(tmp_path), ANSWERS_S) == str(tmp_path / "little")


async def test_of_those_that_look_for_one_command_on_a_disk_that_hangs_one_is_left_behind(disk: LittleDisk) -> None:
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await program("one", "/hung", SOON_S, disk)
    assert disk.count == 1
    with pytest.raises(TimeoutError):
        await program("other", "/hung", SOON_S, disk)
    assert disk.count == 2


async def test_who_still_waits_is_told_when_the_disk_answers(disk: LittleDisk) -> None:
    waiting = [asyncio.create_task(program("late", "/hung", ANSWERS_S, disk)) for _ in range(3)]
    threads = [asyncio.create_task(asyncio.to_thread(in_a_thread, disk)) for _ in range(3)]
    with pytest.raises(TimeoutError):
        await program("late", "/hung", SOON_S, disk)
    disk.may_answer.set()
    assert await asyncio.gather(*waiting, *threads) == ["/hung/late"] * 6


async def test_a_disk_that_answers_when_nobody_waits_any_more_disturbs_nobody(disk: LittleDisk) -> None:
    with pytest.raises(TimeoutError):
        await program("lost", "/hung", SOON_S, disk)
    disk.may_answer.set()
    names = {"which lost"}
    await until("it has answered", lambda: names.isdisjoint(one.name for one in threading.enumerate()))
    assert await program("lost", "/hung", ANSWERS_S, disk) == "/hung/lost"
    assert disk.count == 2


def in_a_thread(disk: LittleDisk) -> str | None:
    """A loop of its own."""
    return asyncio.run(program("late", "/hung", ANSWERS_S, disk))
