"""What a machine's commands have printed, joined to its facts."""

import json
from dataclasses import replace

import pytest

from process.macos.buses import BUS
from process.macos.captured import COMMANDS, LAPTOP, MACHINES, MINI, STUDIO, whole
from thunderline.cluster.machine_facts import (
    Bridge,
    MachineFacts,
    RdmaPortState,
    RdmaState,
    ScanWarning,
    ThunderboltPort,
)
from thunderline.process.macos import outputs
from thunderline.process.macos.assembling import WARNING_COUNT_MAX, WARNING_COUNT_OF_COMMAND_MAX, assemble
from thunderline.process.macos.networks import hardware_ports
from thunderline.process.macos.outputs import MISSING, Output
from thunderline.process.macos.thunderbolt import LIST, thunderbolt

ACTIVE, DOWN, UNKNOWN = RdmaPortState.ACTIVE, RdmaPortState.DOWN, RdmaPortState.UNKNOWN
MIB = 2**20
SLOW = Output(problem="took longer than 5 s")
ENABLED = f"{outputs.SERVICE_ENABLED} Thunderbolt Bridge"

# Of each machine what no single command tells: receptacle, interface, RDMA device and its state.
ENDS = {
    STUDIO: [
        ("1", "en2", "rdma_en2", ACTIVE),
        ("2", "en3", "rdma_en3", DOWN),
        ("3", "en4", "rdma_en4", ACTIVE),
        ("4", "en5", "rdma_en5", DOWN),
        ("5", "en6", "rdma_en6", DOWN),
        ("6", "en7", "rdma_en7", ACTIVE),
    ],
    LAPTOP: [("1", "en1", "rdma_en1", DOWN), ("2", "en6", "rdma_en6", ACTIVE), ("3", "en2", "rdma_en2", DOWN)],
    MINI: [("1", "en2", "", UNKNOWN), ("2", "en3", "", UNKNOWN)],
}
# And all that is not of ports.
FACTS = {
    STUDIO: MachineFacts(
        model="Mac15,14",
        model_name="Mac Studio",
        chip="Apple M3 Ultra",
        os_version="26.2",
        os_build="25C56",
        rdma=RdmaState.ENABLED,
        wired_limit_bytes=480000 * MIB,
        sleep_after_min=0,
        starts_after_power_failure=True,
        is_filevault_on=False,
        mlx_backends=("ring", "jaccl"),
        working_set_bytes=412316860416,
    ),
    LAPTOP: MachineFacts(
        model="Mac16,5",
        model_name="MacBook Pro",
        chip="Apple M4 Max",
        os_version="26.2",
        os_build="25C56",
        rdma=RdmaState.ENABLED,
        bridges=(Bridge("bridge0", ("en1", "en6", "en2"), "Thunderbolt Bridge", is_enabled=True),),
        wired_limit_bytes=0,
        sleep_after_min=1,
        is_filevault_on=True,
        mlx_backends=("ring", "jaccl"),
        working_set_bytes=115448720916,
    ),
    MINI: MachineFacts(
        model="Mac16,10",
        model_name="Mac mini",
        chip="Apple M4",
        os_version="15.6",
        os_build="24G84",
        rdma=RdmaState.UNAVAILABLE,
        sleep_after_min=10,
        starts_after_power_failure=False,
        is_filevault_on=True,
        mlx_backends=("ring",),
    ),
}


@pytest.mark.parametrize("machine", MACHINES)
def test_a_machine_is_read_whole_and_without_a_warning(machine: str) -> None:
    printed = whole(machine)
    found = assemble(printed)
    told = [(one.receptacle, one.interface, one.rdma_device, one.rdma_port) for one in found.ports]
    assert told == ENDS[machine]
    # The rest of a port, and the names of hardware ports, are as their own commands say them.
    plain = [
        replace(one, interface="", rdma_device="", rdma_port=UNKNOWN, bridge="", is_next_to_ethernet=False)
        for one in found.ports
    ]
    assert tuple(plain) == thunderbolt(printed[outputs.THUNDERBOLT].text).value.ports
    assert found.hardware_ports == hardware_ports(printed[outputs.HARDWARE_PORTS].text).value
    assert replace(found, ports=(), hardware_ports=()) == FACTS[machine]


def test_what_has_not_been_asked_costs_no_warning() -> None:
    assert assemble({}) == MachineFacts()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_was_not_run_yet_costs_no_warning(command: str) -> None:
    printed = whole(STUDIO)
    del printed[command]
    assert assemble(printed).warnings == ()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_hangs_costs_one_warning_and_a_later_success_takes_it_away(command: str) -> None:
    printed = whole(STUDIO)
    assert assemble({**printed, command: SLOW}).warnings == (ScanWarning(command, "took longer than 5 s"),)
    assert assemble(printed).warnings == ()


# Commands that are missing together, and those that are told of.
MISSING_TOGETHER: dict[str, tuple[set[str], set[str], RdmaState]] = {
    "all of RDMA": ({outputs.RDMA_STATUS, outputs.RDMA_DEVICES, outputs.RDMA_PORTS}, set(), RdmaState.UNAVAILABLE),
    "the state alone": ({outputs.RDMA_STATUS}, set(), RdmaState.UNAVAILABLE),
    "the devices alone": ({outputs.RDMA_DEVICES}, {outputs.RDMA_DEVICES}, RdmaState.ENABLED),
    "the ports alone": ({outputs.RDMA_PORTS}, {outputs.RDMA_PORTS}, RdmaState.ENABLED),
    "the devices and the FileVault": (
        {outputs.RDMA_STATUS, outputs.RDMA_DEVICES, outputs.FILEVAULT},
        {outputs.FILEVAULT},
        RdmaState.UNAVAILABLE,
    ),
}


@pytest.mark.parametrize(("missing", "told", "state"), MISSING_TOGETHER.values(), ids=MISSING_TOGETHER.keys())
def test_commands_that_are_missing(missing: set[str], told: set[str], state: RdmaState) -> None:
    found = assemble({**whole(STUDIO), **dict.fromkeys(missing, Output(problem=MISSING))})
    assert set(found.warnings) == {ScanWarning(command, MISSING) for command in told}
    assert found.rdma is state


def test_a_state_that_cannot_be_read_leaves_a_missing_list_told_of() -> None:
    gone = Output(problem=MISSING)
    found = assemble({**whole(STUDIO), outputs.RDMA_STATUS: SLOW, outputs.RDMA_DEVICES: gone})
    assert found.rdma is RdmaState.UNKNOWN
    assert {one.command for one in found.warnings} == {outputs.RDMA_STATUS, outputs.RDMA_DEVICES}


def test_a_machine_with_no_device_says_so_and_that_is_no_warning() -> None:
    none = Output(problem="ended with 255: No IB devices found")
    found = assemble({**whole(STUDIO), outputs.RDMA_DEVICES: none, outputs.RDMA_PORTS: none})
    assert {(one.interface != "", one.rdma_device) for one in found.ports} == {(True, "")}
    assert found.warnings == ()


def test_devices_are_those_of_the_states_where_the_list_did_not_come() -> None:
    found = assemble({**whole(STUDIO), outputs.RDMA_DEVICES: SLOW})
    assert [(one.receptacle, one.interface, one.rdma_device, one.rdma_port) for one in found.ports] == ENDS[STUDIO]


def test_devices_without_their_states_are_unknown() -> None:
    found = assemble({**whole(STUDIO), outputs.RDMA_PORTS: SLOW})
    assert {one.rdma_port for one in found.ports} == {UNKNOWN}
    assert [one.rdma_device for one in found.ports] == [device for _, _, device, _ in ENDS[STUDIO]]


# What ifconfig shows -> the bridge that holds en1, which is of receptacle 1.
UP, IS_DOWN = "flags=8863<UP,BROADCAST,RUNNING> mtu 1500", "flags=8822<BROADCAST,SMART> mtu 1500"
MEMBER = "\tmember: en1 flags=3<LEARNING,DISCOVER>\n"
HELD: dict[str, tuple[str, str]] = {
    "a bridge that is up": (f"bridge0: {UP}\n{MEMBER}", "bridge0"),
    "a bridge that is down": (f"bridge0: {IS_DOWN}\n{MEMBER}", ""),
    "one that is down, and one that is up": (f"bridge0: {IS_DOWN}\n{MEMBER}bridge1: {UP}\n{MEMBER}", "bridge1"),
    "two, as people count": (f"bridge10: {UP}\n{MEMBER}bridge2: {UP}\n{MEMBER}", "bridge2"),
    "a bridge of others": (f"bridge0: {UP}\n{MEMBER.replace('en1', 'en2')}", ""),
    "what is no bridge": (f"vlan0: {UP}\n{MEMBER}", ""),
    "nothing": ("", ""),
}


@pytest.mark.parametrize(("shown", "bridge"), HELD.values(), ids=HELD.keys())
def test_a_port_is_told_with_the_bridge_that_holds_its_interface(shown: str, bridge: str) -> None:
    printed = {outputs.THUNDERBOLT: tree("1", "4"), outputs.HARDWARE_PORTS: listed(en1="Thunderbolt 1")}
    found = assemble({key: Output(text) for key, text in (printed | {outputs.IFCONFIG: shown}).items()})
    assert [one.bridge for one in found.ports] == [bridge, ""]


def test_the_port_next_to_ethernet_is_told_of_a_studio_alone() -> None:
    found = {machine: [one.is_next_to_ethernet for one in assemble(whole(machine)).ports] for machine in MACHINES}
    assert found == {STUDIO: [True, *[False] * 5], LAPTOP: [False] * 3, MINI: [False] * 2}
    # Its name comes with its ports, so that it is known as soon as they are.
    printed = whole(STUDIO)
    del printed[outputs.HARDWARE]
    assert assemble(printed).ports[0].is_next_to_ethernet


def ports_of(text: str, printed: str) -> tuple[tuple[ThunderboltPort, ...], tuple[ScanWarning, ...]]:
    """The ports of a Thunderbolt tree with these hardware ports."""
    found = assemble({outputs.THUNDERBOLT: Output(text), outputs.HARDWARE_PORTS: Output(printed)})
    return found.ports, found.warnings


def tree(*receptacles: str) -> str:
    tags = [{"receptacle_1_tag": {"receptacle_id_key": receptacle}} for receptacle in receptacles]
    return json.dumps({LIST: [{"_name": f"{BUS}{number}", **tag} for number, tag in enumerate(tags)]})


def listed(**ports: str) -> str:
    return "".join(f"Hardware Port: {port}\nDevice: {interface}\n\n" for interface, port in ports.items())


# Receptacles, hardware ports: the interface of each, and how many warnings.
MAPPED: dict[str, tuple[str, str, list[str], int]] = {
    "in another order": (tree("2", "1"), listed(en6="Thunderbolt 2", en1="Thunderbolt 1"), ["en1", "en6"], 0),
    "a receptacle without a hardware port": (tree("1", "2"), listed(en1="Thunderbolt 1"), ["en1", ""], 1),
    "a bus without a receptacle": (tree("1", ""), listed(en1="Thunderbolt 1"), ["en1", ""], 0),
    "an Ethernet card in a Thunderbolt box": (
        tree("1"),
        listed(en10="Thunderbolt Ethernet Slot 1", en2="Thunderbolt 1"),
        ["en2"],
        0,
    ),
    "a name that begins like it": (tree("1"), listed(en2="Thunderbolt 10", en3="My Thunderbolt 1"), [""], 1),
    "two hardware ports of one name": (
        tree("1", "2"),
        listed(en1="Thunderbolt 1", en2="Thunderbolt 1", en3="Thunderbolt 2"),
        ["", "en3"],
        1,
    ),
    "two buses of one receptacle": (
        tree("1", "2", "1"),
        listed(en1="Thunderbolt 1", en3="Thunderbolt 2"),
        ["", "", "en3"],
        2,
    ),
    "hardware ports that cannot be read": (tree("1"), "?", [""], 1),
}


@pytest.mark.parametrize(("text", "printed", "interfaces", "warned"), MAPPED.values(), ids=MAPPED.keys())
def test_a_receptacle_has_the_interface_of_its_number(
    text: str, printed: str, interfaces: list[str], warned: int
) -> None:
    ports, warnings = ports_of(text, printed)
    assert [one.interface for one in ports] == interfaces
    assert len(warnings) == warned


UP, TAKEN_DOWN = "8863<UP,RUNNING>", "8862<BROADCAST>"


def bridge(flags: str = UP, name: str = "bridge0") -> str:
    return f"{name}: flags={flags} mtu 1500\n\tmember: en1 flags=3\n\tmember: en2 flags=3\n"


def ordered(*names: str, device: str = "bridge0") -> str:
    """A name that begins with an asterisk is of a disabled service."""
    rows = [(f"(*) {name[1:]}" if name.startswith("*") else f"(1) {name}") for name in names]
    return "".join(f"{row}\n(Hardware Port: Thunderbolt Bridge, Device: {device})\n\n" for row in rows)


BOTH = ("en1", "en2")
BRIDGES: dict[str, tuple[dict[str, str], tuple[Bridge, ...]]] = {
    "no service": ({outputs.IFCONFIG: bridge()}, (Bridge("bridge0", BOTH),)),
    "a service of another bridge": (
        {outputs.IFCONFIG: bridge(), outputs.SERVICE_ORDER: ordered("Thunderbolt Bridge", device="bridge1")},
        (Bridge("bridge0", BOTH),),
    ),
    "enabled by the order of services": (
        {outputs.IFCONFIG: bridge(), outputs.SERVICE_ORDER: ordered("Thunderbolt Bridge")},
        (Bridge("bridge0", BOTH, "Thunderbolt Bridge", is_enabled=True),),
    ),
    "disabled by the order of services": (
        {outputs.IFCONFIG: bridge(), outputs.SERVICE_ORDER: ordered("*Thunderbolt Bridge")},
        (Bridge("bridge0", BOTH, "Thunderbolt Bridge", is_enabled=False),),
    ),
    "what was asked of the service itself counts": (
        {outputs.IFCONFIG: bridge(), outputs.SERVICE_ORDER: ordered("Thunderbolt Bridge"), ENABLED: "Disabled\n"},
        (Bridge("bridge0", BOTH, "Thunderbolt Bridge", is_enabled=False),),
    ),
    "of two services one is enabled": (
        {outputs.IFCONFIG: bridge(), outputs.SERVICE_ORDER: ordered("*Thunderbolt Bridge", "Ring, new")},
        (Bridge("bridge0", BOTH, "Ring, new", is_enabled=True),),
    ),
    "taken down by hand": (
        {outputs.IFCONFIG: bridge(TAKEN_DOWN), outputs.SERVICE_ORDER: ordered("Thunderbolt Bridge")},
        (Bridge("bridge0", BOTH, "Thunderbolt Bridge", is_enabled=False),),
    ),
    "several": (
        {outputs.IFCONFIG: bridge(name="bridge100") + bridge() + bridge(name="br0")},
        (Bridge("bridge0", BOTH), Bridge("bridge100", BOTH)),
    ),
    "a service whose bridge is gone": (
        {outputs.IFCONFIG: "en0: flags=1<UP> mtu 1500\n", outputs.SERVICE_ORDER: ordered("Thunderbolt Bridge")},
        (),
    ),
    "a service alone": (
        {outputs.SERVICE_ORDER: ordered("Thunderbolt Bridge")},
        (Bridge("bridge0", (), "Thunderbolt Bridge", is_enabled=True),),
    ),
}


@pytest.mark.parametrize(("printed", "expected"), BRIDGES.values(), ids=BRIDGES.keys())
def test_bridges(printed: dict[str, str], expected: tuple[Bridge, ...]) -> None:
    found = assemble({command: Output(text) for command, text in printed.items()})
    assert found.bridges == expected
    assert found.warnings == ()


def test_no_command_crowds_out_what_is_said_of_others() -> None:
    flood = Output("".join(f"odd {number}\n" for number in range(999)))
    found = assemble(dict.fromkeys(COMMANDS, flood))
    counts = {command: sum(one.command == command for one in found.warnings) for command in COMMANDS}
    assert all(0 < count <= WARNING_COUNT_OF_COMMAND_MAX for count in counts.values())
    assert len(found.warnings) <= WARNING_COUNT_MAX


def test_a_problem_is_one_line_that_can_be_sent() -> None:
    (warning,) = assemble({outputs.POWER: Output(problem="ended with 1:\n\x1b[31m\ud800" + "x" * 9999)}).warnings
    assert warning.what.isprintable()
    assert len(warning.what) == outputs.WARNING_LENGTH_MAX
    assert warning.what.encode()
