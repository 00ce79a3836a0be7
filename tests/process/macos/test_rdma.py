"""Whether a Mac has RDMA, and what its devices say."""

import pytest

from process.macos.captured import LAPTOP, STUDIO, text
from thunderline.cluster.machine_facts import RdmaPortState, RdmaState
from thunderline.process.macos.outputs import RDMA_DEVICES, RDMA_PORTS
from thunderline.process.macos.rdma import DEVICE_COUNT_MAX, devices, port_states, status

ACTIVE, DOWN, UNKNOWN = RdmaPortState.ACTIVE, RdmaPortState.DOWN, RdmaPortState.UNKNOWN

STATES: dict[str, tuple[str, RdmaState]] = {
    "enabled": ("enabled\n", RdmaState.ENABLED),
    "disabled": ("disabled\n", RdmaState.DISABLED),
    "a sentence": ("RDMA is enabled\n", RdmaState.ENABLED),
    "a sentence that says no": ("RDMA is disabled.\n", RdmaState.DISABLED),
    "in capitals": ("Enabled", RdmaState.ENABLED),
    "disabled, and how it gets enabled": ("RDMA is disabled. It can be enabled in Recovery.", RdmaState.DISABLED),
    "not enabled": ("RDMA is not enabled", RdmaState.UNKNOWN),
    "a word that has it in itself": ("preenabled", RdmaState.UNKNOWN),
    "a word with more in it": ("enabledness", RdmaState.UNKNOWN),
    "another sentence": ("RDMA is not supported on this Mac", RdmaState.UNKNOWN),
    "nothing": ("", RdmaState.UNKNOWN),
    "what is no text": ("\N{REPLACEMENT CHARACTER}e\x00n\x00a\x00b\x00l\x00e\x00d\x00", RdmaState.UNKNOWN),
}


@pytest.mark.parametrize(("printed", "expected"), STATES.values(), ids=STATES.keys())
def test_the_state_of_a_node(printed: str, expected: RdmaState) -> None:
    found = status(printed)
    assert found.value is expected
    assert len(found.warnings) == (expected is RdmaState.UNKNOWN)


def names(*numbers: int) -> list[str]:
    return [f"rdma_en{number}" for number in numbers]


HEAD = "    device                 node GUID\n    ------              ----------------\n"
DEVICES: dict[str, tuple[str, list[str], int]] = {
    "a heading at the margin, in no order": (
        text(STUDIO, RDMA_DEVICES),
        [f"rdma_en{n}" for n in (2, 3, 5, 4, 6, 7)],
        0,
    ),
    "a heading further in": (text(LAPTOP, RDMA_DEVICES), [f"rdma_en{n}" for n in (6, 1, 2)], 0),
    "a heading alone": (HEAD, [], 0),
    "nothing": ("", [], 0),
    "none, said so": ("No IB devices found\n", [], 0),
    "a GUID with colons": (f"{HEAD}rdma_en2 8096:a9d9:edba:ac05\n", ["rdma_en2"], 0),
    "a device twice": (f"{HEAD}rdma_en2 8096a9d9edbaac05\n" * 2, ["rdma_en2"], 0),
    "a line that is no device": (f"{HEAD}rdma_en2 8096a9d9edbaac05\nrdma_en3 ?\n", ["rdma_en2"], 1),
    "a device without its GUID": (f"{HEAD}rdma_en2\nrdma_en3 8096a9d9edbaac05\n", ["rdma_en3"], 1),
    "a complaint": ("Failed to get IB devices list: Function not implemented\n", [], 1),
}


@pytest.mark.parametrize(("printed", "expected", "warned"), DEVICES.values(), ids=DEVICES.keys())
def test_the_devices(printed: str, expected: list[str], warned: int) -> None:
    found = devices(printed)
    assert list(found.value) == expected
    assert len(found.warnings) == warned


def test_a_flood_of_devices_is_cut() -> None:
    assert len(devices("".join(f"rdma_en{n} 8096a9d9edbaac05\n" for n in range(99))).value) == DEVICE_COUNT_MAX


VERBOSE = """hca_id:    rdma_en2 transport:            Thunderbolt (100) node_guid:
9093:3a23:2588:ac07 ... port:    1 state:            PORT_ACTIVE (4)
...
            active_width:        8X (4)
            phys_state:          LINK_UP (5)
            GID[  0]:        fe80::344d:4ff:feea:4e41
            GID[  1]:        ::ffff:169.254.7.255
"""
PORTS: dict[str, tuple[str, dict[str, RdmaPortState], int]] = {
    "a studio": (
        text(STUDIO, RDMA_PORTS),
        {
            "rdma_en2": ACTIVE,
            "rdma_en3": DOWN,
            "rdma_en5": DOWN,
            "rdma_en4": ACTIVE,
            "rdma_en6": DOWN,
            "rdma_en7": ACTIVE,
        },
        0,
    ),
    "several words on a line, and GIDs": (VERBOSE, {"rdma_en2": ACTIVE}, 0),
    "nothing": ("", {}, 0),
    "none, said so": ("No IB devices found\n", {}, 0),
    "a state between": ("hca_id: rdma_en2\n\tport: 1\n\t\tstate: PORT_INIT (2)\n", {"rdma_en2": UNKNOWN}, 1),
    "no state": ("hca_id: rdma_en2\n\ttransport: Thunderbolt (100)\n", {"rdma_en2": UNKNOWN}, 0),
    "a state of nobody": ("\t\tstate: PORT_DOWN (1)\n", {}, 1),
    "a device whose own line is lost": (
        "hca_id: rdma_en2\n\tstate: PORT_ACTIVE (4)\n\n\ttransport: x\n\tstate: PORT_DOWN (1)\n",
        {"rdma_en2": ACTIVE},
        0,
    ),
    "a device without a name": (
        "hca_id:\n\ttransport: x\n\tstate: PORT_DOWN (1)\n\nhca_id: rdma_en2\n\tstate: PORT_ACTIVE (4)\n",
        {"rdma_en2": ACTIVE},
        1,
    ),
    "a name that is on the next line": (
        "hca_id:\n\nhca_id: rdma_en2\n\tstate: PORT_ACTIVE (4)\n",
        {"rdma_en2": ACTIVE},
        1,
    ),
    "only the state of the wire": ("hca_id: rdma_en2\n\tphys_state: LINK_UP (5)\n", {"rdma_en2": UNKNOWN}, 0),
    "a complaint": ("Failed to open device\n", {}, 1),
}


@pytest.mark.parametrize(("printed", "expected", "warned"), PORTS.values(), ids=PORTS.keys())
def test_the_states_of_ports(printed: str, expected: dict[str, RdmaPortState], warned: int) -> None:
    found = port_states(printed)
    assert found.value == expected
    assert len(found.warnings) == warned


def test_a_flood_of_ports_is_cut() -> None:
    found = port_states("".join(f"hca_id: rdma_en{n}\nstate: PORT_DOWN (1)\n" for n in range(99)))
    assert set(found.value.values()) == {DOWN}
    assert len(found.value) == DEVICE_COUNT_MAX
