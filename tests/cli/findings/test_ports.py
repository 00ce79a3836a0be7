"""Bridges, addresses and the port next to Ethernet: what keeps a port from RDMA, and what does not."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from cli.findings.laws import NOTE, WARNING, only, short
from cli.findings.rigs import TB4_FREE, mac, port
from thunderline.cli.findings.macs import Mac
from thunderline.cli.findings.ports import link_local, of_ports
from thunderline.cluster.machine_facts import Bridge, RdmaState

PLUGGED = port("uuid-a", "uuid-b")
BRIDGE = Bridge("bridge0", ("en3", "en4"), "Thunderbolt Bridge", True)
DISABLED = replace(BRIDGE, is_enabled=False)
OFF = {"rdma": RdmaState.DISABLED}
WAYS = {"addresses": {"en3": ["fe80::1"]}}
IN_THE_WAY = "bridge0 (Thunderbolt Bridge) rules out RDMA at en3"
NO_ADDRESS = "en3 has no IPv4 address: rdma_en3 cannot be used"

CASES = {
    "nothing": (mac("ada", PLUGGED), []),
    "a bridge that holds a cable": (mac("ada", PLUGGED, bridges=(BRIDGE,)), [(WARNING, IN_THE_WAY)]),
    "before RDMA is enabled too": (mac("ada", PLUGGED, bridges=(BRIDGE,), **OFF), [(WARNING, IN_THE_WAY)]),
    "and it alone, not the address": (mac("ada", PLUGGED, bridges=(BRIDGE,), **WAYS), [(WARNING, IN_THE_WAY)]),
    "a bridge that is down": (mac("ada", PLUGGED, bridges=(DISABLED,)), []),
    "a bridge that is up, though its service is disabled": (
        mac("ada", PLUGGED, bridges=(DISABLED,), addresses={"en3": [], "bridge0": []}),
        [(WARNING, IN_THE_WAY)],
    ),
    "a bridge without a cable": (
        mac("ada", bridges=(BRIDGE,)),
        [(NOTE, "bridge0 (Thunderbolt Bridge) is in the way of RDMA")],
    ),
    "a bridge without a cable, before RDMA is enabled": (mac("ada", bridges=(BRIDGE,), **OFF), []),
    "a bridge of other interfaces": (mac("ada", PLUGGED, bridges=(Bridge("bridge100", ("vmenet0",)),)), []),
    "a bridge that holds other ports": (
        mac("ada", PLUGGED, bridges=(replace(BRIDGE, members=("en4",)),)),
        [(NOTE, "bridge0 (Thunderbolt Bridge) is in the way of RDMA")],
    ),
    "a bridge on Thunderbolt 4": (
        mac("ada", replace(PLUGGED, speed_gbps=40), free=TB4_FREE, bridges=(BRIDGE,), **OFF),
        [],
    ),
    "a bridge where there is no RDMA yet": (
        mac("ada", PLUGGED, bridges=(BRIDGE,), rdma=RdmaState.UNAVAILABLE),
        [],
    ),
    "no address": (mac("ada", PLUGGED, **WAYS), [(WARNING, NO_ADDRESS)]),
    "no address, before RDMA is enabled": (mac("ada", PLUGGED, **OFF, **WAYS), []),
    "no address, and no device": (mac("ada", replace(PLUGGED, rdma_device=""), **WAYS), []),
    "no address, and nothing plugged in": (mac("ada", port("uuid-a"), **WAYS), []),
    "an interface of which nothing is told": (mac("ada", PLUGGED, addresses={}), []),
}


@pytest.mark.parametrize(("one", "expected"), CASES.values(), ids=CASES.keys())
def test_what_keeps_a_port_from_rdma(one: Mac, expected: list[tuple[str, str]]) -> None:
    assert short(of_ports(one)) == expected


def test_a_bridge_is_told_with_the_commands_that_free_its_members() -> None:
    other = port("uuid-c", "uuid-d", number=3)
    one = only(of_ports(mac("ada", PLUGGED, other, bridges=(BRIDGE,))))
    assert one.what.endswith("at en3 and en4")
    assert one.seen == "`ifconfig bridge0`: member: en3 and member: en4"
    assert "the ring over TCP works over the bridge" in one.why
    assert "`sudo ifconfig bridge0 deletem en3` and `sudo ifconfig bridge0 deletem en4`" in one.remedy
    assert "`sudo networksetup -setnetworkserviceenabled 'Thunderbolt Bridge' off`" in one.remedy
    assert "`sudo networksetup -setdhcp 'Thunderbolt 2'`" in one.remedy
    assert "`sudo networksetup -setdhcp 'Thunderbolt 3'`" in one.remedy
    assert one.unknown == ""


def test_what_is_not_known_of_a_bridge_is_said() -> None:
    bridge = Bridge("bridge0", ("en3",))
    one = only(of_ports(mac("ada", PLUGGED, bridges=(bridge,))))
    assert one.what == "bridge0 rules out RDMA at en3"
    assert one.unknown == "whether its network service is enabled"
    assert "setnetworkserviceenabled" not in one.remedy
    up = mac("ada", PLUGGED, bridges=(DISABLED,), addresses={"bridge0": []})
    held = only(of_ports(up))
    assert held.unknown == "whether it lets go of its members while its service is off"
    assert "setnetworkserviceenabled" not in held.remedy
    assert "deletem en3" in held.remedy


def test_a_name_of_a_service_is_no_command() -> None:
    bridge = replace(BRIDGE, service="x'; rm -rf /; '")
    assert (
        """-setnetworkserviceenabled 'x'"'"'; rm -rf /; '"'"'' off`"""
        in only(of_ports(mac("ada", PLUGGED, bridges=(bridge,)))).remedy
    )


def test_an_address_is_proposed_that_is_nobody_elses() -> None:
    one = only(of_ports(mac("ada", PLUGGED, **WAYS)))
    address = link_local("node-ada", "en3")
    assert f"`sudo ifconfig en3 inet {address} netmask 255.255.0.0 alias`" in one.remedy
    assert one.seen == "`ifconfig en3`: no line with inet"
    service = "`sudo networksetup -createnetworkservice 'Thunderbolt 2' 'Thunderbolt 2'` where the port has no network"
    assert one.remedy.startswith(service)
    assert one.remedy.index("-setdhcp 'Thunderbolt 2'") < one.remedy.index("quick, until a reboot")
    untitled = only(of_ports(mac("ada", PLUGGED, hardware_ports=(), **WAYS)))
    assert untitled.remedy.startswith("add a network service for en3 that uses DHCP")
    proposed = [link_local(f"node-{n}", f"en{m}") for n in range(40) for m in range(8)]
    assert all(ip_address(each) in ip_network("169.254.0.0/16") for each in proposed)
    assert not {each for each in proposed if each.split(".")[2] in ("0", "255") or each.split(".")[3] in ("0", "255")}
    # Of 320 out of 64,516 hardly one comes twice.
    assert len(set(proposed)) > 310


NEXT_TO_ETHERNET = replace(PLUGGED, receptacle="1", interface="en2", rdma_device="rdma_en2")
STUDIO = {"model": "Mac15,14", "model_name": "Mac Studio"}
OTHER_STUDIO = {"model": "Mac99,1", "model_name": "Mac Studio"}
WRONG_PORT = "the cable to MacBook Pro is in the port next to Ethernet"
EN2 = {"addresses": {"en2": ["169.254.7.1"]}}
PORTS = {
    "of a Studio": (mac("ada", NEXT_TO_ETHERNET, **STUDIO, **EN2), [WRONG_PORT]),
    "of a Studio, whatever its receptacle is called": (
        mac("ada", replace(NEXT_TO_ETHERNET, receptacle="6"), **STUDIO, **EN2),
        [WRONG_PORT],
    ),
    "of a Studio, by its receptacle where no interface is told": (
        mac("ada", replace(NEXT_TO_ETHERNET, interface=""), **STUDIO),
        [WRONG_PORT],
    ),
    "of another Studio": (mac("ada", NEXT_TO_ETHERNET, **OTHER_STUDIO, **EN2), [WRONG_PORT]),
    "of a Studio, another port": (mac("ada", PLUGGED, **STUDIO), []),
    "of a Studio, with nothing plugged in": (mac("ada", replace(NEXT_TO_ETHERNET, macs=()), **STUDIO, **EN2), []),
    "of a mini": (mac("ada", NEXT_TO_ETHERNET, **EN2), []),
    "of nobody knows what": (mac("ada", NEXT_TO_ETHERNET, model="", model_name="", **EN2), []),
}


@pytest.mark.parametrize(("one", "expected"), PORTS.values(), ids=PORTS.keys())
def test_the_port_next_to_ethernet(one: Mac, expected: list[str]) -> None:
    assert short(of_ports(one)) == [(WARNING, what) for what in expected]


def test_of_which_studios_it_is_known_is_said() -> None:
    assert only(of_ports(PORTS["of a Studio"][0])).unknown == ""
    assert "known of the M3 Ultra only" in only(of_ports(PORTS["of another Studio"][0])).unknown
