"""Cards and rosters of tests: node names stand for their ids."""

from collections.abc import Iterable

from thunderline.cluster import NodeId
from thunderline.cluster.members import MemberState
from thunderline.discovery import roster as rosters
from thunderline.discovery.roster import Roster
from thunderline.discovery.values import Card, Life


def card(
    name: str,
    incarnation: int = 1,
    start_id: str = "",
    cluster_name: str = "ours",
    revision: int = 0,
    address: str = "",
    versions: Iterable[tuple[str, str]] = (),
    settings: Iterable[tuple[str, str]] = (),
    departed: Iterable[str] = (),
) -> Card:
    """By default the life is that of this incarnation, wherever it is heard."""
    return Card(
        NodeId(name),
        Life(incarnation, start_id or f"{name}{incarnation}"),
        cluster_name,
        revision,
        hostname=f"{name}.local",
        addresses=(address or f"{name}:7401",),
        versions=tuple(versions),
        settings=tuple(settings),
        departed=frozenset(NodeId(one) for one in departed),
    )


OWN = card("m")


def begun(*remembered: Card, alone: bool = False, scheduler: str = "s") -> Roster:
    """Of the node m, started at 0 s."""
    return rosters.start(OWN, remembered, 0.0, alone=alone, scheduler=NodeId(scheduler))


def ticked(roster: Roster, until_s: float, heard: Iterable[Card] = ()) -> Roster:
    """Quarter seconds, in each of which `heard` are heard."""
    now_s = roster.clock.read_s
    while now_s < until_s:
        now_s += 0.25
        for one in heard:
            roster = rosters.hear(roster, one, now_s)
        roster = rosters.tick(roster, now_s)
    return roster


def state(roster: Roster, name: str) -> MemberState:
    return roster.members[NodeId(name)].state


def states(roster: Roster) -> dict[str, str]:
    """Without the node itself."""
    return {one: member.state.name for one, member in roster.members.items() if one != roster.own_id}
