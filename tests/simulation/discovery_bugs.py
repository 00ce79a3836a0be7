"""The core of discovery with one mistake each. The simulation must notice every one of them."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from simulation.discovery_world import Core
from thunderline.cluster.members import MemberState
from thunderline.discovery import peers as calling
from thunderline.discovery import roster as rosters
from thunderline.discovery.member_life import Clock
from thunderline.discovery.peers import Call, Greeting, Peers
from thunderline.discovery.roster import VERSIONS_PER_START, Roster
from thunderline.discovery.values import Card, Life, Member, View

S = MemberState
Before = Callable[[Roster, Greeting, float], tuple[Roster, Greeting]]
# The roster before and after, and the greeting between.
After = Callable[[Roster, Roster, Greeting], Roster]


def as_it_is(roster: Roster, greeting: Greeting, now_s: float) -> tuple[Roster, Greeting]:
    return roster, greeting


def as_it_became(before: Roster, after: Roster, greeting: Greeting) -> Roster:
    return after


def hearing(change: Before = as_it_is, mend: After = as_it_became) -> Core:
    """It takes what it hears for something else, or makes something else of it."""

    def greeted(roster: Roster, peers: Peers, greeting: Greeting, now_s: float) -> tuple[Roster, Peers]:
        seen, heard = change(roster, greeting, now_s)
        after, peers = calling.greeted(seen, peers, heard, now_s)
        return mend(roster, after, greeting), peers

    def answered(
        roster: Roster, peers: Peers, call: Call, address: str, greeting: Greeting, now_s: float
    ) -> tuple[Roster, Peers]:
        seen, heard = change(roster, greeting, now_s)
        after, peers = calling.answered(seen, peers, call, address, heard, now_s)
        return mend(roster, after, greeting), peers

    return Core(greeted=greeted, answered=answered)


def with_member(roster: Roster, member: Member) -> Roster:
    return replace(roster, members={**roster.members, member.card.node_id: member}, version=roster.version + 1)


def believes_an_older_life(roster: Roster, greeting: Greeting, now_s: float) -> tuple[Roster, Greeting]:
    """Whoever speaks is who it says."""
    card = greeting.card
    known = roster.members.get(card.node_id)
    if known is not None and card.node_id != roster.own_id and card.life < known.card.life:
        return with_member(roster, replace(known, card=card)), greeting
    return roster, greeting


def joins_anybody(roster: Roster, greeting: Greeting, now_s: float) -> tuple[Roster, Greeting]:
    return roster, replace(greeting, card=replace(greeting.card, cluster_name=roster.own.cluster_name))


def merges_twins(roster: Roster, greeting: Greeting, now_s: float) -> tuple[Roster, Greeting]:
    """An id and a count of starts is one node."""
    card = greeting.card
    known = roster.members.get(card.node_id)
    if known is not None and known.card.life.incarnation == card.life.incarnation:
        return roster, replace(greeting, card=replace(card, life=known.card.life))
    return roster, greeting


def believes_what_is_told(before: Roster, after: Roster, greeting: Greeting) -> Roster:
    """Who is heard by a member is one."""
    for lead in greeting.peers:
        if lead.node_id not in after.members:
            card = Card(lead.node_id, Life(1, ""), after.own.cluster_name, addresses=lead.addresses)
            after = with_member(after, Member(card, S.ALIVE, after.clock.read_s))
            after = replace(after, heard_s={**after.heard_s, lead.node_id: after.clock.awake_s})
    return after


def takes_back_a_farewell(before: Roster, after: Roster, greeting: Greeting) -> Roster:
    """Who speaks is there."""
    member = after.members.get(greeting.card.node_id)
    spoke = (greeting.card.node_id, greeting.card.life)
    if member is None or member.state is not S.LEFT or spoke in greeting.left or member.card.life != spoke[1]:
        return after
    return with_member(after, replace(member, state=S.ALIVE))


def takes_anybodys_word(before: Roster, after: Roster, greeting: Greeting) -> Roster:
    """Who tells of a farewell has heard it."""
    for node_id, life in greeting.left:
        after = rosters.leave(after, node_id, life, after.clock.read_s)
    return after


def takes_hearsay_for_truth(before: Roster, after: Roster, greeting: Greeting) -> Roster:
    for member in after.members.values():
        if member.is_hearsay:
            after = with_member(after, replace(member, is_hearsay=False))
    return after


def forgets_hearsay(before: Roster, after: Roster, greeting: Greeting) -> Roster:
    """Only what was heard from who left counts."""
    told = [node for node, member in after.members.items() if member.is_hearsay]
    return replace(after, members={**after.members, **{node: before.members[node] for node in told}})


def shows_whatever_came_last(before: Roster, after: Roster, greeting: Greeting) -> Roster:
    """Cards of one life have no order."""
    member = after.members.get(greeting.card.node_id)
    if member is None or member.card.life != greeting.card.life or member.card == greeting.card:
        return after
    return with_member(after, replace(member, card=greeting.card)) if after.own_id != member.card.node_id else after


def does_not_tell_a_restart(before: Roster, after: Roster, greeting: Greeting) -> Roster:
    """Who was ALIVE and is ALIVE has not changed."""
    states = {node_id: member.state for node_id, member in before.members.items()}
    is_same = states == {node_id: member.state for node_id, member in after.members.items()}
    return replace(after, version=before.version) if is_same else after


def takes_sleep_for_silence(before: Roster, now_s: float) -> Roster:
    gap_s = max(0.0, now_s - before.clock.read_s)
    return rosters.tick(replace(before, clock=Clock(now_s, before.clock.awake_s + gap_s)), now_s)


def never_gives_up(before: Roster, now_s: float) -> Roster:
    return replace(rosters.tick(replace(before, waits=replace(before.waits, dead_s=1e9)), now_s), waits=before.waits)


def judges_hastily(before: Roster, now_s: float) -> Roster:
    """One lost card is enough."""
    return replace(rosters.tick(replace(before, waits=replace(before.waits, suspect_s=1.0)), now_s), waits=before.waits)


def is_complete_at_once(own: Card, remembered: Iterable[Card], now_s: float) -> Roster:
    return rosters.start(own, remembered, now_s, alone=True)


def counts_from_the_beginning(own: Card, remembered: Iterable[Card], now_s: float) -> Roster:
    begun = rosters.start(own, remembered, now_s)
    return replace(begun, version=begun.version % VERSIONS_PER_START)


def trusts_its_memory(own: Card, remembered: Iterable[Card], now_s: float) -> Roster:
    """Who was there before is taken for ALIVE."""
    begun = rosters.start(own, remembered, now_s)
    return replace(begun, members={one: replace(known, state=S.ALIVE) for one, known in begun.members.items()})


def keeps_its_peers_to_itself(roster: Roster, peers: Peers, to: Card | None) -> tuple[Greeting, Peers]:
    greeting, peers = calling.greet(roster, peers, to)
    return replace(greeting, peers=()), peers


def says_no_farewell_of_others(roster: Roster, peers: Peers, to: Card | None) -> tuple[Greeting, Peers]:
    greeting, peers = calling.greet(roster, peers, to)
    return replace(greeting, left=tuple(one for one in greeting.left if one[0] == roster.own_id)), peers


def waits_for_a_change(seen_version: int | None, roster: Roster) -> View | None:
    """What is there when a watch begins is no news."""
    if seen_version is None:
        return None if roster.version % VERSIONS_PER_START <= 1 else rosters.view(roster)
    return rosters.to_send(seen_version, roster)


BUGS: dict[str, Core] = {
    "an older life is believed": hearing(believes_an_older_life),
    "another cluster's node is joined": hearing(joins_anybody),
    "two nodes with one id are merged": hearing(merges_twins),
    "who is told of is a member": hearing(mend=believes_what_is_told),
    "who has left comes back with a late card": hearing(mend=takes_back_a_farewell),
    "an old card replaces a newer one of the same life": hearing(mend=shows_whatever_came_last),
    "a restart is no change": hearing(mend=does_not_tell_a_restart),
    "a sleep is taken for silence": Core(tick=takes_sleep_for_silence),
    "the dead are never given up": Core(tick=never_gives_up),
    "a silence is judged early": Core(tick=judges_hastily),
    "a roster is complete at once": Core(start=is_complete_at_once),
    "versions begin anew with a restart": Core(start=counts_from_the_beginning),
    "who was there before a restart is taken for ALIVE": Core(start=trusts_its_memory),
    "members do not tell of each other": Core(greet=keeps_its_peers_to_itself),
    "anybody's word that somebody left is taken": hearing(mend=takes_anybodys_word),
    "who was only said to have left never comes back": hearing(mend=takes_hearsay_for_truth),
    "who was away never learns who left": hearing(mend=forgets_hearsay),
    "a farewell is not told on": Core(greet=says_no_farewell_of_others),
    "a watch begins with the next change": Core(to_send=waits_for_a_change),
}

# Seeds that are known to catch those that few of the first ones notice.
CAUGHT_AT = {
    "who has left comes back with a late card": 14,
    "an old card replaces a newer one of the same life": 34,
}
