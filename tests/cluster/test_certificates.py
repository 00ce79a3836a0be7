"""What certificates say, how long they count, and the reason that is told when one does not."""

import itertools

import pytest

from thunderline.cluster import NodeId
from thunderline.cluster.callers import CERTIFIED, Caller
from thunderline.cluster.certificates import (
    CERTIFICATE_S,
    CLIENT_NAME,
    CLOCK_SLACK_S,
    DAY_S,
    Bearer,
    Facts,
    Freshness,
    Validity,
    bearer,
    check_peer,
    domain,
    freshness,
    own_fault,
    renewal,
    validity,
    why_refused,
)
from thunderline.cluster.errors import Unauthenticated

NOW_S = 1_790_000_000.0
NODE = "6b7b0f4e-2c0e-4f2e-9f4f-5a1f1f0a9c11"
GOOD = Facts(Bearer("home", Caller.MEMBER, NODE), Validity(int(NOW_S) - DAY_S, int(NOW_S) + 300 * DAY_S), "aa")

NAMES = ["home", "a b/c", "größe", "x" * 200, "%2F"]


@pytest.mark.parametrize(
    ("cluster", "caller"), list(itertools.product(NAMES, sorted(CERTIFIED, key=lambda one: one.value)))
)
def test_what_a_certificate_names_is_read_back(cluster: str, caller: Caller) -> None:
    one = Bearer(cluster, caller, NODE)
    assert one.uri.isascii()
    assert bearer(["spiffe://else/where", one.uri]) == one


NOBODY = {
    "no URI": [],
    "another program's": ["https://example.org"],
    "two of ours": [GOOD.bearer.uri, Bearer("home", Caller.SCHEDULER, NODE).uri],
    "the same twice": [GOOD.bearer.uri, GOOD.bearer.uri],
    "an unknown kind": [f"thunderline://home/root/{NODE}"],
    "a kind that no certificate has": [f"thunderline://home/local/{NODE}"],
    "no name": ["thunderline://home/member/"],
    "no cluster": [f"thunderline:///member/{NODE}"],
    "too many parts": [f"thunderline://home/member/{NODE}/scheduler"],
    "too few": ["thunderline://home"],
}


@pytest.mark.parametrize("uris", NOBODY.values(), ids=NOBODY.keys())
def test_whatever_else_names_nobody(uris: list[str]) -> None:
    with pytest.raises(Unauthenticated):
        bearer(uris)


def test_a_node_is_checked_by_its_own_name_or_as_any_node() -> None:
    assert domain(NodeId(NODE)) == f"{NODE}.node.thunderline"
    assert domain() == "node.thunderline"


@pytest.mark.parametrize("name", ["me", "laptop-2", "A.b_c", "x" * 63])
def test_names_of_clients(name: str) -> None:
    assert CLIENT_NAME.fullmatch(name)


@pytest.mark.parametrize("name", ["", "../me", ".me", "a/b", "x" * 64, "a b", "me\n", "mé"])
def test_no_names_of_clients(name: str) -> None:
    assert not CLIENT_NAME.fullmatch(name)


def test_a_certificate_counts_from_before_it_was_made_and_not_beyond_its_authority() -> None:
    assert validity(NOW_S, CERTIFICATE_S) == Validity(int(NOW_S) - CLOCK_SLACK_S, int(NOW_S) + CERTIFICATE_S)
    assert validity(NOW_S, CERTIFICATE_S, int(NOW_S) + DAY_S).ends_s == int(NOW_S) + DAY_S


VALID = Validity(0, 300)
AGES = {
    -1: Freshness.NOT_YET,
    0: Freshness.FRESH,
    199: Freshness.FRESH,
    200: Freshness.DUE,
    299: Freshness.DUE,
    300: Freshness.EXPIRED,
    10**9: Freshness.EXPIRED,
}


@pytest.mark.parametrize(("now_s", "expected"), AGES.items(), ids=lambda one: str(one))
def test_freshness(now_s: int, expected: Freshness) -> None:
    assert freshness(VALID, now_s) is expected


def facts(cluster: str = "home", authority: str = "aa", begins_s: float = -DAY_S, ends_s: float = DAY_S) -> Facts:
    return Facts(Bearer(cluster, Caller.MEMBER, NODE), Validity(int(NOW_S + begins_s), int(NOW_S + ends_s)), authority)


OWN_FAULTS = {
    "all is well": (facts(), ""),
    "it ends soon, and is good": (facts(begins_s=-300 * DAY_S), ""),
    "none": (None, "no certificate"),
    "another cluster's": (facts(cluster="work"), "of cluster 'work'"),
    "of an authority that was dropped": (facts(authority=""), "no authority"),
    "expired": (facts(ends_s=-1), "has expired"),
    "not valid yet": (facts(begins_s=5), "clock is behind"),
    # The first thing to do comes first.
    "another cluster's, and expired": (facts(cluster="work", ends_s=-1), "of cluster 'work'"),
}


@pytest.mark.parametrize(("own", "said"), OWN_FAULTS.values(), ids=OWN_FAULTS.keys())
def test_faults_of_our_own(own: Facts | None, said: str) -> None:
    fault = own_fault(own, "home", NOW_S)
    assert said in fault
    assert bool(fault) == bool(said)
    # Before anybody is dialled, and whatever the peer shows.
    assert not said or why_refused(own, facts(), "home", NOW_S) == fault


REFUSALS = {
    "both look right": (facts(), ""),
    "no certificate of ours": (None, "no certificate of a thunderline node"),
    "another cluster": (facts(cluster="work"), "another cluster, 'work'"),
    "another cluster of the same name": (facts(authority=""), "another authority"),
    "theirs has expired": (facts(ends_s=-1), "has expired"),
    "theirs is not valid yet": (facts(begins_s=5), "clocks differ"),
}


@pytest.mark.parametrize(("shown", "said"), REFUSALS.values(), ids=REFUSALS.keys())
def test_why_a_handshake_failed(shown: Facts | None, said: str) -> None:
    reason = why_refused(GOOD, shown, "home", NOW_S)
    assert said in reason
    assert bool(reason) == bool(said)


PEERS = {
    "another cluster's": facts(cluster="work"),
    "of an authority that was dropped": facts(authority=""),
    "expired while connected": facts(ends_s=0),
    "not valid yet": facts(begins_s=1),
}


@pytest.mark.parametrize("peer", PEERS.values(), ids=PEERS.keys())
def test_a_peer_that_is_refused_at_its_next_call(peer: Facts) -> None:
    with pytest.raises(Unauthenticated):
        check_peer(peer, "home", NOW_S)


def test_a_peer_that_is_let_in() -> None:
    check_peer(facts(), "home", NOW_S)


RENEWALS = {
    "nothing is heard of the scheduler node": (GOOD, {"aa"}, set(), "", ""),
    "all is as it was": (GOOD, {"aa"}, {"aa"}, "aa", ""),
    "two thirds of its life are over": (facts(begins_s=-300 * DAY_S), {"aa"}, set(), "", "ends soon"),
    "it has expired": (facts(ends_s=-1), {"aa"}, {"aa"}, "aa", "ends soon"),
    "a second authority is announced": (GOOD, {"aa"}, {"aa", "bb"}, "aa", "have changed"),
    "the second one signs": (GOOD, {"aa", "bb"}, {"aa", "bb"}, "bb", "signs now"),
    "the first one was dropped": (GOOD, {"aa", "bb"}, {"bb"}, "bb", "have changed"),
}


@pytest.mark.parametrize(("own", "trusted", "announced", "signing", "said"), RENEWALS.values(), ids=RENEWALS.keys())
def test_renewals(own: Facts, trusted: set[str], announced: set[str], signing: str, said: str) -> None:
    reason = renewal(own, trusted, announced, signing, NOW_S)
    assert said in reason
    assert bool(reason) == bool(said)
