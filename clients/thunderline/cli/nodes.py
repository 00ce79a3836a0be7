"""`nodes`: who is in the cluster, in what they differ, and who else is there."""

from datetime import datetime

from thunderline.cli import saying
from thunderline.cli.asking import Home, Json, ask
from thunderline.client import DiscoveryClient
from thunderline.v1 import cluster_pb2, discovery_pb2

COLUMNS = ("node", "state", "since", "address", "memory", "chip", "system", "thunderline", "mlx", "id")


def nodes(home: Home = None, json: Json = False) -> None:
    """The nodes of the cluster: state, address, versions; and in what they differ."""
    roster = ask(home, "discovery", DiscoveryClient, lambda discovery: discovery.roster())
    if json:
        saying.as_json(roster)
        return
    table(roster)
    for line in lines(roster):
        saying.out.print(line, markup=False)


def table(roster: discovery_pb2.Roster) -> None:
    now = datetime.now().astimezone()
    rows = sorted(row(member, roster.node_id, now) for member in roster.members)
    saying.table("nodes", COLUMNS, rows, "no node is known yet")


def row(member: discovery_pb2.Member, own_id: str, now: datetime) -> tuple[str, ...]:
    """`now` has a time zone."""
    card = member.card
    versions = {one.name: one.value for one in card.versions}
    since = member.state_since.ToDatetime(tzinfo=now.tzinfo)
    return (
        f"{card.hostname} (this node)" if card.node_id == own_id else card.hostname,
        discovery_pb2.MemberState.Name(member.state).removeprefix("MEMBER_STATE_"),
        since.strftime("%H:%M:%S" if since.date() == now.date() else "%Y-%m-%d %H:%M:%S"),
        member.address or next(iter(card.addresses), ""),
        f"{card.memory_bytes / 2**30:.0f} GiB",
        f"{card.chip} ({card.machine.model})" if card.machine.model else card.chip,
        versions.get("system", card.operating_system),
        versions.get("thunderline", card.version),
        versions.get("mlx", "not said"),
        card.node_id,
    )


def lines(roster: discovery_pb2.Roster) -> list[str]:
    """What the operator should know beside the table."""
    own = next((one.card for one in roster.members if one.card.node_id == roster.node_id), cluster_pb2.NodeCard())
    found = [] if roster.complete else ["this node has just started, or slept: others may be missing for some seconds"]
    problems = [(member.card.hostname, member.problem) for member in roster.members if member.problem]
    found += [f"{hostname} cannot be called: {problem}" for hostname, problem in problems]
    found += [f"they differ: {one.sentence}" for one in roster.differences if not one.expected]
    for twin in roster.twins:
        found.append(
            f"two nodes have the id {twin.node_id}: {_named(twin.shown)} and {_named(twin.other)}; on the copy remove "
            "node.json from its home and start it again"
        )
    for one in roster.strangers:
        where = ", ".join(one.addresses)
        name = one.hostname or one.node_id
        found.append(f"{name} at {where} is of another cluster, {one.cluster_name!r}; this one is {own.cluster_name!r}")
    return found


def _named(card: cluster_pb2.NodeCard) -> str:
    return f"{card.hostname} at {', '.join(card.addresses) or 'no address'}"
