"""Whom a node exchanges cards with now, where, and what it tells there. Pure; times are the roster's awake seconds."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from thunderline.cluster import NodeId
from thunderline.cluster.members import MemberState
from thunderline.discovery import roster as rosters
from thunderline.discovery.roster import HERE, Roster
from thunderline.discovery.values import Card, Life, Member

S = MemberState
# An exchange serves both ends. So of two the one with the smaller id begins it, and the other, if that one cannot
# dial, so many heartbeats after the last: below the two that make it SUSPECT, and above one with its delays.
SECOND_CALLER = 1.5
# Heartbeats between tries where nobody has answered: one probe period.
TRY_AGAIN = 2.0
# The same at a seed that belongs to another cluster: somebody has to change a config first.
STRANGER_AGAIN = 30.0
# What was told once is told again after so many heartbeats: an answer may have been lost.
TELL_AGAIN = 5.0
# Where somebody may be found is tried for so long after it was told last.
LEAD_KEPT_S = 60.0
# Each address is a dial of its own, all at once.
ADDRESS_COUNT_MAX, LEAD_COUNT_MAX = 16, 256


@dataclass(frozen=True, slots=True)
class Lead:
    """Where a node may be found: by the word of one who hears it, or because it announces itself (mDNS)."""

    node_id: NodeId
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Greeting:
    """What ExchangeCard carries, there and back. Peers are only those whom its node hears itself: word that goes
    round would never end."""

    card: Card
    peers: tuple[Lead, ...] = ()
    left: tuple[tuple[NodeId, Life], ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """An exchange to begin now, at all addresses at once; the first answer counts. A seed has no id."""

    node_id: NodeId | None
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """Who answered last at a seed."""

    cluster_name: str
    node_id: NodeId
    life: Life


@dataclass(frozen=True, slots=True)
class Word:
    """What members are told of others."""

    heard: tuple[Lead, ...]
    left: tuple[tuple[NodeId, Life], ...]


@dataclass(frozen=True, slots=True)
class Peers:
    seeds: tuple[str, ...] = ()
    # With the time at which each was told last.
    leads: Mapping[NodeId, tuple[Lead, float]] = field(default_factory=dict)
    # The last call of each node, or seed.
    tried_s: Mapping[str, float] = field(default_factory=dict)
    found: Mapping[str, Found] = field(default_factory=dict)
    # Where each node answered, while it does.
    answers_at: Mapping[NodeId, str] = field(default_factory=dict)
    # What each was told, in which life of its own, and when.
    told: Mapping[NodeId, tuple["Word", Life, float]] = field(default_factory=dict)
    # What is told now, and the members that it was made from.
    word: tuple[Mapping[NodeId, Member], "Word"] | None = None


NOWHERE: Mapping[NodeId, str] = {}


def calls(roster: Roster, peers: Peers, best: Mapping[NodeId, str] = NOWHERE) -> tuple[tuple[Call, ...], Peers]:
    """What is due, taken for done. `best`: the address of the best link to a node, where one has been measured."""
    now_s = roster.clock.awake_s
    # While its own card says where it is, a lead may be the way to its twin, whose answers would be taken for its own.
    leads = {
        one: known
        for one, known in peers.leads.items()
        if now_s - known[1] < LEAD_KEPT_S and not _is_heard(roster, one)
    }
    peers = replace(peers, leads=leads)
    rest_s = _rests_s(roster, peers)
    due = {key for key, rest in rest_s.items() if now_s >= rest}
    tried_s = {key: at_s for key, at_s in peers.tried_s.items() if key in rest_s} | dict.fromkeys(due, now_s)
    found = [
        Call(node_id, _addresses(roster, peers, best, node_id))
        for node_id in (*roster.members, *(one for one in leads if one not in roster.members))
        if node_id in due
    ]
    found += [Call(None, (seed,)) for seed in peers.seeds if seed in due]
    return tuple(call for call in found if call.addresses), replace(peers, tried_s=tried_s)


def answered(
    roster: Roster, peers: Peers, call: Call, address: str, greeting: Greeting, now_s: float
) -> tuple[Roster, Peers]:
    """A call of ours was answered; by another node, where its address has gone to that one."""
    card = greeting.card
    if call.node_id is None:
        found = Found(card.cluster_name, card.node_id, card.life)
        peers = replace(peers, found={**peers.found, address: found})
    elif card.node_id != call.node_id:
        peers = failed(peers, call)
    roster, peers = greeted(roster, peers, greeting, now_s)
    member = roster.members.get(card.node_id)
    is_shown = member is not None and member.card.life == card.life
    if is_shown and peers.answers_at.get(card.node_id) != address:
        peers = replace(peers, answers_at={**peers.answers_at, card.node_id: address})
    return roster, peers


def failed(peers: Peers, call: Call) -> Peers:
    """Nobody answered: the next call goes to all addresses, and tells everything."""
    if call.node_id is None:
        return replace(peers, found={one: found for one, found in peers.found.items() if one not in call.addresses})
    answers_at = {one: address for one, address in peers.answers_at.items() if one != call.node_id}
    told = {one: known for one, known in peers.told.items() if one != call.node_id}
    return replace(peers, answers_at=answers_at, told=told)


def greeted(roster: Roster, peers: Peers, greeting: Greeting, now_s: float) -> tuple[Roster, Peers]:
    """A greeting came, in a request or as an answer. Only a member's word of others is taken, and that somebody has
    left, as more than hearsay, only from that one itself and from the scheduler node: others may lie."""
    roster = rosters.hear(roster, greeting.card, now_s)
    member = roster.members.get(greeting.card.node_id)
    if member is None or member.card.life != greeting.card.life or member.state is not S.ALIVE:
        return roster, peers
    for node_id, life in greeting.left:
        is_hearsay = member.card.node_id not in (node_id, roster.scheduler)
        roster = rosters.leave(roster, node_id, life, now_s, is_hearsay=is_hearsay)
    return roster, sighted(roster, peers, greeting.peers)


def sighted(roster: Roster, peers: Peers, leads: Iterable[Lead]) -> Peers:
    """Kept of those who are not heard, and of one with our own id at another address: a twin."""
    now_s = roster.clock.awake_s
    own, departed = set(roster.own.addresses), roster.departed
    news = {}
    for lead in leads:
        # Most are heard, and there are many.
        if _is_heard(roster, lead.node_id) or lead.node_id in departed:
            continue
        is_wanted = lead.node_id != roster.own_id or not own.issuperset(lead.addresses)
        if is_wanted and lead.addresses:
            news[lead.node_id] = (replace(lead, addresses=lead.addresses[:ADDRESS_COUNT_MAX]), now_s)
    if not news:
        return peers
    kept = {one: known for one, known in peers.leads.items() if one not in news} | news
    return replace(peers, leads=dict(list(kept.items())[-LEAD_COUNT_MAX:]))


def _is_heard(roster: Roster, node_id: NodeId) -> bool:
    known = roster.members.get(node_id)
    return known is not None and known.state is S.ALIVE and node_id != roster.own_id


def greet(roster: Roster, peers: Peers, to: Card | None) -> tuple[Greeting, Peers]:
    """What to say to the node of a card, as it was heard last. What it has been told already is left out.

    To whom we do not know, and to another cluster, nothing is told but our card.
    """
    now_s = roster.clock.awake_s
    if to is None or to.cluster_name != roster.own.cluster_name:
        return Greeting(roster.own), peers
    if peers.word is None or peers.word[0] is not roster.members:
        peers = replace(peers, word=(roster.members, _word(roster)))
    assert peers.word is not None
    word = peers.word[1]
    told = peers.told.get(to.node_id)
    is_told = told is not None and told[:2] == (word, to.life)
    # Our own farewell nobody else can say for us, and soon we are gone.
    is_leaving = roster.members[roster.own_id].state is S.LEFT
    is_fresh = told is not None and now_s - told[2] < TELL_AGAIN * roster.waits.heartbeat_s
    if is_told and is_fresh and not is_leaving:
        return Greeting(roster.own), peers
    peers = replace(peers, told={**peers.told, to.node_id: (word, to.life, now_s)})
    return Greeting(roster.own, word.heard, word.left), peers


def _word(roster: Roster) -> Word:
    """Of everybody whom we hear: the receiver is among them, so that a twin of it learns of the other."""
    members = roster.members.items()
    alive = ((one, member) for one, member in members if member.state is S.ALIVE and one != roster.own_id)
    heard = tuple(Lead(one, member.card.addresses) for one, member in alive)
    # The scheduler node's word is more than hearsay: it passes none on.
    is_believed = roster.own_id == roster.scheduler
    gone = ((one, member) for one, member in members if member.state is S.LEFT)
    left = tuple((one, member.card.life) for one, member in gone if not (member.is_hearsay and is_believed))
    return Word(heard, left)


def _rests_s(roster: Roster, peers: Peers) -> dict[str, float]:
    """Until when each node or seed that we call at all is left alone."""
    beat_s = roster.waits.heartbeat_s
    rests: dict[str, float] = {}
    for node_id, member in roster.members.items():
        if node_id == roster.own_id:
            continue
        tried_s = peers.tried_s.get(node_id)
        if member.state in HERE:
            is_first = roster.own_id < node_id
            since_s = max(roster.heard_s[node_id], 0.0 if tried_s is None else tried_s)
            # One that is only remembered is called at once.
            is_new = tried_s is None and member.state is S.SUSPECT
            rests[node_id] = 0.0 if is_new else since_s + beat_s * (1 if is_first else SECOND_CALLER)
        elif member.state is S.DEAD:
            rests[node_id] = _after(tried_s, TRY_AGAIN * beat_s)
    for node_id in peers.leads:
        if node_id not in rests:
            rests[node_id] = _after(peers.tried_s.get(node_id), TRY_AGAIN * beat_s)
    for seed in peers.seeds:
        found = peers.found.get(seed)
        if found is None or not _is_member(roster, found):
            is_strange = found is not None and found.cluster_name != roster.own.cluster_name
            again = STRANGER_AGAIN if is_strange else TRY_AGAIN
            rests[seed] = _after(peers.tried_s.get(seed), again * beat_s)
    return rests


def _after(tried_s: float | None, wait_s: float) -> float:
    return 0.0 if tried_s is None else tried_s + wait_s


def _is_member(roster: Roster, found: Found) -> bool:
    """One whose cards come by themselves, or ourselves."""
    member = roster.members.get(found.node_id)
    return member is not None and member.card.life == found.life and member.state in HERE


def _addresses(roster: Roster, peers: Peers, best: Mapping[NodeId, str], node_id: NodeId) -> tuple[str, ...]:
    """The one that answers, while it does; otherwise all that are known."""
    member = roster.members.get(node_id)
    if node_id in peers.answers_at and member is not None and member.state in HERE and node_id != roster.own_id:
        return (best.get(node_id, peers.answers_at[node_id]),)
    lead = peers.leads.get(node_id)
    known = member.card.addresses if member is not None and node_id != roster.own_id else ()
    every = dict.fromkeys((*known, *(lead[0].addresses if lead else ())))
    own = set(roster.own.addresses)
    return tuple(address for address in every if address not in own)[:ADDRESS_COUNT_MAX]
