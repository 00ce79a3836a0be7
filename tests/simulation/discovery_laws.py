"""What must hold of every roster at every moment, and of all of them once there is peace.

Written from what each host has really heard, on a count of awake time of its own.
"""

import itertools
from collections.abc import Iterable, Sequence

from simulation.discovery_host import WAITS, Broken, Facts, Host
from thunderline.cluster.members import MemberState
from thunderline.discovery import roster as rosters
from thunderline.discovery.differences import differences
from thunderline.discovery.roster import Roster
from thunderline.discovery.values import Card, Member, View

S = MemberState
EXACT_S = 1e-6
# Silences of which each state is said.
LEAST_S = {S.ALIVE: 0.0, S.SUSPECT: WAITS.suspect_s, S.DEAD: WAITS.dead_s}
MOST_S = {S.ALIVE: WAITS.suspect_s, S.SUSPECT: WAITS.dead_s}

LAWS = (
    "a member was heard, or remembered: nobody is one by the word of others",
    "no node of another cluster is a member",
    "the newest life and the newest card that were heard are shown, at once: no ghosts",
    "who is heard is ALIVE at once, unless this life has left; who is only remembered is not",
    "SUSPECT and DEAD are said after their silence and no earlier, of time in which we were awake",
    "nobody is judged within a heartbeat after we came late",
    "a silence is judged as soon as it may be",
    "LEFT is said only of a life that left, and no card of that life brings it back",
    "by the word of others only the dead have left, until their next card",
    "complete exactly from one dead-time after a start or a sleep on",
    "a version grows with everything that changes, over restarts too, and names one state",
    "one who watches gets the whole first, then each newer whole, and has what the roster says",
    "twins are told only of an id that two nodes have",
    "in peace all who are there show each other ALIVE with their newest cards, and nobody else",
    "in peace a copied id is reported by everybody",
    "in peace who heard a farewell has told the others",
    "in peace the other cluster is shown",
    "in peace differences are those of the nodes",
    "in peace nothing changes",
)


def of_a_card(facts: Facts, host: Host, card: Card) -> None:
    """Just after it was heard."""
    member = host.roster.members.get(card.node_id)
    if card.cluster_name != host.cluster_name:
        if member is not None:
            raise Broken(f"{card.node_id} of {card.cluster_name} is a member at {host.node_id}")
        if (card.node_id, card.cluster_name) not in host.roster.strangers:
            raise Broken(f"{card.node_id} of {card.cluster_name} was heard by {host.node_id} and is not shown")
        return
    if not facts.is_plain(card.node_id) or card.node_id == host.node_id:
        return
    newest = host.truth.lives[card.node_id]
    shown = member.card.life if member is not None else card.life
    has_left = (card.node_id, max(shown, card.life)) in facts.left
    if card.life == newest and not has_left and (member is None or member.state is not S.ALIVE):
        raise Broken(f"{card.node_id} was heard by {host.node_id} and is {member}")


def of_a_look(facts: Facts, host: Host, news: View | None) -> None:
    """After each tick; `host.before` is the roster after the tick before."""
    roster = host.roster
    for node_id, member in roster.members.items():
        if member.card.node_id != node_id or facts.clusters.get(node_id) != host.cluster_name:
            raise Broken(f"{host.node_id} has {member} as {node_id}")
        if node_id == host.node_id:
            expected = S.LEFT if host.has_left else S.ALIVE
            if member.state is not expected:
                raise Broken(f"{node_id} takes itself for {member.state.name}")
            continue
        if member.state is not S.LEFT or (node_id, member.card.life) not in facts.left:
            _of_its_card(facts, host, member)
        before = host.before.members.get(node_id) if host.before else None
        _of_its_state(facts, host, member, before)
    for twin in rosters.twins(roster):
        if facts.is_plain(twin.shown.node_id):
            raise Broken(f"{host.node_id} reports {twin}")
    for stranger in roster.strangers.values():
        if stranger.cluster_name == host.cluster_name or facts.clusters[stranger.node_id] != stranger.cluster_name:
            raise Broken(f"{host.node_id} shows {stranger}")
    _of_completeness(host)
    _of_versions(facts, host, news)


def _of_its_card(facts: Facts, host: Host, member: Member) -> None:
    card, truth = member.card, host.truth
    if (card.node_id, card.life) not in truth.heard_s:
        raise Broken(f"{host.node_id} has never heard {member}")
    if facts.is_plain(card.node_id) and card.life != truth.lives[card.node_id]:
        raise Broken(f"{host.node_id} shows {card.life} of {card.node_id}, and has heard {truth.lives[card.node_id]}")
    if card.revision != truth.revisions[card.node_id, card.life]:
        raise Broken(f"{host.node_id} shows an old card of {card.node_id}")


def _of_its_state(facts: Facts, host: Host, member: Member, before: Member | None) -> None:
    card, state, truth = member.card, member.state, host.truth
    has_left = (card.node_id, card.life) in facts.left
    is_new = before is None or before.state is not state or before.card.life != card.life
    was_left = before is not None and before.state is S.LEFT and before.card.life == card.life and not before.is_hearsay
    if state is S.LEFT and not has_left and not member.is_hearsay:
        raise Broken(f"{card.node_id} has not left, and {host.node_id} says so")
    if was_left and state is not S.LEFT:
        raise Broken(f"{card.node_id} left, and is {state.name} again at {host.node_id}")
    if member.is_hearsay and is_new and (before is None or before.state is not S.DEAD):
        raise Broken(f"{card.node_id} was not dead at {host.node_id}, which was told that it left")
    if state is S.LEFT:
        return
    if state is S.ALIVE and (card.node_id, card.life) in truth.unheard:
        raise Broken(f"{card.node_id} is ALIVE at {host.node_id}, which has not heard it since its start")
    silent_s = truth.silent_s(card)
    least_s = LEAST_S[state]
    # One that is remembered is SUSPECT from the start.
    if is_new and before is not None and silent_s < least_s - EXACT_S:
        raise Broken(f"{card.node_id} is {state.name} at {host.node_id} after {silent_s:.2f} s of silence")
    if is_new and before is not None and state is not S.ALIVE and not truth.judges:
        raise Broken(f"{card.node_id} is {state.name} at {host.node_id}, which has just come late")
    most_s = MOST_S.get(state)
    if most_s is not None and truth.judges and silent_s > most_s + EXACT_S:
        raise Broken(f"{card.node_id} is {state.name} at {host.node_id} after {silent_s:.2f} s of silence")


def _of_completeness(host: Host) -> None:
    truth = host.truth
    known_s = truth.awake_s - truth.since_s
    if host.roster.complete and known_s < WAITS.dead_s - EXACT_S:
        raise Broken(f"{host.node_id} is complete after {known_s:.2f} s")
    if not host.roster.complete and known_s > WAITS.dead_s + EXACT_S and truth.judges:
        raise Broken(f"{host.node_id} is not complete after {known_s:.2f} s")


def _of_versions(facts: Facts, host: Host, news: View | None) -> None:
    roster, before = host.roster, host.before
    if before is None:
        if news is None:
            raise Broken(f"one who begins to watch {host.node_id} gets nothing")
        if roster.version <= host.version and facts.is_plain(host.node_id):
            raise Broken(f"versions of {host.node_id} went from {host.version} to {roster.version} with a restart")
    elif _shown(roster) != _shown(before) and roster.version <= before.version:
        raise Broken(f"version {roster.version} of {host.node_id} means two things")
    elif roster.version < before.version:
        raise Broken(f"versions of {host.node_id} went from {before.version} to {roster.version}")
    if news is not None and host.seen is not None and news.version <= host.seen.version:
        raise Broken(f"one who watches {host.node_id} gets version {news.version} after {host.seen.version}")
    told = news or host.seen
    if told is None or (before is not None and roster.version == before.version and news is None):
        return
    if told.version != roster.version or told.members != rosters.view(roster).members:
        raise Broken(f"one who watches {host.node_id} has version {told.version}, and it is at {roster.version}")


def _shown(roster: Roster) -> tuple[object, ...]:
    return roster.members, roster.complete, rosters.twins(roster), roster.strangers


def unsettled(facts: Facts, hosts: Sequence[Host], multicast: bool) -> str:
    """What is not yet as it has to be in peace; "" when all is."""
    present = [host for host in hosts if host.up and not host.has_left]
    for host in present:
        if not host.roster.complete:
            return f"{host.node_id} is not complete"
        if found := _unsettled_members(facts, host, [one for one in present if one.cluster_name == host.cluster_name]):
            return f"at {host.node_id}: {found}"
        shown = {address for stranger in host.roster.strangers.values() for address in stranger.addresses}
        others = [one for one in present if one.cluster_name != host.cluster_name]
        missing = {address for one in others for address in one.addresses} - shown
        if multicast and missing:
            return f"{host.node_id} does not show the other cluster's {missing}"
        reported = {twin.shown.node_id for twin in rosters.twins(host.roster)}
        living = [one.node_id for one in present if one.cluster_name == host.cluster_name]
        if {one for one in living if living.count(one) > 1} - reported:
            return f"{host.node_id} does not report {facts.copied}"
    return _unsettled_farewells(present)


def _unsettled_members(facts: Facts, host: Host, there: Iterable[Host]) -> str:
    members = host.roster.members
    cards: dict[str, Card] = {}
    for other in there:
        member = members.get(other.node_id)
        if member is None or member.state is not S.ALIVE:
            return f"{other.node_id} is {member}"
        if other.node_id in facts.copied:
            cards[other.node_id] = member.card
            continue
        if member.card != other.card:
            return f"{other.node_id} is shown as {member.card}, and says {other.card}"
        cards[other.node_id] = other.card
    here = {node_id for node_id, member in members.items() if member.state in {S.ALIVE, S.SUSPECT}}
    if here != cards.keys():
        return f"{here} are there, and {cards.keys()} should be"
    return _wrong_differences(members.values(), cards.values())


def _wrong_differences(members: Iterable[Member], cards: Iterable[Card]) -> str:
    said = {"mlx": {card.node_id: dict(card.versions)["mlx"] for card in cards}}
    wanted = {name: nodes for name, nodes in said.items() if len(set(nodes.values())) > 1}
    found = {
        one.name: {node: value for value, nodes in one.values for node in nodes}
        for one in differences(members)
        if not one.expected
    }
    return "" if found == wanted else f"differences are {found}, and should be {wanted}"


def _unsettled_farewells(present: Sequence[Host]) -> str:
    """Nobody has to remember who left; but who does has told all those who take its word."""
    for host, teller in itertools.permutations(present, 2):
        known = host.roster.members.get(teller.node_id)
        # Of two that live with one id the word of one is taken.
        if teller.node_id == host.node_id or known is None or known.card.life != teller.card.life:
            continue
        for gone in (member.card for member in teller.roster.members.values() if member.state is S.LEFT):
            member = host.roster.members.get(gone.node_id)
            if member is not None and member.state is S.DEAD and gone.life >= member.card.life:
                return f"{teller.node_id} says that {gone.node_id} has left, and at {host.node_id} it is DEAD"
    return ""
