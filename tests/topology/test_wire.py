"""Reports cross the wire as they are; one that breaks a bound is refused by name."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from thunderline.cluster import NodeId
from thunderline.cluster.errors import InvalidRequest
from thunderline.cluster.graph import START_MAX, CableEnd, Outcome, Tried, Version, cable
from thunderline.cluster.links import LinkState
from thunderline.cluster.machine_facts import RdmaPortState, SeenMac, ThunderboltPort
from thunderline.cluster.media import Medium
from thunderline.cluster.paths import Path
from thunderline.rpc.graph import tried_to_proto
from thunderline.rpc.machine_facts import COUNTS_MAX, port_to_proto
from thunderline.topology import wire
from thunderline.topology.reports import Heard, Report
from thunderline.v1 import topology_pb2
from topology.scenes import ADDRESSES, A, B, end, straight

TB = Medium.THUNDERBOLT
CABLE, OWN = ADDRESSES[TB]
# Each of its texts may be as long.
BIG_PORT = port_to_proto(ThunderboltPort(devices=("d" * 256,) * 16))
TRIED = Tried(A, B, CABLE, Outcome.ANSWERED, 0, 0, LinkState.DEGRADED, 6000, OWN, straight(TB), True, True)
REPORT = Report(
    A,
    Version(3, 17),
    (TRIED, Tried(A, B, "10.0.0.2", Outcome.REFUSED, 111, 2), Tried(A, B, "fd00::2")),
    (Heard(B, A, OWN, CABLE, end(TB), None, LinkState.UP, 40, True),),
    (cable(CableEnd(A, "en5", "uuid", "2"), CableEnd(B, "en4")),),
    True,
    (B,),
    (
        ThunderboltPort(
            "thunderboltusb4_bus_2",
            "uuid",
            "2",
            "en5",
            "rdma_en5",
            RdmaPortState.ACTIVE,
            is_connected=True,
            speed_gbps=80,
            macs=(SeenMac("uuid-b", "MacBook Pro", "Mac16,5", ("Hub",)),),
            devices=("Hub",),
        ),
        ThunderboltPort(uuid="other", is_connected=False, speed_max_gbps=120),
        ThunderboltPort(),
    ),
)


def test_a_report_comes_as_it_was() -> None:
    data = wire.report_to_proto(REPORT).SerializeToString()
    assert wire.report_from_proto(topology_pb2.NodeReport.FromString(data)) == REPORT


@pytest.mark.parametrize("outcome", Outcome, ids=lambda one: one.name)
@pytest.mark.parametrize("state", [None, *LinkState], ids=str)
def test_every_outcome_and_state_of_a_try_comes_as_it_was(outcome: Outcome, state: LinkState | None) -> None:
    report = replace(REPORT, tried=(replace(TRIED, outcome=outcome, state=state, path=Path(arrives=end(TB))),))
    assert wire.report_from_proto(wire.report_to_proto(report)) == report


def test_outcomes_have_the_names_of_the_contract() -> None:
    told = {one: tried_to_proto(replace(TRIED, outcome=one)).outcome for one in Outcome}
    names = {one: topology_pb2.ProbeOutcome.Name(number) for one, number in told.items()}
    assert names == {one: f"PROBE_OUTCOME_{one.name}" for one in Outcome}


Breaks = Callable[[topology_pb2.NodeReport], object]
LONG = "x" * 65
# Of what a port tells more is taken.
VERY_LONG = "x" * 257
BROKEN: dict[str, Breaks] = {
    "a long id": lambda told: setattr(told, "node_id", LONG),
    "a long address": lambda told: setattr(told.attempts[0], "address", LONG),
    "a long interface": lambda told: setattr(told.attempts[0].path.leaves, "interface", LONG),
    "a long receptacle": lambda told: setattr(told.cables[0].one, "receptacle", VERY_LONG),
    "a negative version": lambda told: setattr(told.version, "number", -1),
    "a version that cannot grow": lambda told: setattr(told.version, "start", 2**63 - 1),
    "a start that leaves no room": lambda told: setattr(told.version, "start", START_MAX + 1),
    "an id that cannot be printed": lambda told: setattr(told, "node_id", "a\x1b[2J"),
    "an interface of two lines": lambda told: setattr(told.attempts[0].path.leaves, "interface", "en5\n"),
    "a negative RTT": lambda told: setattr(told.attempts[0], "rtt_us", -1),
    "an RTT of years": lambda told: setattr(told.heard[0], "rtt_us", 2**62),
    "no outcome": lambda told: setattr(told.attempts[0], "outcome", 0),
    "an outcome of a later version": lambda told: setattr(told.attempts[0], "outcome", 99),
    "a state of a later version": lambda told: setattr(told.attempts[0], "state", 99),
    "no state of what was heard": lambda told: setattr(told.heard[0], "state", 0),
    "no medium": lambda told: setattr(told.heard[0].arrives, "medium", 0),
    "a medium of a later version": lambda told: setattr(told.attempts[0].path.arrives, "medium", 99),
    "too many tries": lambda told: told.attempts.extend([told.attempts[0]] * wire.PART_COUNT_MAX),
    "too many probes": lambda told: told.heard.extend([told.heard[0]] * wire.PART_COUNT_MAX),
    "too many cables": lambda told: told.cables.extend([told.cables[0]] * wire.CABLE_COUNT_MAX),
    "too many ports": lambda told: told.ports.extend([told.ports[0]] * COUNTS_MAX["ports"]),
    "ports of too many bytes": lambda told: told.ports.extend([BIG_PORT] * 8),
    "a port whose name cannot be printed": lambda told: setattr(told.ports[0], "bus", "a\x1b[2J"),
    "too many streams": lambda told: told.tells_node_ids.extend(["a"] * wire.PEER_COUNT_MAX),
}


@pytest.mark.parametrize("break_", BROKEN.values(), ids=BROKEN.keys())
def test_a_report_that_breaks_a_bound_is_refused(break_: Breaks) -> None:
    told = wire.report_to_proto(REPORT)
    break_(told)
    with pytest.raises(InvalidRequest):
        wire.report_from_proto(told)


def test_a_cable_of_the_longest_texts_that_a_port_may_tell_is_taken() -> None:
    """Otherwise an odd port of one node would have the reports of its neighbours refused."""
    told = wire.report_to_proto(REPORT)
    long = VERY_LONG[1:]
    told.ports[0].uuid = told.ports[0].interface = long
    told.cables[0].one.port_uuid = told.cables[0].one.interface = long
    found = wire.report_from_proto(told)
    assert found.ports[0].uuid == found.cables[0].one.port_uuid == long


def test_an_empty_report_is_one() -> None:
    assert wire.report_from_proto(topology_pb2.NodeReport()) == Report(NodeId(""), Version(0, 0))
