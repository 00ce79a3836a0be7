#!/usr/bin/env python3
"""Records what this Mac's commands print, redacted, into a folder that can stand in for it.

    python3 recording.py FOLDER [--salt WORDS]

It needs no other file, and runs with macOS's own python3 (3.9). Nothing is changed and nothing is sent anywhere.
With the same WORDS on two Macs an identity becomes the same invented one on both, so that the ends of a cable still
match; keep the words to yourself.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import hashlib
import hmac
import ipaddress
import os
import pwd
import re
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

# With the seconds that each may take.
COMMANDS: tuple[tuple[tuple[str, ...], float], ...] = (
    (("system_profiler", "SPThunderboltDataType", "-json"), 10),
    (("networksetup", "-listallhardwareports"), 5),
    (("networksetup", "-listnetworkserviceorder"), 5),
    (("ifconfig",), 5),
    (("rdma_ctl", "status"), 5),
    (("ibv_devices",), 5),
    (("ibv_devinfo",), 5),
    (("sw_vers",), 5),
    (("sysctl", "hw.model", "machdep.cpu.brand_string", "hw.memsize", "iogpu.wired_limit_mb"), 5),
    (("pmset", "-g"), 5),
    (("fdesetup", "status"), 5),
)
# Then, with each service of a bridge.
ORDER, ENABLED = ("networksetup", "-listnetworkserviceorder"), ("networksetup", "-getnetworkserviceenabled")
ENABLED_S = 5.0
KILLED_S = 2.0
# "(3) Thunderbolt Bridge", and below it "(Hardware Port: Thunderbolt Bridge, Device: bridge0)".
BRIDGE_SERVICE = re.compile(r"^\((?:\d+|\*)\) (.+)\n\(Hardware Port: .*, Device: bridge\d+\)", re.MULTILINE)
NAMES = ("ComputerName", "LocalHostName", "HostName")
# Nobody's own, and part of what the commands print.
NO_NAMES = frozenset(
    "apple mac macbook macbook-pro macbook-air macbookpro macbookair mini mac-mini macmini studio mac-studio macstudio "
    "mac-pro macpro imac pro air host local localhost root user admin thunderbolt bridge ethernet network".split()
)
NAME_LENGTH_MIN = 3
IDENTITY = re.compile(
    r"""
    (?P<uuid> (?<![\w-]) [0-9A-Fa-f]{8} (?: -[0-9A-Fa-f]{4} ){3} -[0-9A-Fa-f]{12} (?![\w-]) )
  | (?P<serial> (?<= " ) \w*serial\w* " \s* : \s* " (?P<number> [^"]+ ) )
  | (?P<hex> (?<![0-9A-Za-z]) (?: 0x [0-9A-Fa-f]{9,16} | [0-9A-Fa-f]{16} ) (?![0-9A-Za-z]) )
  | (?P<mac> (?<![\w:]) (?: [0-9A-Fa-f]{1,2}: ){5} [0-9A-Fa-f]{1,2} (?![\w:]) )
  | (?P<guid> (?<![\w:]) (?: [0-9A-Fa-f]{4}: ){3} [0-9A-Fa-f]{4} (?![\w:]) )
  | (?P<ipv6> (?<![\w:.]) [0-9A-Fa-f:]{2,39} (?![\w:.]) )
  | (?P<ipv4> (?<![\w.]) \d{1,3} (?: \.\d{1,3} ){3} (?![\w.]) )
    """,
    re.VERBOSE | re.IGNORECASE,
)
SHARED = ipaddress.ip_network("100.64.0.0/10")
# Of benchmarks, of documentation.
INVENTED_IPV4, INVENTED_IPV6 = ipaddress.ip_network("198.18.0.0/15"), ipaddress.ip_network("2001:db8::/32")


class Recorded(NamedTuple):
    """What became of a command. `gone`: "missing" or "hangs", then there is nothing else."""

    gone: str = ""
    text: str = ""
    error: str = ""
    code: int = 0


class Redactor:
    """Invents each identity from the salt and the real one. `names`: words, by what they become."""

    def __init__(self, salt: str, names: Mapping[str, str]) -> None:
        self._salt = salt.encode()
        self._names = {name.casefold(): invented for name, invented in names.items()}
        # The longest first: a name may begin another.
        words = sorted(map(re.escape, self._names), key=len, reverse=True)
        self._words = re.compile(rf"(?<!\w)(?:{'|'.join(words)})(?!\w)", re.IGNORECASE) if words else None

    def redacted(self, text: str) -> str:
        text = IDENTITY.sub(self._invented, text)
        if self._words is not None:
            text = self._words.sub(lambda match: self._names[match[0].casefold()], text)
        return text

    def _digits(self, kind: str, value: str) -> str:
        """64 hexadecimal ones."""
        return hmac.new(self._salt, f"{kind} {value.lower()}".encode(), hashlib.sha256).hexdigest()

    def _invented(self, match: re.Match[str]) -> str:
        if number := match["number"]:
            return match[0][: -len(number)] + self._digits("serial", number)[: len(number)].upper()
        kinds = {
            "uuid": self._uuid,
            "hex": self._hex,
            "mac": self._mac,
            "guid": self._guid,
            "ipv6": self._ipv6,
            "ipv4": self._ipv4,
        }
        value = match[0]
        found = kinds[str(match.lastgroup)](value)
        return found.upper() if value == value.upper() else found

    def _uuid(self, value: str) -> str:
        digits = self._digits("uuid", value)
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-8{digits[17:20]}-{digits[20:32]}"

    def _hex(self, value: str) -> str:
        bare = value.rpartition("0x")[2]
        digits = self._digits("hex", bare)[: len(bare)]
        return value[: -len(bare)] + (digits.upper() if bare == bare.upper() else digits)

    def _guid(self, value: str) -> str:
        """Printed elsewhere without its colons: the same digits."""
        digits = self._digits("hex", value.replace(":", ""))
        return ":".join(digits[place : place + 4] for place in range(0, 16, 4))

    def _mac(self, value: str) -> str:
        if not value.strip("0:"):
            return value
        digits = self._digits("mac", value)
        # Locally administered: nobody's.
        return ":".join(["02", *(digits[place : place + 2] for place in range(0, 10, 2))])

    def _ipv4(self, value: str) -> str:
        try:
            address = ipaddress.IPv4Address(value)
        except ValueError:
            return value
        if address in SHARED:
            return self._within(SHARED, value)
        is_public = address.is_global and not address.is_multicast
        return self._within(INVENTED_IPV4, value) if is_public else value

    def _ipv6(self, value: str) -> str:
        """A link-local one may hold the MAC address, a private one is somebody's: both stay what they are."""
        try:
            address = ipaddress.IPv6Address(value)
        except ValueError:
            return value
        if int(address) < 2**16 or address.is_multicast or value.lower() == "fe80::1":
            return value
        kind = "fe80::/64" if address.is_link_local else "fd00::/64" if address.is_private else str(INVENTED_IPV6)
        return self._within(ipaddress.ip_network(kind), value)

    def _within(self, network: ipaddress.IPv4Network | ipaddress.IPv6Network, value: str) -> str:
        number = int(self._digits("address", value), 16) % network.num_addresses
        return str(network[number])


def file_name(words: Sequence[str]) -> str:
    """Of a command line, without its ending."""
    return re.sub(rb"[^A-Za-z0-9.-]", b"_", " ".join(words).encode()).decode()


def run(words: Sequence[str], limit_s: float) -> Recorded:
    """One command, which is killed with all that it has started when it takes too long."""
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError:
        return Recorded("missing")
    try:
        text, error = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        # One that hangs in the kernel stays.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=KILLED_S)
        return Recorded("hangs")
    return Recorded("", text.decode(errors="replace"), error.decode(errors="replace"), process.returncode)


def own_names() -> dict[str, str]:
    """Names of this Mac and of who uses it, by what they become."""
    hosts = [socket.gethostname(), socket.gethostname().partition(".")[0]]
    hosts += [run(("scutil", "--get", name), ENABLED_S).text.strip() for name in NAMES]
    users = [getpass.getuser()]
    with contextlib.suppress(KeyError):
        full = pwd.getpwuid(os.getuid()).pw_gecos.partition(",")[0]
        users += [full, *full.split()]
    found = {**dict.fromkeys(users, "user"), **dict.fromkeys(hosts, "host")}
    return {name: invented for name, invented in found.items() if is_name(name)}


def is_name(text: str) -> bool:
    """Whether it tells of somebody: a Mac that is called "MacBook Pro" is called as its model."""
    return len(text) >= NAME_LENGTH_MIN and text.casefold().replace(" ", "-") not in NO_NAMES


def keep(folder: Path, words: Sequence[str], found: Recorded, redactor: Redactor) -> None:
    """The words too are redacted: a service may have a name of somebody's."""
    path = folder / file_name([redactor.redacted(word) for word in words])
    if found.gone:
        Path(f"{path}.{found.gone}").write_text("")
        return
    Path(f"{path}.txt").write_text(redactor.redacted(found.text))
    if found.error:
        Path(f"{path}.stderr").write_text(redactor.redacted(found.error))
    if found.code:
        Path(f"{path}.exit").write_text(f"{found.code}\n")


def record(folder: Path, redactor: Redactor) -> None:
    """Tells of each command how it went."""
    wanted = list(COMMANDS)
    while wanted:
        words, limit_s = wanted.pop(0)
        found = run(words, limit_s)
        keep(folder, words, found, redactor)
        print(f"{' '.join(words)}: {found.gone or f'{len(found.text.splitlines())} lines'}", flush=True)
        if words == ORDER:
            wanted += [((*ENABLED, service), ENABLED_S) for service in BRIDGE_SERVICE.findall(found.text)]


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="is made; must be empty")
    parser.add_argument("--salt", default="", help="the same on all Macs that are recorded together")
    arguments = parser.parse_args(argv)
    folder: Path = arguments.folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        print(f"{folder} is there already: name a new folder", file=sys.stderr)
        return 2
    folder.mkdir(parents=True, exist_ok=True)
    record(folder, Redactor(arguments.salt or secrets.token_hex(16), own_names()))
    print(f"\nLook through {folder} before you show it to anybody: names of services and disks are as they were.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
