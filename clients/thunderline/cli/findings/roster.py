"""What discovery tells: members that are away, twins, strangers, clocks, different versions and settings. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher

from thunderline.cli.findings.finding import Finding, joined, note, warning, wrong
from thunderline.cli.findings.trust import JOIN, NTP, Own, Try, refusal
from thunderline.cluster.addresses import target
from thunderline.cluster.certificates import CLOCK_SLACK_S
from thunderline.cluster.members import HAS_LEFT, MemberState
from thunderline.v1 import discovery_pb2

# Two clocks set by NTP differ by some ms.
CLOCK_AHEAD_MAX_S = 1.0
# "thunderlne" and "thunderline" are alike by 0.95, "home" and "work" by 0.25.
TYPO_LIKENESS = 0.8
# Nodes that differ in one of these do not form one cluster, whatever else they agree on.
COMMON_SETTINGS = {"cluster.scheduler"}
# Ranks of one model compute alike only with the same of these.
ENGINE_VERSIONS = {"thunderline", "mlx", "mlx-lm"}

Tries = Mapping[str, Sequence[Try]]


def names(roster: discovery_pb2.Roster) -> dict[str, str]:
    """By node_id: the host name, with the beginning of the id where several have it."""
    cards = [one.card for one in roster.members]
    count = Counter(card.hostname for card in cards)
    return {
        card.node_id: " ".join(filter(None, [card.hostname, card.node_id[:8] if count[card.hostname] > 1 else ""]))
        or card.node_id
        for card in cards
    }


def peers(roster: discovery_pb2.Roster) -> dict[str, str]:
    """Names of the other members that are ALIVE, by node_id."""
    alive = {one.card.node_id for one in roster.members if one.state == MemberState.ALIVE.value}
    return {node: name for node, name in names(roster).items() if node in alive and node != roster.node_id}


def alive_s(roster: discovery_pb2.Roster, now_s: float) -> dict[str, float]:
    """For how long each member that is ALIVE is so, by node_id."""
    alive = [one for one in roster.members if one.state == MemberState.ALIVE.value]
    return {one.card.node_id: now_s - one.state_since.ToMilliseconds() / 1000 for one in alive}


def ports(roster: discovery_pb2.Roster, role: str) -> dict[str, int]:
    """Where each node serves a role, by node_id."""
    return {
        one.card.node_id: endpoint.port
        for one in roster.members
        for endpoint in one.card.endpoints
        if endpoint.role == role
    }


def addresses(roster: discovery_pb2.Roster) -> frozenset[str]:
    """As "host:port": those of every known discovery, this node's own among them."""
    return frozenset(address for one in roster.members for address in _dialled(one))


def addresses_of_lost(roster: discovery_pb2.Roster) -> dict[str, list[str]]:
    """Where to look for members that cannot be called, by node_id."""
    lost = [one for one in roster.members if one.card.node_id != roster.node_id and _is_lost(one)]
    return {one.card.node_id: _dialled(one) for one in lost}


def _dialled(one: discovery_pb2.Member) -> list[str]:
    port = next((endpoint.port for endpoint in one.card.endpoints if endpoint.role == "discovery"), None)
    return [target(host, port) for host in one.card.addresses if port]


def _is_lost(one: discovery_pb2.Member) -> bool:
    away = one.state in (MemberState.SUSPECT.value, MemberState.DEAD.value)
    return away or (bool(one.problem) and one.state != MemberState.LEFT.value)


def of_roster(roster: discovery_pb2.Roster, own: Own, tries: Tries) -> list[Finding]:
    """`tries`: by node_id, this node's own of those members that it cannot call."""
    if any(one.card.node_id == roster.node_id and one.state == MemberState.LEFT.value for one in roster.members):
        why = "it was taken out there, or left by its own word; until its next start its discovery is silent"
        remedy = f"to come back: {JOIN}; and start `thunderline up` anew"
        return [wrong("this node has left its cluster", why, remedy)]
    named = names(roster)
    lost = [one for one in roster.members if one.card.node_id != roster.node_id and _is_lost(one)]
    if not roster.complete:
        # Remembered ones, that are not heard yet.
        lost = [one for one in lost if one.problem or one.state != MemberState.SUSPECT.value]
    found = [_of_lost(one, named[one.card.node_id], own, tries) for one in lost]
    found += _scheduler(roster, own)
    found += [_of_twin(one) for one in roster.twins]
    alone = len(roster.members) < 2
    found += [_of_stranger(one, own, alone) for one in roster.strangers]
    found += _clocks(roster)
    found += [_of_difference(one, own) for one in roster.differences]
    if not roster.complete:
        found.append(note("members", "discovery has just started: whom it has not heard yet may still come"))
    elif not alone:
        here = [named[one.card.node_id] for one in roster.members if one.state == MemberState.ALIVE.value]
        found.append(note("members that are ALIVE", joined(here)))
    return found


def _of_lost(one: discovery_pb2.Member, name: str, own: Own, tries: Tries) -> Finding:
    whys, remedies = [], []
    for attempt in tries.get(one.card.node_id, ()):
        why, remedy = refusal(own, attempt)
        if why or attempt.problem:
            whys.append(f"{attempt.address}: {why or attempt.problem}")
        if remedy:
            remedies.append(remedy)
    if HAS_LEFT in one.problem:
        remedies = [f"{JOIN}, then start `thunderline up` anew"]
    remedy = remedies[0] if remedies else _come_back(one, name, own)
    # What was seen just now says more than what discovery has seen.
    why = "; ".join(whys) or one.problem or "no card of it comes"
    if one.state == MemberState.ALIVE.value:
        return warning(f"{name} is heard, and cannot be called from here", why, remedy)
    if one.state == MemberState.DEAD.value and one.card.node_id == own.scheduler:
        return wrong(f"{name}, the scheduler node, is DEAD: nothing new is served until it is back", why, remedy)
    return warning(f"{name} is {MemberState(one.state).name}", why, remedy)


def _come_back(one: discovery_pb2.Member, name: str, own: Own) -> str:
    port = next((endpoint.port for endpoint in one.card.endpoints if endpoint.role == "discovery"), 7401)
    back = f"`thunderline up` on {name}, and `thunderline doctor` there; its firewall must let port {port} in"
    if own.is_scheduler_node:
        return f"{back}; if it never comes back: `thunderline cluster leave {one.card.node_id}`"
    return back


def _scheduler(roster: discovery_pb2.Roster, own: Own) -> list[Finding]:
    known = {one.card.node_id for one in roster.members if one.state != MemberState.LEFT.value}
    if own.is_scheduler_node or not roster.complete or own.scheduler in known:
        return []
    why = f"[cluster] scheduler names node {own.scheduler}, and discovery has never heard it"
    seeds = f"without multicast add its address to `[discovery] seeds` in {own.config}"
    remedy = f"start it there (`thunderline up`); {seeds}"
    return [wrong("the scheduler node is not found", why, remedy)]


def _of_twin(one: discovery_pb2.Twin) -> Finding:
    names = joined([card.hostname or "?" for card in (one.shown, one.other)])
    why = f"{names} live as node {one.node_id}: the home of one is a copy of the other's"
    remedy = (
        "on the copy: stop its roles, `rm $THUNDERLINE_HOME/node.json`, and `thunderline cluster join TOKEN` once more"
    )
    return wrong("two nodes have one id", why, remedy)


def _of_stranger(one: discovery_pb2.Stranger, own: Own, alone: bool) -> Finding:
    name = one.hostname or one.node_id
    where = f" at {one.addresses[0]}" if one.addresses else ""
    why = f"it says so{where}, and this node is of {own.cluster!r}"
    what = f"{name} is heard, of another cluster, {one.cluster_name!r}"
    likeness = SequenceMatcher(None, one.cluster_name.casefold(), own.cluster.casefold()).ratio()
    if likeness < TYPO_LIKENESS and not alone:
        return note(what, f"{why}: it is never a member")
    remedy = f"is it a typo? then the same `[cluster] name` in {own.config} on both nodes; else nothing"
    return warning(what, why, remedy)


def _clocks(roster: discovery_pb2.Roster) -> list[Finding]:
    named = names(roster)
    ahead_s = {
        named[one.card.node_id]: one.clock_ahead_s
        for one in roster.members
        if one.HasField("clock_ahead_s") and one.card.node_id != roster.node_id and one.state != MemberState.LEFT.value
    }
    off = {name: by_s for name, by_s in ahead_s.items() if abs(by_s) > CLOCK_AHEAD_MAX_S}
    # All others agree with each other: then it is ours.
    if len(ahead_s) > 1 and len(off) == len(ahead_s) and max(off.values()) - min(off.values()) <= CLOCK_AHEAD_MAX_S:
        by_s = sorted(off.values())[len(off) // 2]
        which = f"this node's clock is {_apart(by_s, 'behind', 'ahead of')} all others"
        return [warning(which, f"{joined(list(off))} agree{_distrust(by_s)}", NTP)]
    return [
        warning(
            f"the clock of {name} is {_apart(by_s, 'ahead of', 'behind')} this node's",
            f"as its last card showed{_distrust(by_s)}",
            NTP,
            unknown="which of the two is right" if len(ahead_s) == 1 else "",
        )
        for name, by_s in off.items()
    ]


def _apart(by_s: float, when_more: str, when_less: str) -> str:
    return f"{abs(by_s):.1f} s {when_more if by_s > 0 else when_less}"


def _distrust(by_s: float) -> str:
    return "; certificates made there are not valid yet here, or the reverse" if abs(by_s) > CLOCK_SLACK_S else ""


def _of_difference(one: discovery_pb2.Difference, own: Own) -> Finding:
    what = f"nodes differ in {one.name}"
    why = one.sentence or ", ".join(f"{value.value or 'none'} on {joined(value.node_ids)}" for value in one.values)
    if one.expected:
        return note(what, f"{why}; that may be so")
    if one.kind == discovery_pb2.DIFFERENCE_KIND_VERSION:
        if one.name not in ENGINE_VERSIONS:
            return note(what, why)
        remedy = "install the same on all: the same commit, then `make install` and `thunderline up`, node by node"
        return warning(what, why, remedy)
    if one.name.endswith("port"):
        return note(what, f"{why}; each node tells the others its own")
    section, _, key = one.name.partition(".")
    setting = f"`[{section}] {key}`" if key else f"`{one.name}`"
    remedy = f"set {setting} alike in config.toml on all nodes (here {own.config}), and start the roles there anew"
    return (wrong if one.name in COMMON_SETTINGS else warning)(what, why, remedy)
