"""What is taken of announcements by multicast DNS."""

import pytest

from discovery.little_discovery import little_card, new_id
from thunderline.discovery import wire
from thunderline.discovery.peers import ADDRESS_COUNT_MAX, Lead
from thunderline.discovery.sightings import SERVICE_TYPE, Sighting, name_of, parted, sighting, texts
from thunderline.discovery.values import Stranger

NODE = new_id()
OWN = wire.to_card(little_card(7401, cluster="ours"))


def test_what_is_announced_is_understood() -> None:
    said: dict[str, str | None] = {**texts(OWN, 7401, "0.2.0")}
    found = sighting(said, ["192.168.4.1", "fd00::1"], 7401)
    assert found == Sighting(OWN.node_id, "ours", ("192.168.4.1:7401", "[fd00::1]:7401"))


@pytest.mark.parametrize(
    ("changed", "addresses", "port"),
    [
        pytest.param({"node_id": None}, ["10.0.0.1"], 7401, id="no node_id"),
        pytest.param({"node_id": "ada"}, ["10.0.0.1"], 7401, id="a node_id that is no UUID"),
        pytest.param({"cluster": ""}, ["10.0.0.1"], 7401, id="no cluster"),
        pytest.param({"cluster": "x" * 201}, ["10.0.0.1"], 7401, id="a cluster that is too long"),
        pytest.param({"cluster": "a\x1b[2J"}, ["10.0.0.1"], 7401, id="a cluster that moves the cursor"),
        pytest.param({}, [], 7401, id="no address"),
        pytest.param({}, ["127.0.0.1"], 7401, id="loopback alone: its own"),
        pytest.param({}, ["0.0.0.0"], 7401, id="no address of anybody"),
        pytest.param({}, ["fe80::1%eth0"], 7401, id="an address that only it can use"),
        pytest.param({}, ["10.0.0.1"], None, id="no port"),
        pytest.param({}, ["10.0.0.1"], 0, id="port 0"),
        pytest.param({}, ["10.0.0.1"], 70_000, id="port 70,000"),
    ],
)
def test_what_is_no_announcement_of_a_node_is_nothing(
    changed: dict[str, str | None], addresses: list[str], port: int | None
) -> None:
    fine: dict[str, str | None] = {"node_id": NODE, "cluster": "ours"}
    assert sighting(fine, ["10.0.0.1"], 7401) is not None
    assert sighting({**fine, **changed}, addresses, port) is None


def test_addresses_are_bounded() -> None:
    found = sighting({"node_id": NODE, "cluster": "ours"}, [f"10.0.0.{n}" for n in range(1, 99)], 7401)
    assert found is not None
    assert len(found.addresses) == ADDRESS_COUNT_MAX


def test_who_is_of_another_cluster_is_shown_and_never_called() -> None:
    ours, theirs = Sighting(NODE, "ours", ("10.0.0.1:1",)), Sighting(NODE, "theirs", ("10.0.0.2:1",))
    leads, strangers = parted([ours, theirs], OWN)
    assert leads == (Lead(NODE, ("10.0.0.1:1",)),)
    assert strangers == (Stranger(NODE, "theirs", addresses=("10.0.0.2:1",)),)


def test_the_longest_name_of_a_cluster_fits_a_text_record_and_is_known_again() -> None:
    long = wire.to_card(little_card(7401, cluster="\N{SNOWMAN}" * 64))
    said = texts(long, 65_535, "0.2.0")
    assert all(len(f"{name}={value}".encode()) <= 255 for name, value in said.items())
    found = sighting({**said}, ["10.0.0.1"], 7401)
    assert found is not None
    assert parted([found], long)[0]


def test_each_start_has_a_name_of_its_own_that_fits_a_label() -> None:
    one, copy = (wire.to_card(little_card(7401, NODE)) for _ in range(2))
    assert name_of(one) != name_of(copy)
    assert len(name_of(one).removesuffix(f".{SERVICE_TYPE}")) <= 63
