"""By which interface packets leave, as the kernel says it, and where connections arrive."""

import socket
import struct
import sys

import psutil
import pytest

from thunderline.cluster.media import Medium
from thunderline.cluster.paths import End
from thunderline.topology.ends import Ends, arrival_index
from thunderline.topology.routes import Names, Routes, answer, request

linux = pytest.mark.skipif(sys.platform != "linux", reason="asked over netlink")
ERROR = struct.pack("=IHHIIi", 36, 2, 0, 5, 0, -101) + bytes(16)


@linux
def test_loopback_leaves_by_loopback() -> None:
    routes = Routes(Names())
    assert routes.interface("127.0.0.1", "127.0.0.1") == "lo"
    assert routes.interface("127.0.0.7", "127.0.0.1") == "lo"
    routes.close()


@linux
def test_an_own_address_is_reached_over_loopback_whatever_interface_owns_it() -> None:
    routes = Routes(Names())
    owned = [
        one.address for name, all_ in psutil.net_if_addrs().items() for one in all_
        if one.family == socket.AF_INET and name != "lo"
    ]  # fmt: skip
    assert {routes.interface(address, address) for address in owned} <= {"lo"}
    routes.close()


@linux
def test_what_cannot_be_asked_is_not_known() -> None:
    routes = Routes(Names())
    # No address of this machine: the kernel refuses the question.
    assert routes.interface("127.0.0.1", "203.0.113.99") == ""
    assert routes.interface("127.0.0.1", "::1") == ""
    assert routes.interface("127.0.0.1", "127.0.0.1") == "lo"
    routes.close()


@linux
def test_what_is_closed_opens_nothing_again() -> None:
    routes = Routes(Names())
    assert routes.interface("127.0.0.1", "127.0.0.1") == "lo"
    routes.close()
    assert routes.interface("127.0.0.1", "127.0.0.1") == ""
    assert routes._socket is None


def test_a_question_has_the_form_of_the_kernel() -> None:
    data = request("192.168.4.2", "192.168.4.1", 5)
    size, kind, flags, number, _ = struct.unpack_from("=IHHII", data)
    assert (size, kind, flags, number) == (len(data), 26, 1, 5)
    assert data[28:] == struct.pack("=HH4sHH4s", 8, 1, b"\xc0\xa8\x04\x02", 8, 2, b"\xc0\xa8\x04\x01")


ANSWERS: dict[str, tuple[bytes, tuple[int, int]]] = {
    "a refusal": (ERROR, (5, 0)),
    "no attributes": (struct.pack("=IHHII", 28, 24, 0, 6, 0) + bytes(12), (6, 0)),
    "the index after an odd attribute": (
        struct.pack("=IHHII", 44, 24, 0, 7, 0) + bytes(12) + struct.pack("=HHB3xHHI", 5, 15, 9, 8, 4, 3),
        (7, 3),
    ),
    "an attribute of no length": (
        struct.pack("=IHHII", 32, 24, 0, 8, 0) + bytes(12) + struct.pack("=HH", 0, 9),
        (8, 0),
    ),
}


@pytest.mark.parametrize(("data", "expected"), ANSWERS.values(), ids=ANSWERS.keys())
def test_an_answer(data: bytes, expected: tuple[int, int]) -> None:
    assert answer(data) == expected


@pytest.mark.parametrize("length", [0, 5, 15])
def test_half_an_answer_is_none(length: int) -> None:
    with pytest.raises(OSError, match="cannot be read"):
        answer(ERROR[:length])


def control(level: int, kind: int, data: bytes) -> bytes:
    """A control message, padded as the kernel does."""
    return struct.pack("@Nii", 16 + len(data), level, kind) + data + bytes(-len(data) % 8)


IP, IPV6 = socket.IPPROTO_IP, socket.IPPROTO_IPV6
V4 = control(IP, 8, struct.pack("@i4s4s", 3, bytes(4), bytes(4)))
V6 = control(IPV6, 50, bytes(16) + struct.pack("@i", 4))
OTHER = control(IP, 2, struct.pack("@i", 64))
CONTROLS: dict[str, tuple[bytes, bool, int]] = {
    "IPv4": (V4, False, 3),
    "after another one": (OTHER + V4, False, 3),
    "IPv6": (V6, True, 4),
    "IPv6 in the old form": (control(IPV6, 2, bytes(16) + struct.pack("@i", 5)), True, 5),
    "of the other family": (V4, True, 0),
    "nothing": (b"", False, 0),
    "half of one": (V4[:10], False, 0),
    "one without its data": (V6[:20], True, 0),
    "of no length": (bytes(64), False, 0),
}


@pytest.mark.parametrize(("data", "is_ipv6", "index"), CONTROLS.values(), ids=CONTROLS.keys())
def test_where_a_connection_arrived(data: bytes, is_ipv6: bool, index: int) -> None:
    assert arrival_index(data, is_ipv6) == index


def test_the_settings_say_the_medium_of_an_interface() -> None:
    ends = Ends({"lo": Medium.THUNDERBOLT})
    assert ends.leaves("127.0.0.1", "127.0.0.1") == End("lo", Medium.THUNDERBOLT)
    assert next(one for one in ends.interfaces if one.name == "lo").medium is Medium.THUNDERBOLT
    ends.close()


def test_an_interface_that_nobody_knows_is_no_end() -> None:
    ends = Ends({})
    assert ends.leaves("203.0.113.1", "203.0.113.2") is None
    ends.close()
