"""`cluster rotate`: begins to change the cluster's authority for another one, and shows how far that has come."""

from dataclasses import dataclass
from typing import Any

from thunderline.client.enrollment import holders
from thunderline.cluster.authorities import Ring, Turn, begun, turned
from thunderline.cluster.errors import InvalidRequest
from thunderline.process import authority
from thunderline.process.authority import Authorities
from thunderline.process.certificates import new_authority
from thunderline.process.settings import Settings
from thunderline.v1 import discovery_pb2

CLIENTS = "certificates of `thunderline cluster client` are of the former authority too: make new ones"
RESTART = "restart `up` on this node: connections that stand go on until then"
TOKENS = "open join tokens are forgotten: `thunderline cluster init` makes another"


def kept(settings: Settings) -> Authorities:
    """Raises InvalidRequest on a node that is no scheduler node, CannotStart."""
    ours = authority.kept(settings.home)
    if ours is None:
        where = settings.cluster.scheduler
        there = f"on the scheduler node, {where}" if where else "`thunderline cluster init` first"
        raise InvalidRequest(f"this node keeps no authority of a cluster: run {there}")
    return ours


def change(settings: Settings, hasten: bool, now_s: float) -> tuple[bool, Ring]:
    """Begins a rotation when none is under way, or ends it all by a new authority; whether it did, and what is now.

    Raises InvalidRequest, CannotStart, OSError.
    """
    with authority.changing(settings.home):
        ours = before = kept(settings)
        if hasten:
            ours = ours.hastened(new_authority(now_s))
        elif len(ours.ring.trusted) == 1:
            following = new_authority(now_s)
            begun(ours.ring, following.fingerprint)
            ours = Authorities(ours.signing, following)
        if ours != before:
            authority.change(settings.home, ours, settings.cluster.name, now_s)
    return ours != before, ours.ring


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a rotation is. `late` are the nodes for which it waits, by name; None when nobody could be asked."""

    ring: Ring
    began: bool
    late: tuple[str, ...] | None
    # The turn that comes next.
    turn: Turn | None

    def as_tree(self) -> dict[str, Any]:
        return {
            "trusted": list(self.ring.trusted),
            "signing": self.ring.signing,
            "began": self.began,
            "next": self.turn.name if self.turn else "UNKNOWN",
            "waits_for": list(self.late or ()),
        }

    def lines(self) -> list[str]:
        if len(self.ring.trusted) == 1:
            found = [f"one authority, {_short(self.ring.signing)}, is trusted and signs"]
            found += [f"without a certificate of it: {_names(self.late)}; join again"] if self.late else []
            return [*found, RESTART, TOKENS, CLIENTS] if self.began else found
        found = ["a rotation has begun" if self.began else "a rotation is under way"]
        newest = self.ring.trusted[-1]
        if self.ring.signing != newest:
            found.append(f"1 of 2: every node learns to trust {_short(newest)}; {_short(self.ring.signing)} signs")
        else:
            former = self.ring.trusted[0]
            found.append(f"2 of 2: every node gets a certificate of {_short(newest)}; then {_short(former)} is dropped")
            found.append(CLIENTS)
        if self.late is None:
            found.append("nobody knows for whom it waits: it goes on once `thunderline up` runs here")
        elif self.late:
            found.append(f"it waits for {_names(self.late)}: one that never comes back leaves by `cluster leave NODE`")
        else:
            found.append("it waits for nobody: it goes on within seconds")
        return found


def standing(ring: Ring, began: bool, roster: discovery_pb2.Roster | None) -> Standing:
    """`roster` is None when discovery could not be asked."""
    if roster is None:
        return Standing(ring, began, None, None)
    turn, _, late = turned(ring, holders(roster))
    names = {member.card.node_id: member.card.hostname for member in roster.members}
    return Standing(ring, began, tuple(f"{names[node]} ({node})" for node in late), turn)


def _short(fingerprint: str) -> str:
    return fingerprint[:16]


def _names(late: tuple[str, ...] | None) -> str:
    return ", ".join(late or ())
