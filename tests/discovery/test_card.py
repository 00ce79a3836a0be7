"""The card of this node."""

import asyncio
import errno
import itertools
import json
import sys
import time
from pathlib import Path

import psutil
import pytest

from discovery.little_discovery import little_card, until
from thunderline.cluster import NodeId
from thunderline.cluster.machine_facts import Bridge, MachineFacts, RdmaState, ThunderboltPort
from thunderline.cluster.media import Medium
from thunderline.discovery import wire
from thunderline.discovery.__main__ import OwnCard, keep_card
from thunderline.discovery.card import Origin, card, joining, next_incarnation, ports, versions
from thunderline.discovery.differences import digest
from thunderline.discovery.membership import Membership
from thunderline.discovery.values import Life
from thunderline.process import authority
from thunderline.process import settings as settings_module
from thunderline.process.authority import Announced
from thunderline.process.departed import LEFT, depart
from thunderline.process.entry import CannotStart
from thunderline.process.interfaces import Interface, interfaces
from thunderline.process.macos.scanning import Scanner
from thunderline.process.trust import Wallet
from thunderline.rpc.machine_facts import from_proto
from thunderline.v1 import cluster_pb2

NODE, OTHER = NodeId("0b1c2d3e-0000-4000-8000-000000000001"), "0b1c2d3e-0000-4000-8000-000000000002"
CABLE = Interface("en1", Medium.THUNDERBOLT, ("169.254.3.4", "fe80::1"), True, 9000)
LAN = Interface("en0", Medium.ETHERNET, ("192.168.1.5", "fd00::5"), True, 1500)
DOWN = Interface("en9", Medium.ETHERNET, ("10.0.0.9",), False, 1500)
LOOPBACK = Interface("lo", Medium.LOOPBACK, ("127.0.0.1", "::1"), True, 65_536)
ALL = (CABLE, LAN, DOWN, LOOPBACK)


def settings(folder: Path, text: str = "") -> settings_module.Settings:
    (folder / "config.toml").write_text(text)
    return settings_module.read(environ={}, home=folder)


def origin(folder: Path, text: str = "") -> Origin:
    return Origin(NODE, Life(3, "start"), settings(folder, text))


def test_the_real_card_of_this_machine_keeps_every_bound(tmp_path: Path) -> None:
    own = card(origin(tmp_path), interfaces(), Announced())
    known = wire.checked_card(own)
    assert (known.node_id, known.life, known.cluster_name) == (NODE, Life(3, "start"), "thunderline")
    assert known.addresses == ("127.0.0.1:7401",)
    assert own.memory_bytes == psutil.virtual_memory().total
    assert own.hostname
    assert own.chip
    assert own.settings_digest == digest(known.settings)
    assert {"thunderline", "python", "system"} <= dict(known.versions).keys()


@pytest.mark.parametrize(
    ("bind", "expected"),
    [
        ("127.0.0.1", ["127.0.0.1"]),
        ("localhost", ["127.0.0.1"]),
        ("192.168.1.5", ["192.168.1.5"]),
        ("0.0.0.0", ["169.254.3.4", "192.168.1.5"]),
        ("::", ["169.254.3.4", "192.168.1.5", "fd00::5"]),
        ("ada.local", []),
    ],
)
def test_its_addresses_are_those_that_its_bind_allows(tmp_path: Path, bind: str, expected: list[str]) -> None:
    own = card(origin(tmp_path, f'[node]\nbind = "{bind}"\n'), ALL, Announced())
    assert list(own.addresses) == expected


def test_interfaces_are_told_by_name_and_those_that_are_up_first_when_there_are_too_many(tmp_path: Path) -> None:
    own = card(origin(tmp_path), ALL, Announced())
    assert [one.name for one in own.interfaces] == ["en0", "en1", "en9", "lo"]
    many = tuple(Interface(f"veth{n}", Medium.OTHER, (), False, 1500) for n in range(100))
    own = card(origin(tmp_path), (*many, LAN), Announced())
    wire.checked_card(own)
    assert "en0" in {one.name for one in own.interfaces}


def test_ports_of_all_roles_and_the_schedulers_on_its_node_alone(tmp_path: Path) -> None:
    everywhere = {"discovery": 7401, "topology": 7402, "echo": 7412, "runner": 7404}
    alone = {"scheduler": 7403, "enrollment": 7405}
    assert ports(settings(tmp_path), NODE) == everywhere | alone
    assert ports(settings(tmp_path, f'[cluster]\nscheduler = "{NODE}"\n'), NODE) == everywhere | alone
    member = settings(tmp_path, f'[cluster]\nscheduler = "{OTHER}"\n')
    assert ports(member, NODE) == everywhere
    own = card(Origin(NODE, Life(1, "s"), member), ALL, Announced())
    assert not own.is_scheduler_node
    assert dict(joining(member, NODE))["roles"] == "discovery gateway runner topology"


def test_what_it_says_of_joining_is_sorted_and_names_the_scheduler_node(tmp_path: Path) -> None:
    said = joining(settings(tmp_path, '[discovery]\nseeds = ["ada", "bob:9"]\n'), NODE)
    assert list(said) == sorted(said)
    assert dict(said)["discovery.seeds"] == "ada bob:9"
    # A node that names itself and one that names nobody mean the same.
    assert dict(said)["cluster.scheduler"] == NODE


def test_it_announces_whom_it_trusts_and_whom_not(tmp_path: Path) -> None:
    own = card(origin(tmp_path), ALL, Announced(("a" * 64, "b" * 64), "a" * 64, "b" * 64, (NodeId(OTHER),)))
    assert wire.checked_card(own).departed == {OTHER}
    assert list(own.trusted_authorities) == ["a" * 64, "b" * 64]
    assert (own.certificate_authority, own.signing_authority) == ("a" * 64, "b" * 64)


async def test_a_broken_list_of_who_was_taken_out_lets_nobody_back(tmp_path: Path) -> None:
    found, wallet = settings(tmp_path), Wallet(tmp_path, "thunderline")
    authority.found(tmp_path, "thunderline", time.time())
    depart(tmp_path, NodeId(OTHER))

    def own() -> OwnCard:
        return OwnCard(found, wallet, Scanner(found))

    running = own()
    assert list(running.read().departed_node_ids) == [OTHER]
    (tmp_path / "cluster" / LEFT).write_text("")
    # The card stays as it was, and one that starts now says what is wrong.
    with pytest.raises(OSError, match=r"left\.json"):
        running.read()
    with pytest.raises(CannotStart, match=r"left\.json"):
        own().read()


def test_versions_do_not_need_the_packages(tmp_path: Path) -> None:
    assert dict(versions())["python"].count(".") == 2
    assert list(versions()) == sorted(versions())


MAC = '[node]\nplatform = "darwin"\n'
STUDIO = MachineFacts(
    model="Mac15,14",
    chip="Apple M3 Ultra",
    os_version="26.2",
    os_build="25C56",
    rdma=RdmaState.ENABLED,
    ports=(ThunderboltPort(uuid="0B1C2D3E-0000-4000-8000-00000000A001", receptacle="1", interface="en2"),),
    bridges=(Bridge("bridge0", ("en2",)),),
    hardware_ports=(("en2", "Thunderbolt 1"),),
)


def test_what_the_nodes_commands_tell_is_on_it(tmp_path: Path) -> None:
    own = card(origin(tmp_path, MAC), ALL, Announced(), STUDIO)
    wire.checked_card(own)
    assert from_proto(own.machine) == STUDIO
    assert (own.chip, dict(wire.to_card(own).versions)["system"]) == ("Apple M3 Ultra", "macOS 26.2 25C56")
    assert own.operating_system.startswith("darwin ")


def test_before_they_tell_it_says_so_and_whose_system_it_is(tmp_path: Path) -> None:
    own = card(origin(tmp_path, MAC), ALL, Announced())
    assert not own.HasField("machine")
    assert own.operating_system.startswith("darwin ")
    assert own.chip
    # They have been asked, and none of them has told anything.
    silent = card(origin(tmp_path, MAC), ALL, Announced(), MachineFacts())
    assert silent.HasField("machine")
    assert (silent.chip, silent.versions) == (own.chip, own.versions)
    assert card(origin(tmp_path), ALL, Announced()).operating_system.startswith(f"{sys.platform} ")


def test_a_machine_that_tells_far_too_much_still_has_a_card_that_others_take(tmp_path: Path) -> None:
    long = "x" * 10_000
    port = ThunderboltPort(bus=long, devices=(long,) * 100)
    much = MachineFacts(
        model=long, chip="\x1b[2J", os_version=long, ports=(port,) * 100, hardware_ports=((long, long),) * 99
    )
    own = card(origin(tmp_path, MAC), ALL, Announced(), much)
    assert wire.checked_card(own).node_id == NODE


def test_starts_are_counted_on_disk(tmp_path: Path) -> None:
    assert [next_incarnation(tmp_path) for _ in range(3)] == [1, 2, 3]
    (tmp_path / "discovery.json").write_text(json.dumps({"count": 1}))
    with pytest.raises(CannotStart, match="remove it to count from one again"):
        next_incarnation(tmp_path)


async def test_a_card_that_cannot_be_read_once_is_read_again() -> None:
    first = little_card(7401)
    members = Membership(wire.to_card(first))
    count = itertools.count()

    def read() -> cluster_pb2.NodeCard:
        if next(count) == 0:
            raise OSError(errno.ENXIO, "Device not configured")
        newest = cluster_pb2.NodeCard()
        newest.CopyFrom(first)
        newest.chip = "M9"
        return newest

    keeping = asyncio.create_task(keep_card(read, members, every_s=0.01))
    await until("the card is another one", lambda: keeping.done() or wire.whole(members.own).chip == "M9")
    assert not keeping.done(), keeping
    keeping.cancel()
    await asyncio.wait({keeping})
