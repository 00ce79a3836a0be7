"""Sleep, power failures, FileVault, and what Metal may wire."""

from typing import Any

import pytest

from cli.findings.laws import NOTE, WARNING, only, short
from cli.findings.rigs import mac
from thunderline.cli.findings.machine import GIB
from thunderline.cli.findings.power import of_power, of_wired_limit

CONFIG = "/h/config.toml"
POWER: dict[str, tuple[dict[str, Any], list[str], str, str]] = {
    "a Mac that stays up": ({}, [], "", ""),
    "one that sleeps": (
        {"sleep_after_min": 10},
        ["it goes to sleep after 10 min"],
        "`pmset -g`: sleep 10",
        "`sudo pmset -a sleep 0`",
    ),
    "one that stays off": (
        {"starts_after_power_failure": False},
        ["it stays off after a power failure"],
        "`pmset -g`: autorestart 0",
        "`sudo pmset -a autorestart 1`",
    ),
    "a locked disk": (
        {"is_filevault_on": True},
        ["FileVault is on: after a restart it waits for a person"],
        "`fdesetup status`: FileVault is On.",
        "`sudo fdesetup authrestart`",
    ),
    "one that does not tell": (
        {"sleep_after_min": None, "starts_after_power_failure": None, "is_filevault_on": None},
        [],
        "",
        "",
    ),
}


@pytest.mark.parametrize(("facts", "expected", "seen", "remedy"), POWER.values(), ids=POWER.keys())
def test_what_keeps_a_mac_from_staying_up(facts: dict[str, Any], expected: list[str], seen: str, remedy: str) -> None:
    found = of_power(mac(**facts))
    assert short(found) == [(WARNING, what) for what in expected]
    assert all(one.seen == seen and remedy in one.remedy for one in found)


def test_that_a_locked_disk_may_open_by_ssh_is_not_sure() -> None:
    one = only(of_power(mac(is_filevault_on=True)))
    assert "at the machine, or by SSH from macOS 26 on when Remote Login is on" in one.why
    assert one.unknown.startswith("whether it can be unlocked by SSH")


TOO_MUCH = "ranks are promised more memory than Metal may wire"
# A Mac with 64 GiB, of which Metal by itself may wire 48. Limit, working set, [runner] memory_bytes.
WIRED: dict[str, tuple[int | None, int, int | None, list[tuple[str, str]]]] = {
    "by default, and nothing is asked for": (0, 48, 0, []),
    "by default, and less is asked for": (0, 48, 40, []),
    "by default, and more is asked for": (0, 48, 50, [(WARNING, TOO_MUCH)]),
    "by default, and Metal does not tell": (0, 0, 50, [(WARNING, TOO_MUCH)]),
    "more than there is at all is told elsewhere": (0, 48, 65, []),
    "raised": (60, 48, 56, [(NOTE, "wired limit")]),
    "raised, not enough": (52, 48, 56, [(WARNING, TOO_MUCH)]),
    "lowered below what a runner promises by itself": (32, 48, 0, [(WARNING, TOO_MUCH)]),
    "lowered, and no more is asked for": (32, 48, 30, [(NOTE, "wired limit")]),
    "lowered on another node, whose settings we do not see": (32, 48, None, [(NOTE, "wired limit")]),
    "not told": (None, 48, 60, []),
}


@pytest.mark.parametrize(("limit", "working_set", "wanted", "expected"), WIRED.values(), ids=WIRED.keys())
def test_what_metal_may_wire(
    limit: int | None, working_set: int, wanted: int | None, expected: list[tuple[str, str]]
) -> None:
    limit_bytes = None if limit is None else limit * GIB
    one = mac(wired_limit_bytes=limit_bytes, working_set_bytes=working_set * GIB)
    assert short(of_wired_limit(one, None if wanted is None else wanted * GIB, CONFIG)) == expected


def test_the_limit_that_would_be_enough_is_proposed_and_does_not_last() -> None:
    one = only(of_wired_limit(mac(), 50 * GIB + 1, CONFIG))
    assert one.seen == "`sysctl iogpu.wired_limit_mb`: iogpu.wired_limit_mb: 0"
    assert "`sudo sysctl iogpu.wired_limit_mb=51201`, again after each reboot" in one.remedy
    assert CONFIG in one.remedy
    assert "48.0 (its default)" in one.why
