"""Who gets in: real servers and channels, with certificates of this cluster, of others, old ones, and none."""

import asyncio
import contextlib
import logging
import socket
import time
import uuid
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from rpc.little_cluster import YEAR_S, LittleCluster
from rpc.little_service import ASK, DEADLINE_S, SERVICE, WATCH, Behaviour, LittleService, nothing
from thunderline.cluster import NodeId
from thunderline.cluster.callers import CERTIFIED, MAY_CALL, Caller
from thunderline.cluster.errors import Unauthenticated, Unreachable
from thunderline.cluster.join_tokens import JoinToken
from thunderline.process.entry import CannotStart
from thunderline.process.handshake import pinned_authority, shown, turned_away
from thunderline.process.trust import FOLDER, NODE, Identity, Wallet, keep
from thunderline.rpc import credentials
from thunderline.rpc.channel import TLS_CHANNEL_OPTIONS, dial, dial_enrolment
from thunderline.rpc.errors import from_call
from thunderline.rpc.server import enrolling, serving
from thunderline.v1 import topology_pb2_grpc

# In one order, for names of tests.
CALLERS = [one for one in Caller if one in CERTIFIED]
OURS = [method for method in MAY_CALL if method.startswith("/thunderline.")]


@pytest.fixture
def cluster(tmp_path: Path) -> LittleCluster:
    return LittleCluster(tmp_path)


@contextlib.asynccontextmanager
async def a_node(address: str, wallet: Wallet, between: Behaviour = nothing) -> AsyncIterator[None]:
    async with serving(address, [SERVICE], LittleService(between=between).register, wallet) as server:
        await server.serving()
        yield


async def ask(channel: grpc.aio.Channel) -> str:
    answer = await topology_pb2_grpc.TopologyServiceStub(channel).GetTopology(ASK, timeout=DEADLINE_S)
    return answer.topology.node_id


async def refused(channel: grpc.aio.Channel) -> grpc.StatusCode:
    async with channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(channel)
    return caught.value.code()


def unchecked(address: str, one: Identity) -> grpc.aio.Channel:
    """As somebody who does not look at their own certificate first."""
    options = [*TLS_CHANNEL_OPTIONS, *credentials.expects(None)]
    return grpc.aio.secure_channel(address, credentials.for_channel(one), options=options)


async def test_nodes_of_one_cluster_reach_each_other(address: str, cluster: LittleCluster) -> None:
    name = str(uuid.uuid4())
    async with a_node(address, cluster.wallet(name=name)):
        async with dial(address, cluster.wallet()) as channel:
            assert await ask(channel) == "node"
        async with dial(address, cluster.wallet(Caller.SCHEDULER), NodeId(name)) as channel:
            assert await ask(channel) == "node"


async def test_a_node_that_poses_as_another_is_not_spoken_to(address: str, cluster: LittleCluster) -> None:
    async with a_node(address, cluster.wallet()):
        meant = NodeId(str(uuid.uuid4()))
        assert await refused(dial(address, cluster.wallet(), meant)) is grpc.StatusCode.UNAVAILABLE


async def test_without_a_certificate_the_handshake_fails(address: str, cluster: LittleCluster) -> None:
    async with a_node(address, cluster.wallet()):
        assert await refused(dial(address)) is grpc.StatusCode.UNAVAILABLE
        plain_tls = grpc.ssl_channel_credentials(cluster.authority.certificate_pem)
        channel = grpc.aio.secure_channel(address, plain_tls, options=credentials.expects(None))
        assert await refused(channel) is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("name", ["home", "work"], ids=["of a cluster of the same name", "of another cluster"])
async def test_a_stranger_is_refused_by_both_ends(address: str, tmp_path: Path, name: str) -> None:
    ours, theirs = LittleCluster(tmp_path), LittleCluster(tmp_path, name)
    async with a_node(address, ours.wallet()):
        one = theirs.identity()
        # They do not trust us either; who lies about that still fails at our end.
        lying = Identity(one.key_pem, one.certificate_pem, ours.authority.certificate_pem, one.facts)
        for stranger in (one, lying):
            assert await refused(unchecked(address, stranger)) is grpc.StatusCode.UNAVAILABLE


async def test_an_expired_certificate_is_refused_in_the_handshake_and_named_before(
    address: str, cluster: LittleCluster
) -> None:
    async with a_node(address, cluster.wallet()):
        old = cluster.wallet(age_s=1.5 * YEAR_S)
        with pytest.raises(Unauthenticated, match="has expired"):
            dial(address, old)
        assert await refused(unchecked(address, cluster.identity(age_s=1.5 * YEAR_S))) is grpc.StatusCode.UNAVAILABLE


async def test_nobody_serves_with_a_clients_certificate(address: str, cluster: LittleCluster) -> None:
    async with a_node(address, cluster.wallet(Caller.CLIENT, "laptop")):
        assert await refused(dial(address, cluster.wallet())) is grpc.StatusCode.UNAVAILABLE


def test_another_machine_is_not_dialled_without_a_certificate() -> None:
    with pytest.raises(Unauthenticated, match="cluster join TOKEN"):
        dial("192.0.2.1:7403")


async def test_wider_than_loopback_nobody_serves_without_a_certificate(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="wider than loopback"):
        async with serving("0.0.0.0:0", [SERVICE], LittleService().register, Wallet(tmp_path, "home")):
            pass


async def test_a_node_with_an_expired_certificate_does_not_start(address: str, cluster: LittleCluster) -> None:
    with pytest.raises(CannotStart, match="has expired"):
        async with a_node(address, cluster.wallet(age_s=1.5 * YEAR_S)):
            pass


async def test_a_unix_socket_stays_plain(tmp_path: Path, cluster: LittleCluster) -> None:
    target = f"unix:{tmp_path}/a.sock"
    wallet = cluster.wallet()
    async with a_node(target, wallet), dial(target, wallet) as channel:
        assert await ask(channel) == "node"


class Anything(grpc.GenericRpcHandler):
    """Answers every RPC of ours: what is asked is whether one gets that far."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        async def answer(request: bytes, context: Any) -> bytes:
            return b""

        is_ours = handler_call_details.method.startswith("/thunderline.")
        return grpc.unary_unary_rpc_method_handler(answer) if is_ours else None


async def outcome(channel: grpc.aio.Channel, method: str) -> grpc.StatusCode:
    call: Any = channel.unary_unary(method)
    try:
        await call(b"", timeout=DEADLINE_S)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNAUTHENTICATED:
            assert method in from_call(error).message
        return error.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize("caller", CALLERS)
async def test_every_rpc_is_open_to_whom_the_table_names(address: str, cluster: LittleCluster, caller: Caller) -> None:
    def register(server: grpc.aio.Server) -> None:
        server.add_generic_rpc_handlers((Anything(),))

    name = "laptop" if caller is Caller.CLIENT else ""
    async with (
        serving(address, [SERVICE], register, cluster.wallet()),
        dial(address, cluster.wallet(caller, name)) as channel,
    ):
        for method in OURS:
            expected = grpc.StatusCode.OK if caller in MAY_CALL[method] else grpc.StatusCode.UNAUTHENTICATED
            assert await outcome(channel, method) is expected, method
        assert await outcome(channel, "/thunderline.v1.RunnerService/Later") is grpc.StatusCode.UNAUTHENTICATED


async def test_a_client_may_ask_for_health_and_watch_it(address: str, cluster: LittleCluster) -> None:
    async with a_node(address, cluster.wallet()), dial(address, cluster.wallet(Caller.CLIENT, "laptop")) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service=SERVICE)
        assert (await stub.Check(request, timeout=DEADLINE_S)).status == health_pb2.HealthCheckResponse.SERVING
        watching = stub.Watch(request, timeout=DEADLINE_S)
        assert (await watching.read()).status == health_pb2.HealthCheckResponse.SERVING
        watching.cancel()


async def test_a_renewed_certificate_is_shown_from_the_next_handshake_on(
    address: str, cluster: LittleCluster, tmp_path: Path
) -> None:
    names = [str(uuid.uuid4()) for _ in range(2)]
    home = tmp_path / "server"
    keep(home, cluster.identity(name=names[0]))
    async with a_node(address, Wallet(home, "home")):
        for name in names:
            keep(home, cluster.identity(name=name))
            async with dial(address, cluster.wallet(), NodeId(name)) as channel:
                assert await ask(channel) == "node"


async def test_during_a_rotation_old_and_new_certificates_reach_each_other(address: str, tmp_path: Path) -> None:
    old, new = LittleCluster(tmp_path), LittleCluster(tmp_path)
    old.bundle = new.bundle = old.authority.certificate_pem + new.authority.certificate_pem
    for here, there in ((old, new), (new, old)):
        async with a_node(address, here.wallet()), dial(address, there.wallet()) as channel:
            assert await ask(channel) == "node"


def told(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "thunderline.rpc.admission"]


async def test_a_connection_that_outlives_its_certificate_makes_no_more_calls(
    address: str, cluster: LittleCluster, caplog: pytest.LogCaptureFixture
) -> None:
    later_s = 0.0
    wallet = cluster.wallet(clock=lambda: time.time() + later_s)
    caplog.set_level(logging.WARNING, "thunderline.rpc.admission")
    async with a_node(address, wallet), dial(address, cluster.wallet()) as channel:
        assert await ask(channel) == "node"
        later_s = 1.5 * YEAR_S
        for _ in range(3):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await ask(channel)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert "has expired" in from_call(caught.value).message
        # Three refusals, one line.
        assert len(told(caplog)) == 1
        later_s += 60.0
        with pytest.raises(grpc.aio.AioRpcError):
            await ask(channel)
        assert [getattr(record, "more_refusals", 0) for record in told(caplog)] == [0, 2]


ENROL = "/thunderline.v1.EnrollmentService/SignCertificate"


async def test_a_joiner_reaches_the_authority_that_its_token_names_and_only_to_enrol(
    address: str, cluster: LittleCluster
) -> None:
    def register(server: grpc.aio.Server) -> None:
        server.add_generic_rpc_handlers((Anything(),))

    token = JoinToken(address, cluster.authority.fingerprint, int(time.time()) + 60, b"s" * 16)
    async with enrolling(address, [SERVICE], register, cluster.authority):
        pem = await asyncio.to_thread(pinned_authority, token)
        assert pem == cluster.authority.certificate_pem
        async with dial_enrolment(address, pem) as channel:
            assert await outcome(channel, ENROL) is grpc.StatusCode.OK
            for method in set(OURS) - {ENROL}:
                assert await outcome(channel, method) is grpc.StatusCode.UNAUTHENTICATED, method
        wrong = JoinToken(address, "00" * 32, token.expires_s, token.secret)
        with pytest.raises(Unauthenticated, match="is not the scheduler node"):
            await asyncio.to_thread(pinned_authority, wrong)


async def test_what_a_server_shows_can_be_looked_at_without_a_certificate(address: str, cluster: LittleCluster) -> None:
    wallet = cluster.wallet()
    async with a_node(address, wallet):
        assert await asyncio.to_thread(shown, address) == wallet.checked().certificate_pem


async def test_what_a_server_says_to_a_certificate_that_it_does_not_take(
    address: str, cluster: LittleCluster, tmp_path: Path
) -> None:
    def said(one: Identity) -> Coroutine[Any, Any, str]:
        home = tmp_path / uuid.uuid4().hex
        keep(home, one)
        return asyncio.to_thread(turned_away, address, home / FOLDER / NODE, 5.0)

    async with a_node(address, cluster.wallet()):
        assert await said(cluster.identity()) == ""
        assert await said(LittleCluster(tmp_path).identity())
        assert await said(cluster.identity(age_s=1.5 * YEAR_S))


async def test_a_lasting_channel_takes_a_renewed_certificate_for_its_next_call(
    address: str, cluster: LittleCluster, tmp_path: Path
) -> None:
    old, new = LittleCluster(tmp_path), LittleCluster(tmp_path)
    both = old.authority.certificate_pem + new.authority.certificate_pem
    old.bundle = new.bundle = both
    homes = [tmp_path / name for name in ("server", "caller")]
    for home in homes:
        keep(home, old.identity())
    gate = asyncio.Event()

    async def between(_: Any) -> None:
        await gate.wait()

    async with a_node(address, Wallet(homes[0], "home"), between), dial(address, Wallet(homes[1], "home")) as channel:
        stub: Any = topology_pb2_grpc.TopologyServiceStub(channel)
        watching = stub.WatchTopology(WATCH, timeout=DEADLINE_S)
        assert (await watching.read()).topology.node_id == "node"
        # One authority after the other: the server's end knows the old one no more.
        new.bundle = new.authority.certificate_pem
        for home in homes:
            keep(home, new.identity())
        for _ in range(3):
            assert await ask(channel) == "node"
        # What was under way goes on where it was.
        gate.set()
        assert (await watching.read()).topology.node_id == "node"
        assert await watching.read() is grpc.aio.EOF


async def test_a_lasting_channel_can_be_closed_after_its_certificate_is_gone(
    address: str, cluster: LittleCluster, tmp_path: Path
) -> None:
    keep(tmp_path, cluster.identity())
    async with a_node(address, cluster.wallet()), dial(address, Wallet(tmp_path, "home")) as channel:
        assert await ask(channel) == "node"
        (tmp_path / FOLDER / NODE).unlink()
        assert await ask(channel) == "node"
        (tmp_path / FOLDER / NODE).write_bytes(b"")
        assert await ask(channel) == "node"


def test_a_port_that_speaks_no_tls_is_told() -> None:
    # Nobody answers there.
    with socket.create_server(("127.0.0.1", 0)) as listening, pytest.raises((Unreachable, Unauthenticated)):
        shown(f"127.0.0.1:{listening.getsockname()[1]}", timeout_s=0.2)
