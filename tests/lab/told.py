"""What a topology and a doctor say, in the words of a situation's expected.json. Pure."""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from lab.seen import UP, Link, Topology
from thunderline.cluster.rails import Cause, RailEnd, obstacles
from thunderline.rpc.rails import from_proto
from thunderline.v1 import cluster_pb2, topology_pb2

# By node_id.
Names = Mapping[str, str]
Row = dict[str, Any]
# Of doctor --json.
Found = Mapping[str, str]

# A finding that has one of these speaks of what macOS's commands tell.
MAC_WORDS = (
    *("system_profiler", "networksetup", "ifconfig", "rdma", "ibv_", "sw_vers", "sysctl", "pmset", "fdesetup"),
    *("thunderbolt", "receptacle", "recovery", "bridge", "cable_lost", "filevault", "wired", "jaccl"),
)


def told(topology: Topology, names: Names) -> Row:
    """Sorted; what is not so, or is not known, is left out."""
    return in_order(
        {
            "rails": [_rail(one, names) for one in topology.rails],
            "cables": [_cable(one, names) for one in topology.cables],
            "lost": [_cable(one, names) for one in topology.cables if one.lost],
            "links": [_link(one, topology, names) for one in topology.links],
        }
    )


def in_order(rows: Mapping[str, Any]) -> Row:
    """The same of a step of expected.json, however its rows are written."""
    key = partial(json.dumps, sort_keys=True)
    return {what: sorted(rows[what], key=key) for what in ("rails", "cables", "lost", "links")}


def _rail(one: topology_pb2.Rail, names: Names) -> Row:
    ends = [
        f"{names[end.node_id]} {end.device or 'no device'} at {end.receptacle or '?'}: {_state(end.state)}"
        for end in (one.one, one.other)
    ]
    behind = list(one.behind)
    if ends != sorted(ends):
        ends, behind = ends[::-1], behind[::-1]
    row = {
        "ends": ends,
        "speed_gbps": one.speed_gbps,
        "behind": behind,
        "one_sided": one.one_sided,
        "hub_unknown": one.hub_unknown,
        "why_not": sorted(_why_not(*obstacle, names) for obstacle in obstacles(from_proto(one))),
    }
    return _without_nothing(row)


def _why_not(cause: Cause, end: RailEnd, names: Names) -> str:
    what = " ".join(filter(None, [cause.name, end.bridge if cause is Cause.BRIDGED else ""]))
    return f"{names[end.node]}: {what}"


def _state(state: "cluster_pb2.RdmaPortState.ValueType") -> str:
    return cluster_pb2.RdmaPortState.Name(state).rpartition("_")[2].replace("UNSPECIFIED", "UNKNOWN")


def _cable(one: topology_pb2.Cable, names: Names) -> str:
    ends = [f"{names[end.node_id]} {end.interface} at {end.receptacle or '?'}" for end in (one.one, one.other)]
    return " - ".join(sorted(ends))


def _link(one: Link, topology: Topology, names: Names) -> Row:
    """Of its health only what is not as it should be."""
    row: Row = {
        "from": f"{names[one.from_node_id]} {one.local_interface}",
        "to": f"{names[one.to_node_id]} {one.peer_interface}",
        "medium": cluster_pb2.Medium.Name(one.medium).removeprefix("MEDIUM_"),
        "chosen": _chosen(one, topology),
        "state": "" if one.state == UP else topology_pb2.LinkState.Name(one.state),
        "marks": [topology_pb2.LinkMark.Name(mark) for mark in one.marks],
    }
    if one.HasField("cable"):
        row["receptacles"] = f"{one.cable.local_receptacle or '?'} to {one.cable.peer_receptacle or '?'}"
        row["speed_gbps"] = one.cable.speed_gbps
        row["behind"] = list(one.cable.behind)
        row["one_sided"] = one.cable.one_sided
        row["hub_unknown"] = one.cable.hub_unknown
    return _without_nothing(row)


def _chosen(one: Link, topology: Topology) -> bool | str:
    """Which of several cables is taken, some microseconds decide."""
    alike = [other for other in topology.links if _kind(other) == _kind(one)]
    return "one of these" if len(alike) > 1 and sum(other.chosen for other in alike) == 1 else one.chosen


def _kind(one: Link) -> tuple[str, str, int, int]:
    return one.from_node_id, one.to_node_id, one.medium, one.state


def _without_nothing(row: Row) -> Row:
    return {key: value for key, value in row.items() if value}


def unmet(expected: Iterable[Mapping[str, Any]], findings: Sequence[Found]) -> list[Mapping[str, Any]]:
    """Those that no finding meets."""
    return [one for one in expected if not any(_meets(found, one) for found in findings)]


def strange(expected: Sequence[Mapping[str, Any]], never: Sequence[str], findings: Iterable[Found]) -> list[Found]:
    """Troubles of Macs that nobody expects, and whatever says what it never should."""
    return [
        one
        for one in findings
        if _says_any(one, never)
        or (
            one["severity"] != "note"
            and _says_any(one, MAC_WORDS)
            and not any(_meets(one, wanted) for wanted in expected)
        )
    ]


def _meets(found: Found, wanted: Mapping[str, Any]) -> bool:
    return found["severity"] == wanted["severity"] and _says(found, wanted["says"])


def _text(found: Found) -> str:
    return " ".join(str(value) for value in found.values()).casefold()


def _says(found: Found, words: Iterable[str]) -> bool:
    return all(word.casefold() in _text(found) for word in words)


def _says_any(found: Found, words: Iterable[str]) -> bool:
    return any(word.casefold() in _text(found) for word in words)
