"""What no Mac should print of its Thunderbolt ports: it costs a field and a warning, never the scan."""

import json
from typing import Any

import pytest

from process.macos.buses import BUS, OTHER_UUID, UUID, bus, dock, mac, read, seen
from thunderline.cluster.machine_facts import SeenMac, ThunderboltPort
from thunderline.process.macos.outputs import NAME_LENGTH_MAX, TEXT_LENGTH_MAX, WARNING_LENGTH_MAX
from thunderline.process.macos.thunderbolt import (
    BEHIND_COUNT_MAX,
    DEVICE_COUNT_MAX,
    ITEM_COUNT_MAX,
    LIST,
    MAC_COUNT_MAX,
    PORT_COUNT_MAX,
    WARNING_COUNT_MAX,
    Thunderbolt,
    thunderbolt,
)

# A bus that should stay as it is beside any odd one.
SOUND = {"_name": f"{BUS}9", "domain_uuid_key": OTHER_UUID, "receptacle_1_tag": {"receptacle_id_key": "9"}}
SOUND_PORT = ThunderboltPort(f"{BUS}9", OTHER_UUID, "9")

# No list of buses: what it says of it.
UNREADABLE: dict[str, tuple[str, str]] = {
    "nothing": ("", "no JSON"),
    "a complaint": ("system_profiler: cannot be run", "no JSON"),
    "half of it": ('{"SPThunderboltDataType": [{"_name": "thunder', "no JSON"),
    "a list in the place of all": ("[]", "it has no list"),
    "null": ("null", "it has no list"),
    "another list": ('{"SPUSBDataType": []}', "it has no list"),
    "an object in the place of the list": (json.dumps({LIST: {"_name": "x"}}), "it has no list"),
    "a number of a million digits": ("9" * 1_000_000, "it has no list"),
    "too long": (" " * (TEXT_LENGTH_MAX + 1), f"it has {TEXT_LENGTH_MAX + 1} characters"),
}


@pytest.mark.parametrize(("printed", "what"), UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_is_no_list_of_buses_has_no_ports(printed: str, what: str) -> None:
    found = thunderbolt(printed)
    assert found.value == Thunderbolt()
    (warning,) = found.warnings
    assert warning.startswith(f"its output is not understood: {what}")


@pytest.mark.parametrize("depth", [900, 100_000])
def test_a_bomb_of_lists_is_no_list_of_buses(depth: int) -> None:
    found = thunderbolt(f'{{"{LIST}": [{"[" * depth}{"]" * depth}]}}')
    assert found.value.ports == ()
    assert len(found.warnings) == 1


def test_a_machine_without_thunderbolt_has_no_ports_and_that_is_no_warning() -> None:
    assert thunderbolt(json.dumps({LIST: []})) == thunderbolt(f"\N{ZERO WIDTH NO-BREAK SPACE}{json.dumps({LIST: []})}")
    assert read() == ((), ())


# An odd bus: its port (None for none), and what is said of it.
ODD: dict[str, tuple[Any, ThunderboltPort | None, str]] = {
    "a bus that is text": ("bus", None, f'entry 1 of {LIST} is "bus"'),
    "a bus that is null": (None, None, f"entry 1 of {LIST} is null"),
    "a bus that says nothing": ({}, None, "bus 1 of the list: it says nothing of a port"),
    "a name that is a list": (
        {"_name": [], "domain_uuid_key": UUID},
        ThunderboltPort(uuid=UUID),
        "bus 1 of the list: _name is a list",
    ),
    "a UUID that is an object": (
        {"_name": f"{BUS}1", "domain_uuid_key": {}},
        ThunderboltPort(f"{BUS}1"),
        f"{BUS}1: domain_uuid_key is an object",
    ),
    "a tag that is text": (
        {"_name": f"{BUS}1", "receptacle_1_tag": "2", "_items": [mac()]},
        ThunderboltPort(f"{BUS}1", macs=(seen(),)),
        f'{BUS}1: receptacle_1_tag is "2"',
    ),
    "a receptacle that is a list": (
        {"_name": f"{BUS}1", "receptacle_1_tag": {"receptacle_id_key": ["2"], "current_speed_key": "40 Gb/s"}},
        ThunderboltPort(f"{BUS}1", speed_gbps=40),
        f"{BUS}1: receptacle_id_key is a list",
    ),
    "items that are text": (
        {"_name": f"{BUS}1", "_items": "MacBook Pro"},
        ThunderboltPort(f"{BUS}1"),
        f'{BUS}1: _items is "MacBook Pro"',
    ),
    "an item that is a number among others": (
        {"_name": f"{BUS}1", "_items": [float("nan"), mac()]},
        ThunderboltPort(f"{BUS}1", macs=(seen(),)),
        f"{BUS}1: _items holds a number",
    ),
    "a Mac whose UUID is true": (
        {"_name": f"{BUS}1", "_items": [mac(domain_uuid_key=True)]},
        ThunderboltPort(f"{BUS}1", macs=(seen(uuid=""),)),
        f"{BUS}1: domain_uuid_key is true or false",
    ),
    "services that are text": (
        {"_name": f"{BUS}1", "_items": [{"_name": "X", "device_name_key": "X", "services_title": "service_ip"}]},
        ThunderboltPort(f"{BUS}1", devices=("X",)),
        f'{BUS}1: services_title is "service_ip"',
    ),
}


@pytest.mark.parametrize(("entry", "port", "what"), ODD.values(), ids=ODD.keys())
def test_an_odd_bus_costs_its_own_fields_and_one_warning(entry: Any, port: ThunderboltPort | None, what: str) -> None:
    ports, warnings = read(entry, SOUND)
    assert set(ports) == {SOUND_PORT, *([port] if port else [])}
    assert warnings == (f"its output is not understood: {what}",)


def test_of_two_receptacles_on_a_bus_the_one_in_use_has_the_devices() -> None:
    """As controllers of Intel's have them."""
    free = {"receptacle_id_key": "1", "receptacle_status_key": "receptacle_no_devices_connected"}
    ports, warnings = read(bus(mac(), receptacle_2_tag=free))
    assert [(one.receptacle, one.macs, one.uuid) for one in ports] == [("1", (), UUID), ("2", (seen(),), UUID)]
    assert warnings == ()


def test_of_two_receptacles_in_use_nobody_knows_which_has_the_devices() -> None:
    used = {"receptacle_id_key": "1", "receptacle_status_key": "receptacle_connected"}
    ports, warnings = read(bus(mac(), receptacle_2_tag=used))
    assert [(one.receptacle, one.macs) for one in ports] == [("1", ()), ("2", ())]
    assert len(warnings) == 1 and "does not say on which" in warnings[0]


def test_ports_are_in_the_order_of_their_receptacles_and_those_without_one_come_last() -> None:
    entries = [
        {"_name": f"{BUS}{n}", "receptacle_1_tag": {"receptacle_id_key": r}} for n, r in enumerate(["10", "2", "1"])
    ]
    ports, _ = read({"_name": f"{BUS}7"}, *entries)
    assert [(one.receptacle, one.bus[-1]) for one in ports] == [("1", "2"), ("2", "1"), ("10", "0"), ("", "7")]


def test_a_list_that_comes_twice_has_each_bus_once() -> None:
    assert read(bus(mac()), SOUND, bus(mac()), SOUND) == read(bus(mac()), SOUND)


def test_a_chain_of_any_depth_is_walked_and_the_nearest_hubs_are_named() -> None:
    chain: dict[str, Any] = mac()
    for number in reversed(range(40)):
        chain = dock(f"Hub {number}", chain)
    (port,), warnings = read(bus(chain))
    assert port.macs == (seen(*[f"Hub {number}" for number in range(BEHIND_COUNT_MAX)]),)
    assert port.devices == tuple(f"Hub {number}" for number in range(DEVICE_COUNT_MAX))
    assert len(warnings) == 1 and f"sees 40 devices; {DEVICE_COUNT_MAX} are kept" in warnings[0]


def test_no_more_is_kept_than_a_card_holds() -> None:
    macs = [mac(f"{number:036}") for number in range(50)]
    buses = [bus(*macs, _name=f"{BUS}{number}") for number in range(50)]
    ports, warnings = read(*buses)
    assert len(ports) == PORT_COUNT_MAX
    assert {len(one.macs) for one in ports} == {MAC_COUNT_MAX}
    assert f"it has 50 ports; {PORT_COUNT_MAX} are kept" in warnings[-1]


def test_a_bus_with_a_flood_of_devices_ends_and_warns_a_few_times() -> None:
    flood = [dock("Hub", *[7] * 100, *[{"a": 1}] * 300)] * 60
    (port, sound), warnings = read(bus(*flood), SOUND)
    assert sound == SOUND_PORT
    assert len(port.devices) == DEVICE_COUNT_MAX
    assert len(warnings) <= WARNING_COUNT_MAX
    (port, _), warnings = read(bus(*[mac(f"{number:036}") for number in range(ITEM_COUNT_MAX + 9)]), SOUND)
    assert len(port.macs) == MAC_COUNT_MAX


def test_names_are_cut_and_hold_only_what_can_be_printed_and_sent() -> None:
    odd = "Tom’s\u2028Mac \x1b[31m\ud800 " + "x" * 5000
    (port,), warnings = read(bus(mac(odd, _name=odd, device_name_key=odd), _name=odd, domain_uuid_key=odd))
    (seen_mac,) = port.macs
    for one in (port.bus, port.uuid, seen_mac.port_uuid, seen_mac.name, seen_mac.model):
        assert one.startswith("Tom’s Mac \N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER} x")
        assert len(one) == NAME_LENGTH_MAX
        assert one.encode()
    assert warnings == ()


def test_a_warning_is_one_short_line() -> None:
    _, warnings = read({"_name": "bus\n" * 500, "receptacle_1_tag": {"current_speed_key": "fast\n" * 500}})
    (warning,) = warnings
    assert "\n" not in warning
    assert len(warning) <= WARNING_LENGTH_MAX


def test_a_seen_mac_keeps_its_own_odd_field_alone() -> None:
    (port,), warnings = read(bus(mac(_name=None), mac("3")))
    assert port.macs == (SeenMac(OTHER_UUID, "", "Mac16,5"), seen(uuid="3"))
    assert len(warnings) == 1
