"""What a command printed, and what is read of it: text of a machine becomes values within bounds. Pure.

Texts are decoded with errors="replace". No reader raises for what it is given.
"""

import re
from dataclasses import dataclass
from typing import Generic, TypeVar

T_co = TypeVar("T_co", covariant=True)

# Command lines as one types them: keys of outputs, and what warnings name.
THUNDERBOLT = "system_profiler SPThunderboltDataType -json"
HARDWARE_PORTS = "networksetup -listallhardwareports"
SERVICE_ORDER = "networksetup -listnetworkserviceorder"
# And the name of a service.
SERVICE_ENABLED = "networksetup -getnetworkserviceenabled"
IFCONFIG = "ifconfig"
RDMA_STATUS = "rdma_ctl status"
RDMA_DEVICES = "ibv_devices"
RDMA_PORTS = "ibv_devinfo"
SYSTEM_VERSION = "sw_vers"
HARDWARE = "sysctl hw.model machdep.cpu.brand_string hw.memsize iogpu.wired_limit_mb"
POWER = "pmset -g"
FILEVAULT = "fdesetup status"
MLX = "thunderline rank --probe"

# `problem` of a command that is not there.
MISSING = "is not there (not in PATH)"
# Follows a problem when the last answer still holds.
STILL_COUNTS = "; what it said before counts for now"

# A Studio's Thunderbolt tree has 10 kB, a Mac with a chain of docks 50.
TEXT_LENGTH_MAX = 1024 * 1024
LINE_COUNT_MAX, LINE_LENGTH_MAX = 4096, 4096
# Names of services and devices are people's own words; warnings quote them.
NAME_LENGTH_MAX, WARNING_LENGTH_MAX, QUOTE_LENGTH_MAX = 128, 256, 48

# net/if.h: IFNAMSIZ is 16 with its NUL.
INTERFACE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,14}")
BRIDGE = re.compile(r"bridge[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class Output:
    """What a command printed to stdout, or why there is nothing: "took longer than 5 s"."""

    text: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Read(Generic[T_co]):
    """What a text says, and what of it could not be read, a sentence each about the command."""

    value: T_co
    warnings: tuple[str, ...] = ()


def took_longer(timeout_s: float) -> str:
    return f"took longer than {timeout_s:g} s"


def not_understood(what: str) -> str:
    return f"its output is not understood: {what}"[:WARNING_LENGTH_MAX]


def lines(text: str) -> list[str]:
    """As they are, without their ends; a bound on how many and how long.

    Not str.splitlines, which also ends a line at characters that a name may hold.
    """
    found = text[:TEXT_LENGTH_MAX].removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}").split("\n", LINE_COUNT_MAX)
    return [line[:LINE_LENGTH_MAX].rstrip("\r") for line in found[:LINE_COUNT_MAX]]


def name(text: str, length_max: int = NAME_LENGTH_MAX) -> str:
    """One line of what can be printed and sent, within its length. Of what it returns it changes nothing more."""
    words = " ".join(text[:LINE_LENGTH_MAX].split())
    shown = "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in words)
    return shown[:length_max].rstrip()


def quoted(value: object) -> str:
    """What stands where something else was expected, for a warning."""
    if isinstance(value, str):
        shown = name(value)
        return f'"{shown}"' if len(shown) <= QUOTE_LENGTH_MAX else f'"{shown[:QUOTE_LENGTH_MAX]}..."'
    kinds = {dict: "an object", list: "a list", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def whole_number(text: str) -> int | None:
    """None for what is no plain number below 10**18."""
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None
