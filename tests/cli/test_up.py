"""What `thunderline up` starts on which node, on which ports."""

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from installation import is_free
from thunderline.cli.up import check_ports, curl, environment, port_flags, ports, url
from thunderline.process.entry import CannotStart
from thunderline.process.settings import Settings, read


def settings(home: Path, port: int | None = None, base_port: int | None = None, **node: str) -> Settings:
    flags = port_flags(port, base_port)
    if node:
        flags["node"] = dict(node)
    return read({}, flags, home)


def test_a_base_port_moves_every_port_of_the_roles_and_keeps_their_distances(tmp_path: Path) -> None:
    default, moved = (ports(settings(tmp_path, base_port=base), True) for base in (None, 9101))
    assert {name: port - 7401 for name, port in default.items() if name != "gateway"} == {
        name: port - 9101 for name, port in moved.items() if name != "gateway"
    }
    assert default == {
        "gateway": 8000,
        "discovery": 7401,
        "topology": 7402,
        "scheduler": 7403,
        "runner": 7404,
        "enrollment": 7405,
        "echo": 7412,
    }


def test_a_port_moves_the_gateway_alone(tmp_path: Path) -> None:
    default, moved = (ports(settings(tmp_path, port=port), True) for port in (None, 9000))
    assert moved == {**default, "gateway": 9000}


def test_beside_another_scheduler_node_nothing_of_a_scheduler_is_listened_on(tmp_path: Path) -> None:
    found = settings(tmp_path)
    assert ports(found, True).keys() - ports(found, False).keys() == {"scheduler", "enrollment"}


def test_the_roles_are_started_with_these_ports(tmp_path: Path) -> None:
    found = environment(settings(tmp_path, 9000, 9101))
    again = read({key: value for key, value in found.items() if key.startswith("THUNDERLINE_")})
    assert ports(again, True) == ports(settings(tmp_path, 9000, 9101), True)
    assert again.home == tmp_path


@pytest.fixture
def base_port() -> int:
    """Of ports that are free, and apart from those of other tests."""
    offsets = (*range(5), 11, 50, *range(100, 104))
    for base in range(25_000 + os.getpid() % 40 * 100, 30_000, 200):
        if all(is_free(base + offset) for offset in offsets):
            return base
    raise AssertionError("no free ports between 25000 and 30000")


# The port that is taken: its distance from the base, and what it is for.
TAKEN = {
    "of a role": (1, "topology"),
    "of the echo": (11, "echo"),
    "of enrolment": (4, "enrollment"),
    "of metrics": (103, "runner metrics"),
}


@pytest.mark.parametrize(("offset", "what"), TAKEN.values(), ids=TAKEN.keys())
def test_a_taken_port_is_named_before_anything_starts(tmp_path: Path, base_port: int, offset: int, what: str) -> None:
    found = settings(tmp_path, base_port + 50, base_port)
    check_ports(found, True)
    with socket.create_server(("127.0.0.1", base_port + offset)):
        with pytest.raises(CannotStart, match=rf"port {base_port + offset} \({what}\).*--base-port"):
            check_ports(found, True)
        if what == "enrollment":
            check_ports(found, False)


def test_a_bind_that_is_no_address_of_this_machine_is_named(tmp_path: Path, base_port: int) -> None:
    found = settings(tmp_path, base_port + 50, base_port, bind="192.0.2.1")
    with pytest.raises(CannotStart, match=r"look at the bind '192\.0\.2\.1'"):
        check_ports(found, True)


URLS = {
    "127.0.0.1": "http://127.0.0.1:8000/v1",
    "0.0.0.0": "http://127.0.0.1:8000/v1",
    "::": "http://[::1]:8000/v1",
    "192.168.4.1": "http://192.168.4.1:8000/v1",
    "fd00::1": "http://[fd00::1]:8000/v1",
}


@pytest.mark.parametrize(("bind", "expected"), URLS.items())
def test_the_address_that_is_shown_can_be_reached_from_here(tmp_path: Path, bind: str, expected: str) -> None:
    found = settings(tmp_path)
    assert url(replace(found, gateway=found.gateway.model_copy(update={"bind": bind}))) == expected


def test_what_is_shown_asks_for_a_key_where_one_is_needed(tmp_path: Path) -> None:
    found = settings(tmp_path)
    keys = replace(found, gateway=found.gateway.model_copy(update={"api_keys": ["0" * 64]}))
    assert "Bearer" not in curl(found, "m")
    assert "-H 'Authorization: Bearer KEY' \\\n  -d '{" in curl(keys, "m")
