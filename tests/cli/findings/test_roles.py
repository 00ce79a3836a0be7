"""Roles that do not answer: which, why, and what starts them."""

import pytest

from cli.findings.laws import NOTE, WARNING, WRONG, only, short, troubles
from thunderline.cli.findings.machine import Owner
from thunderline.cli.findings.roles import Answer, Place, RoleLook, of_another_node, of_roles

ROLES = ("discovery", "topology", "scheduler", "runner", "gateway")
ALONE, UP = Place("/h"), Place("/h", up_pid=99)
NGINX, OURS = Owner(12, "nginx"), Owner(13, "python3.11", "scheduler")


def look(role: str, answer: Answer = Answer.SERVING, **more: object) -> RoleLook:
    return RoleLook(role, f"127.0.0.1:{7401 + ROLES.index(role)}", answer, **more)  # type: ignore[arg-type]


def all_but(*others: RoleLook) -> list[RoleLook]:
    names = {one.role for one in others}
    return [look(role) for role in ROLES if role not in names] + list(others)


def test_when_all_answer_they_are_named() -> None:
    found = only(of_roles(all_but(), ALONE))
    assert (found.severity.value, found.why) == (NOTE, "discovery, topology, scheduler, runner and gateway")


def test_when_none_runs_one_line_says_so() -> None:
    found = only(of_roles([look(role, Answer.NOBODY) for role in ROLES], ALONE))
    assert found.what == "no role of this node runs"
    assert "7401" in found.why and "7405" in found.why
    assert "`thunderline up`" in found.remedy and "/h" in found.remedy


def test_under_an_up_each_that_is_down_is_told_with_its_log() -> None:
    found = of_roles([look(role, Answer.NOBODY) for role in ROLES], UP)
    assert short(found) == [(WRONG, f"{role} does not answer") for role in ROLES]
    assert "pid 99" in found[0].remedy and "/h/logs/discovery.log" in found[0].remedy


CASES = {
    "nobody listens": (look("scheduler", Answer.NOBODY), ALONE, WRONG, "nothing listens", "`thunderline scheduler`"),
    "it said why it ended": (
        look("scheduler", Answer.NOBODY, last_words="the store is locked"),
        ALONE,
        WRONG,
        "ended with: the store is locked",
        "`thunderline up`",
    ),
    "it is not needed here": (
        look("gateway", Answer.NOBODY, is_needed=False),
        ALONE,
        WARNING,
        "nothing listens",
        "may do without",
    ),
    "it is not needed, and has tried": (
        look("gateway", Answer.NOBODY, is_needed=False, last_words="port 8000 is taken"),
        ALONE,
        WRONG,
        "port 8000 is taken",
        "`thunderline gateway`",
    ),
    "it starts": (look("runner", Answer.NOT_SERVING), UP, WARNING, "NOT_SERVING", "/h/logs/runner.log"),
    "it is stuck": (
        look("scheduler", Answer.SILENT, detail="answers nothing within 3 s", owner=OURS),
        UP,
        WRONG,
        "answers nothing within 3 s; pid 13 (thunderline scheduler)",
        "`kill 13` (after 10 s `kill -9 13`), and `thunderline up` starts it anew",
    ),
    "it is stuck without an up": (
        look("scheduler", Answer.SILENT, detail="answers nothing", owner=OURS),
        ALONE,
        WRONG,
        "answers nothing",
        "start it anew: `thunderline scheduler`",
    ),
    "another program has its port": (
        look("scheduler", Answer.OTHER, owner=NGINX),
        ALONE,
        WRONG,
        "pid 12 (nginx)",
        "--base-port N",
    ),
    "a silent program has its port": (look("gateway", Answer.SILENT, owner=NGINX), ALONE, WRONG, "nginx", "--port N"),
    "nobody knows who has its port": (
        look("scheduler", Answer.OTHER, detail="it closes the connection"),
        ALONE,
        WRONG,
        "it closes the connection",
        "lsof -i :7403",
    ),
    "it does not take our certificate": (
        look("scheduler", Answer.OTHER, detail="does not speak TLS", owner=OURS),
        UP,
        WRONG,
        "does not speak TLS",
        "kill 13",
    ),
}


@pytest.mark.parametrize(("one", "place", "severity", "why", "remedy"), CASES.values(), ids=CASES.keys())
def test_one_that_does_not_answer_costs_one_finding(
    one: RoleLook, place: Place, severity: str, why: str, remedy: str
) -> None:
    found = troubles(of_roles(all_but(one), place))
    assert [finding.severity.value for finding in found] == [severity]
    assert one.role in found[0].what
    assert why in found[0].why
    assert remedy in found[0].remedy


def test_what_our_own_certificate_keeps_us_from_asking_is_nobody_elses_fault() -> None:
    assert of_roles([look(role, Answer.UNASKED) for role in ROLES], UP) == []


@pytest.mark.parametrize("answer", Answer)
def test_every_answer_is_told_or_fine(answer: Answer) -> None:
    assert len(of_roles([look("topology"), look("scheduler", answer)], UP)) <= 2


ECHO = RoleLook("echo", "127.0.0.1:7412", Answer.NOBODY)


def test_without_its_echo_topology_is_no_use_to_peers() -> None:
    found = troubles(of_roles([*all_but(), ECHO], UP))
    assert [one.what for one in found] == ["peers cannot measure their links to this node"]
    assert "[topology] echo_port" in found[0].remedy


def test_a_topology_that_is_down_says_that_already() -> None:
    found = troubles(of_roles([*all_but(look("topology", Answer.NOBODY)), ECHO], UP))
    assert [one.what for one in found] == ["topology does not answer"]


def test_another_home_behind_our_ports_is_noticed() -> None:
    assert of_another_node("me", "me", all_but(), ALONE) == []
    found = only(of_another_node("me", "you", all_but(), ALONE))
    assert "127.0.0.1:7401" in found.why and "you" in found.why and "THUNDERLINE_HOME" in found.remedy
    assert "no role has ever run in this home" in only(of_another_node("", "you", all_but(), ALONE)).why
