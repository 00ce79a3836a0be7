"""What can be done to a lab while processes run on it. Each verb returns once it has seen that it took effect.

`firewall` and `route` return what `heal` takes back. Raises NotEffective.
"""

import itertools
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import psutil

from lab import filters, probes
from lab.media import Lan, Medium
from lab.namespaces import ip
from lab.network import Host, Lab
from lab.relay import Shape

# A killed process is gone within this.
GONE_S = 5.0
# A probe that is not answered: what a busy machine may take, on top of the way itself.
PATIENCE_S = 0.3
# Timers of the relay and of this process on a busy machine; and what a clock may be off.
LATE_S, EARLY_S = 0.005, 0.001
SAMPLES, JITTER_SAMPLES = 5, 40
# Of rules of a filter, over all labs of this process.
_NUMBERS = itertools.count(1)


class NotEffective(AssertionError):
    """The verb was carried out, and the network does not show it."""


@dataclass(frozen=True)
class Firewall:
    """`dialler` cannot open connections to these addresses of `other`; the other way, and what is open, goes on."""

    dialler: Host
    other: Host
    addresses: tuple[str, ...]
    # Interfaces of `other`, each with a number of the filter's.
    numbers: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Route:
    """A host sends what is for `address` over `medium`, whatever the address says."""

    host: Host
    peer: Host
    address: str
    medium: Medium
    source: str


def cut(net: Lab, medium: Medium, at: Host | None = None, silently: bool = False) -> None:
    """Pulls the plug: no carrier at either end, or on a LAN at `at` alone. `silently`: carrier, and nothing crosses.

    A tunnel knows only the silent way.
    """
    key = at.namespace if at else None
    shape = medium.shape_of(key)
    medium.become(replace(shape, is_open=False) if silently else replace(shape, is_plugged=False), key)
    for one, other in _pairs(net, medium, at):
        what = f"nothing crosses from {one.name} to {other.name}"
        _prove(net.proved_s, what, partial(_crosses, medium, one, other), expected=False)


def delay(net: Lab, medium: Medium, one_way_s: float, at: Host | None = None) -> None:
    """Each packet takes this long from host to host; on a LAN with `at`, this long more to and from that one."""
    _reshape(net, medium, at, lambda shape: replace(shape, delay_s=one_way_s))


def jitter(net: Lab, medium: Medium, one_way_s: float, at: Host | None = None) -> None:
    """Each packet takes up to this much more or less; give the medium a delay of at least as much before."""
    _reshape(net, medium, at, lambda shape: replace(shape, jitter_s=one_way_s))


def hush(net: Lab, lan: Lan) -> None:
    """No multicast any more, as on many a Wi-Fi and in every cloud. Not to be mended."""
    lan.hush()
    for one, other in _pairs(net, lan, None):
        what = f"multicast does not cross from {one.name} to {other.name}"
        hears = partial(probes.hears_group, one, other, other.address(lan), one.address(lan), PATIENCE_S)
        _prove(net.proved_s, what, hears, expected=False)


def heal(net: Lab, what: Medium | Firewall | Route, at: Host | None = None) -> None:
    """A medium is as it was built; a rule is gone."""
    match what:
        case Medium():
            what.become(what.sound, at.namespace if at else None)
            for one, other in _pairs(net, what, at):
                _prove(net.proved_s, f"{one.name} reaches {other.name} as before", _takes(what, one, other))
        case Firewall():
            for interface, number in what.numbers:
                filters.unblock(what.other.namespace, interface, number)
            for address in what.addresses:
                opens = partial(_dials, what.dialler, what.other, address)
                _prove(net.proved_s, f"{what.dialler.name} dials {address}", opens)
        case Route():
            ip("route", "del", f"{what.address}/32", namespace=what.host.namespace)
            name = what.host.interface(what.medium)
            _prove(net.proved_s, f"{what.host.name} leaves {name}", partial(_leaves_by, what, name), expected=False)


def firewall(net: Lab, dialler: Host, other: Host) -> Firewall:
    """`other` drops, without a word, what would open a connection from `dialler`; what is open goes on."""
    addresses = _dialled(net, dialler, other)
    numbers = []
    for interface, source in itertools.product(other.media, dialler.addresses):
        numbers.append((interface, next(_NUMBERS)))
        filters.block(other.namespace, interface, source, numbers[-1][1])
    for address in addresses:
        _prove(net.proved_s, f"{dialler.name} does not dial {address}", partial(_dials, dialler, other, address), False)
    return Firewall(dialler, other, addresses, tuple(numbers))


def _dialled(net: Lab, dialler: Host, other: Host) -> tuple[str, ...]:
    """What can be dialled now; what is open in theory is waited for. Raises NotEffective: nothing is."""
    media = [one for one in other.media.values() if dialler.namespace in one.addresses]
    is_open = {other.address(one): _is_open(one, dialler, other) for one in media}
    for address in [one for one, holds in is_open.items() if holds]:
        _prove(net.proved_s, f"{dialler.name} dials {address}", partial(_dials, dialler, other, address))
    found = tuple(one for one in other.addresses if is_open.get(one) or _dials(dialler, other, one))
    if not found:
        raise NotEffective(f"{dialler.name} could not dial {other.name} before: a firewall would prove nothing")
    return found


def _is_open(medium: Medium, one: Host, other: Host) -> bool:
    shape = medium.shape_between(one.namespace, other.namespace)
    return shape.is_open and shape.is_plugged


def _dials(dialler: Host, other: Host, address: str) -> bool:
    return probes.can_dial(dialler, other, address, PATIENCE_S + 4 * _slowest_s(dialler))


def route(net: Lab, host: Host, peer: Host, address: str, medium: Medium, one_way: bool = False) -> Route:
    """`host` reaches this address of `peer` over another medium than the one that has the address.

    `one_way`: with the source address that it would have had, so that the answers take the straight way.
    """
    straight = next(one for one in host.media.values() if one.addresses.get(peer.namespace) == address)
    source = host.address(straight if one_way else medium)
    via = ("via", peer.address(medium), "onlink")
    ip(
        *("route", "replace", f"{address}/32", *via, "dev", host.interface(medium), "src", source),
        namespace=host.namespace,
    )
    rule = Route(host, peer, address, medium, source)
    _prove(net.proved_s, f"{host.name} sends to {address} by {host.interface(medium)}", lambda: _goes(rule))
    return rule


def _leaves_by(rule: Route, interface: str) -> bool:
    return probes.leaves_by(rule.host, rule.address) == interface


def _goes(rule: Route) -> bool:
    way = rule.medium.shape_between(rule.host.namespace, rule.peer.namespace)
    arrived = probes.arrives(rule.host, rule.peer, rule.address, timeout_s=PATIENCE_S + 2 * way.delay_s)
    return arrived == rule.peer.interface(rule.medium) and _leaves_by(rule, rule.host.interface(rule.medium))


def kill(process: "subprocess.Popen[bytes] | int", number: int = signal.SIGKILL) -> None:
    """One process, by its pid: one that `start` returned, or any other. Returns once it is gone."""
    if isinstance(process, int):
        try:
            known = psutil.Process(process)
        except psutil.NoSuchProcess:
            raise NotEffective(f"pid {process} was gone before") from None
        os.kill(process, number)
        _prove(GONE_S, f"pid {process} is gone", lambda: _is_gone(known))
        return
    if process.poll() is not None:
        raise NotEffective(f"pid {process.pid} had ended before, with {process.returncode}")
    process.send_signal(number)
    _prove(GONE_S, f"pid {process.pid} is gone", lambda: process.poll() is not None)


def _is_gone(process: psutil.Process) -> bool:
    """A zombie is gone: its parent has not looked yet."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _reshape(net: Lab, medium: Medium, at: Host | None, change: Callable[[Shape], Shape]) -> None:
    key = at.namespace if at else None
    medium.become(change(medium.shape_of(key)), key)
    for one, other in _pairs(net, medium, at):
        _prove(net.proved_s, f"{one.name} and {other.name} are that far apart", _takes(medium, one, other))


def _takes(medium: Medium, one: Host, other: Host) -> Callable[[], bool]:
    """Whether round trips are what the medium's shape says: none shorter, the best not much longer, spread as asked."""

    def look() -> bool:
        shape = medium.shape_between(one.namespace, other.namespace)
        count = JITTER_SAMPLES if shape.jitter_s else SAMPLES
        patience_s = PATIENCE_S + 2 * (shape.delay_s + shape.jitter_s)
        least_s = 2 * max(0.0, shape.delay_s - shape.jitter_s)
        to, source = other.address(medium), one.address(medium)
        found: list[float] = []
        for _ in range(count):
            taken_s = probes.rtt_s(one, other, to, source, patience_s)
            if taken_s is None:
                if not shape.loss:
                    return False
            else:
                found.append(taken_s)
        if not found or min(found) < least_s - EARLY_S:
            return False
        if shape.jitter_s:
            return max(found) - min(found) > shape.jitter_s and min(found) < 2 * shape.delay_s
        return min(found) < least_s + LATE_S

    return look


def _crosses(medium: Medium, one: Host, other: Host) -> bool:
    shape = medium.shape_between(one.namespace, other.namespace)
    patience_s = PATIENCE_S + shape.delay_s + shape.jitter_s
    return bool(probes.arrives(one, other, other.address(medium), one.address(medium), patience_s))


def _pairs(net: Lab, medium: Medium, at: Host | None) -> list[tuple[Host, Host]]:
    hosts = {host.namespace: host for host in net.hosts.values()}
    return [(hosts[one], hosts[other]) for one, other in medium.pairs(at.namespace if at else None)]


def _slowest_s(host: Host) -> float:
    return max((medium.shape_of(host.namespace).delay_s for medium in host.media.values()), default=0.0)


def _prove(within_s: float, what: str, look: Callable[[], bool], expected: bool = True) -> None:
    end_s = time.monotonic() + within_s
    while look() is not expected:
        if time.monotonic() > end_s:
            raise NotEffective(f"not within {within_s:g} s: {what}")
        time.sleep(0.02)
