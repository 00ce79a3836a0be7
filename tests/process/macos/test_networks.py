"""Hardware ports, network services, interfaces and routes, as macOS prints them."""

import pytest

from process.macos.captured import LAPTOP, MINI, STUDIO, text
from thunderline.process.macos.networks import (
    PORT_COUNT_MAX,
    Interface,
    Route,
    Service,
    bridge_services,
    hardware_ports,
    interfaces,
    route,
    route_interface,
    service_enabled,
    services,
)
from thunderline.process.macos.outputs import HARDWARE_PORTS, IFCONFIG, NAME_LENGTH_MAX, SERVICE_ORDER

PORTS = {
    STUDIO: {
        "en0": "Ethernet",
        "en8": "Ethernet Adapter (en8)",
        "en1": "Wi-Fi",
        "en2": "Thunderbolt 1",
        "en3": "Thunderbolt 2",
        "en4": "Thunderbolt 3",
        "en5": "Thunderbolt 4",
        "en6": "Thunderbolt 5",
        "en7": "Thunderbolt 6",
    },
    LAPTOP: {
        "en3": "Ethernet Adapter (en3)",
        "en16": "USB 10/100/1G/2.5G LAN",
        "en11": "Thunderbolt Ethernet Slot 1, Port 1",
        "bridge0": "Thunderbolt Bridge",
        "en0": "Wi-Fi",
        "en1": "Thunderbolt 1",
        "en6": "Thunderbolt 2",
        "en2": "Thunderbolt 3",
    },
    MINI: {"en0": "Ethernet", "en1": "Wi-Fi", "en2": "Thunderbolt 1", "en3": "Thunderbolt 2"},
}


@pytest.mark.parametrize("machine", PORTS)
def test_the_hardware_ports_of_a_machine(machine: str) -> None:
    found = hardware_ports(text(machine, HARDWARE_PORTS))
    assert list(found.value) == list(PORTS[machine].items())
    assert found.warnings == ()


# Blocks of hardware ports: what is read, and what the warnings end with.
ODD_PORTS: dict[str, tuple[str, dict[str, str], list[str]]] = {
    "nothing": ("", {}, ["it names no hardware port"]),
    "a complaint": ("** Error: The parameters were not valid.", {}, ["it names no hardware port"]),
    "a port without a device": (
        "Hardware Port: A\n\nHardware Port: B\nDevice: en1\n",
        {"en1": "B"},
        ['hardware port "A" has no device'],
    ),
    "a last port without a device": (
        "Hardware Port: B\nDevice: en1\nHardware Port: A",
        {"en1": "B"},
        ['hardware port "A" has no device'],
    ),
    "a device without a port": ("Device: en0\n\nHardware Port: B\nDevice: en1\n", {"en1": "B"}, []),
    "an empty device": ("Hardware Port: A\nDevice: \n\nHardware Port: B\nDevice: en1\n", {"en1": "B"}, []),
    "a device that is none": (
        "Hardware Port: A\nDevice: en0; reboot\n\nHardware Port: B\nDevice: en1\n",
        {"en1": "B"},
        ['the device of "A" is "en0; reboot"'],
    ),
    "lines that end as on Windows": ("Hardware Port: B\r\nDevice: en1\r\n", {"en1": "B"}, []),
    "a name with a colon": ("Hardware Port: A: left\nDevice: en1\n", {"en1": "A: left"}, []),
    "an interface twice": ("Hardware Port: A\nDevice: en1\n" * 2, {"en1": "A"}, []),
    "an interface of two names": (
        "Hardware Port: A\nDevice: en1\nHardware Port: B\nDevice: en1\n",
        {"en1": "B"},
        ["en1 is the device of 2 ports"],
    ),
    "virtual LANs": (
        "Hardware Port: B\nDevice: en1\n\nVLAN Configurations\n====\n\nHardware Port: C\nDevice: en2\n",
        {"en1": "B"},
        [],
    ),
}


@pytest.mark.parametrize(("printed", "ports", "said"), ODD_PORTS.values(), ids=ODD_PORTS.keys())
def test_odd_hardware_ports(printed: str, ports: dict[str, str], said: list[str]) -> None:
    found = hardware_ports(printed)
    assert dict(found.value) == ports
    assert found.warnings == tuple(f"its output is not understood: {one}" for one in said)


def test_no_more_hardware_ports_are_kept_than_a_card_holds() -> None:
    found = hardware_ports("".join(f"Hardware Port: {'p' * 999}\nDevice: en{number}\n" for number in range(100)))
    assert len(found.value) == PORT_COUNT_MAX
    assert {len(port) for _, port in found.value} == {NAME_LENGTH_MAX}
    assert len(found.warnings) == 1


def test_the_services_of_a_studio() -> None:
    found = services(text(STUDIO, SERVICE_ORDER))
    assert found.value == (
        Service("Ethernet", "en0", True),
        Service("Wi-Fi", "en1", True),
        Service("Ring, old (2024)", "en4", True),
        Service("Thunderbolt 3", "en4", True),
        Service("Thunderbolt 6", "en7", False),
        Service("Thunderbolt Bridge", "bridge0", False),
        Service("Tailscale", "", True),
    )
    assert found.warnings == ()


# Two lines of a service: what is read, and what the warnings end with.
ODD_SERVICES: dict[str, tuple[str, list[Service], list[str]]] = {
    "nothing": ("", [], ["it names no network service"]),
    "only the first line": ("An asterisk (*) denotes ...\n", [], ["it names no network service"]),
    "a port with a comma and parentheses": (
        "(1) A\n(Hardware Port: LAN (left), Port 1, Device: en1)\n",
        [Service("A", "en1", True)],
        [],
    ),
    "a name that looks like the second line": (
        "(12) (Hardware Port: x, Device: bridge0)\n(Hardware Port: Wi-Fi, Device: en0)\n",
        [Service("(Hardware Port: x, Device: bridge0)", "en0", True)],
        [],
    ),
    "a service without its second line": (
        "(1) A\n\n(2) B\n(Hardware Port: B, Device: en1)\n",
        [Service("B", "en1", True)],
        ['service "A" has no hardware port'],
    ),
    "a second line alone": (
        "(Hardware Port: A, Device: en0)\n(1) B\n(Hardware Port: B, Device: en1)\n",
        [Service("B", "en1", True)],
        [],
    ),
    "half a second line": (
        "(1) B\n(Hardware Port: B, Device: en1)\n(2) A\n(Hardware Port: A, Dev",
        [Service("B", "en1", True)],
        ['service "A" has no hardware port'],
    ),
    "a device that is none": (
        "(*) A\n(Hardware Port: A, Device: en 1)\n",
        [Service("A", "", False)],
        ['the device of "A" is "en 1"'],
    ),
}


@pytest.mark.parametrize(("printed", "expected", "said"), ODD_SERVICES.values(), ids=ODD_SERVICES.keys())
def test_odd_services(printed: str, expected: list[Service], said: list[str]) -> None:
    found = services(printed)
    assert list(found.value) == expected
    assert found.warnings == tuple(f"its output is not understood: {one}" for one in said)


BRIDGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "a studio": (text(STUDIO, SERVICE_ORDER), ("Thunderbolt Bridge",)),
    "a laptop": (text(LAPTOP, SERVICE_ORDER), ("Thunderbolt Bridge",)),
    "none": (text(MINI, SERVICE_ORDER), ()),
    "two of one bridge, one of another": (
        "(1) A, b\n(Hardware Port: A, Device: bridge0)\n(*) C\n(Hardware Port: C, Device: bridge0)\n"
        "(2) D\n(Hardware Port: D, Device: bridge12)\n(3) bridge1\n(Hardware Port: bridge1, Device: en0)\n",
        ("A, b", "C", "D"),
    ),
    "a name that nobody could type": ("(1) a\x1b\n(Hardware Port: A, Device: bridge0)\n", ()),
    "a name too long to be shown": (f"(1) {'x' * 200}\n(Hardware Port: A, Device: bridge0)\n", ()),
    "nonsense": ("?", ()),
}


@pytest.mark.parametrize(("printed", "expected"), BRIDGES.values(), ids=BRIDGES.keys())
def test_the_services_of_bridges(printed: str, expected: tuple[str, ...]) -> None:
    assert bridge_services(printed) == expected


ENABLED: dict[str, tuple[str, bool | None]] = {
    "enabled": ("Enabled\n", True),
    "disabled": ("Disabled\n", False),
    "unknown to it": ("Thunderbolt Bridge is not a recognized network service.\n** Error: ...\n", None),
    "in a sentence": ("Enabled or not", None),
    "nothing": ("", None),
}


@pytest.mark.parametrize(("printed", "expected"), ENABLED.values(), ids=ENABLED.keys())
def test_whether_a_service_is_enabled(printed: str, expected: bool | None) -> None:
    found = service_enabled(printed)
    assert found.value is expected
    assert len(found.warnings) == (expected is None)


def test_the_interfaces_of_a_laptop() -> None:
    found = interfaces(text(LAPTOP, IFCONFIG))
    assert found.value == (
        Interface("lo0", True),
        Interface("gif0"),
        Interface("stf0"),
        Interface("en0", True),
        Interface("en1", True),
        Interface("en6", True),
        Interface("en2", True),
        Interface("bridge0", True, ("en1", "en6", "en2")),
        Interface("utun4", True),
    )
    assert found.warnings == ()


# Lines of ifconfig: what is read, and what the warnings end with.
ODD_INTERFACES: dict[str, tuple[str, list[Interface], list[str]]] = {
    "nothing": ("", [], ["it names no interface"]),
    "a line that is none, and what is below it": (
        "en0: flags=8863<UP> mtu 1500\n\tinet 10.0.0.1 netmask 0xff000000\nen1 flags\n\tinet 10.0.0.2\n",
        [Interface("en0", True)],
        ['"en1 flags"'],
    ),
    "lines below nothing": ("\tmember: en1\nen0: flags=0<> mtu 1500\n", [Interface("en0")], []),
    "a member that is none": (
        "bridge0: flags=8863<UP> mtu 1500\n\tmember: en;1 flags=3\n\tmember:\n\tmember: en2 flags=3\n",
        [Interface("bridge0", True, members=("en2",))],
        [],
    ),
    "an interface in two parts": (
        "bridge0: flags=1<UP> mtu 1500\n\tmember: en1\nbridge0: flags=1<UP> mtu 1500\n\tmember: en1\n\tmember: en2\n",
        [Interface("bridge0", True, ("en1", "en2"))],
        [],
    ),
    "a flag that has UP in it": ("en0: flags=1<UPPER,STARTUP> mtu 1500\n", [Interface("en0")], []),
    "a name that is too long": (
        f"{'e' * 16}: flags=1<UP> mtu 1500\n\tstatus: active\n",
        [],
        [f'"{"e" * 16}: flags=1<UP> mtu 1500"', "it names no interface"],
    ),
}


@pytest.mark.parametrize(("printed", "expected", "said"), ODD_INTERFACES.values(), ids=ODD_INTERFACES.keys())
def test_odd_interfaces(printed: str, expected: list[Interface], said: list[str]) -> None:
    found = interfaces(printed)
    assert list(found.value) == expected
    assert found.warnings == tuple(f"its output is not understood: {one}" for one in said)


ROUTE = (
    "   route to: {}\ndestination: {}\n{}  interface: en5\n      flags: <UP,HOST,DONE,LLINFO,WASCLONED,IFSCOPE,IFREF>\n"
)
ROUTES: dict[str, tuple[str, Route]] = {
    "on a network of ours": (ROUTE.format("192.168.1.7", "192.168.1.7", ""), Route("en5")),
    "by a router": (ROUTE.format("8.8.8.8", "default", "    gateway: 192.168.1.1\n"), Route("en5", "192.168.1.1")),
    "to a host on a link": (ROUTE.format("10.0.0.2", "10.0.0.2", "    gateway: link#11\n"), Route("en5")),
    "nowhere": ("route: writing to routing socket: not in table\n", Route()),
    "an interface that is none": ("  interface: en5;x\n", Route()),
    "nothing": ("", Route()),
}


@pytest.mark.parametrize(("printed", "expected"), ROUTES.values(), ids=ROUTES.keys())
def test_a_route(printed: str, expected: Route) -> None:
    assert route(printed) == expected
    assert route_interface(printed) == expected.interface
