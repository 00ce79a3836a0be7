"""This machine's interfaces; what sysfs says of each is a folder made here."""

import errno
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from thunderline.cluster.machine_facts import Bridge, MachineFacts
from thunderline.cluster.media import Medium, medium
from thunderline.process.interfaces import _hardware, interfaces, mac_hardware

NAMES = sorted(psutil.net_if_addrs().keys() & psutil.net_if_stats().keys())
LOOPBACK = next(name for name in NAMES if name in ("lo", "lo0"))


@dataclass(frozen=True)
class Sysfs:
    """What Linux shows of one interface: `type` and `uevent` are files, the rest are links and folders."""

    type: str = "1"
    uevent: str = ""
    driver: str = ""
    folders: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "type").write_text(f"{self.type}\n")
        (folder / "uevent").write_text(f"{self.uevent}INTERFACE={folder.name}\nIFINDEX=2\n")
        for name in self.folders:
            (folder / name).mkdir(parents=True)
        if self.driver:
            target = folder.parent / "drivers" / self.driver
            target.mkdir(parents=True)
            (folder / "device").mkdir()
            (folder / "device" / "driver").symlink_to(target)


SHOWN: dict[str, tuple[str, Sysfs, Medium]] = {
    "a loopback": ("lo", Sysfs(type="772"), Medium.LOOPBACK),
    "a PCI card": ("enp3s0", Sysfs(driver="igc"), Medium.ETHERNET),
    "Thunderbolt networking": ("thunderbolt0", Sysfs(driver="thunderbolt-net"), Medium.THUNDERBOLT),
    "Wi-Fi, by its folder": ("wlp2s0", Sysfs(driver="iwlwifi", folders=("wireless",)), Medium.WIFI),
    "Wi-Fi, by its radio": ("wlp2s0", Sysfs("1", "DEVTYPE=wlan\n", "iwlwifi", ("phy80211",)), Medium.WIFI),
    "a tun device": ("corp", Sysfs(type="65534"), Medium.VPN),
    "WireGuard": ("office", Sysfs(type="65534", uevent="DEVTYPE=wireguard\n"), Medium.VPN),
    "a modem": ("line0", Sysfs(type="512", uevent="DEVTYPE=ppp\n"), Medium.VPN),
    "one end of a virtual cable": ("eth0", Sysfs(), Medium.OTHER),
    "a bridge without members": ("br0", Sysfs(uevent="DEVTYPE=bridge\n", folders=("brif",)), Medium.OTHER),
}


@pytest.mark.parametrize(("name", "shown", "expected"), SHOWN.values(), ids=SHOWN.keys())
def test_what_sysfs_shows_is_understood(tmp_path: Path, name: str, shown: Sysfs, expected: Medium) -> None:
    shown.write(tmp_path / name)
    assert medium(_hardware(tmp_path / name), {}) is expected


def test_a_bridge_names_its_members_in_order(tmp_path: Path) -> None:
    Sysfs(uevent="DEVTYPE=bridge\n", folders=("brif/eth1", "brif/eth0")).write(tmp_path / "br0")
    found = _hardware(tmp_path / "br0")
    assert (found.kind, list(found.members)) == ("bridge", ["eth0", "eth1"])


class Going(type(Path())):  # type: ignore[misc]
    """A folder whose bridges go between a look at them and the next."""

    def iterdir(self) -> Iterator[Path]:
        raise OSError(errno.ENOENT, "No such file or directory", str(self))


def test_a_bridge_that_goes_while_it_is_read_is_left_out(tmp_path: Path) -> None:
    Sysfs(uevent="DEVTYPE=bridge\n", folders=("brif",)).write(tmp_path / LOOPBACK)
    found = [one.name for one in interfaces(Going(tmp_path))]
    assert found == [name for name in NAMES if name != LOOPBACK]


def test_the_loopback_of_this_machine_is_found() -> None:
    found = next(one for one in interfaces() if one.name == LOOPBACK)
    assert (found.medium, found.is_up) == (Medium.LOOPBACK, True)
    assert "127.0.0.1" in found.addresses
    assert found.mtu_bytes > 1000


def test_every_interface_is_there_once_and_in_order() -> None:
    found = [one.name for one in interfaces()]
    assert found == sorted(set(found))
    assert set(found) <= set(NAMES)


def test_addresses_have_neither_zone_nor_hardware_address() -> None:
    addresses = list(itertools.chain(*(one.addresses for one in interfaces())))
    assert [one for one in addresses if "%" in one or (one.count(":") == 5 and "::" not in one)] == []


def test_an_unchanged_machine_gives_equal_values() -> None:
    assert interfaces() == interfaces()


def test_a_system_without_sysfs_still_knows_its_loopback(tmp_path: Path) -> None:
    found = next(one for one in interfaces(tmp_path / "nothing") if one.name == LOOPBACK)
    assert found.medium is Medium.LOOPBACK


PORTS = (
    ("en0", "Ethernet"),
    ("en1", "Wi-Fi"),
    ("en2", "Thunderbolt 1"),
    ("en3", "Thunderbolt 2"),
    ("en10", "Thunderbolt Ethernet Slot 0"),
    ("bridge0", "Thunderbolt Bridge"),
)
CABLES = MachineFacts(hardware_ports=PORTS, bridges=(Bridge("bridge0", ("en2", "en3")), Bridge("bridge100")))
MIXED = MachineFacts(hardware_ports=PORTS, bridges=(Bridge("bridge0", ("en2", "en10")),))
# What is known of the Mac, the interface: its medium.
OF_A_MAC: dict[str, tuple[MachineFacts | None, str, Medium]] = {
    "a receptacle": (CABLES, "en3", Medium.THUNDERBOLT),
    "a dock's card": (CABLES, "en10", Medium.ETHERNET),
    "the radio": (CABLES, "en1", Medium.WIFI),
    "the bridge of its receptacles": (CABLES, "bridge0", Medium.THUNDERBOLT),
    "a bridge that has a dock's card too": (MIXED, "bridge0", Medium.ETHERNET),
    "a bridge without members": (CABLES, "bridge100", Medium.OTHER),
    "one that it has not told of": (CABLES, "en7", Medium.OTHER),
    "a receptacle, before anything is known": (None, "en3", Medium.OTHER),
    "its loopback, before anything is known": (None, "lo0", Medium.LOOPBACK),
    "a VPN, before anything is known": (None, "utun4", Medium.VPN),
    "a receptacle, where the ports were not told": (MachineFacts(), "en3", Medium.OTHER),
}


@pytest.mark.parametrize(("machine", "name", "expected"), OF_A_MAC.values(), ids=OF_A_MAC.keys())
def test_what_a_mac_tells_is_understood(machine: MachineFacts | None, name: str, expected: Medium) -> None:
    every = {one: mac_hardware(one, machine) for one in (*dict(PORTS), name)}
    assert medium(every[name], every) is expected


def test_of_a_mac_sysfs_is_not_read_and_the_config_still_wins() -> None:
    other = MachineFacts(hardware_ports=tuple((name, "Thunderbolt 1") for name in NAMES if name != LOOPBACK))
    found = {one.name: one.medium for one in interfaces(platform="darwin", machine=other)}
    assert found[LOOPBACK] is Medium.LOOPBACK
    assert set(found.values()) <= {Medium.LOOPBACK, Medium.THUNDERBOLT, Medium.VPN}
    config = {LOOPBACK: Medium.WIFI}
    assert {one.name: one.medium for one in interfaces(overrides=config, platform="darwin")}[LOOPBACK] is Medium.WIFI
