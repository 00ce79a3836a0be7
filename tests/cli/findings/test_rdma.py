"""What to do about RDMA: by what the ports say, by its state, and by the version of macOS."""

import itertools
import json

import pytest

from cli.findings.laws import NOTE, WARNING, only, short
from cli.findings.rigs import TB4_FREE, TB5_FREE, mac, port
from thunderline.cli.findings.macs import Mac
from thunderline.cli.findings.rdma import REMEDIES, Advice, Step, Unknown, advice, of_mac, of_rdma, version
from thunderline.cluster.machine_facts import MachineFacts, RdmaState
from thunderline.process.macos.outputs import Read
from thunderline.process.macos.thunderbolt import Thunderbolt, thunderbolt

TB5, TB4, NOBODY_KNOWS = "Thunderbolt 5", "Thunderbolt 4", "ports that do not tell"
# A link at 40 Gb/s is one of Thunderbolt 4, or one of Thunderbolt 5 with a cable or a Mac that is not.
HARDWARE = {
    "80 Gb/s": TB5,
    "120": TB5,
    "120/40": TB5,
    "Up to 120": TB5,
    "Up to 40": TB4,
    "40": NOBODY_KNOWS,
    "": NOBODY_KNOWS,
    "garbage": NOBODY_KNOWS,
}
NEW, OLD, UNREADABLE = "new", "old", "unreadable"
VERSIONS = {
    "26.2": NEW,
    "26.10": NEW,
    "27.0": NEW,
    "26.1": OLD,
    "15.7": OLD,
    "": UNREADABLE,
    "garbage": UNREADABLE,
}
ON, OFF, NONE, SILENT = RdmaState.ENABLED, RdmaState.DISABLED, RdmaState.UNAVAILABLE, RdmaState.UNKNOWN
FINE, ENABLE, UPDATE = Advice(Step.NOTHING_IT_IS_ON), Advice(Step.ENABLE), Advice(Step.UPDATE)
CANNOT, FIND_COMMAND = Advice(Step.NOTHING_IT_CANNOT), Advice(Step.FIND_COMMAND)
PORTS, STATE, VERSION = Unknown.PORTS, Unknown.STATE, Unknown.VERSION


def unsure(*of: Unknown) -> Advice:
    return Advice(Step.FIND_OUT, of)


# By hand, not by the code. A row is: hardware, state, then what to do with a new, an old and an unreadable macOS.
ROWS = [
    (TB5, ON, FINE, FINE, FINE),
    (TB5, OFF, ENABLE, UPDATE, unsure(VERSION)),
    (TB5, NONE, FIND_COMMAND, UPDATE, unsure(VERSION)),
    (TB5, SILENT, unsure(STATE), UPDATE, unsure(STATE, VERSION)),
    (TB4, ON, CANNOT, CANNOT, CANNOT),
    (TB4, OFF, CANNOT, CANNOT, CANNOT),
    (TB4, NONE, CANNOT, CANNOT, CANNOT),
    (TB4, SILENT, CANNOT, CANNOT, CANNOT),
    (NOBODY_KNOWS, ON, *[Advice(Step.NOTHING_IT_IS_ON, (PORTS,))] * 3),
    (NOBODY_KNOWS, OFF, unsure(PORTS), unsure(PORTS), unsure(PORTS, VERSION)),
    (NOBODY_KNOWS, NONE, unsure(PORTS), unsure(PORTS), unsure(PORTS, VERSION)),
    (NOBODY_KNOWS, SILENT, unsure(PORTS, STATE), unsure(PORTS, STATE), unsure(PORTS, STATE, VERSION)),
]
EXPECTED = {
    (hardware, state, kind): told
    for hardware, state, *each in ROWS
    for kind, told in zip((NEW, OLD, UNREADABLE), each, strict=True)
}
CELLS = list(itertools.product(HARDWARE, RdmaState, VERSIONS))


def read(speed: str) -> Read[Thunderbolt]:
    """A bus whose current_speed_key is that."""
    bus = {"_name": "thunderboltusb4_bus_1", "receptacle_1_tag": {"current_speed_key": speed}}
    return thunderbolt(json.dumps({"SPThunderboltDataType": [bus]}))


def told(text: str, state: RdmaState, os_version: str) -> Advice:
    facts = MachineFacts(ports=read(text).value.ports, rdma=state, os_version=os_version)
    return advice(facts.is_thunderbolt_5, facts.rdma, facts.os_version)


@pytest.mark.parametrize(
    ("text", "state", "os_version"), CELLS, ids=[f"{text or 'none'}, {s.name}, macOS {v}" for text, s, v in CELLS]
)
def test_what_to_do_about_rdma(text: str, state: RdmaState, os_version: str) -> None:
    assert told(text, state, os_version) == EXPECTED[HARDWARE[text], state, VERSIONS[os_version]]


@pytest.mark.parametrize("text", HARDWARE, ids=lambda text: text or "none")
def test_a_speed_that_cannot_be_read_is_warned_of_and_nothing_is_known(text: str) -> None:
    found = read(text)
    is_odd = text in ("", "garbage")
    assert ["current_speed_key" in one for one in found.warnings] == [True] * is_odd
    assert (MachineFacts(ports=found.value.ports).is_thunderbolt_5 is None) is (HARDWARE[text] == NOBODY_KNOWS)


def test_recovery_is_only_for_thunderbolt_5_with_a_macos_that_has_rdma() -> None:
    advised = {cell for cell in CELLS if told(*cell).step is Step.ENABLE}
    assert {HARDWARE[text] for text, _, _ in advised} == {TB5}
    assert {os_version for _, _, os_version in advised} == {"26.2", "26.10", "27.0"}
    assert {state for _, state, _ in advised} == {OFF}
    assert [step for step, text in REMEDIES.items() if "rdma_ctl enable" in text] == [Step.ENABLE]


READABLE = {
    "26.2": (26, 2),
    "26.10.1": (26, 10),
    "27": (27, 0),
    " 26.2\n": (26, 2),
    "26.x": None,
    "macOS 26.2": None,
    "-1.2": None,
    "٢٦.٢": None,
    "9" * 5000: None,
}


@pytest.mark.parametrize(("text", "expected"), READABLE.items(), ids=lambda one: str(one)[:20])
def test_versions_are_compared_by_numbers_or_not_at_all(text: str, expected: tuple[int, int] | None) -> None:
    assert version(text) == expected


PLUGGED = port("uuid-a", "uuid-b")
FINDINGS = {
    "disabled, with a cable": (
        mac("ada", PLUGGED, rdma=OFF),
        WARNING,
        "RDMA is disabled",
        "disabled; `sw_vers`: ProductVersion 26.2; `system_profiler SPThunderboltDataType -json`: 80 Gb/s and Up to",
        "MacBook Pro at receptacle 2 (en3)",
        "`rdma_ctl enable`, then reboot",
        "",
    ),
    "disabled, with nothing plugged in": (
        mac("ada", rdma=OFF),
        NOTE,
        "RDMA is disabled",
        "`rdma_ctl status`: disabled",
        "once another Mac is plugged in",
        "",
        "",
    ),
    "an old macOS": (
        mac("ada", PLUGGED, rdma=NONE, os_version="26.1"),
        WARNING,
        "macOS 26.1 is too old for RDMA, which needs 26.2",
        "`rdma_ctl status`: no such command; `sw_vers`: ProductVersion 26.1",
        "the ring works",
        "update macOS first",
        "",
    ),
    "a command that is not found": (
        mac("ada", PLUGGED, rdma=NONE),
        WARNING,
        "RDMA cannot be looked at: `rdma_ctl` is not found",
        "no such command",
        "the ring works",
        "`which rdma_ctl`",
        "whether RDMA is enabled",
    ),
    "Thunderbolt 4": (
        mac("ada", port("uuid-a", "uuid-b", speed_gbps=40), free=TB4_FREE, rdma=OFF),
        NOTE,
        "there is no RDMA on this hardware, and nothing to do",
        "40 Gb/s and Up to 40 Gb/s",
        "the ring over TCP works",
        "",
        "",
    ),
    "a link that does not tell": (
        mac("ada", port("uuid-a", "uuid-b", speed_gbps=40), free=port("uuid-c"), rdma=OFF),
        NOTE,
        "RDMA",
        "40 Gb/s and no speed",
        "no advice",
        "",
        "whether a port is Thunderbolt 5",
    ),
    "nothing is told": (
        mac("ada", free=port("uuid-c"), rdma=SILENT, os_version=""),
        NOTE,
        "RDMA",
        "`rdma_ctl status`: not told; `sw_vers`: no ProductVersion",
        "no advice",
        "",
        "whether a port is Thunderbolt 5, whether RDMA is enabled and whether macOS is 26.2 or newer",
    ),
    "enabled": (mac("ada", PLUGGED), NOTE, "RDMA is enabled", "enabled", "active: rdma_en3", "", ""),
    "enabled, on ports that do not tell": (
        mac("ada", free=port("uuid-c")),
        NOTE,
        "RDMA is enabled",
        "enabled",
        "active: no port",
        "",
        "whether a port is Thunderbolt 5",
    ),
}


@pytest.mark.parametrize(
    ("one", "severity", "what", "seen", "why", "remedy", "unknown"), FINDINGS.values(), ids=FINDINGS.keys()
)
def test_what_is_said_of_it(one: Mac, severity: str, what: str, seen: str, why: str, remedy: str, unknown: str) -> None:
    found = only(of_rdma(one))
    assert (found.severity.value, found.what, found.unknown) == (severity, what, unknown)
    assert seen in found.seen
    assert why in found.why
    assert remedy in found.remedy


def test_an_mlx_without_jaccl_is_told_where_it_could_be_used() -> None:
    without = {"mlx_backends": ("ring",)}
    found = of_rdma(mac("ada", PLUGGED, **without))
    assert short(found) == [(NOTE, "RDMA is enabled"), (WARNING, "MLX is built without JACCL")]
    assert found[1].seen == "`thunderline rank --probe`: backends ring"
    assert "the same version of mlx, by a Python made for macOS 26 or newer" in found[1].remedy
    assert found[1].unknown.startswith("whether its Python was made for an older macOS")
    for others in ({"rdma": OFF}, {"free": TB4_FREE, "rdma": ON}, {"mlx_backends": None}):
        told_of = of_rdma(mac("ada", **{**without, **others}))
        assert "MLX is built without JACCL" not in [what for _, what in short(told_of)]


def test_the_whole_node_decides_not_one_port() -> None:
    slow = port("uuid-a", "uuid-b", speed_gbps=40)
    assert of_mac(mac("ada", slow, free=TB5_FREE, rdma=OFF)) == ENABLE
