"""Who is in the cluster, as one node hears it. Pure: values and what they become; times are seconds of one clock.

That clock should go on while the machine sleeps; it need not, and may leap.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from thunderline.cluster import NodeId
from thunderline.cluster.members import MemberState
from thunderline.discovery.member_life import LIFE, Clock, Signal, Waits, is_farewell, look, silence
from thunderline.discovery.values import Card, Life, Member, Rival, Stranger, Twin, View

S = MemberState
# States in which a member may be reached.
HERE = {S.ALIVE, S.SUSPECT}
# Those who were away when a member left can be told so for a day.
LEFT_KEPT_S = 86_400.0
# A node of another cluster is shown for so long after it was last heard.
STRANGER_KEPT_S = 120.0
# Of what anybody on the network can send, so much is kept.
STRANGER_COUNT_MAX, STRANGER_ADDRESS_COUNT_MAX, RIVAL_COUNT_MAX = 64, 32, 4
# Versions of one start; the incarnation counts above them, so that they grow over restarts. Both fit 63 bits.
VERSIONS_PER_START = 2**32


@dataclass(frozen=True, slots=True)
class Roster:
    own_id: NodeId
    waits: Waits
    clock: Clock
    # Nobody else is known, and nobody is looked for: no need to wait before it is complete.
    alone: bool
    # Itself among them.
    members: Mapping[NodeId, Member]
    # Awake seconds at which each was heard last, at the earliest our start.
    heard_s: Mapping[NodeId, float]
    version: int
    complete: bool
    # Awake.
    complete_from_s: float
    rivals: Mapping[NodeId, tuple[Rival, ...]] = field(default_factory=dict)
    strangers: Mapping[tuple[NodeId, str], Stranger] = field(default_factory=dict)
    strangers_heard_s: Mapping[tuple[NodeId, str], float] = field(default_factory=dict)
    # Its word that somebody has left counts as that one's own.
    scheduler: NodeId | None = None

    @property
    def own(self) -> Card:
        return self.members[self.own_id].card

    @property
    def departed(self) -> frozenset[NodeId]:
        """Who was taken out, by the scheduler node's newest card: no card of theirs counts, until that changes."""
        known = self.members.get(self.scheduler) if self.scheduler is not None else None
        return known.card.departed - {self.own_id} if known is not None else frozenset()


DEFAULTS = Waits()


def start(
    own: Card,
    remembered: Iterable[Card],
    now_s: float,
    waits: Waits = DEFAULTS,
    *,
    alone: bool = False,
    scheduler: NodeId | None = None,
) -> Roster:
    """`remembered`: what `to_remember` gave before. Those get one dead-time to be heard, like everybody."""
    known = [card for card in remembered if card.cluster_name == own.cluster_name]
    members = {card.node_id: Member(card, S.SUSPECT, now_s) for card in known}
    members[own.node_id] = Member(own, S.ALIVE, now_s)
    roster = Roster(
        own_id=own.node_id,
        waits=waits,
        clock=Clock(now_s),
        alone=alone,
        members=members,
        heard_s=dict.fromkeys(members, 0.0),
        version=own.life.incarnation * VERSIONS_PER_START + 1,
        complete=alone,
        complete_from_s=waits.dead_s,
        scheduler=scheduler,
    )
    return _without_departed(roster, now_s)


def hear(before: Roster, card: Card, now_s: float) -> Roster:
    """A card came from its node, as a request or as an answer."""
    roster = _at(before, now_s)
    if card.cluster_name != roster.own.cluster_name:
        stranger = Stranger(card.node_id, card.cluster_name, card.hostname, card.addresses)
        roster = _noticed(roster, stranger)
    elif not is_out(roster, card):
        roster = _without_departed(_with_card(roster, card, now_s), now_s)
    return _numbered(before, roster)


def is_out(roster: Roster, card: Card) -> bool:
    """Whether a card is not taken because its node was taken out; the life that left may still learn that it did."""
    known = roster.members.get(card.node_id)
    knows = known is not None and known.state is S.LEFT and known.card.life == card.life
    return card.node_id in roster.departed and not knows


def notice(before: Roster, stranger: Stranger, now_s: float) -> Roster:
    """A node announces itself under another cluster's name."""
    return _numbered(before, _noticed(_at(before, now_s), stranger))


def leave(before: Roster, node_id: NodeId, life: Life, now_s: float, *, is_hearsay: bool = False) -> Roster:
    """This life of a member says that it leaves, or the scheduler node does; as hearsay, anybody else."""
    roster = _at(before, now_s)
    known = roster.members.get(node_id)
    if known is None or not is_farewell(known, life, is_hearsay, node_id == roster.own_id):
        return _numbered(before, roster)
    # Under the name of the life that left: a card of it that is late brings nothing back.
    card = known.card if is_hearsay else replace(known.card, life=life)
    return _numbered(before, _heard(roster, Member(card, LIFE[known.state][Signal.LEAVES], now_s, is_hearsay)))


def renew(before: Roster, own: Card, now_s: float) -> Roster:
    """This node's card has changed."""
    roster = _at(before, now_s)
    members = {**roster.members, own.node_id: replace(roster.members[own.node_id], card=own)}
    return _numbered(before, _without_departed(replace(roster, members=members), now_s))


def tick(before: Roster, now_s: float) -> Roster:
    """Judges silences, and forgets what is over. Wanted every `waits.tick_s`."""
    roster = _at(before, now_s)
    awake_s, waits = roster.clock.awake_s, roster.waits
    if roster.clock.judges:
        roster = _judged(roster, now_s)
    gone = [
        node_id
        for node_id, member in roster.members.items()
        if member.state is S.LEFT and node_id != roster.own_id and awake_s - roster.heard_s[node_id] >= LEFT_KEPT_S
    ]
    if gone:
        roster = replace(
            roster,
            members={one: member for one, member in roster.members.items() if one not in gone},
            heard_s={one: heard_s for one, heard_s in roster.heard_s.items() if one not in gone},
        )
    if roster.rivals:
        living = {
            one: tuple(rival for rival in rivals if awake_s - rival.heard_s < waits.dead_s)
            for one, rivals in roster.rivals.items()
            if one not in gone
        }
        roster = replace(roster, rivals={one: rivals for one, rivals in living.items() if rivals})
    if any(awake_s - heard_s >= STRANGER_KEPT_S for heard_s in roster.strangers_heard_s.values()):
        heard = {one: at_s for one, at_s in roster.strangers_heard_s.items() if awake_s - at_s < STRANGER_KEPT_S}
        shown = {one: stranger for one, stranger in roster.strangers.items() if one in heard}
        roster = replace(roster, strangers=shown, strangers_heard_s=heard)
    if not roster.complete and awake_s >= roster.complete_from_s and roster.clock.judges:
        roster = replace(roster, complete=True)
    return _numbered(before, roster)


def twins(roster: Roster) -> tuple[Twin, ...]:
    """Both lives have to be heard after each became known beside the other; the one with the older incarnation for a
    dead-time, since cards of a node's former life may still be on their way."""
    found = []
    for node_id, rivals in roster.rivals.items():
        shown = roster.members[node_id].card
        shown_s = roster.clock.awake_s if node_id == roster.own_id else roster.heard_s[node_id]
        for rival in rivals:
            is_older = rival.card.life.incarnation < shown.life.incarnation
            echo_s = roster.waits.dead_s if is_older else 0.0
            if shown_s > rival.since_s and rival.heard_s > rival.since_s + echo_s:
                found.append(Twin(shown, rival.card))
    return tuple(sorted(found, key=lambda twin: (twin.shown.node_id, twin.other.life)))


def renumbered(roster: Roster) -> Roster:
    """Something has changed that is told beside what the roster holds."""
    return replace(roster, version=roster.version + 1)


def view(roster: Roster) -> View:
    return View(
        roster.own_id,
        roster.version,
        roster.complete,
        tuple(member for _, member in sorted(roster.members.items())),
        twins(roster),
        tuple(stranger for _, stranger in sorted(roster.strangers.items())),
    )


def to_send(seen_version: int | None, roster: Roster) -> View | None:
    """What WatchRoster sends to one who has seen a version: first the whole roster, whatever it is, then the whole
    newest after every change. None: nothing is new to it."""
    return view(roster) if seen_version is None or roster.version > seen_version else None


def to_remember(roster: Roster) -> tuple[Card, ...]:
    """What has to survive a restart: the members, until they leave."""
    kept = (member for one, member in sorted(roster.members.items()) if one != roster.own_id)
    return tuple(member.card for member in kept if member.state is not S.LEFT)


def _at(roster: Roster, now_s: float) -> Roster:
    """After a sleep everybody is given the time to be heard that they are given after a start."""
    clock, slept = look(roster.clock, now_s, roster.waits)
    if not slept:
        return replace(roster, clock=clock)
    return replace(
        roster,
        clock=clock,
        heard_s=dict.fromkeys(roster.members, clock.awake_s),
        complete=roster.alone and len(roster.members) == 1,
        complete_from_s=clock.awake_s + roster.waits.dead_s,
    )


def _numbered(before: Roster, after: Roster) -> Roster:
    """A new version where anything that is shown has changed."""
    return after if _shown(before) == _shown(after) else replace(after, version=before.version + 1)


def _shown(roster: Roster) -> tuple[object, ...]:
    return roster.members, roster.complete, roster.strangers, twins(roster) if roster.rivals else ()


def _with_card(roster: Roster, card: Card, now_s: float) -> Roster:
    known = roster.members.get(card.node_id)
    if known is None:
        return _heard(roster, Member(card, S.ALIVE, now_s))
    if card.life == known.card.life:
        return _heard_again(roster, known, card, now_s)
    if _takes_its_place(roster, known, card):
        return _replaced(roster, known, card, now_s)
    rivals = {**roster.rivals, card.node_id: _beside(roster, card)}
    return replace(_in_state(roster, known, LIFE[known.state][Signal.ECHO], now_s), rivals=rivals)


def _without_departed(roster: Roster, now_s: float) -> Roster:
    """Whatever their life: the scheduler node says that they have left."""
    for node_id in roster.departed & roster.members.keys():
        known = roster.members[node_id]
        if known.state is not S.LEFT or known.is_hearsay:
            roster = _heard(roster, Member(known.card, LIFE[known.state][Signal.LEAVES], now_s))
    return roster


def _heard(roster: Roster, member: Member) -> Roster:
    node_id = member.card.node_id
    heard_s = {**roster.heard_s, node_id: roster.clock.awake_s}
    return replace(roster, members={**roster.members, node_id: member}, heard_s=heard_s)


def _heard_again(roster: Roster, known: Member, card: Card, now_s: float) -> Roster:
    """Cards may pass each other on their way: an older one of the same life is a sign of life and no more."""
    if card.node_id == roster.own_id:
        return roster
    state = LIFE[known.state][Signal.BELIED if known.is_hearsay else Signal.HEARD]
    newest = card if card.revision > known.card.revision else known.card
    if state is not known.state or newest is not known.card:
        since_s = known.since_s if state is known.state else now_s
        return _heard(roster, Member(newest, state, since_s))
    return replace(roster, heard_s={**roster.heard_s, card.node_id: roster.clock.awake_s})


def _takes_its_place(roster: Roster, known: Member, card: Card) -> bool:
    """Whether another life is the member from now on: a newer one at once.

    An older one, of a node that has lost its count, when it has been heard for a dead-time and the known one has not.
    Nobody takes our own place.
    """
    if card.node_id == roster.own_id:
        return False
    if card.life > known.card.life:
        return True
    mine, _ = _apart(roster, card)
    since_s = mine.since_s if mine is not None else roster.clock.awake_s
    return known.state not in HERE and roster.clock.awake_s - since_s >= roster.waits.dead_s


def _replaced(roster: Roster, known: Member, card: Card, now_s: float) -> Roster:
    """A life that was still there may turn out to be a twin's."""
    mine, others = _apart(roster, card)
    roster = replace(roster, rivals={**roster.rivals, card.node_id: others})
    if known.state in HERE:
        roster = replace(roster, rivals={**roster.rivals, card.node_id: _beside(roster, known.card)})
    newest = mine.card if mine is not None and mine.card.revision > card.revision else card
    return _heard(roster, Member(newest, LIFE[known.state][Signal.REPLACED], now_s))


def _beside(roster: Roster, card: Card) -> tuple[Rival, ...]:
    mine, others = _apart(roster, card)
    awake_s = roster.clock.awake_s
    if mine is None:
        return (*others, Rival(card, awake_s, awake_s))[-RIVAL_COUNT_MAX:]
    newest = card if card.revision > mine.card.revision else mine.card
    return (*others, Rival(newest, mine.since_s, awake_s))


def _apart(roster: Roster, card: Card) -> tuple[Rival | None, tuple[Rival, ...]]:
    """The rival of this card's life, if it is one, and the member's others."""
    rivals = roster.rivals.get(card.node_id, ())
    mine = next((rival for rival in rivals if rival.card.life == card.life), None)
    return mine, tuple(rival for rival in rivals if rival is not mine)


def _noticed(roster: Roster, stranger: Stranger) -> Roster:
    """The newest of them are kept. What was heard of one before stays: an announcement says less than a card, and the
    copy of a disk says something else, so that what is shown would change with each of them."""
    key = (stranger.node_id, stranger.cluster_name)
    known = roster.strangers.get(key, stranger)
    addresses = tuple(dict.fromkeys((*known.addresses, *stranger.addresses)))[:STRANGER_ADDRESS_COUNT_MAX]
    stranger = replace(known, hostname=known.hostname or stranger.hostname, addresses=addresses)
    heard = {one: at_s for one, at_s in roster.strangers_heard_s.items() if one != key}
    heard[key] = roster.clock.awake_s
    kept = dict(list(heard.items())[-STRANGER_COUNT_MAX:])
    shown = {one: known for one, known in {**roster.strangers, key: stranger}.items() if one in kept}
    return replace(roster, strangers=shown, strangers_heard_s=kept)


def _judged(roster: Roster, now_s: float) -> Roster:
    awake_s = roster.clock.awake_s
    moved = {}
    for node_id, member in roster.members.items():
        signal = silence(awake_s - roster.heard_s[node_id], roster.waits)
        if signal is None or node_id == roster.own_id:
            continue
        state = LIFE[member.state][signal]
        if state is not member.state:
            moved[node_id] = Member(member.card, state, now_s)
    return replace(roster, members={**roster.members, **moved}) if moved else roster


def _in_state(roster: Roster, known: Member, state: MemberState, now_s: float) -> Roster:
    if state is known.state:
        return roster
    return replace(roster, members={**roster.members, known.card.node_id: Member(known.card, state, now_s)})
