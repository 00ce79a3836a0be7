"""Local Network privacy: errno 65 at once, while the router or a shell gets through."""

import errno

import pytest

from cli.findings.laws import WARNING, WRONG, only, short
from thunderline.cli.findings.privacy import Dial, Router, is_local, of_privacy, suspects
from thunderline.v1 import cluster_pb2, topology_pb2

ME, BOB = "me", "node-bob"
NO_WAY, SILENT = topology_pb2.PROBE_OUTCOME_UNREACHABLE, topology_pb2.PROBE_OUTCOME_TIMED_OUT
UNTRIED, ANSWERED = topology_pb2.PROBE_OUTCOME_UNTRIED, topology_pb2.PROBE_OUTCOME_ANSWERED
REFUSED = topology_pb2.PROBE_OUTCOME_REFUSED
# Of macOS, and of what stands in for it.
MAC_ERRNO = 65


def attempt(
    address: str,
    outcome: "topology_pb2.ProbeOutcome.ValueType" = NO_WAY,
    number: int = MAC_ERRNO,
    ends: tuple[str, str] = (ME, BOB),
) -> topology_pb2.AddressAttempt:
    return topology_pb2.AddressAttempt(
        from_node_id=ends[0], to_node_id=ends[1], address=address, outcome=outcome, errno=number
    )


def topology(*attempts: topology_pb2.AddressAttempt, vpn: bool = False) -> topology_pb2.Topology:
    found = topology_pb2.Topology(node_id=ME, attempts=attempts)
    if vpn:
        state = topology_pb2.LINK_STATE_UP
        found.links.add(from_node_id=ME, to_node_id=BOB, medium=cluster_pb2.MEDIUM_VPN, state=state)
    return found


LAN, CABLE, TAILSCALE = "192.168.1.7", "169.254.3.4", "100.64.0.2"
SUSPECTS = {
    "all of the neighbourhood is unreachable": ([attempt(LAN), attempt(CABLE)], [LAN, CABLE]),
    "on what stands in for a Mac": ([attempt(LAN, number=errno.EHOSTUNREACH)], [LAN]),
    "a VPN answers": ([attempt(LAN), attempt(TAILSCALE, ANSWERED, 0)], [LAN]),
    "what was not tried says nothing": ([attempt(LAN), attempt(CABLE, UNTRIED, 0)], [LAN]),
    "nothing was tried": ([attempt(LAN, UNTRIED, 0)], []),
    "one answers": ([attempt(LAN), attempt(CABLE, ANSWERED, 0)], []),
    "one refuses": ([attempt(LAN), attempt(CABLE, REFUSED, errno.ECONNREFUSED)], []),
    "one is silent": ([attempt(LAN), attempt(CABLE, SILENT, errno.ETIMEDOUT)], []),
    "another reason": ([attempt(LAN, number=errno.ENETUNREACH)], []),
    "another node's tries": ([attempt(LAN, ends=(BOB, ME))], []),
    "only a VPN is unreachable": ([attempt(TAILSCALE)], []),
    "of many some": ([attempt(f"10.0.0.{n}") for n in range(1, 9)], ["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
}


@pytest.mark.parametrize(("attempts", "expected"), SUSPECTS.values(), ids=SUSPECTS.keys())
def test_when_it_is_suspected(attempts: list[topology_pb2.AddressAttempt], expected: list[str]) -> None:
    assert suspects(topology(*attempts), {BOB}) == [(BOB, address) for address in expected]


def test_who_is_not_alive_may_be_switched_off() -> None:
    assert suspects(topology(attempt(LAN)), {"node-cleo"}) == []


REACHED, CLOSED = Dial(0, 0.001), Dial(errno.ECONNREFUSED, 0.001)
AT_ONCE, LATE, NOTHING = Dial(MAC_ERRNO, 0.0004), Dial(MAC_ERRNO, 1.5), Dial(errno.ETIMEDOUT, 2.0)
ROUTER, NO_ROUTER, MUTE_ROUTER = Router("192.168.1.1", True), Router(), Router("192.168.1.1", False)
KEPT = "Local Network privacy keeps topology from its neighbours"
CASES = {
    "this shell reaches it": (REACHED, NO_ROUTER, True),
    "this shell is refused by it": (CLOSED, NO_ROUTER, True),
    "nobody here may, and the router answers": (AT_ONCE, ROUTER, True),
    "at once, but no router answers": (AT_ONCE, MUTE_ROUTER, False),
    "at once, but there is no router": (AT_ONCE, NO_ROUTER, False),
    "after some time: it is away": (LATE, ROUTER, False),
    "it is silent": (NOTHING, ROUTER, False),
}


@pytest.mark.parametrize(("dial", "router", "is_told"), CASES.values(), ids=CASES.keys())
def test_what_shows_it(dial: Dial, router: Router, is_told: bool) -> None:
    found = of_privacy(topology(attempt(LAN)), {LAN: dial}, router)
    assert short(found) == ([(WRONG, KEPT)] if is_told else [])


def test_without_a_suspicion_there_is_nothing_to_say() -> None:
    assert of_privacy(topology(), {}, NO_ROUTER) == []


def test_with_a_vpn_left_the_node_works_somehow() -> None:
    assert short(of_privacy(topology(attempt(LAN), vpn=True), {LAN: REACHED}, ROUTER)) == [(WARNING, KEPT)]


def test_it_says_what_was_seen_and_what_would_prove_it() -> None:
    one = only(of_privacy(topology(attempt(LAN)), {LAN: AT_ONCE}, ROUTER))
    assert f"{LAN}: errno 65" in one.seen and "gateway: 192.168.1.1, which answers" in one.seen
    assert f"`ping -c 1 {LAN}`" in one.unknown
    assert "System Settings > Privacy & Security > Local Network" in one.remedy
    sure = only(of_privacy(topology(attempt(LAN)), {LAN: REACHED}, NO_ROUTER))
    assert "`thunderline doctor` reaches it" in sure.seen
    assert sure.unknown == ""


LOCAL = {
    LAN: True,
    CABLE: True,
    "10.1.2.3": True,
    TAILSCALE: False,
    "8.8.8.8": False,
    "127.0.0.1": False,
    "fe80::1": False,
    "bob.local": False,
}


@pytest.mark.parametrize(("address", "expected"), LOCAL.items(), ids=LOCAL.keys())
def test_which_addresses_are_of_the_neighbourhood(address: str, expected: bool) -> None:
    assert is_local(address) is expected
