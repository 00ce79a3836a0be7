"""What a node tells of its hardware: there and back, within bounds, whatever is said."""

import contextlib
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from thunderline.cluster.machine_facts import (
    Bridge,
    MachineFacts,
    RdmaPortState,
    RdmaState,
    ScanWarning,
    SeenMac,
    ThunderboltPort,
)
from thunderline.rpc.machine_facts import (
    BYTES_MAX,
    CARD,
    COUNTS_MAX,
    INT32_MAX,
    INT64_MAX,
    TEXT_LENGTH_MAX,
    from_proto,
    port_from_proto,
    port_to_proto,
    problem,
    to_proto,
)
from thunderline.v1 import cluster_pb2

FACTS = MachineFacts(
    model="Mac15,14",
    model_name="Mac Studio",
    chip="Apple M3 Ultra",
    os_version="26.2",
    os_build="25C56",
    rdma=RdmaState.ENABLED,
    ports=(
        ThunderboltPort(
            bus="thunderboltusb4_bus_5",
            uuid="0B1C2D3E-0000-4000-8000-00000000A001",
            receptacle="6",
            interface="en7",
            rdma_device="rdma_en7",
            rdma_port=RdmaPortState.ACTIVE,
            is_connected=True,
            speed_gbps=80,
            macs=(SeenMac("0B1C2D3E-0000-4000-8000-00000000B001", "MacBook Pro", "Mac16,5", ("Hub",)),),
            devices=("Hub",),
            bridge="bridge0",
        ),
        ThunderboltPort(receptacle="1", is_connected=False, speed_max_gbps=120, is_next_to_ethernet=True),
    ),
    bridges=(Bridge("bridge0", ("en2", "en3"), "Thunderbolt Bridge", False), Bridge("bridge1")),
    hardware_ports=(("en7", "Thunderbolt 6"), ("en1", "Wi-Fi")),
    wired_limit_bytes=0,
    sleep_after_min=0,
    starts_after_power_failure=False,
    is_filevault_on=True,
    mlx_backends=(),
    working_set_bytes=77_309_411_328,
    warnings=(ScanWarning("ibv_devinfo", "took longer than 5 s"),),
)

# Within bounds, and small enough for all of them together.
WORDS = st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=4)
ANYTHING = st.text(st.characters(), max_size=TEXT_LENGTH_MAX + 20)
WHOLE32, WHOLE64 = st.integers(0, INT32_MAX), st.integers(0, INT64_MAX)
PERHAPS = st.none() | st.booleans()


def several(field: str, one: st.SearchStrategy[Any], beyond: int = 0) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(one, max_size=COUNTS_MAX[field] + beyond).map(tuple)


def seen_macs(text: st.SearchStrategy[str], beyond: int = 0) -> st.SearchStrategy[SeenMac]:
    return st.builds(SeenMac, text, text, text, several("behind", text, beyond))


def ports(
    text: st.SearchStrategy[str], number: st.SearchStrategy[int], beyond: int = 0
) -> st.SearchStrategy[ThunderboltPort]:
    return st.builds(
        ThunderboltPort,
        *[text] * 5,
        st.sampled_from(RdmaPortState),
        PERHAPS,
        number,
        number,
        several("macs", seen_macs(text, beyond), beyond),
        several("devices", text, beyond),
    )


def machines(
    text: st.SearchStrategy[str], small: st.SearchStrategy[int], large: st.SearchStrategy[int], beyond: int = 0
) -> st.SearchStrategy[MachineFacts]:
    return st.builds(
        MachineFacts,
        *[text] * 5,
        st.sampled_from(RdmaState),
        st.lists(ports(text, small, beyond), max_size=3 + beyond).map(tuple),
        several("bridges", st.builds(Bridge, text, several("members", text, beyond), text, PERHAPS), beyond),
        several("hardware_ports", st.tuples(text, text), beyond),
        st.none() | large,
        st.none() | small,
        PERHAPS,
        PERHAPS,
        st.none() | several("mlx_backends", text, beyond),
        large,
        several("warnings", st.builds(ScanWarning, text, text), beyond),
    )


def test_all_of_it_arrives() -> None:
    assert from_proto(to_proto(FACTS)) == FACTS
    assert problem(to_proto(FACTS)) == ""


def test_what_is_not_known_stays_so() -> None:
    assert from_proto(cluster_pb2.MachineFacts()) == MachineFacts()
    assert to_proto(MachineFacts()) == cluster_pb2.MachineFacts()
    assert port_from_proto(cluster_pb2.ThunderboltPort()) == ThunderboltPort()
    assert from_proto(to_proto(MachineFacts(mlx_backends=()))).mlx_backends == ()


@given(machines(WORDS, WHOLE32, WHOLE64))
def test_whatever_fits_arrives_as_it_was(facts: MachineFacts) -> None:
    told = to_proto(facts)
    assert problem(told) == ""
    assert from_proto(told) == facts
    for port in facts.ports:
        assert port_from_proto(port_to_proto(port)) == port


ODD = st.integers(-(2**70), 2**70)


@given(machines(ANYTHING, ODD, ODD, beyond=2))
def test_what_does_not_fit_is_cut_and_then_stays_the_same(facts: MachineFacts) -> None:
    told = to_proto(facts)
    assert problem(told) == ""
    assert told.ByteSize() <= BYTES_MAX
    assert to_proto(from_proto(told)) == told


@given(st.binary(max_size=400))
def test_what_another_node_says_may_be_anything(data: bytes) -> None:
    """As far as it is a message."""
    told = cluster_pb2.MachineFacts()
    with contextlib.suppress(DecodeError):
        told.ParseFromString(data)
    facts = from_proto(told)
    assert problem(to_proto(facts)) == ""


def test_numbers_of_a_later_version_are_unknown() -> None:
    told = cluster_pb2.MachineFacts(rdma=99, ports=[cluster_pb2.ThunderboltPort(rdma_port=99)])  # type: ignore[arg-type]
    facts = from_proto(told)
    assert (facts.rdma, facts.ports[0].rdma_port) == (RdmaState.UNKNOWN, RdmaPortState.UNKNOWN)


def test_names_of_the_states_are_those_on_the_wire() -> None:
    for kind, on_wire, prefix in (
        (RdmaState, cluster_pb2.RdmaState, "RDMA_STATE_"),
        (RdmaPortState, cluster_pb2.RdmaPortState, "RDMA_PORT_STATE_"),
    ):
        names = {
            name.removeprefix(prefix).replace("UNSPECIFIED", "UNKNOWN"): number for name, number in on_wire.items()
        }
        assert names == {one.name: one.value for one in kind}


def test_of_far_too_much_the_longest_lists_are_cut_and_the_rest_stays() -> None:
    mac = SeenMac("u" * 256, "n" * 256, "m" * 256, ("hub" * 80,) * 2)
    port = ThunderboltPort(bus="b" * 256, macs=(mac,) * 8, devices=("d" * 256,) * 16)
    many = MachineFacts(model="Mac15,14", ports=(port,) * 16, hardware_ports=FACTS.hardware_ports)
    told = from_proto(to_proto(many))
    assert 0 < len(told.ports) < 16
    assert (told.model, told.hardware_ports) == (many.model, many.hardware_ports)
    left_out = f"has room for {BYTES_MAX} bytes; left out: {16 - len(told.ports)} of 16 ports"
    assert told.warnings == (ScanWarning(CARD, left_out),)


def test_that_warnings_were_cut_is_one_of_them() -> None:
    many = MachineFacts(warnings=tuple(ScanWarning(f"{number}" * 200, "\N{SNOWMAN}" * 256) for number in range(32)))
    told = from_proto(to_proto(many)).warnings
    kept = len(told) - 1
    assert 0 < kept < 32
    assert told[:-1] == tuple(ScanWarning(one.command[:256], one.what) for one in many.warnings[:kept])
    assert told[-1].what.endswith(f"left out: {32 - kept} of 32 warnings")


def test_of_too_many_the_first_stay() -> None:
    number = 100
    mac = SeenMac(behind=("hub",) * number)
    port = ThunderboltPort(macs=(mac,) * number, devices=("disk",) * number)
    many = MachineFacts(
        ports=(port,) * number,
        bridges=(Bridge("bridge0", ("en2",) * number),) * number,
        hardware_ports=tuple((f"en{n}", "") for n in range(number)),
        mlx_backends=("ring",) * number,
        warnings=(ScanWarning("", ""),) * number,
    )
    told = to_proto(many)
    found = from_proto(told)
    assert problem(told) == ""
    assert (len(found.ports), len(found.bridges), len(found.warnings), len(found.mlx_backends or ())) == (16, 16, 32, 8)
    assert (len(found.ports[0].macs), len(found.ports[0].devices), len(found.ports[0].macs[0].behind)) == (8, 16, 8)
    assert (len(found.bridges[0].members), found.hardware_ports) == (16, many.hardware_ports[:64])


Told = cluster_pb2.MachineFacts
Port = cluster_pb2.ThunderboltPort
BAD: dict[str, tuple[Told | Port, str]] = {
    "17 ports": (Told(ports=[Port()] * 17), "ports has more than 16 entries"),
    "nine Macs at one port": (Told(ports=[Port(macs=[cluster_pb2.SeenMac()] * 9)]), "macs has more than 8 entries"),
    "a chain of nine hubs": (
        Told(ports=[Port(macs=[cluster_pb2.SeenMac(behind=["hub"] * 9)])]),
        "behind has more than 8 entries",
    ),
    "a name that moves the cursor": (
        Told(ports=[Port(devices=["disk\x1b[2J"])]),
        "devices is longer than 256 characters, or holds what cannot be printed",
    ),
    "a name of 257 letters": (
        Told(chip="x" * 257),
        "chip is longer than 256 characters, or holds what cannot be printed",
    ),
    "a speed below zero": (Told(ports=[Port(speed_gbps=-1)]), "speed_gbps is below zero"),
    "less than no memory": (Told(working_set_bytes=-1), "working_set_bytes is below zero"),
    "a port alone": (Port(speed_max_gbps=-1), "speed_max_gbps is below zero"),
    "more bytes than a card has": (
        Told(warnings=[cluster_pb2.ScanWarning(what="x" * 1024)] * 32),
        "has more than 24576 bytes",
    ),
}


@pytest.mark.parametrize(("told", "expected"), BAD.values(), ids=BAD.keys())
def test_what_breaks_a_bound_is_named(told: Told | Port, expected: str) -> None:
    assert problem(told) == expected


def test_every_list_has_its_bound() -> None:
    def lists(message: Descriptor) -> set[str]:
        found = {one.name for one in message.fields if one.is_repeated}
        inner = [one.message_type for one in message.fields if one.message_type is not None]
        return found.union(*(lists(one) for one in inner))

    assert lists(cluster_pb2.MachineFacts.DESCRIPTOR) == COUNTS_MAX.keys()
