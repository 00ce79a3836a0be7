"""Each verb of the lab, and that it would notice if it had no effect."""

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Iterator

import pytest

from installation import until
from lab import probes, verbs
from lab.media import Cable, Medium
from lab.namespaces import inside
from lab.network import Host, Lab
from lab.relay import Shape

MEDIA = ["cable", "lan", "tunnel"]


@pytest.fixture
def pair(net: Lab) -> tuple[Host, Host]:
    return net.host("a"), net.host("b")


def medium_of(net: Lab, kind: str, pair: tuple[Host, Host]) -> Medium:
    one, other = pair
    if kind == "lan":
        return net.lan(one, other)
    return net.cable(one, other) if kind == "cable" else net.tunnel(one, other)


def round_trip_s(medium: Medium, pair: tuple[Host, Host], count: int = 20) -> float:
    """The best of some."""
    one, other = pair
    found = [probes.rtt_s(one, other, other.address(medium), one.address(medium)) for _ in range(count)]
    return min(taken_s for taken_s in found if taken_s is not None)


def takes(medium: Medium, pair: tuple[Host, Host], least_s: float, most_s: float) -> bool:
    """Never less; and no more, once the machine has a moment for it."""

    def look() -> bool:
        taken_s = round_trip_s(medium, pair)
        assert taken_s > least_s
        return taken_s < most_s

    return until(f"less than {most_s} s", look, 15)


def crosses(medium: Medium, pair: tuple[Host, Host]) -> bool:
    one, other = pair
    return probes.rtt_s(one, other, other.address(medium), one.address(medium)) is not None


def test_a_cable_is_fast(net: Lab, pair: tuple[Host, Host]) -> None:
    assert round_trip_s(net.cable(*pair), pair, 200) < 0.0005


def test_a_tunnel_is_far(net: Lab, pair: tuple[Host, Host]) -> None:
    taken_s = round_trip_s(net.tunnel(*pair), pair)
    assert 0.049 < taken_s < 0.055


@pytest.mark.parametrize("kind", MEDIA)
def test_cut_and_healed(net: Lab, pair: tuple[Host, Host], kind: str) -> None:
    medium = medium_of(net, kind, pair)
    verbs.heal(net, medium)
    assert crosses(medium, pair)
    verbs.cut(net, medium)
    assert not crosses(medium, pair)
    assert [probes.has_carrier(host, host.interface(medium)) for host in pair] == [kind == "tunnel"] * 2
    verbs.heal(net, medium)
    assert crosses(medium, pair)
    assert all(probes.has_carrier(host, host.interface(medium)) for host in pair)


@pytest.mark.parametrize("kind", MEDIA)
def test_cut_silently_the_interfaces_know_nothing(net: Lab, pair: tuple[Host, Host], kind: str) -> None:
    medium = medium_of(net, kind, pair)
    verbs.cut(net, medium, silently=True)
    assert not crosses(medium, pair)
    assert all(probes.has_carrier(host, host.interface(medium)) for host in pair)
    verbs.heal(net, medium)
    assert crosses(medium, pair)


@pytest.mark.parametrize("kind", MEDIA)
def test_delayed_and_healed(net: Lab, pair: tuple[Host, Host], kind: str) -> None:
    medium = medium_of(net, kind, pair)
    before_s = round_trip_s(medium, pair)
    verbs.delay(net, medium, 0.02)
    assert takes(medium, pair, 0.039, 0.05)
    verbs.delay(net, medium, 0.003)
    assert takes(medium, pair, 0.005, 0.02)
    verbs.heal(net, medium)
    assert takes(medium, pair, before_s - 0.005, before_s + 0.005)


@pytest.mark.parametrize("kind", MEDIA)
def test_jitter_spreads_round_trips(net: Lab, pair: tuple[Host, Host], kind: str) -> None:
    medium = medium_of(net, kind, pair)
    verbs.delay(net, medium, 0.01)
    verbs.jitter(net, medium, 0.008)
    verbs.heal(net, medium)
    assert crosses(medium, pair)


def test_a_delayed_cable_carries_large_segments(net: Lab, pair: tuple[Host, Host]) -> None:
    one, other = pair
    cable = net.cable(one, other)
    verbs.delay(net, cable, 0.002)
    sent = os.urandom(4_000_000)
    received = bytearray()
    with probes.bound_service(other, other.address(cable)) as listening:
        listening.settimeout(20)

        def take() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.settimeout(20)
                while data := connection.recv(65536):
                    received.extend(data)

        taking = threading.Thread(target=take)
        taking.start()
        with inside(one.namespace):
            dialling = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        with dialling:
            dialling.settimeout(20)
            dialling.connect(listening.getsockname())
            dialling.sendall(sent)
        taking.join(20)
    assert bytes(received) == sent


def test_one_leg_of_a_lan(net: Lab) -> None:
    one, other, third = (net.host(name) for name in "abc")
    lan = net.lan(one, other, third)
    verbs.delay(net, lan, 0.01, at=one)
    assert round_trip_s(lan, (one, other)) > 0.019
    assert round_trip_s(lan, (other, third)) < 0.005
    verbs.cut(net, lan, at=one)
    assert not crosses(lan, (one, other))
    assert crosses(lan, (other, third))
    assert not probes.has_carrier(one, "lan0")
    assert probes.has_carrier(other, "lan0")
    verbs.heal(net, lan, at=one)
    assert crosses(lan, (one, other))


@pytest.mark.parametrize("kind", MEDIA)
def test_multicast_crosses_all_but_a_tunnel(net: Lab, pair: tuple[Host, Host], kind: str) -> None:
    medium = medium_of(net, kind, pair)
    one, other = pair
    assert probes.hears_group(one, other, other.address(medium), one.address(medium)) is (kind != "tunnel")


def test_a_lan_without_multicast(net: Lab, pair: tuple[Host, Host]) -> None:
    lan = net.lan(*pair)
    verbs.hush(net, lan)
    assert crosses(lan, pair)


@pytest.mark.parametrize("kind", MEDIA)
def test_a_ping_takes_as_long_as_any_packet(net: Lab, pair: tuple[Host, Host], kind: str) -> None:
    medium = medium_of(net, kind, pair)
    one, other = pair

    def is_near() -> bool:
        found = [probes.ping_s(one, other.address(medium)) for _ in range(20)]
        return abs(min(taken_s for taken_s in found if taken_s is not None) - round_trip_s(medium, pair)) < 0.001

    until("as long as any packet", is_near, 15)
    verbs.cut(net, medium)
    assert probes.ping_s(one, other.address(medium)) is None


def test_a_firewall_is_one_way_and_leaves_what_is_open(net: Lab, pair: tuple[Host, Host]) -> None:
    one, other = pair
    cable, lan = net.cable(one, other), net.lan(one, other)
    with connected(one, other, other.address(cable)) as (here, there):
        rule = verbs.firewall(net, one, other)
        for medium in (cable, lan):
            assert not probes.can_dial(one, other, other.address(medium))
            assert probes.can_dial(other, one, one.address(medium))
            assert crosses(medium, pair)
        here.sendall(b"still")
        assert there.recv(5) == b"still"
    verbs.heal(net, rule)
    assert probes.can_dial(one, other, other.address(cable))


@contextlib.contextmanager
def connected(one: Host, other: Host, address: str) -> Iterator[tuple[socket.socket, socket.socket]]:
    with probes.bound_service(other, address) as listening:
        with inside(one.namespace):
            dialling = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        dialling.settimeout(5)
        listening.settimeout(5)
        with dialling:
            dialling.connect(listening.getsockname())
            accepted, _ = listening.accept()
            accepted.settimeout(5)
            with accepted:
                yield dialling, accepted


def test_firewalls_both_ways(net: Lab, pair: tuple[Host, Host]) -> None:
    one, other = pair
    cable = net.cable(one, other)
    rules = [verbs.firewall(net, one, other), verbs.firewall(net, other, one)]
    assert not probes.can_dial(one, other, other.address(cable))
    assert not probes.can_dial(other, one, one.address(cable))
    verbs.heal(net, rules[0])
    assert not probes.can_dial(other, one, one.address(cable))


def test_a_cables_address_routed_over_the_tunnel(net: Lab, pair: tuple[Host, Host]) -> None:
    one, other = pair
    cable, tunnel = net.cable(one, other), net.tunnel(one, other)
    assert probes.leaves_by(one, other.address(cable)) == "cable0"
    rule = verbs.route(net, one, other, other.address(cable), tunnel)
    assert probes.leaves_by(one, other.address(cable)) == "vpn0"
    assert probes.rtt_s(one, other, other.address(cable)) > 0.049  # type: ignore[operator]
    verbs.heal(net, rule)
    assert probes.leaves_by(one, other.address(cable)) == "cable0"


def test_routed_one_way_the_answers_take_the_cable(net: Lab, pair: tuple[Host, Host]) -> None:
    one, other = pair
    cable, tunnel = net.cable(one, other), net.tunnel(one, other)
    verbs.route(net, one, other, other.address(cable), tunnel, one_way=True)
    assert probes.arrives(one, other, other.address(cable)) == "vpn0"
    assert probes.arrives(other, one, one.address(cable)) == "cable0"
    # The best of some: a busy machine makes one late.
    taken = [probes.rtt_s(one, other, other.address(cable)) for _ in range(5)]
    assert 0.024 < min(taken_s for taken_s in taken if taken_s is not None) < 0.04


SLEEPS = (sys.executable, "-c", "import time; time.sleep(1000)")


def test_kill(net: Lab, pair: tuple[Host, Host]) -> None:
    one, _ = pair
    first, second = one.start(*SLEEPS), one.start(*SLEEPS)
    until("two processes on the host", lambda: sorted(one.pids()) == sorted([first.pid, second.pid]), 5)
    verbs.kill(first)
    assert first.returncode == -9
    verbs.kill(second.pid)
    assert second.wait(5) == -9
    with pytest.raises(verbs.NotEffective):
        verbs.kill(first)


class Deaf(Cable):
    """Nothing that is done to it has an effect."""

    def become(self, shape: Shape, member: str | None = None) -> None:
        self._wire.shape = shape


@pytest.fixture
def deaf(net: Lab, pair: tuple[Host, Host]) -> Medium:
    net.proved_s = 0.5
    cable = net.cable(*pair)
    cable.__class__ = Deaf
    return cable


def test_a_verb_without_an_effect_says_so(net: Lab, deaf: Medium) -> None:
    with pytest.raises(verbs.NotEffective, match="nothing crosses"):
        verbs.cut(net, deaf)
    with pytest.raises(verbs.NotEffective, match="that far apart"):
        verbs.delay(net, deaf, 0.02)
    with pytest.raises(verbs.NotEffective, match="that far apart"):
        verbs.jitter(net, deaf, 0.01)


def test_a_firewall_where_nothing_could_be_dialled_proves_nothing(net: Lab, pair: tuple[Host, Host]) -> None:
    cable = net.cable(*pair)
    verbs.cut(net, cable)
    with pytest.raises(verbs.NotEffective, match="could not dial"):
        verbs.firewall(net, *pair)


def test_a_cable_that_is_still_cut_is_not_healed(net: Lab, pair: tuple[Host, Host]) -> None:
    net.proved_s = 0.5
    cable = net.cable(*pair)
    verbs.cut(net, cable)
    cable.__class__ = Deaf
    with pytest.raises(verbs.NotEffective, match="as before"):
        verbs.heal(net, cable)
