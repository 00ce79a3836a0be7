"""`thunderline cluster adopt`: what it shows, what it asks, and what it does."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from scheduler.little_runner import READY
from scheduler.little_scheduler import NODE, house
from thunderline.cli.app import app
from thunderline.cluster import InstanceId, NodeId
from thunderline.process.home import node_id
from thunderline.scheduler.store import Store
from thunderline.scheduler.values import Spec, Wish

HERE = NodeId("11111111-1111-1111-1111-111111111111")


def adopt(home: Path, *flags: str, port: int = 9) -> Any:
    """Port 9: nobody answers."""
    (home / "config.toml").write_text(f"[scheduler]\nport = {port}\n")
    return CliRunner().invoke(app, ["cluster", "adopt", "--home", str(home), *flags])


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A home with another node's store."""
    store = Store(tmp_path, HERE)
    store.put(Wish(Spec("m", "org/m"), InstanceId("i1"), 1.0))
    store.close()
    return tmp_path


def owner(home: Path) -> NodeId:
    store = Store(home, HERE, may_be_copied=True)
    store.close()
    return store.owner


def test_a_copied_store_is_shown_and_nothing_is_changed_without_a_yes(copied: Path) -> None:
    found = adopt(copied)
    assert found.exit_code == 1
    assert f"of node {HERE}, deployments: m" in found.output
    assert str(node_id(copied)) in found.output
    assert "nothing was changed: run it once more with --yes" in found.output
    assert owner(copied) == HERE


def test_json_only_shows_unless_yes_is_said(copied: Path) -> None:
    shown = json.loads(adopt(copied, "--json").stdout)
    assert (shown["node_id"], [one["name"] for one in shown["deployments"]]) == (HERE, ["m"])
    assert owner(copied) == HERE
    done = json.loads(adopt(copied, "--json", "--yes").stdout)
    assert done["node_id"] == node_id(copied) == owner(copied)
    assert done["store_id"] != shown["store_id"]


def test_with_yes_it_is_this_nodes(copied: Path) -> None:
    found = adopt(copied, "--yes")
    assert found.exit_code == 0, found.output
    assert "is this node's now" in found.output
    assert owner(copied) == node_id(copied)
    again = adopt(copied, "--yes")
    assert again.exit_code == 1
    assert "start `thunderline up` there first" in again.output


def test_a_store_that_a_scheduler_holds_is_left_alone(copied: Path) -> None:
    store = Store(copied, HERE)
    found = adopt(copied, "--yes")
    store.close()
    assert found.exit_code == 1
    assert "another scheduler holds" in found.output
    assert owner(copied) == HERE


def test_without_a_store_it_says_what_to_do(tmp_path: Path) -> None:
    found = adopt(tmp_path, "--yes")
    assert found.exit_code == 1
    assert "holds no scheduler's store: start `thunderline up` there first" in found.output
    assert not (tmp_path / "scheduler.db").exists()


async def test_a_lost_store_is_shown_asked_for_and_rebuilt(tmp_path: Path) -> None:
    at = tmp_path / "cli"
    at.mkdir()
    async with house(tmp_path) as home:
        async with home.scheduler() as life:
            await life.deploy()
            await life.until_state("READY")
            former = life.control.store_id
        for path in tmp_path.glob("scheduler.db*"):
            path.unlink()
        async with home.scheduler() as life:
            port = int(life.address.rpartition(":")[2])

            async def command(*flags: str) -> Any:
                return await asyncio.to_thread(lambda: adopt(at, *flags, port=port))

            shown = await command()
            assert shown.exit_code == 1
            assert f"the runner of node {NODE} obeys another store: {former}" in shown.output
            assert "it goes on, nothing is loaded again" in shown.output
            assert "run it once more with --yes" in shown.output
            seen = json.loads((await command("--json")).stdout)
            assert [held["fate"] for held in seen["runners"][0]["held"]] == ["FATE_REBUILT"]
            assert life.control.named("m") is None
            done = await command("--yes")
            assert done.exit_code == 0, done.output
            assert f"obeys store {life.control.store_id} now" in done.output
            await life.until_state("READY")
            assert home.runner.states() == {1: READY}
            again = await command("--yes")
            assert (again.exit_code, "nothing to adopt" in again.output) == (0, True)
