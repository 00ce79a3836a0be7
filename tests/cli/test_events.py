"""What `thunderline events` shows of what happened, and how it goes on when the scheduler is started again."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scheduler.little_scheduler import NODE, house
from thunderline.cli.app import app
from thunderline.cli.events import KIND_WIDTH, follow, json_line, kept, line, local_time, row
from thunderline.cluster.errors import ClusterError, Draining, NotOffered, Unreachable
from thunderline.scheduler.events import Kind
from thunderline.v1 import scheduler_pb2

NOW = datetime(2026, 11, 21, 14, 0, 0, tzinfo=timezone(timedelta(hours=1)))


def event(
    number: int, subject: str = "tiny", count: int = 8, done: str = "the next epoch starts in 0.5 s"
) -> scheduler_pb2.Event:
    found = scheduler_pb2.Event(
        number=number, kind="EPOCH_ENDED", subject=subject, text="epoch 3 ended", request_count=count, done=done
    )
    found.time.FromDatetime(datetime(2026, 11, 21, 12, 2, 11, tzinfo=UTC))
    return found


def test_a_line_is_what_one_wants_to_read_after_a_crash() -> None:
    told = line(event(1), NOW)
    assert " ".join(told.split()) == (
        "13:02:11 EPOCH_ENDED tiny epoch 3 ended 8 requests the next epoch starts in 0.5 s"
    )
    assert told.endswith("tiny  epoch 3 ended  8 requests  the next epoch starts in 0.5 s")


LINES = {
    "one request": (event(1, count=1), "tiny  epoch 3 ended  1 request  the next epoch starts in 0.5 s"),
    "no request": (event(1, count=0), "tiny  epoch 3 ended  the next epoch starts in 0.5 s"),
    "nothing done": (event(1, count=0, done=""), "tiny  epoch 3 ended"),
}


@pytest.mark.parametrize(("told", "end"), LINES.values(), ids=LINES.keys())
def test_what_is_not_there_leaves_no_gap(told: scheduler_pb2.Event, end: str) -> None:
    assert line(told, NOW).endswith(f" {end}")


def test_another_day_is_said() -> None:
    assert local_time(event(1), NOW + timedelta(days=1)) == "2026-11-21 13:02:11"


def test_a_row_of_the_table() -> None:
    shown = ("13:02:11", "EPOCH_ENDED", "tiny", "epoch 3 ended", "8", "the next epoch starts in 0.5 s")
    assert row(event(1), NOW) == shown
    assert row(event(1, count=0), NOW)[4] == ""


def test_json_is_one_line_with_every_field() -> None:
    text = json_line(event(7, count=0))
    assert "\n" not in text
    assert json.loads(text) == {
        "number": "7",
        "time": "2026-11-21T12:02:11Z",
        "kind": "EPOCH_ENDED",
        "subject": "tiny",
        "text": "epoch 3 ended",
        "request_count": 0,
        "done": "the next epoch starts in 0.5 s",
    }


def test_every_kind_has_room_in_a_line() -> None:
    assert max(map(len, Kind)) == KIND_WIDTH


class LittleScheduler:
    """Tells one list of events after the other; an error ends a watch, as does the end of the list."""

    def __init__(self, kept: list[scheduler_pb2.Event], *watches: list[scheduler_pb2.Event | ClusterError]) -> None:
        self._kept = kept
        self._watches = list(watches)
        self.asked: list[int] = []

    async def watch_events(self, after: int = 0, kept_only: bool = False) -> AsyncIterator[scheduler_pb2.Event]:
        if kept_only:
            for one in self._kept:
                yield one
            return
        self.asked.append(after)
        for told in self._watches.pop(0):
            if isinstance(told, ClusterError):
                raise told
            yield told


async def test_the_newest_of_one_subject() -> None:
    scheduler = LittleScheduler([event(1), event(2), event(3, "other"), event(4)])
    found = await kept(scheduler, 2, "tiny")  # type: ignore[arg-type]
    assert [one.number for one in found] == [2, 4]
    found = await kept(scheduler, 2, None)  # type: ignore[arg-type]
    assert [one.number for one in found] == [3, 4]


async def test_following_goes_on_from_the_last_number() -> None:
    scheduler = LittleScheduler(
        [event(1), event(2), event(3, "other")],
        [event(4), Draining("stopping")],
        [Unreachable("gone")],
        [event(5, "other"), event(6)],
        [NotOffered("enough")],
    )
    shown: list[int] = []
    said: list[str] = []
    with pytest.raises(NotOffered):
        await follow(scheduler, 1, "tiny", lambda one: shown.append(one.number), said.append)  # type: ignore[arg-type]
    assert shown == [2, 4, 6]
    assert scheduler.asked == [3, 4, 4, 6]
    assert said == ["the scheduler is not there; waiting for it"]


async def test_the_command_shows_what_a_real_scheduler_has_told(tmp_path: Path) -> None:
    async with house(tmp_path) as home, home.scheduler() as life:
        home_folder = tmp_path / "home"
        home_folder.mkdir()
        port = life.address.rpartition(":")[2]
        (home_folder / "config.toml").write_text(f"[scheduler]\nport = {port}\n")

        async def command(*arguments: str) -> tuple[int, str]:
            words = ["events", "--home", str(home_folder), *arguments]
            found = await asyncio.to_thread(CliRunner().invoke, app, words)
            return found.exit_code, found.output

        code, shown = await command()
        assert (code, shown.strip()) == (0, "nothing has happened yet")
        await life.deploy()
        await life.until_state("READY")
        async for told in life.client.watch_events():
            if told.kind == "DEPLOYMENT_READY":
                break
        code, shown = await command()
        assert code == 0
        assert shown.index("DEPLOYED") < shown.index("EPOCH_STARTED") < shown.index("DEPLOYMENT_READY")
        assert f"on node {NODE}" in shown
        code, shown = await command("--json", "--count", "2", "m")
        assert [json.loads(one)["kind"] for one in shown.splitlines()] == ["EPOCH_STARTED", "DEPLOYMENT_READY"]
        code, shown = await command("nobody")
        assert (code, shown.strip()) == (
            0,
            "nothing is known of nobody; `thunderline deployments` lists what there is",
        )


def test_without_a_scheduler_it_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[scheduler]\nport = 9\n")
    found = CliRunner().invoke(app, ["events", "--home", str(tmp_path)])
    assert found.exit_code == 1
    assert "is `thunderline up` running" in found.output
