"""Certificates, keys, doors and seeds: every way in which trust fails, and its remedy."""

from dataclasses import replace

import pytest

from cli.findings.laws import NOTE, WARNING, WRONG, only, short, troubles
from thunderline.cli.findings.trust import (
    Doors,
    Kept,
    Own,
    Try,
    of_doors,
    of_kept,
    of_own,
    of_seeds,
    refusal,
)
from thunderline.cluster.callers import Caller
from thunderline.cluster.certificates import CERTIFICATE_S, Bearer, Facts, Validity, validity

NOW_S = 1_800_000_000.0
ME, OTHER = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"


def facts(
    caller: Caller = Caller.SCHEDULER,
    name: str = ME,
    cluster: str = "home",
    authority: str = "a1",
    valid: Validity | None = None,
) -> Facts:
    return Facts(Bearer(cluster, caller, name), valid or validity(NOW_S, CERTIFICATE_S), authority)


def aged(by_s: float) -> Validity:
    return validity(NOW_S - by_s, CERTIFICATE_S)


ALONE = Own("home", NOW_S, node_id=ME, home="/h")
FIRST = replace(ALONE, facts=facts(), bind="0.0.0.0", has_authority=True)
MEMBER = replace(FIRST, facts=facts(Caller.MEMBER), scheduler=OTHER, has_authority=False)

OWN = {
    "alone on loopback": (ALONE, NOTE, "certificate", "", ""),
    "the scheduler node": (FIRST, NOTE, "certificate", "", ""),
    "a member": (MEMBER, NOTE, "certificate", "", ""),
    "no id": (replace(FIRST, id_fault="holds no node_id"), WRONG, "this node has no id", "holds no", "node.json"),
    "a broken file of the scheduler node": (
        replace(FIRST, facts=None, fault="node.pem is broken"),
        WRONG,
        "this node's certificate cannot be used",
        "is broken",
        "cluster init",
    ),
    "a broken file of a member": (
        replace(MEMBER, facts=None, fault="node.pem is broken"),
        WRONG,
        "this node's certificate cannot be used",
        "is broken",
        "cluster join TOKEN",
    ),
    "none, and wide": (
        replace(ALONE, bind="0.0.0.0"),
        WRONG,
        "the roles do not start: this node has no certificate",
        "'0.0.0.0'",
        '[node] bind = "127.0.0.1"',
    ),
    "none, and seeds elsewhere": (
        replace(ALONE, far_seeds=("10.0.0.2",)),
        WRONG,
        "this node reaches no other",
        "10.0.0.2",
        "cluster join TOKEN",
    ),
    "expired": (
        replace(MEMBER, facts=facts(Caller.MEMBER, valid=aged(CERTIFICATE_S))),
        WRONG,
        "no other node takes this node's certificate",
        "has expired",
        "cluster join TOKEN",
    ),
    "expired on the scheduler node": (
        replace(FIRST, facts=facts(valid=aged(CERTIFICATE_S))),
        WRONG,
        "no other node takes this node's certificate",
        "has expired",
        "cluster init",
    ),
    "not valid yet": (
        replace(MEMBER, facts=facts(Caller.MEMBER, valid=aged(-86_400))),
        WRONG,
        "no other node takes this node's certificate",
        "not valid yet",
        "timedatectl set-ntp true",
    ),
    "of another cluster": (
        replace(MEMBER, facts=facts(Caller.MEMBER, cluster="work")),
        WRONG,
        "no other node takes this node's certificate",
        "'work'",
        '[cluster] name = "work"',
    ),
    "signed by nobody we trust": (
        replace(MEMBER, facts=facts(Caller.MEMBER, authority="")),
        WRONG,
        "no other node takes this node's certificate",
        "no authority",
        "cluster join TOKEN",
    ),
    "a client's": (
        replace(MEMBER, facts=facts(Caller.CLIENT, "laptop")),
        WRONG,
        "this node's certificate is no node's",
        "laptop",
        "cluster join TOKEN",
    ),
    "another node's": (
        replace(MEMBER, facts=facts(Caller.MEMBER, "33333333-3333-3333-3333-333333333333")),
        WRONG,
        "this node's certificate is another node's",
        "copied",
        "cluster join TOKEN",
    ),
    "a plain node's, and it should schedule": (
        replace(MEMBER, scheduler=""),
        WRONG,
        "this node may not command ranks",
        "no runner obeys it",
        "[cluster] scheduler",
    ),
    "the scheduler node's, and another schedules": (
        replace(FIRST, scheduler=OTHER),
        WARNING,
        "two nodes may be meant as the scheduler node",
        OTHER,
        "[cluster] scheduler",
    ),
    "due": (
        replace(MEMBER, facts=facts(Caller.MEMBER, valid=aged(300 * 86_400))),
        WARNING,
        "this node's certificate should have been renewed",
        "65 days",
        "/h/logs/discovery.log",
    ),
}


def test_a_file_that_others_may_read_is_told_once() -> None:
    assert of_own(replace(ALONE, fault="node.pem can be read by others", is_exposed=True)) == []


@pytest.mark.parametrize(("own", "severity", "what", "why", "remedy"), OWN.values(), ids=OWN.keys())
def test_this_nodes_own_certificate(own: Own, severity: str, what: str, why: str, remedy: str) -> None:
    found = of_own(own)
    assert (severity, what) in short(found)
    assert len(troubles(found)) == (severity != NOTE)
    one = next(one for one in found if one.what == what)
    assert why in one.why
    assert remedy in one.remedy


KEPT = {
    "all private": ([Kept("/h", 0o755), Kept("/h/cluster", 0o700, True), Kept("/h/cluster/node.pem", 0o100600)], []),
    "a home for all": ([Kept("/h", 0o40777, True)], [(WARNING, "others may write to /h")]),
    "a folder for all": ([Kept("/h/cluster", 0o40755, True)], [(WARNING, "others may look into /h/cluster")]),
    "a key for the group": ([Kept("/h/cluster/node.pem", 0o640)], [(WRONG, "others may read /h/cluster/node.pem")]),
}


@pytest.mark.parametrize(("kept", "expected"), KEPT.values(), ids=KEPT.keys())
def test_private_files(kept: list[Kept], expected: list[tuple[str, str]]) -> None:
    assert short(of_kept(kept, True, "/h")) == expected


def test_a_key_that_others_could_read_is_changed_not_only_hidden() -> None:
    remedy = only(of_kept([Kept("/h/cluster/node.pem", 0o644)], True, "/h")).remedy
    assert "chmod 600 /h/cluster/node.pem" in remedy and "cluster rotate" in remedy


def test_a_home_that_cannot_be_written() -> None:
    assert short(of_kept([], False, "/h")) == [(WRONG, "/h cannot be written")]


DOORS = {
    "closed": (Doors("127.0.0.1", False, "127.0.0.1"), []),
    "open with keys": (Doors("0.0.0.0", True, "localhost"), []),
    "open": (
        Doors("0.0.0.0", False, "127.0.0.1"),
        [(WRONG, "the gateway does not start: everybody could use it")],
    ),
    "metrics": (
        Doors("127.0.0.1", False, "0.0.0.0"),
        [(WARNING, "everybody on the network can read this node's metrics")],
    ),
}


@pytest.mark.parametrize(("doors", "expected"), DOORS.values(), ids=DOORS.keys())
def test_doors(doors: Doors, expected: list[tuple[str, str]]) -> None:
    assert short(of_doors(doors, "/h/config.toml")) == expected


THERE = "10.0.0.2:7401"
REFUSALS = {
    "a good one": (Try(THERE, facts=facts(Caller.MEMBER, OTHER)), "", ""),
    "nobody": (Try(THERE, problem="refused"), "", ""),
    "no TLS": (Try(THERE, shown="it does not speak TLS"), "does not speak TLS", "cluster join TOKEN` there"),
    "another cluster's": (Try(THERE, facts=facts(cluster="hone")), "another cluster, 'hone'", "is it a typo?"),
    "another authority's": (Try(THERE, facts=facts(authority="")), "another authority", "with a new token"),
    "expired": (Try(THERE, facts=facts(valid=aged(CERTIFICATE_S))), "has expired", "with a new token"),
    "not valid yet": (Try(THERE, facts=facts(valid=aged(-86_400))), "the clocks differ", "set-ntp"),
}


@pytest.mark.parametrize(("one", "why", "remedy"), REFUSALS.values(), ids=REFUSALS.keys())
def test_why_a_handshake_fails(one: Try, why: str, remedy: str) -> None:
    found = refusal(MEMBER, one)
    assert bool(found[0]) is bool(found[1]) is bool(why)
    assert why in found[0]
    assert remedy in found[1]


@pytest.mark.parametrize("own", [ALONE, replace(MEMBER, fault="broken"), OWN["expired"][0]], ids=["none", "bad", "old"])
def test_with_no_certificate_of_our_own_nobody_else_is_blamed(own: Own) -> None:
    assert all(refusal(own, one) == ("", "") for one, _, _ in REFUSALS.values())


def test_seeds_that_do_not_answer_or_are_not_trusted_are_told() -> None:
    tries = [one for one, _, _ in REFUSALS.values()]
    found = of_seeds(MEMBER, tries)
    assert [severity for severity, _ in short(found)] == [WARNING] * 6
    assert "[discovery] seeds" in found[0].remedy
