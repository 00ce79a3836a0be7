"""`sw_vers`, `sysctl`, `pmset`, `fdesetup`, and what the rank's probe says of MLX. Pure."""

import json
import re
from dataclasses import dataclass

from thunderline.process.macos.outputs import Read, lines, name, not_understood, quoted, whole_number

MIB = 2**20
BACKEND_COUNT_MAX = 8
# More than a year is no time after which a machine sleeps, more than 2**20 MiB no memory of a Mac.
SLEEP_MAX_MIN, WIRED_MAX_MIB = 366 * 24 * 60, 2**20

FILEVAULT = re.compile(r"\bFileVault is (On|Off)\b")


@dataclass(frozen=True, slots=True)
class Version:
    """ "26.2" and "25C56"."""

    version: str = ""
    build: str = ""


@dataclass(frozen=True, slots=True)
class Hardware:
    """ "Mac15,14" and "Apple M3 Ultra"; what Metal may wire, 0 for the system's default."""

    model: str = ""
    chip: str = ""
    wired_limit_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Power:
    """None where the machine has no such setting: laptops do not start by themselves."""

    # 0 never.
    sleep_after_min: int | None = None
    starts_after_power_failure: bool | None = None


@dataclass(frozen=True, slots=True)
class Mlx:
    """What `mlx.distributed` offers, and what Metal recommends to keep at once (0 without Metal)."""

    backends: tuple[str, ...] | None = None
    working_set_bytes: int = 0


def version(text: str) -> Read[Version]:
    """`sw_vers`: "ProductVersion:", tabs, "26.2"."""
    told = _told(text)
    found = Version(told.get("ProductVersion", ""), told.get("BuildVersion", ""))
    missing = [key for key in ("ProductVersion", "BuildVersion") if not told.get(key)]
    return Read(found, tuple(not_understood(f"it has no {key}") for key in missing))


def hardware(text: str) -> Read[Hardware]:
    """`sysctl NAME ...`: "hw.model: Mac15,14". What this system does not know is not among them."""
    told = _told(text)
    warnings = [f"does not tell {key}" for key in ("hw.model", "machdep.cpu.brand_string") if not told.get(key)]
    # Intel's have no such setting.
    limit = told.get("iogpu.wired_limit_mb")
    wired_mib = whole_number(limit or "")
    if wired_mib is not None and wired_mib > WIRED_MAX_MIB:
        wired_mib = None
    if limit is not None and wired_mib is None:
        warnings.append(not_understood(f"iogpu.wired_limit_mb is {quoted(limit)}"))
    found = Hardware(
        model=told.get("hw.model", ""),
        chip=told.get("machdep.cpu.brand_string", ""),
        wired_limit_bytes=None if wired_mib is None else wired_mib * MIB,
    )
    return Read(found, tuple(warnings))


def power(text: str) -> Read[Power]:
    """`pmset -g`: " sleep                1 (sleep prevented by powerd)", " autorestart          1"."""
    told: dict[str, int] = {}
    for line in lines(text):
        # Others have names of several words: "Sleep On Power Button 1".
        match line.split():
            case [key, value, *_] if (number := whole_number(value)) is not None:
                told.setdefault(key, number)
    sleep_min, restart = told.get("sleep"), told.get("autorestart")
    # `pmset disablesleep 1` leaves "sleep" as it was.
    if told.get("SleepDisabled") == 1:
        sleep_min = 0
    warnings = []
    if sleep_min is None or sleep_min > SLEEP_MAX_MIN:
        warnings.append(not_understood("it has no line of sleep" if sleep_min is None else f"sleep is {sleep_min}"))
        sleep_min = None
    if restart is not None and restart > 1:
        warnings.append(not_understood(f"autorestart is {restart}"))
        restart = None
    return Read(Power(sleep_min, None if restart is None else restart == 1), tuple(warnings))


def filevault(text: str) -> Read[bool | None]:
    """`fdesetup status`: "FileVault is On.", and more lines while it encrypts."""
    found = FILEVAULT.search("\n".join(lines(text)))
    if found is None:
        return Read(None, (not_understood(quoted(text)),))
    return Read(found[1] == "On")


def mlx(text: str) -> Read[Mlx]:
    """The JSON of `thunderline rank --probe`, its last line: MLX itself may print before."""
    last = next((line for line in reversed(lines(text)) if line.strip()), "")
    try:
        told = json.loads(last, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        return Read(Mlx(), (not_understood(quoted(last)),))
    warnings = []
    backends = told.get("backends")
    if not isinstance(backends, list) or not all(isinstance(one, str) for one in backends):
        warnings.append(not_understood(f"backends is {quoted(backends)}"))
        backends = None
    size = told.get("working_set_bytes", "0")
    size_bytes = whole_number(size) if isinstance(size, str) else None
    if size_bytes is None:
        warnings.append(not_understood(f"working_set_bytes is {quoted(size)}"))
    kept = None if backends is None else tuple(dict.fromkeys(name(one) for one in backends[:BACKEND_COUNT_MAX]))
    return Read(Mlx(kept, size_bytes or 0), tuple(warnings))


def _told(text: str) -> dict[str, str]:
    """Lines "key: value", of a key that comes twice the first."""
    told: dict[str, str] = {}
    for line in lines(text):
        key, colon, value = line.partition(":")
        if colon:
            told.setdefault(key.strip(), name(value))
    return told
