"""What is said of a link, and why."""

from dataclasses import replace

import pytest

from thunderline.cluster.graph import CableEnd, Outcome, Tried, cable
from thunderline.cluster.links import Link, LinkState, Mark
from thunderline.cluster.media import Medium
from thunderline.cluster.paths import Path
from thunderline.topology.ports import Told, ports_of
from thunderline.topology.wording import OUTCOMES, Owners, attempt, cable_lost, milliseconds, why
from topology.scenes import A, B, end, link, port, straight

S, M = LinkState, Medium
TB, ETH, WIFI, VPN, OTHER = M.THUNDERBOLT, M.ETHERNET, M.WIFI, M.VPN, M.OTHER
CABLE, LAN, OVERLAY = link(TB, 0.05), link(ETH, 0.5), link(VPN, 50)
SLOW_CABLE = link(TB, 40, S.DEGRADED)
SECOND = "192.168.1.9"
IPV6 = link(ETH, 0.5, address="fd00::2")

# Of which link, all of the pair, the chosen one: what is said.
SAID: dict[str, tuple[Link, list[Link], Link | None, str]] = {
    "chosen alone": (CABLE, [CABLE], CABLE, "chosen: nothing else answers"),
    "chosen, and the next is DOWN": (CABLE, [CABLE, link(ETH, 1, S.DOWN)], CABLE, "chosen: nothing else answers"),
    "chosen by its medium": (
        CABLE,
        [OVERLAY, CABLE, LAN],
        CABLE,
        "chosen before 192.168.1.2: THUNDERBOLT before ETHERNET",
    ),
    "not chosen by its medium": (LAN, [CABLE, LAN], CABLE, "after 192.168.4.2: THUNDERBOLT before ETHERNET"),
    "by what it counts as": (
        LAN,
        [SLOW_CABLE, LAN],
        LAN,
        "chosen before 192.168.4.2: ETHERNET before THUNDERBOLT (as WIFI)",
    ),
    "slow": (
        SLOW_CABLE,
        [SLOW_CABLE, LAN],
        LAN,
        "after 192.168.1.2: ETHERNET before THUNDERBOLT (as WIFI); "
        "DEGRADED: 40 ms, and THUNDERBOLT should stay below 5.0 ms",
    ),
    "by health": (
        LAN,
        [LAN, link(ETH, 0.4, S.DEGRADED, SECOND)],
        LAN,
        "chosen before 192.168.1.9: UP before DEGRADED",
    ),
    "by its address": (
        LAN,
        [LAN, link(ETH, 0.1, address="8.8.4.4")],
        LAN,
        "chosen before 8.8.4.4: a private address first",
    ),
    "by its RTT": (
        link(ETH, 0.9, address=SECOND),
        [LAN, link(ETH, 0.9, address=SECOND)],
        LAN,
        "after 192.168.1.2: 0.50 ms against 0.90 ms",
    ),
    "by nothing that matters": (
        link(ETH, 0.5, address=SECOND),
        [LAN, link(ETH, 0.5, address=SECOND)],
        LAN,
        "after 192.168.1.2: as good; the lower address first",
    ),
    "kept": (
        link(ETH, 0.55, address=SECOND),
        [LAN, link(ETH, 0.55, address=SECOND)],
        link(ETH, 0.55, address=SECOND),
        "kept: 192.168.1.2 is not clearly better",
    ),
    "a rival that is not clearly better": (
        LAN,
        [LAN, link(ETH, 0.55, address=SECOND)],
        link(ETH, 0.55, address=SECOND),
        "better than 192.168.1.9, but not clearly: 0.50 ms against 0.55 ms",
    ),
    "DOWN": (link(TB, 1, S.DOWN), [LAN], LAN, "DOWN: it has answered before, and does not now"),
    "before a choice": (CABLE, [CABLE], None, "not chosen yet"),
    "a VPN": (
        OVERLAY,
        [CABLE, OVERLAY],
        CABLE,
        "after 192.168.4.2: THUNDERBOLT before VPN; VPN by its address: carries data only while nothing else is UP",
    ),
    "IPv6": (
        IPV6,
        [IPV6, LAN],
        LAN,
        "after 192.168.1.2: a private address first; IPv6 carries no data: MLX dials IPv4 only",
    ),
    "the peer is silent": (
        replace(LAN, marks=frozenset({Mark.ONE_SIDED})),
        [LAN],
        LAN,
        "chosen: nothing else answers; ONE_SIDED: only the node that dials tells of it",
    ),
    "this node is silent": (
        replace(LAN, marks=frozenset({Mark.ONE_SIDED}), path=Path(arrives=end(ETH))),
        [LAN],
        LAN,
        "chosen: nothing else answers; ONE_SIDED: only the peer that hears it tells of it",
    ),
    "one-way routing": (
        replace(
            CABLE,
            path=replace(straight(TB), returns=end(VPN)),
            medium=VPN,
            marks=frozenset({Mark.ASYMMETRIC_ROUTE}),
        ),
        [CABLE],
        CABLE,
        "chosen: nothing else answers; VPN: carries data only while nothing else is UP; "
        "ASYMMETRIC_ROUTE: there by en5 to en5, back by utun3 to en5",
    ),
}


@pytest.mark.parametrize(("one", "links", "chosen", "said"), SAID.values(), ids=SAID.keys())
def test_a_link_says_why(one: Link, links: list[Link], chosen: Link | None, said: str) -> None:
    assert why(one, links, chosen.id if chosen else None, {}) == said


def test_a_cables_subnet_on_another_interface_names_the_real_one() -> None:
    owners: Owners = {(A, "192.168.4.1"): "en5", (B, "192.168.4.2"): "en5"}
    routed = replace(CABLE, medium=WIFI, path=straight(WIFI))
    assert why(routed, [routed], routed.id, owners) == (
        "chosen: nothing else answers; 192.168.4.1 belongs to en5, but packets leave by en1 (WIFI); "
        "192.168.4.2 belongs to en5, but packets arrive on en1 (WIFI)"
    )
    assert why(CABLE, [CABLE], CABLE.id, owners) == "chosen: nothing else answers"


def test_the_direction_that_works_says_that_the_other_does_not() -> None:
    there = Tried(A, B, "192.168.4.2", Outcome.ANSWERED, state=S.UP)
    back = Tried(B, A, "192.168.4.1", Outcome.TIMED_OUT, 110, 2)
    assert why(CABLE, [CABLE], CABLE.id, {}, [there, back]) == (
        "chosen: nothing else answers; one direction only: the peer's own tries of 192.168.4.1 end in: no answer "
        "(ETIMEDOUT)"
    )
    works = Tried(B, A, "10.0.0.1", Outcome.ANSWERED, state=S.UP)
    assert "direction" not in why(CABLE, [CABLE], CABLE.id, {}, [there, back, works])


@pytest.mark.parametrize("outcome", Outcome, ids=lambda one: one.name)
def test_every_outcome_has_words(outcome: Outcome) -> None:
    assert attempt(Tried(A, B, "10.0.0.1", outcome)) == OUTCOMES[outcome]


def test_an_errno_is_said_by_its_name() -> None:
    assert attempt(Tried(A, B, "10.0.0.1", Outcome.UNREACHABLE, 113)) == "no way there (EHOSTUNREACH)"


def test_a_lost_cable_says_what_to_do() -> None:
    gone = cable(CableEnd(A, "en5", "uuid", "4"), CableEnd(B, "en3"))
    assert cable_lost(gone, [OVERLAY], {A: "studio"}) == (
        "CABLE_LOST: the cable between en5 of studio (receptacle 4) and en3 of b carries nothing; they talk over VPN "
        "at 50 ms. Plug it in again at both ends, or see whether these interfaces are up and have an address"
    )


AGAIN = (
    "end what runs over it (a Mac can panic when a cable with an active link is pulled), take its ports out of any "
    "bridge (a cable that is plugged in anew under a bridge spoils RDMA until a reboot), unplug it, wait 10 s and plug "
    "it in again"
)
UNSEEN = f"To have it back, {AGAIN}; then see whether these interfaces are up and have an address"
# What the ports tell: what is said of them, and the remedy.
PORTS: dict[str, tuple[Told, str, str]] = {
    "nothing is plugged in at either end": (
        ((A, (port("a4", "en5"),)), (B, (port("b2", "en3"),))),
        "the port of studio sees nothing plugged in; the port of mini sees nothing plugged in",
        UNSEEN,
    ),
    "one port is told": (((A, (port("a4", "en5"),)),), "the port of studio sees nothing plugged in", UNSEEN),
    "one still sees the other": (
        ((A, (port("a4", "en5", "b2"),)), (B, (port("b2", "en3"),))),
        "the port of studio sees a Mac (Mac Studio); the port of mini sees nothing plugged in",
        f"It is plugged in: see whether these interfaces are up and have an address; if they have, {AGAIN}",
    ),
    "another Mac, and a dock": (
        ((A, (port("a4", "en5", "x1"),)), (B, (port("b2", "en3", devices=("Dock 9", "Disk")),))),
        "the port of studio sees a Mac (Mac Studio); the port of mini sees Dock 9, Disk, and no Mac",
        UNSEEN,
    ),
    "something, and whether anything it does not say": (
        (
            (A, (replace(port("a4", "en5"), is_connected=True),)),
            (B, (replace(port("b2", "en3"), is_connected=None),)),
        ),
        "the port of studio sees something plugged in, and no Mac",
        UNSEEN,
    ),
}


@pytest.mark.parametrize(("told", "seen", "remedy"), PORTS.values(), ids=PORTS.keys())
def test_a_lost_cable_says_what_its_ports_see(told: Told, seen: str, remedy: str) -> None:
    gone = cable(CableEnd(A, "en5", "a4", "4"), CableEnd(B, "en3", "b2", "2"))
    assert cable_lost(gone, [OVERLAY], {A: "studio", B: "mini"}, ports_of(told)) == (
        "CABLE_LOST: the cable between en5 of studio (receptacle 4) and en3 of mini (receptacle 2) carries nothing; "
        f"they talk over VPN at 50 ms; {seen}. {remedy}"
    )


@pytest.mark.parametrize(
    ("time_us", "said"), [(0, "0.00 ms"), (50, "0.05 ms"), (4_200, "4.2 ms"), (9_999, "10.0 ms"), (40_000, "40 ms")]
)
def test_a_time_is_said_as(time_us: int, said: str) -> None:
    assert milliseconds(time_us) == said
