"""What `thunderline links` shows, of a topology as it is told, and of a real one."""

import asyncio
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from typer import Exit

from scheduler.little_scheduler import free_address
from thunderline.cli import links
from thunderline.cluster.errors import Unreachable
from thunderline.rpc.server import serving
from thunderline.v1 import cluster_pb2, scheduler_pb2, scheduler_pb2_grpc, topology_pb2
from topology.little_network import FAST, HERE, Node, nodes, pairs, together

A, B, C = "aaaaaaaa-1111", "bbbbbbbb-2222", "cccccccc-3333"
NAMES = {A: "studio", B: "mini", C: "air"}
NOW = datetime(2026, 11, 22, 12, 0, 10, tzinfo=UTC)
CABLE = topology_pb2.Link(
    from_node_id=A,
    to_node_id=B,
    local_interface="en5",
    peer_interface="en4",
    peer_address="192.168.4.2",
    medium=cluster_pb2.MEDIUM_THUNDERBOLT,
    counts_as=cluster_pb2.MEDIUM_THUNDERBOLT,
    state=topology_pb2.LINK_STATE_UP,
    rtt_us=52,
    chosen=True,
    why="chosen: nothing else answers",
)


def test_a_row_is_a_link() -> None:
    assert dict(zip(links.COLUMNS, links.link_row(CABLE, NAMES), strict=True)) == {
        "from": "studio",
        "to": "mini",
        "medium": "THUNDERBOLT",
        "interface": "en5 to en4",
        "cable": "",
        "address": "192.168.4.2",
        "RTT": "0.052 ms",
        "health": "UP",
        "chosen": "yes",
        "why": "chosen: nothing else answers",
    }


def test_a_slow_cable_says_as_what_it_counts_and_an_unknown_interface_is_a_question() -> None:
    slow = topology_pb2.Link(
        from_node_id=A,
        to_node_id=B,
        medium=cluster_pb2.MEDIUM_THUNDERBOLT,
        counts_as=cluster_pb2.MEDIUM_WIFI,
        rtt_us=40_200,
        state=topology_pb2.LINK_STATE_DEGRADED,
    )
    row = links.link_row(slow, NAMES)
    assert (row[2], row[3], row[6:9]) == ("THUNDERBOLT (as WIFI)", "? to ?", ("40.2 ms", "DEGRADED", ""))


def test_the_column_of_cables_is_there_when_a_link_has_one() -> None:
    cable = topology_pb2.LinkCable(local_receptacle="3", peer_receptacle="2", speed_gbps=80)
    of_macs = topology_pb2.Link(from_node_id=A, to_node_id=B, cable=cable)
    rows = [links.link_row(one, NAMES) for one in (CABLE, of_macs)]
    columns, shown = links.without_empty("cable", links.COLUMNS, rows)
    assert columns == links.COLUMNS and [row[columns.index("cable")] for row in shown] == ["", "3→2, 80 Gb/s direct"]
    columns, shown = links.without_empty("cable", links.COLUMNS, rows[:1])
    assert "cable" not in columns and dict(zip(columns, shown[0], strict=True))["address"] == "192.168.4.2"


def test_a_row_of_all_is_an_address_with_its_last_try() -> None:
    failed = topology_pb2.AddressAttempt(
        from_node_id=A, to_node_id=B, address="10.0.0.2", outcome=topology_pb2.PROBE_OUTCOME_TIMED_OUT, errno=110
    )
    failed.tried_at.FromDatetime(datetime(2026, 11, 22, 12, 0, 8, 500_000))
    row = dict(zip(links.ALL_COLUMNS, links.attempt_row(failed, NAMES, NOW), strict=True))
    assert (row["last try"], row["result"], row["errno"], row["health"]) == ("1.5 s ago", "TIMED_OUT", "ETIMEDOUT", "")
    other = topology_pb2.AddressAttempt(from_node_id=B, to_node_id=A, outcome=topology_pb2.PROBE_OUTCOME_UNTRIED)
    assert links.attempt_row(other, NAMES, NOW)[3:6] == ("", "UNTRIED", "")


# Hostnames by id, nodes that are shown -> how they are called.
CALLED: dict[str, tuple[dict[str, str], set[str], dict[str, str]]] = {
    "by name": ({A: "studio", B: "mini"}, {A, B}, {A: "studio", B: "mini"}),
    "two of one name": ({A: "mac", B: "mac"}, {A}, {A: "mac aaaaaaaa", B: "mac bbbbbbbb"}),
    "one that discovery does not know": ({A: "studio"}, {B}, {A: "studio", B: "bbbbbbbb"}),
}


@pytest.mark.parametrize(("hostnames", "shown", "expected"), CALLED.values(), ids=CALLED.keys())
def test_how_nodes_are_called(hostnames: dict[str, str], shown: set[str], expected: dict[str, str]) -> None:
    assert links.called(hostnames, shown) == expected


@pytest.mark.parametrize("name", ["mini", B, "bbbb"], ids=["its name", "its id", "the begin of its id"])
def test_only_links_of_one_node(name: str) -> None:
    other = topology_pb2.Link(from_node_id=A, to_node_id=C)
    ends = [topology_pb2.RailEnd(node_id=one) for one in (A, B, C)]
    rails = [topology_pb2.Rail(one=ends[0], other=end) for end in ends[1:]]
    topology = topology_pb2.Topology(node_id=A, links=[CABLE, other], rails=rails)
    assert list(links.only(topology, name, NAMES).links) == [CABLE]
    assert list(links.only(topology, name, NAMES).rails) == rails[:1]
    assert len(links.only(topology, "", NAMES).links) == 2


@pytest.mark.parametrize("name", ["nobody", "e"])
def test_a_name_of_nobody_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Exit):
        links.only(topology_pb2.Topology(node_id=A), name, NAMES)
    assert f"no node is called '{name}'" in capsys.readouterr().err


def test_what_stands_below_the_table() -> None:
    lost = topology_pb2.Cable(lost=True, sentence="CABLE_LOST: plug it in")
    kept = topology_pb2.Cable(sentence="there")
    topology = topology_pb2.Topology(node_id=A, cables=[lost, kept], incomplete_node_ids=[A, B])
    assert links.lines(topology, NAMES) == [
        "CABLE_LOST: plug it in",
        "not every probe has been answered or has failed yet: more may come",
        "not heard of all their links yet: mini",
    ]
    assert links.lines(topology_pb2.Topology(complete=True), NAMES) == []


RESULT = topology_pb2.MeasureLinkResponse(
    rtt_us=52, rtt_min_us=40, rtt_avg_us=55, rtt_max_us=1200, rtt_stddev_us=9, bandwidth_bits_per_s=38_500_000_000
)


def test_a_measured_link_is_a_row_and_one_that_could_not_be_says_why() -> None:
    row = dict(zip(links.MEASURED_COLUMNS, links.measured_row(links.Measured(CABLE, RESULT), NAMES), strict=True))
    assert (row["min"], row["avg"], row["max"], row["stddev"]) == ("0.040 ms", "0.055 ms", "1.20 ms", "0.009 ms")
    assert (row["lost"], row["bandwidth"], row["why not"]) == ("0", "38.50 Gb/s", "")
    away = links.Measured(CABLE, None, Unreachable("it is away"))
    failed = links.measured_row(away, NAMES)
    assert (len(failed), failed[-1]) == (len(links.MEASURED_COLUMNS), "it is away")
    found = links.measured_json([links.Measured(CABLE, RESULT), away])["measured"]
    assert found[0]["measurement"]["bandwidth_bits_per_s"] == "38500000000"
    assert found[1]["error"] == {"reason": "UNREACHABLE", "message": "it is away"}


class Deployments(scheduler_pb2_grpc.SchedulerServiceServicer):
    """A scheduler that has only a list of them."""

    def __init__(self) -> None:
        self.found: list[cluster_pb2.Deployment] = []
        # After it was asked once more.
        self.next: list[cluster_pb2.Deployment] | None = None

    async def ListDeployments(self, request: Any, context: Any) -> scheduler_pb2.ListDeploymentsResponse:
        answer = scheduler_pb2.ListDeploymentsResponse(deployments=self.found)
        self.found, self.next = self.found if self.next is None else self.next, None
        return answer

    def register(self, server: grpc.aio.Server) -> None:
        scheduler_pb2_grpc.add_SchedulerServiceServicer_to_server(self, server)


def ready(*ids: str) -> cluster_pb2.Deployment:
    placement = cluster_pb2.Placement(ranks=[cluster_pb2.RankAssignment(node_id=one) for one in ids])
    rank = cluster_pb2.RankReport(state=cluster_pb2.RANK_STATE_READY, placement=placement)
    return cluster_pb2.Deployment(ranks=[rank])


async def run(node: Node, *words: str, **environment: str) -> tuple[int, str, str]:
    """A process of its own: gRPC has one event loop in each."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("THUNDERLINE_")}
    environ |= {"THUNDERLINE_TOPOLOGY_PORT": str(node.topology), "THUNDERLINE_DISCOVERY_PORT": str(node.discovery)}
    environ |= environment
    environ |= {f"THUNDERLINE_LIMITS_{name.upper()}": text for name, text in FAST.items()}
    program = Path(sys.executable).parent / "thunderline"
    process = await asyncio.create_subprocess_exec(
        str(program),
        "links",
        "--home",
        str(node.home),
        *words,
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_a_real_topology_is_shown_measured_and_told_to_programs(tmp_path: Path) -> None:
    one, other = nodes(tmp_path, 2)
    async with together(one, other) as lives:
        for life in lives:
            life.role.measuring.send_s = 0.2
            await life.until("both directions", lambda told: told.complete and len(pairs(told)) == 2)
        code, out, err = await run(one)
        assert (code, out.count(HERE), out.count("yes")) == (0, 2, 2), (out, err)
        code, out, err = await run(one, "--all")
        assert (code, out.count("ANSWERED")) == (0, 2), (out, err)
        code, out, err = await run(one, "--json")
        assert (code, len(json.loads(out)["links"])) == (0, 2), err
        code, out, err = await run(one, "nobody")
        assert (code, out) == (1, "")


async def test_bandwidth_is_never_measured_where_an_instance_serves_or_may_serve(tmp_path: Path) -> None:
    one, other = nodes(tmp_path, 2)
    scheduler, address = Deployments(), free_address()  # type: ignore[abstract]
    port = address.rpartition(":")[2]
    async with together(one, other) as lives:
        for life in lives:
            life.role.measuring.send_s = 0.2
            await life.until("both directions", lambda told: told.complete and len(pairs(told)) == 2)
        code, out, err = await run(one, "--measure", "--json", THUNDERLINE_SCHEDULER_PORT=port)
        rows = json.loads(out)["measured"]
        errors = [row["error"] for row in rows]
        # Probes disturb nobody.
        assert all(int(row["measurement"]["rtt_us"]) > 0 for row in rows)
        assert (code, {error["reason"] for error in errors}) == (1, {"LINK_IN_USE"}), err
        assert "an instance may serve over the link" in errors[0]["message"]
        async with serving(address, [], scheduler.register):
            code, out, err = await run(one, "--measure", "--json", THUNDERLINE_SCHEDULER_PORT=port)
            found = json.loads(out)["measured"]
            assert [int(row["measurement"]["bandwidth_bits_per_s"]) > 10**8 for row in found] == [True, True], err
            assert "1 of 2" in err
            scheduler.found = [ready(one.node, other.node)]
            code, out, err = await run(one, "--measure", "--json", THUNDERLINE_SCHEDULER_PORT=port)
            assert [row["error"]["reason"] for row in json.loads(out)["measured"]] == ["LINK_IN_USE"] * 2, err
            # It is asked anew for each link: the second one is in use while the first is measured.
            scheduler.found, scheduler.next = [], [ready(one.node, other.node)]
            code, out, err = await run(one, "--measure", "--json", THUNDERLINE_SCHEDULER_PORT=port)
            assert ["error" in row for row in json.loads(out)["measured"]] == [False, True], err


async def test_no_topology_is_one_line(tmp_path: Path) -> None:
    (one,) = nodes(tmp_path, 1)
    code, out, err = await run(one)
    assert (code, out) == (1, "")
    assert f"nothing answers at {HERE}:{one.topology}" in err
