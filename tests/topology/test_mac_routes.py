"""By which interface packets leave on a Mac: what is asked when, and how long who asks may wait."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from process.macos.little_mac import LittleMac
from thunderline.topology.mac_routes import (
    ASKS_PER_S,
    KEPT_S,
    NEW_AT_ONCE,
    THREAD_COUNT,
    WAIT_S,
    MacRoutes,
    asked,
)
from topology.little_echo import until

OWN = "192.168.4.1"
# An answer that is none.
BROKEN = "broken"


class LittleRoute:
    """Answers with `by_address`, or "", as soon as `may_answer` is set."""

    def __init__(self) -> None:
        self.by_address = {"192.168.4.2": "en5"}
        self.now_s = 0.0
        self.count: Counter[str] = Counter()
        self.may_answer = threading.Event()
        self.may_answer.set()

    def __call__(self, address: str) -> str:
        found = self.by_address.get(address, "")
        self.count[address] += 1
        self.may_answer.wait(10)
        if found == BROKEN:
            raise RuntimeError("can't start new thread")
        return found

    def clock(self) -> float:
        return self.now_s


@contextmanager
def routes(route: LittleRoute) -> Iterator[MacRoutes]:
    found = MacRoutes(route, route.clock)
    try:
        yield found
    finally:
        route.may_answer.set()
        found.close()


def quickly(ask: Callable[[], str]) -> str:
    """Who asks has a probe in its hand."""
    begun_s = time.monotonic()
    found = ask()
    # Threads of a busy machine start late.
    assert time.monotonic() - begun_s < WAIT_S + 5
    return found


def test_what_is_known_is_not_asked_again_for_a_while() -> None:
    route = LittleRoute()
    with routes(route) as found:
        for _ in range(10):
            assert found.interface("192.168.4.2", OWN) == "en5"
        assert route.count == {"192.168.4.2": 1}
        route.now_s = KEPT_S - 0.1
        assert found.interface("192.168.4.2", OWN) == "en5"
        assert route.count == {"192.168.4.2": 1}


def test_then_it_is_asked_anew_and_the_old_answer_holds_until_the_new_one_is_there() -> None:
    route = LittleRoute()
    with routes(route) as found:
        assert found.interface("192.168.4.2", OWN) == "en5"
        route.by_address["192.168.4.2"] = "en0"
        route.now_s = KEPT_S
        route.may_answer.clear()
        for _ in range(5):
            assert found.interface("192.168.4.2", OWN) == "en5"
        route.may_answer.set()
        until("the new answer", lambda: found.interface("192.168.4.2", OWN) == "en0")
        assert route.count == {"192.168.4.2": 2}


def test_what_cannot_be_told_is_not_asked_again_at_once_either() -> None:
    route = LittleRoute()
    with routes(route) as found:
        assert [found.interface("10.0.0.9", OWN) for _ in range(5)] == [""] * 5
        assert route.count == {"10.0.0.9": 1}


def test_a_route_that_hangs_keeps_nobody_waiting_and_its_answer_counts_when_it_comes() -> None:
    route = LittleRoute()
    route.may_answer.clear()
    with routes(route) as found:
        assert [quickly(lambda: found.interface("192.168.4.2", OWN)) for _ in range(3)] == [""] * 3
        route.may_answer.set()
        until("its answer", lambda: found.interface("192.168.4.2", OWN) == "en5")
        assert route.count == {"192.168.4.2": 1}


def test_when_the_interfaces_change_all_is_asked_anew_and_late_answers_of_before_count_no_more() -> None:
    route = LittleRoute()
    route.may_answer.clear()
    with routes(route) as found:
        assert quickly(lambda: found.interface("192.168.4.2", OWN)) == ""
        until("it is asked", lambda: route.count["192.168.4.2"] == 1)
        route.by_address["192.168.4.2"] = "en9"
        found.forget()
        assert quickly(lambda: found.interface("192.168.4.2", OWN)) == ""
        until("it is asked again", lambda: route.count["192.168.4.2"] == 2)
        route.may_answer.set()
        until("the new answer", lambda: found.interface("192.168.4.2", OWN) == "en9")


def test_an_address_that_could_not_be_asked_for_is_asked_for_again_in_its_turn() -> None:
    route = LittleRoute()
    route.by_address["192.168.4.2"] = BROKEN
    with routes(route) as found:
        assert [found.interface("192.168.4.2", OWN) for _ in range(3)] == [""] * 3
        assert route.count == {"192.168.4.2": 1}
        route.by_address["192.168.4.2"] = "en5"
        route.now_s = KEPT_S
        until("the new answer", lambda: found.interface("192.168.4.2", OWN) == "en5")


def test_while_route_hangs_an_interface_that_comes_and_goes_leaves_no_questions_behind() -> None:
    route = LittleRoute()
    route.may_answer.clear()
    addresses = [f"10.0.{n}.2" for n in range(2 * THREAD_COUNT)]
    with routes(route) as found:
        for _ in range(2):
            for address in addresses:
                found.interface(address, OWN)
            found.forget()
        route.may_answer.set()
        assert found.interface("192.168.4.2", OWN) == "en5"
        # Those that had been begun.
        assert route.count.total() <= THREAD_COUNT + 1


def test_many_addresses_are_asked_for_at_once_and_then_each_less_often() -> None:
    route = LittleRoute()
    addresses = [f"10.0.{n}.2" for n in range(60)]
    with routes(route) as found:
        for address in addresses:
            found.interface(address, OWN)
        assert route.count.total() == 60
        length_s = 600
        for second in range(length_s):
            route.now_s = float(second)
            for address in addresses:
                found.interface(address, OWN)
            until("they are answered", lambda: not found._asking)
        assert route.count.total() <= 60 + length_s * ASKS_PER_S
        # Each has its turn.
        assert min(route.count.values()) >= 4


def test_of_a_flood_of_new_addresses_few_are_asked_for_and_what_is_known_stays_known() -> None:
    route = LittleRoute()
    with routes(route) as found:
        assert found.interface("192.168.4.2", OWN) == "en5"
        for n in range(1000):
            found.interface(f"10.{n // 250}.{n % 250}.3", OWN)
        until("they are answered", lambda: not found._asking)
        assert route.count.total() == NEW_AT_ONCE
        route.now_s = 10 / ASKS_PER_S
        for n in range(1000):
            found.interface(f"10.{n // 250}.{n % 250}.4", OWN)
        until("they are answered", lambda: not found._asking)
        assert route.count.total() == NEW_AT_ONCE + 10
        assert found.interface("192.168.4.2", OWN) == "en5"


def test_what_is_closed_asks_nobody() -> None:
    route = LittleRoute()
    with routes(route) as found:
        assert found.interface("192.168.4.2", OWN) == "en5"
        found.close()
        assert found.interface("192.168.4.2", OWN) == ""
        assert route.count == {"192.168.4.2": 1}


PRINTED = "   route to: {0}\ndestination: {0}\n  interface: en5\n      flags: <UP,HOST,DONE,LLINFO>\n"
# What `route` does: the interface.
DOES: dict[str, tuple[str, str]] = {
    "it tells": (f"printf '{PRINTED.format('192.168.4.2')}'", "en5"),
    "it has no route": ("echo 'route: writing to routing socket: not in table' >&2; exit 1", ""),
    "it prints something else": ("echo no", ""),
    "it prints without end": ("yes", ""),
    "it hangs": ("sleep 1000", ""),
}


@pytest.mark.parametrize(("script", "expected"), DOES.values(), ids=DOES.keys())
def test_the_command_itself(tmp_path: Path, script: str, expected: str) -> None:
    mac = LittleMac(tmp_path)
    mac.does("route", script)
    assert asked("192.168.4.2", mac.environ) == expected
    assert mac.calls("route -n get 192.168.4.2") == 1


def test_the_command_is_told_of_which_family_an_address_is(tmp_path: Path) -> None:
    mac = LittleMac(tmp_path)
    mac.does("route", f"printf '{PRINTED.format('fd00::2')}'")
    assert asked("fd00::2", mac.environ) == "en5"
    assert mac.calls("route -n get -inet6 fd00::2") == 1


def test_without_the_command_nothing_is_known(tmp_path: Path) -> None:
    assert asked("192.168.4.2", LittleMac(tmp_path).environ) == ""
