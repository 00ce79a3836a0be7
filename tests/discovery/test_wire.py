"""Cards, greetings and rosters between protos and values; and what is refused of what others send."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from discovery.little_discovery import discovering, free_port, little_card, new_id, until
from thunderline.cluster.errors import InvalidRequest
from thunderline.cluster.members import MemberState
from thunderline.discovery import wire
from thunderline.discovery.membership import Membership
from thunderline.discovery.peers import LEAD_COUNT_MAX, Greeting, Lead
from thunderline.discovery.service import DiscoveryService
from thunderline.discovery.values import Life, Member, Stranger, Twin, View
from thunderline.process.departed import DEPARTED_COUNT_MAX
from thunderline.rpc.channel import dial
from thunderline.rpc.errors import from_call
from thunderline.v1 import cluster_pb2, discovery_pb2, discovery_pb2_grpc

Card = cluster_pb2.NodeCard
Request = discovery_pb2.ExchangeCardRequest


def put(name: str, value: object) -> Callable[[Card], None]:
    return lambda card: setattr(card, name, value)


def add(name: str, count: int = 1, /, **fields: object) -> Callable[[Card], None]:
    def change(card: Card) -> None:
        for _ in range(count):
            getattr(card, name).add(**fields)

    return change


def extend(name: str, *values: str) -> Callable[[Card], None]:
    return lambda card: getattr(card, name).extend(values)


BAD: dict[str, tuple[str, Callable[[Card], None]]] = {
    "more bytes than a card has": ("card", add("settings", 32, name="n", value="x" * 4096)),
    "an id that is no UUID": ("card.node_id", put("node_id", "ada")),
    "a UUID written in capitals": ("card.node_id", put("node_id", new_id().upper())),
    "no cluster": ("card.cluster_name", put("cluster_name", "")),
    "a cluster with a long name": ("card.cluster_name", put("cluster_name", "x" * 65)),
    "a host name that moves the cursor": ("card.hostname", put("hostname", "ada\x1b[2J")),
    "a host name of 256 letters": ("card.hostname", put("hostname", "x" * 256)),
    "no start_id": ("card.start_id", put("start_id", "")),
    "a start before the first": ("card.incarnation", put("incarnation", 0)),
    "more starts than fit a version": ("card.incarnation", put("incarnation", 2**31)),
    "a revision below zero": ("card.revision", put("revision", -1)),
    "less than no memory": ("card.memory_bytes", put("memory_bytes", -1)),
    "65 interfaces": ("card.interfaces", add("interfaces", 65, name="en0")),
    "an interface without a name": ("card.interfaces.name", add("interfaces")),
    "an interface with 33 addresses": (
        "card.interfaces.addresses",
        add("interfaces", name="en0", addresses=["10.0.0.1"] * 33),
    ),
    "an interface with no address": ("card.interfaces.addresses", add("interfaces", name="en0", addresses=["x"])),
    "33 addresses": ("card.addresses", extend("addresses", *["10.0.0.1"] * 33)),
    "an address that is a name": ("card.addresses", extend("addresses", "example.com")),
    "an address with a zone": ("card.addresses", extend("addresses", "fe80::1%en0")),
    "17 endpoints": ("card.endpoints", add("endpoints", 16, role="r", port=1)),
    "a port of 0": ("card.endpoints.port", add("endpoints", role="runner", port=0)),
    "a port of 65,536": ("card.endpoints.port", add("endpoints", role="runner", port=65_536)),
    "no discovery": ("card.endpoints", lambda card: card.ClearField("endpoints")),
    "17 versions": ("card.versions", add("versions", 17, name="n")),
    "a version without a name": ("card.versions.name", add("versions", value="1")),
    "33 settings": ("card.settings", add("settings", 33, name="n")),
    "a setting over two lines": ("card.settings.value", add("settings", name="n", value="a\nb")),
    "17 Thunderbolt ports": (
        "card.machine",
        lambda card: card.machine.ports.extend([cluster_pb2.ThunderboltPort()] * 17),
    ),
    "a dock that moves the cursor": (
        "card.machine",
        lambda card: card.machine.ports.add().devices.append("dock\x1b[2J"),
    ),
    "a speed below zero": ("card.machine", lambda card: setattr(card.machine.ports.add(), "speed_gbps", -1)),
    "a machine that fills the card": (
        "card.machine",
        lambda card: card.machine.warnings.extend([cluster_pb2.ScanWarning(what="x" * 1024)] * 32),
    ),
    "257 that were taken out": ("card.departed_node_ids", extend("departed_node_ids", *[new_id()] * 257)),
    "nobody taken out": ("card.departed_node_ids", extend("departed_node_ids", "ada")),
    "three authorities": ("card.trusted_authorities", extend("trusted_authorities", "a", "b", "c")),
}


@pytest.mark.parametrize(("param", "spoil"), BAD.values(), ids=BAD.keys())
def test_a_bad_card_is_refused_and_the_field_named(param: str, spoil: Callable[[Card], None]) -> None:
    card = little_card(7401)
    wire.checked_card(card)
    spoil(card)
    with pytest.raises(InvalidRequest) as refused:
        wire.checked_card(card)
    assert refused.value.param == param


def of_a_lead(address: str) -> Callable[[Request], object]:
    return lambda request: request.peers.add(node_id=new_id(), addresses=[address])


def many_leads(request: Request) -> None:
    for _ in range(LEAD_COUNT_MAX + 1):
        request.peers.add(node_id=new_id(), addresses=["10.0.0.1:7401"])


def many_left(request: Request) -> None:
    for _ in range(LEAD_COUNT_MAX + 1):
        request.left.add(node_id=new_id(), incarnation=1, start_id="s")


def sent(seconds: int, nanos: int = 0) -> Callable[[Request], object]:
    return lambda request: request.sent_at.MergeFrom(Timestamp(seconds=seconds, nanos=nanos))


BAD_GREETINGS: dict[str, tuple[str, Callable[[Request], object]]] = {
    "257 leads": ("peers", many_leads),
    "a lead to nobody": ("peers.node_id", lambda one: one.peers.add(node_id="x", addresses=["10.0.0.1:1"])),
    "a lead with 17 addresses": (
        "peers.addresses",
        lambda one: one.peers.add(node_id=new_id(), addresses=["10.0.0.1:7401"] * 17),
    ),
    "a lead to a name": ("peers.addresses", of_a_lead("example.com:7401")),
    "a lead without a port": ("peers.addresses", of_a_lead("10.0.0.1")),
    "a lead to port 0": ("peers.addresses", of_a_lead("10.0.0.1:0")),
    "a lead to port 70,000": ("peers.addresses", of_a_lead("10.0.0.1:70000")),
    "a lead to a Unix socket": ("peers.addresses", of_a_lead("unix:/run/x.sock")),
    "a lead to IPv6 without brackets": ("peers.addresses", of_a_lead("fd00::1:7401")),
    "257 that left": ("left", many_left),
    "nobody left": ("left.node_id", lambda one: one.left.add(node_id="x", incarnation=1, start_id="s")),
    "one left before its first start": (
        "left.incarnation",
        lambda one: one.left.add(node_id=new_id(), incarnation=0, start_id="s"),
    ),
    "one left without a start_id": (
        "left.start_id",
        lambda one: one.left.add(node_id=new_id(), incarnation=1),
    ),
    "one sent before the year 1": ("sent_at", sent(-62_135_596_801)),
    "one sent after the year 9999": ("sent_at", sent(253_402_300_800)),
    "one sent a part of a second below zero": ("sent_at", sent(1, -1)),
    "one sent a whole second beside its seconds": ("sent_at", sent(1, 10**9)),
}


@pytest.mark.parametrize(("param", "spoil"), BAD_GREETINGS.values(), ids=BAD_GREETINGS.keys())
def test_a_bad_greeting_is_refused_and_the_field_named(param: str, spoil: Callable[[Request], object]) -> None:
    request = Request(card=little_card(7401))
    wire.checked_greeting(request)
    spoil(request)
    with pytest.raises(InvalidRequest) as refused:
        wire.checked_greeting(request)
    assert refused.value.param == param


@pytest.mark.parametrize("edge", [(-62_135_596_800, 0), (253_402_300_799, 999_999_999)], ids=["first", "last"])
def test_the_first_and_the_last_time_there_is_can_be_read(edge: tuple[int, int]) -> None:
    request = Request(card=little_card(7401))
    sent(*edge)(request)
    wire.checked_greeting(request)
    assert request.sent_at.ToMicroseconds() // 10**6 == edge[0]


def test_a_greeting_arrives_as_it_was_sent() -> None:
    card = wire.to_card(little_card(7401, addresses=("10.0.0.1", "fd00::1")))
    assert card.addresses == ("10.0.0.1:7401", "[fd00::1]:7401")
    greeting = Greeting(card, (Lead(new_id(), card.addresses),), ((new_id(), Life(3, "s")),))
    request = Request()
    wire.fill_greeting(request, greeting, 1_700_000_000.25)
    assert wire.checked_greeting(request) == greeting
    assert request.sent_at.ToMicroseconds() == 1_700_000_000_250_000


def test_who_was_taken_out_arrives_as_it_was_sent() -> None:
    told, out = little_card(7401), [new_id() for _ in range(DEPARTED_COUNT_MAX)]
    told.departed_node_ids.extend(out)
    assert wire.checked_card(told).departed == set(out)


def test_what_a_machine_tells_arrives_as_it_was_sent() -> None:
    told = little_card(7401)
    told.machine.ports.add(receptacle="3", is_connected=False)
    told.machine.rdma = 99  # type: ignore[assignment]
    assert wire.whole(wire.checked_card(told)).machine == told.machine
    assert not wire.whole(wire.checked_card(little_card(7401))).HasField("machine")


def test_what_a_newer_node_adds_to_its_card_is_handed_on() -> None:
    newer = little_card(7401).SerializeToString() + b"\xfa\x7f\x03new"
    card = wire.checked_card(Card.FromString(newer))
    assert b"new" in wire.whole(card).SerializeToString()


def test_more_leads_than_a_greeting_may_hold_are_left_out() -> None:
    leads = tuple(Lead(new_id(), ("10.0.0.1:7401",) * 20) for _ in range(LEAD_COUNT_MAX + 5))
    left = tuple((new_id(), Life(1, "s")) for _ in range(LEAD_COUNT_MAX + 5))
    request = Request()
    wire.fill_greeting(request, Greeting(wire.to_card(little_card(7401)), leads, left), 0.0)
    assert len(wire.checked_greeting(request).peers) == LEAD_COUNT_MAX


def test_a_roster_tells_all_that_is_known() -> None:
    ada, bob = (wire.to_card(little_card(7401, hostname=name, versions={"mlx": name})) for name in ("ada", "bob"))
    copy = wire.to_card(little_card(7402, ada.node_id, hostname="copy"))
    stranger = Stranger(new_id(), "theirs", "eve", ("10.0.0.9:7401",))
    members = (Member(ada, MemberState.ALIVE, 5.0), Member(bob, MemberState.SUSPECT, 8.0))
    view = View(ada.node_id, 2**32 + 7, True, members, (Twin(ada, copy),), (stranger,))
    notes = wire.Notes({bob.node_id: -1.5}, {bob.node_id: "refused"}, {bob.node_id: "10.0.0.2"})
    told = wire.to_roster(view, notes, lambda since_s: 1_700_000_000 + since_s)
    assert (told.node_id, told.version, told.complete) == (ada.node_id, 2**32 + 7, True)
    first, second = told.members
    assert (first.card, first.state) == (wire.whole(ada), discovery_pb2.MEMBER_STATE_ALIVE)
    assert (first.HasField("clock_ahead_s"), first.problem, first.address) == (False, "", "")
    assert (second.clock_ahead_s, second.problem, second.address) == (-1.5, "refused", "10.0.0.2")
    assert second.state_since.ToSeconds() == 1_700_000_008
    assert (told.twins[0].shown.hostname, told.twins[0].other.hostname) == ("ada", "copy")
    assert (told.strangers[0].cluster_name, list(told.strangers[0].addresses)) == ("theirs", ["10.0.0.9:7401"])
    assert [one.sentence for one in told.differences] == ["mlx is ada on ada, bob on bob"]


async def test_a_bad_card_is_refused_at_the_door_and_nobody_becomes_a_member() -> None:
    bad_id, bad_time = Request(card=little_card(7401, "ada")), Request(card=little_card(7401))
    sent(2**62)(bad_time)
    async with discovering(little_card(free_port())) as node, dial(node.target) as channel:
        stub: Any = discovery_pb2_grpc.DiscoveryServiceStub(channel)
        for bad, param in ((bad_id, "card.node_id"), (bad_time, "sent_at")):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.ExchangeCard(bad, timeout=10)
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert from_call(refused.value).param == param
        assert node.sees()


async def test_a_peer_that_answers_with_no_time_is_not_believed_and_ends_nothing() -> None:
    class Liar(DiscoveryService):
        calls = 0

        async def ExchangeCard(self, request: Request, context: Any) -> discovery_pb2.ExchangeCardResponse:
            self.calls += 1
            answer = await super().ExchangeCard(request, context)
            answer.sent_at.seconds = 2**62
            return answer

    liar, server, port = Liar(Membership(wire.to_card(little_card(7402)))), grpc.aio.server(), free_port()
    discovery_pb2_grpc.add_DiscoveryServiceServicer_to_server(liar, server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        async with discovering(little_card(free_port()), seeds=(f"127.0.0.1:{port}",)) as node:
            # The second call comes after the first answer was taken.
            await until("the second call", lambda: liar.calls >= 2)
            assert node.sees()
    finally:
        await server.stop(None)
