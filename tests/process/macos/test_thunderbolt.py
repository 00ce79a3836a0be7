"""What `system_profiler SPThunderboltDataType -json` says, in all of its shapes."""

from typing import Any

import pytest

from process.macos.buses import BUS, OTHER_UUID, THIRD_UUID, UUID, bus, dock, mac, read, seen
from process.macos.captured import LAPTOP, MINI, STUDIO, text
from thunderline.cluster.machine_facts import SeenMac, ThunderboltPort
from thunderline.process.macos.outputs import THUNDERBOLT
from thunderline.process.macos.thunderbolt import NAMELESS, Speed, Thunderbolt, speed, thunderbolt

STUDIO_PORTS = (
    ThunderboltPort(
        f"{BUS}0", "", "1", is_connected=True, speed_gbps=120, macs=(SeenMac("", "Mac Studio", "Mac15,14"),)
    ),
    ThunderboltPort(
        f"{BUS}1",
        "57D10000-0000-4000-8000-000000000002",
        "2",
        is_connected=True,
        speed_gbps=40,
        devices=("Granite Box 4",),
    ),
    ThunderboltPort(
        f"{BUS}2",
        "57D10000-0000-4000-8000-000000000003",
        "3",
        is_connected=True,
        speed_gbps=80,
        macs=(
            SeenMac("3A2B0000-0000-4000-8000-000000000001", "Mac mini", "Mac16,11", ("Quay Dock",)),
            SeenMac("6B3C0000-0000-4000-8000-000000000003", "MacBook Pro", "Mac17,7", ("Quay Dock", "Reef Hub")),
        ),
        devices=("Quay Dock", "Reef Hub"),
    ),
    ThunderboltPort(f"{BUS}3", "", "4", is_connected=False, speed_max_gbps=120),
    ThunderboltPort(f"{BUS}4", "57D10000-0000-4000-8000-000000000005", "5", is_connected=False, speed_max_gbps=120),
    ThunderboltPort(
        f"{BUS}5",
        "57D10000-0000-4000-8000-000000000006",
        "6",
        is_connected=True,
        speed_gbps=80,
        macs=(SeenMac("1A970000-0000-4000-8000-000000000002", "MacBook Pro", "Mac16,5"),),
    ),
)


def test_a_studio_with_a_cable_a_chain_of_hubs_a_disk_and_free_ports() -> None:
    found = thunderbolt(text(STUDIO, THUNDERBOLT))
    assert found.value == Thunderbolt("Mac Studio", STUDIO_PORTS)
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("machine", "name", "speeds"),
    [(LAPTOP, "MacBook Pro", [(40, 0), (80, 0), (0, 120)]), (MINI, "Mac mini", [(40, 0), (0, 40)])],
    ids=[LAPTOP, MINI],
)
def test_the_other_machines_are_read_without_a_warning(machine: str, name: str, speeds: list[tuple[int, int]]) -> None:
    found = thunderbolt(text(machine, THUNDERBOLT))
    assert found.value.model_name == name
    assert [(one.speed_gbps, one.speed_max_gbps) for one in found.value.ports] == speeds
    assert found.warnings == ()


# A printed speed, and what it is: None is unknown.
SPEEDS: dict[str, tuple[str, Speed | None]] = {
    "a link of Thunderbolt 5": ("80 Gb/s", Speed(80)),
    "a link of Thunderbolt 4": ("40 Gb/s", Speed(40)),
    "without its unit": ("40", Speed(40)),
    "three digits without a unit": ("120", Speed(120)),
    "asymmetric": ("120/40", Speed(120)),
    "asymmetric the other way": ("40/120 Gb/s", Speed(120)),
    "what a free port could": ("Up to 120 Gb/s", Speed(120, is_limit=True)),
    "what a free port could, without its unit": ("Up to 40", Speed(40, is_limit=True)),
    "what a free port could, asymmetric": ("Up to 120/40 Gb/s", Speed(120, is_limit=True)),
    "of an older system": ("Up to 40 Gb/s x1", Speed(40, is_limit=True)),
    "Thunderbolt 1": ("10 Gb/s", Speed(10)),
    "in small letters": ("up to 40 gb/s", Speed(40, is_limit=True)),
    "nothing": ("", None),
    "a word": ("fast", None),
    "two lanes, of which nobody knows whether they are counted": ("20 Gb/s x2", None),
    "none": ("0 Gb/s", None),
    "more than there is": ("9999 Gb/s", None),
    "more digits than there are": ("80000000000000000000", None),
    "another unit": ("80 Mb/s", None),
    "a fraction": ("80.5 Gb/s", None),
    "less than nothing": ("-80 Gb/s", None),
    "half of an asymmetric one": ("120/", None),
    "three ways": ("120/40/40", None),
    "digits of another script": ("٨٠ Gb/s", None),
    "more behind it": ("80 Gb/s or so", None),
    "only the words": ("Up to", None),
}


@pytest.mark.parametrize(("printed", "expected"), SPEEDS.values(), ids=SPEEDS.keys())
def test_a_speed(printed: str, expected: Speed | None) -> None:
    assert speed(printed) == expected


@pytest.mark.parametrize(("printed", "expected"), SPEEDS.values(), ids=SPEEDS.keys())
def test_a_speed_that_cannot_be_read_is_unknown_and_warned_of(printed: str, expected: Speed | None) -> None:
    (port,), warnings = read(bus(tag={"current_speed_key": printed}))
    linked = expected.gbps if expected and not expected.is_limit else 0
    could = expected.gbps if expected and expected.is_limit else 0
    assert (port.speed_gbps, port.speed_max_gbps) == (linked, could)
    assert port.is_connected is True
    if expected is None:
        assert [one.startswith(f"its output is not understood: {BUS}1: current_speed_key is ") for one in warnings] == [
            True
        ]
    else:
        assert warnings == ()


# The status, and a speed: whether it is connected, and how fast it is and could be.
STATES: dict[str, tuple[dict[str, Any], bool | None, tuple[int, int], int]] = {
    "connected": ({}, True, (80, 0), 0),
    "free": (
        {"receptacle_status_key": "receptacle_no_devices_connected", "current_speed_key": "Up to 120 Gb/s"},
        False,
        (0, 120),
        0,
    ),
    "of an unknown status": ({"receptacle_status_key": "receptacle_disconnected"}, None, (80, 0), 1),
    "with a status of more words": ({"receptacle_status_key": "receptacle_connected_once"}, None, (80, 0), 1),
    "with a status that is no text": ({"receptacle_status_key": True}, None, (80, 0), 1),
    "free, with the speed of a link": (
        {"receptacle_status_key": "receptacle_no_devices_connected"},
        False,
        (0, 0),
        1,
    ),
    "with a speed that is a number": ({"current_speed_key": 40}, True, (40, 0), 0),
    "with a speed that is a list": ({"current_speed_key": ["80 Gb/s"]}, True, (0, 0), 1),
    "with a speed that is null": ({"current_speed_key": None}, True, (0, 0), 1),
}


@pytest.mark.parametrize(("tag", "is_connected", "speeds", "warned"), STATES.values(), ids=STATES.keys())
def test_a_receptacle(tag: dict[str, Any], is_connected: bool | None, speeds: tuple[int, int], warned: int) -> None:
    (port,), warnings = read(bus(tag=tag))
    assert (port.is_connected, (port.speed_gbps, port.speed_max_gbps)) == (is_connected, speeds)
    assert (port.receptacle, port.uuid) == ("2", UUID)
    assert len(warnings) == warned


# What is plugged in: the Macs and the devices that the port sees.
PLUGGED_IN: dict[str, tuple[list[Any], tuple[SeenMac, ...], tuple[str, ...]]] = {
    "nothing": ([], (), ()),
    "a Mac": ([mac()], (seen(),), ()),
    "a disk": ([dock("Disk")], (), ("Disk",)),
    "a Mac behind a dock": ([dock("Dock", mac())], (seen("Dock"),), ("Dock",)),
    "two Macs behind a hub": (
        [dock("Hub", mac(), mac(THIRD_UUID))],
        (seen("Hub"), seen("Hub", uuid=THIRD_UUID)),
        ("Hub",),
    ),
    "a Mac behind two hubs, a disk before": (
        [dock("Hub", dock("Disk"), dock("Reef", mac()))],
        (seen("Hub", "Reef"),),
        ("Hub", "Disk", "Reef"),
    ),
    "two Macs side by side": ([mac(), mac(THIRD_UUID)], (seen(), seen(uuid=THIRD_UUID)), ()),
    "the same Mac twice": ([mac(), mac()], (seen(),), ()),
    "a dock twice by its id, with what is behind it": (
        [dock("Dock", mac(), switch_uid_key="0x1")] * 2,
        (seen("Dock"),),
        ("Dock",),
    ),
    "two docks of one name": ([dock("Dock"), dock("Dock")], (), ("Dock", "Dock")),
    "a Mac without the UUID of its port": ([mac("")], (seen(uuid=""),), ()),
    "two Macs without UUIDs": ([mac(""), mac("")], (seen(uuid=""), seen(uuid="")), ()),
    "a Mac that is told by its model alone": (
        [{"_name": "Mac mini", "device_name_key": "Macmini9,1"}],
        (SeenMac("", "Mac mini", "Macmini9,1"),),
        (),
    ),
    "a Mac that is told by its UUID alone": ([{"domain_uuid_key": OTHER_UUID}], (SeenMac(OTHER_UUID),), ()),
    "a dock without a mode": ([{"_name": "Dock", "_items": [mac()]}], (seen("Dock"),), ("Dock",)),
    "a dock without a name": ([{"mode_key": "usb_four", "_items": [mac()]}], (seen(NAMELESS),), (NAMELESS,)),
    "a disk that has a Mac's model, and a mode": (
        [{"_name": "Disk", "device_name_key": "Mac16,5", "mode_key": "usb_four"}],
        (),
        ("Disk",),
    ),
    "a device with a name like a Mac's": ([{"_name": "Machine", "device_name_key": "MacDock"}], (), ("Machine",)),
}


@pytest.mark.parametrize(("items", "macs", "devices"), PLUGGED_IN.values(), ids=PLUGGED_IN.keys())
def test_what_is_plugged_in(items: list[Any], macs: tuple[SeenMac, ...], devices: tuple[str, ...]) -> None:
    (port,), warnings = read(bus(*items))
    assert (port.macs, port.devices, warnings) == (macs, devices, ())


# Buses of few words.
SPARSE: dict[str, tuple[dict[str, Any], ThunderboltPort]] = {
    "a hub's payload without names": (
        {
            "domain_uuid_key": UUID,
            "receptacle_1_tag": {"receptacle_id_key": "2", "current_speed_key": "80 Gb/s"},
            "_items": [{"_name": "Dock", "_items": [{"_name": "MacBook Pro", "domain_uuid_key": OTHER_UUID}]}],
        },
        ThunderboltPort(
            uuid=UUID,
            receptacle="2",
            speed_gbps=80,
            macs=(SeenMac(OTHER_UUID, "MacBook Pro", "", ("Dock",)),),
            devices=("Dock",),
        ),
    ),
    "no receptacle": (
        {"domain_uuid_key": UUID, "_items": [{"domain_uuid_key": OTHER_UUID}]},
        ThunderboltPort(uuid=UUID, macs=(SeenMac(OTHER_UUID),)),
    ),
    "a UUID alone": ({"domain_uuid_key": "AAA", "_items": []}, ThunderboltPort(uuid="AAA")),
    "a name alone": ({"_name": f"{BUS}3"}, ThunderboltPort(f"{BUS}3")),
    "the tag of another number": (
        {"_name": f"{BUS}3", "receptacle_4_tag": {"receptacle_id_key": "4"}},
        ThunderboltPort(f"{BUS}3", receptacle="4"),
    ),
    "a receptacle that is a number": (
        {"_name": f"{BUS}3", "receptacle_1_tag": {"receptacle_id_key": 4}},
        ThunderboltPort(f"{BUS}3", receptacle="4"),
    ),
}


@pytest.mark.parametrize(("entry", "expected"), SPARSE.values(), ids=SPARSE.keys())
def test_a_bus_of_few_words(entry: dict[str, Any], expected: ThunderboltPort) -> None:
    assert read(entry) == ((expected,), ())
