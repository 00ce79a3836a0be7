"""`links`: how nodes are joined, which link connections take and why; every address that was tried; measurements."""

import errno as errnos
import json as json_texts
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Any, NamedTuple

import typer
from google.protobuf import json_format
from google.protobuf.message import Message

from thunderline.cli import saying
from thunderline.cli.asking import Home, Json, ask, own_node, refuse, run
from thunderline.cli.links_in_use import Pair, pairs_in_use
from thunderline.cli.rails import RAIL_COLUMNS, cable_text, rail_row
from thunderline.client import DiscoveryClient, TopologyClient
from thunderline.client.rails import rails
from thunderline.client.reaching import scheduler_of
from thunderline.cluster.errors import ClusterError, LinkInUse
from thunderline.v1 import cluster_pb2, topology_pb2

COLUMNS = ("from", "to", "medium", "interface", "cable", "address", "RTT", "health", "chosen", "why")
ALL_COLUMNS = ("from", "to", "address", "last try", "result", "errno", "health", "RTT", "from address")
MEASURED_COLUMNS = (
    "from", "to", "medium", "address", "probes", "min", "avg", "max", "stddev", "lost", "bandwidth", "why not"
)  # fmt: skip
NOBODY = "no link: this node has no peer yet that answers; `thunderline links --all` shows what was tried"
# Enough of a node_id to tell nodes of one name apart.
ID_LENGTH = 8

# Pairs of nodes, or why nobody can say.
InUse = frozenset[Pair] | ClusterError


class Measured(NamedTuple):
    """What was measured of a link; `why_not`: why not all of it was, or nothing."""

    link: topology_pb2.Link
    result: topology_pb2.MeasureLinkResponse | None
    why_not: ClusterError | None = None


def links(
    node: Annotated[str, typer.Argument(help="only links from and to this node: its name or the begin of its id")] = "",
    home: Home = None,
    all_: Annotated[bool, typer.Option("--all", help="every address of every peer, with its last try")] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="measure each link that answers: 20 probes, and bandwidth for 10 s")
    ] = False,
    json: Json = False,
) -> None:
    """How nodes are joined: every link, its medium, RTT and health, and which one connections take."""
    topology = ask(home, "topology", TopologyClient, lambda client: client.topology())
    names = run(_names(home, topology), "")
    wanted = only(topology, node, names)
    if measure:
        with saying.Progress() as progress:
            look = partial(_in_use, home)
            found = ask(
                home, "topology", TopologyClient, lambda client: measured(client, wanted, names, look, progress.say)
            )
        if json:
            print(json_texts.dumps(measured_json(found), indent=2))
        else:
            rows = [measured_row(one, names) for one in found]
            saying.table("measured links", MEASURED_COLUMNS, rows, NOBODY)
        if any(one.why_not is not None for one in found):
            refuse("not every link could be measured, or not its bandwidth")
        return
    if json:
        saying.as_json(wanted)
        return
    if all_:
        now = datetime.now().astimezone()
        rows = [attempt_row(one, names, now) for one in wanted.attempts]
        saying.table("addresses", ALL_COLUMNS, rows, "no other node is known yet")
    else:
        _show(wanted, names)
    for line in lines(wanted, names):
        saying.out.print(line, markup=False)


def _show(topology: topology_pb2.Topology, names: Mapping[str, str]) -> None:
    """Rails only where there are any."""
    columns, rows = without_empty("cable", COLUMNS, [link_row(one, names) for one in topology.links])
    saying.table("links", columns, rows, NOBODY)
    if topology.rails:
        saying.table("rails", RAIL_COLUMNS, [rail_row(one, names) for one in rails(topology)], "")


def without_empty(
    column: str, columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Without this column if no row has anything there."""
    index = columns.index(column)
    if any(row[index] for row in rows):
        return tuple(columns), [tuple(row) for row in rows]
    left = [(*row[:index], *row[index + 1 :]) for row in (columns, *rows)]
    return left[0], left[1:]


async def _names(home: Any, topology: topology_pb2.Topology) -> dict[str, str]:
    """How to call each node; by its id alone while discovery does not answer."""
    own = own_node(home)
    hostnames: dict[str, str] = {}
    try:
        async with DiscoveryClient(own.discovery_target, own.wallet, own.node or None) as discovery:
            roster = await discovery.roster()
        hostnames = {one.card.node_id: one.card.hostname for one in roster.members}
    except ClusterError as error:
        saying.error(f"nodes are shown by their ids, discovery cannot be asked: {error.message}")
    return called(hostnames, nodes_of(topology))


async def _in_use(home: Any) -> InUse:
    own = own_node(home)
    try:
        async with scheduler_of(own) as scheduler:
            return pairs_in_use(own.scheduler, await scheduler.deployments())
    except ClusterError as error:
        return error


def nodes_of(topology: topology_pb2.Topology) -> set[str]:
    named: Iterable[topology_pb2.Link | topology_pb2.AddressAttempt] = (*topology.links, *topology.attempts)
    return {topology.node_id, *(id_ for one in named for id_ in (one.from_node_id, one.to_node_id))}


def called(hostnames: Mapping[str, str], nodes: Iterable[str]) -> dict[str, str]:
    """Each by its hostname where only one has it, else by that and the begin of its id."""
    wanted = sorted({*hostnames, *nodes})
    count = Counter(hostnames.get(node, "") for node in wanted)
    found = {}
    for node in wanted:
        name = hostnames.get(node, "")
        found[node] = name if name and count[name] == 1 else " ".join(filter(None, (name, node[:ID_LENGTH])))
    return found


def only(topology: topology_pb2.Topology, node: str, names: Mapping[str, str]) -> topology_pb2.Topology:
    """From and to one node; "" is all of it."""
    if not node:
        return topology
    ids = {id_ for id_, name in names.items() if node in (name, name.split(" ")[0]) or id_.startswith(node)}
    if len(ids) != 1:
        known = ", ".join(f"{name} ({id_})" for id_, name in names.items())
        refuse(f"{'no node' if not ids else 'more than one node'} is called {node!r}; there are {known}")
    found = topology_pb2.Topology()
    found.CopyFrom(topology)
    for part in ("links", "attempts"):
        kept = [one for one in getattr(topology, part) if ids & {one.from_node_id, one.to_node_id}]
        found.ClearField(part)
        getattr(found, part).extend(kept)
    found.ClearField("rails")
    found.rails.extend(one for one in topology.rails if ids & {one.one.node_id, one.other.node_id})
    return found


def link_row(link: topology_pb2.Link, names: Mapping[str, str]) -> tuple[str, ...]:
    medium, counts_as = medium_name(link.medium), medium_name(link.counts_as)
    return (
        names[link.from_node_id],
        names[link.to_node_id],
        medium if counts_as in (medium, "") else f"{medium} (as {counts_as})",
        " to ".join(name or "?" for name in (link.local_interface, link.peer_interface)),
        cable_text(link.cable) if link.HasField("cable") else "",
        link.peer_address,
        milliseconds(link.rtt_us),
        state_name(link.state),
        "yes" if link.chosen else "",
        link.why,
    )


def attempt_row(one: topology_pb2.AddressAttempt, names: Mapping[str, str], now: datetime) -> tuple[str, ...]:
    """`now` has a time zone. When another node tried, it does not say."""
    tried = one.tried_at.ToDatetime(tzinfo=now.tzinfo) if one.HasField("tried_at") else None
    return (
        names[one.from_node_id],
        names[one.to_node_id],
        one.address,
        f"{max((now - tried).total_seconds(), 0.0):.1f} s ago" if tried else "",
        topology_pb2.ProbeOutcome.Name(one.outcome).removeprefix("PROBE_OUTCOME_"),
        errnos.errorcode.get(one.errno, str(one.errno)) if one.errno else "",
        state_name(one.state),
        milliseconds(one.rtt_us) if one.rtt_us else "",
        one.local_address,
    )


def lines(topology: topology_pb2.Topology, names: Mapping[str, str]) -> list[str]:
    """What the operator should know beside the table."""
    found = [one.sentence for one in topology.cables if one.lost]
    if not topology.complete:
        found.append("not every probe has been answered or has failed yet: more may come")
    missing = [names.get(node, node) for node in topology.incomplete_node_ids if node != topology.node_id]
    if missing:
        found.append(f"not heard of all their links yet: {', '.join(missing)}")
    return found


async def measured(
    client: TopologyClient,
    topology: topology_pb2.Topology,
    names: Mapping[str, str],
    look: Callable[[], Awaitable[InUse]],
    say: Callable[[str], None],
) -> list[Measured]:
    """This node's links that answer, each way, one after the other: side by side they would slow each other.

    `look`: who uses which link now. It is asked anew for each: with many links the first answer is minutes old.
    """
    wanted = [
        link
        for link in topology.links
        if topology.node_id in (link.from_node_id, link.to_node_id) and link.state != topology_pb2.LINK_STATE_DOWN
    ]
    found: list[Measured] = []
    for number, link in enumerate(wanted, 1):
        ends = f"{names[link.from_node_id]} to {names[link.to_node_id]} at {link.peer_address}"
        why_not = _used(link, await look())
        say(f"{number} of {len(wanted)}: {ends}, 20 probes{'' if why_not else ', then bandwidth for 10 s'}")
        try:
            result = await client.measure_link(link, bandwidth=why_not is None)
            found.append(Measured(link, result, why_not))
        except ClusterError as error:
            found.append(Measured(link, None, error))
    return found


def _used(link: topology_pb2.Link, in_use: InUse) -> LinkInUse | None:
    """Why its bandwidth is not measured now."""
    if isinstance(in_use, ClusterError):
        return LinkInUse(f"bandwidth is not measured, an instance may serve over the link: {in_use.message}")
    if frozenset((link.from_node_id, link.to_node_id)) in in_use:
        return LinkInUse("bandwidth is not measured while an instance serves over the link")
    return None


def measured_row(one: Measured, names: Mapping[str, str]) -> tuple[str, ...]:
    link, result, why_not = one
    why = why_not.message if why_not else ""
    head = (names[link.from_node_id], names[link.to_node_id], medium_name(link.medium), link.peer_address)
    if result is None:
        return (*head, *[""] * 7, why)
    times = (result.rtt_min_us, result.rtt_avg_us, result.rtt_max_us, result.rtt_stddev_us)
    return (
        *head,
        "20",
        *(milliseconds(time_us) for time_us in times),
        str(result.lost_count),
        bits_per_second(result.bandwidth_bits_per_s) if result.bandwidth_bits_per_s else "",
        why,
    )


def measured_json(found: Sequence[Measured]) -> dict[str, Any]:
    """The links, each with its measurement, and the reason why there is none, or not all of it."""
    rows = []
    for link, result, why_not in found:
        row = {"link": as_dict(link)}
        if why_not is not None:
            row["error"] = {"reason": why_not.reason, "message": why_not.message}
        if result is not None:
            row["measurement"] = as_dict(result)
        rows.append(row)
    return {"measured": rows}


def as_dict(message: Message) -> dict[str, Any]:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def medium_name(medium: "cluster_pb2.Medium.ValueType") -> str:
    return cluster_pb2.Medium.Name(medium).removeprefix("MEDIUM_") if medium else ""


def state_name(state: "topology_pb2.LinkState.ValueType") -> str:
    return topology_pb2.LinkState.Name(state).removeprefix("LINK_STATE_") if state else ""


def milliseconds(time_us: int) -> str:
    """Three digits that count: 0.052 ms, 4.21 ms, 40.2 ms."""
    time_ms = time_us / 1000
    digits = 3 if time_ms < 1 else 2 if time_ms < 10 else 1
    return f"{time_ms:.{digits}f} ms"


def bits_per_second(count: int) -> str:
    if count >= 1e9:
        return f"{count / 1e9:.2f} Gb/s"
    return f"{count / 1e6:.1f} Mb/s"
