"""Two nodes on one machine, as a user starts them: one schedules, the other has four roles and finds it."""

import json
import uuid
from pathlib import Path

import pytest

from installation import DEMO, Installation, end, free_base_port, until

READY_S = 120.0
SOON_S = 20.0
# It tries whether the architecture can be divided.
PLAN_S = 180.0


def node(home: Path, **environment: str) -> Installation:
    """With an id of its own, before its first start."""
    home.mkdir()
    (home / "node.json").write_text(json.dumps({"node_id": str(uuid.uuid4())}))
    # Its ports are looked for beside those that are not taken yet.
    base_port = free_base_port() + (1000 if environment else 0)
    return Installation(home, base_port=base_port, environment=environment)


def node_id(installation: Installation) -> str:
    return str(json.loads((installation.home / "node.json").read_text())["node_id"])


def two_nodes(folder: Path, **environment: str) -> tuple[Installation, Installation]:
    """The scheduler node, and a member that knows its discovery, with this environment."""
    first = node(folder / "first")
    seeds = {"THUNDERLINE_DISCOVERY_SEEDS": first.target("discovery")}
    return first, node(folder / "second", THUNDERLINE_CLUSTER_SCHEDULER=node_id(first), **seeds, **environment)


def test_a_member_waits_for_its_scheduler_node_and_then_serves_through_it(tmp_path: Path, shallow_folder: Path) -> None:
    # With less memory than the first has, so that the model is not placed there.
    has = {"THUNDERLINE_RUNNER_MEMORY_BYTES": str(4 * 2**30)}
    first, second = two_nodes(tmp_path, THUNDERLINE_RUNNER_MODEL_ROOTS=str(shallow_folder.parent), **has)
    try:
        second.start()

        def waits_for_first() -> bool:
            # Until its own discovery answers, for that.
            return any(line.startswith("waiting for the scheduler") and node_id(first) in line for line in second.lines)

        until("it says for whom it waits", waits_for_first, SOON_S)
        # Four roles, and `up`.
        assert sorted(second.processes().values()) == ["discovery", "gateway", "runner", "topology", "up"]
        found = second.run("status", timeout_s=SOON_S)
        assert found.returncode == 1
        assert node_id(first) in found.stderr
        assert "thunderline doctor" in found.stderr

        first.start("--model", str(shallow_folder))
        first.wait_ready(READY_S)
        second.wait_ready(READY_S)
        assert second.answers(), "through the member's own gateway"
        assert [one["spec"]["name"] for one in second.deployments()] == [DEMO]
        roster = json.loads(second.run("status", "--json", timeout_s=SOON_S).stdout)["roster"]
        assert {one["card"]["node_id"] for one in roster["members"]} == {node_id(first), node_id(second)}
        said = second.run("chat", "Say hi.", "--max-tokens", "3", timeout_s=SOON_S)
        assert (said.returncode, bool(said.stdout.strip())) == (0, True), said.stderr

        # Of both, over the link between them, from the node that does not schedule; its name is the other's too.
        planned = second.run("plan", str(shallow_folder), "--min-nodes", "2", "--json", timeout_s=PLAN_S)
        ranks = json.loads(planned.stdout)["placement"]["ranks"]
        assert {rank["node_id"] for rank in ranks} == {node_id(first), node_id(second)}, planned.stderr
        assert {rank["dials"][0]["link"]["medium"] for rank in ranks} == {"MEDIUM_LOOPBACK"}
        refused = second.run("plan", str(shallow_folder), "--nodes", ranks[0]["hostname"], timeout_s=PLAN_S)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert all(node_id(one) in refused.stderr for one in (first, second))

        assert second.interrupt() < 5
        assert first.answers(), "the other node goes on"
        assert first.interrupt() < 5
    finally:
        end(second)
        end(first)


@pytest.mark.parametrize("command", ["status", "deployments", "events", "plan m"])
def test_without_up_a_member_says_what_to_do(tmp_path: Path, command: str) -> None:
    _, second = two_nodes(tmp_path)
    found = second.run(*command.split(), timeout_s=SOON_S)
    assert found.returncode == 1
    assert found.stderr.count("\n") == 1
    assert "is `thunderline up` running" in found.stderr
