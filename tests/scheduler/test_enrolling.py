"""Joining and renewing: the scheduler node's two doors, and the command line's own code on the other side."""

import asyncio
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from rpc.little_cluster import LittleCluster
from scheduler.little_cluster_node import Node, doors, founded, listens, token, until
from thunderline.cli import leaving
from thunderline.cli.adopting import NotAdopted
from thunderline.client.enrollment import EnrollmentClient
from thunderline.cluster.callers import Caller
from thunderline.cluster.certificates import CERTIFICATE_S, Bearer
from thunderline.cluster.errors import ClusterError, Full, InvalidRequest, Unauthenticated, Unreachable
from thunderline.cluster.join_tokens import AGAIN_S, TOKEN_S, JoinToken, Offer, digest
from thunderline.process import authority, settings
from thunderline.process.certificates import belongs, facts, new_key, request_pem
from thunderline.process.departed import departed
from thunderline.process.entry import CannotStart
from thunderline.process.handshake import pinned_authority
from thunderline.process.home import left_store, node_id
from thunderline.process.trust import Wallet, keep, keep_offer, kept_offers
from thunderline.rpc.channel import dial
from thunderline.rpc.errors import from_call
from thunderline.scheduler.__main__ import serve
from thunderline.scheduler.enrolling import Enrollment, JoiningService
from thunderline.v1 import cluster_pb2, discovery_pb2, enrollment_pb2, enrollment_pb2_grpc


@pytest.fixture
def scheduler_node(tmp_path: Path) -> Node:
    return founded(tmp_path / "scheduler")


@pytest.fixture
def member(tmp_path: Path) -> Node:
    return Node(tmp_path / "member")


async def test_a_node_joins_with_a_key_of_its_own(scheduler_node: Node, member: Node) -> None:
    async with doors(scheduler_node) as opened:
        made = token(scheduler_node)
        await until("the port listens", lambda: listens(opened.enrolment))
        joined = await member.join(made.text)
    assert (joined.cluster, joined.node, joined.scheduler) == ("home", member.id, scheduler_node.id)
    assert joined.seeds == ("127.0.0.1:7401",)
    own = member.wallet.checked()
    assert own.facts.bearer == Bearer("home", Caller.MEMBER, member.id)
    assert belongs(own.key_pem, own.certificate_pem)
    assert b"PRIVATE" not in b"".join(path.read_bytes() for path in (scheduler_node.home / "cluster/offers").iterdir())
    found = member.read()
    assert (found.cluster.name, found.cluster.scheduler) == ("home", scheduler_node.id)
    assert found.discovery.seeds == ["127.0.0.1:7401"]


async def test_the_port_listens_only_while_a_token_is_good(scheduler_node: Node, member: Node) -> None:
    async with doors(scheduler_node) as opened:
        assert not listens(opened.enrolment)
        made = token(scheduler_node)
        await until("it listens", lambda: listens(opened.enrolment))
        await member.join(made.text)
        assert listens(opened.enrolment)
        scheduler_node.ahead_s = AGAIN_S + 1.0
        await until("it is closed", lambda: not listens(opened.enrolment))
        token(scheduler_node)
        await until("it listens for the next one", lambda: listens(opened.enrolment))
        scheduler_node.ahead_s = TOKEN_S + 1.0
        await until("its token has expired", lambda: not listens(opened.enrolment))
        with pytest.raises(Unreachable, match="younger than an hour"):
            await member.join(made.text)


async def test_a_token_lets_in_one_node(scheduler_node: Node, tmp_path: Path) -> None:
    others = [Node(tmp_path / f"other-{number}") for number in range(6)]
    async with doors(scheduler_node) as opened:
        made = token(scheduler_node)
        await until("it listens", lambda: listens(opened.enrolment))
        ends = await asyncio.gather(*(one.join(made.text) for one in others), return_exceptions=True)
        refused = [end for end in ends if isinstance(end, Unauthenticated)]
        assert len(refused) == len(others) - 1
        assert {error.message for error in refused} == {
            "this join token has been used: run `thunderline cluster init` on the scheduler node for another"
        }
    assert sum(one.wallet.identity() is not None for one in others) == 1
    assert [one.used_by != "" for one in kept_offers(scheduler_node.home)] == [True]


async def test_a_token_is_used_on_disk_also_when_the_answer_is_lost(scheduler_node: Node, member: Node) -> None:
    async with doors(scheduler_node) as opened:
        made = token(scheduler_node)
        await until("it listens", lambda: listens(opened.enrolment))
        await member.join(made.text)
    # A new process reads it.
    async with doors(scheduler_node) as opened:
        await until("it listens for the lost answer", lambda: listens(opened.enrolment))
        with pytest.raises(Unauthenticated, match="has been used"):
            await Node(member.home.parent / "late").join(made.text)


async def ask(made: JoinToken, key: bytes, name: str) -> enrollment_pb2.SignCertificateResponse:
    """As a joiner does, with any key and any name."""
    pinned = await asyncio.to_thread(pinned_authority, made)
    async with EnrollmentClient.joining(made.address, pinned) as enrollment:
        return await enrollment.sign(made.text, request_pem(key, name))


async def test_one_key_gets_one_name_from_a_token(scheduler_node: Node) -> None:
    key, first, second = new_key(), str(uuid.uuid4()), str(uuid.uuid4())
    async with doors(scheduler_node) as opened:
        made = token(scheduler_node)
        await until("it listens", lambda: listens(opened.enrolment))
        await ask(made, key, first)
        with pytest.raises(Unauthenticated, match="has been used"):
            await ask(made, key, second)
        # The answer was lost.
        await ask(made, key, first)


WRONG = {
    "one that expired": (-1, True, Unauthenticated, "has expired"),
    "one that was never made": (60, False, Unauthenticated, "is not known here"),
}


@pytest.mark.parametrize(("left_s", "is_kept", "error", "said"), WRONG.values(), ids=WRONG.keys())
async def test_other_tokens_are_refused(
    scheduler_node: Node, member: Node, left_s: int, is_kept: bool, error: type[ClusterError], said: str
) -> None:
    async with doors(scheduler_node) as opened:
        good = token(scheduler_node)
        secret, ends_s = b"w" * 16, int(time.time()) + left_s
        if is_kept:
            keep_offer(scheduler_node.home, Offer(digest(secret), ends_s))
        await until("it listens", lambda: listens(opened.enrolment))
        with pytest.raises(error, match=said):
            await member.join(JoinToken(good.address, good.authority, ends_s, secret).text)
        # Nothing is left of the attempt, and the good one still works.
        assert member.wallet.identity() is None
        await member.join(good.text)


async def test_nothing_is_sent_to_a_node_with_another_authority(scheduler_node: Node, member: Node) -> None:
    async with doors(scheduler_node) as opened:
        good = token(scheduler_node)
        await until("it listens", lambda: listens(opened.enrolment))
        with pytest.raises(Unauthenticated, match="is not the scheduler node that made this token"):
            await member.join(JoinToken(good.address, "ab" * 32, good.expires_s, good.secret).text)
        assert [one.used_by for one in kept_offers(scheduler_node.home)] == [""]


async def test_a_copied_disk_does_not_become_the_scheduler_node(scheduler_node: Node, member: Node) -> None:
    member.home.mkdir()
    (member.home / "node.json").write_bytes((scheduler_node.home / "node.json").read_bytes())
    async with doors(scheduler_node) as opened:
        made = token(scheduler_node)
        await until("it listens", lambda: listens(opened.enrolment))
        with pytest.raises(InvalidRequest, match="its disk was copied"):
            await member.join(made.text)


async def test_a_member_of_another_cluster_is_asked_first(scheduler_node: Node, member: Node, tmp_path: Path) -> None:
    other = founded(tmp_path / "other scheduler", "work")
    async with doors(scheduler_node) as opened, doors(other) as others:
        made, elsewhere = token(scheduler_node), token(other)
        await until("both listen", lambda: listens(opened.enrolment) and listens(others.enrolment))
        await member.join(made.text)
        before = member.wallet.checked()
        with pytest.raises(NotAdopted, match="--yes"):
            await member.join(elsewhere.text)
        shown = "\n".join(member.said)
        assert "'home'" in shown and made.authority[:16] in shown and elsewhere.authority[:16] in shown
        assert member.wallet.checked() == before
        await member.join(elsewhere.text, yes=True)
        assert member.wallet.checked().facts.bearer == Bearer("work", Caller.MEMBER, member.id)
        assert member.read().cluster.name == "work"


async def test_a_scheduler_node_that_joins_another_cluster_keeps_its_former_authority_apart(
    scheduler_node: Node, tmp_path: Path
) -> None:
    other = founded(tmp_path / "other", "work")
    former = (scheduler_node.home / "cluster/authority.pem").read_bytes()
    async with doors(other) as others:
        made = token(other)
        with pytest.raises(InvalidRequest, match="join with the other nodes"):
            await other.join(made.text)
        await until("it listens", lambda: listens(others.enrolment))
        await scheduler_node.join(made.text, yes=True)
    assert authority.kept(scheduler_node.home) is None
    assert [path.read_bytes() for path in (scheduler_node.home / "cluster/former").iterdir()] == [former]
    assert scheduler_node.wallet.checked().facts.bearer.caller is Caller.MEMBER


async def test_what_ends_with_the_former_store_is_told_and_asked(scheduler_node: Node, member: Node) -> None:
    member.home.mkdir()
    (member.home / "runner.json").write_text('{"store_id": "s-1", "instances": {"i1": {}, "i2": {}}}')
    async with doors(scheduler_node) as opened:
        made = token(scheduler_node)
        await until("it listens", lambda: listens(opened.enrolment))
        with pytest.raises(NotAdopted):
            await member.join(made.text)
        assert "deployments of its scheduler's store, s-1: 2" in "\n".join(member.said)
        assert "they end when `thunderline up` starts here again" in "\n".join(member.said)
        assert not (member.home / "cluster").exists()
        await member.join(made.text, yes=True)
    assert (member.home / "cluster" / "node.pem").exists()
    assert left_store(member.home) == "s-1"


@dataclass
class From:
    """A call's context: whose address it comes from."""

    address: str

    def peer(self) -> str:
        return f"ipv4:{self.address}:50000"


def asked(made: JoinToken, name: str, request: bytes = b"") -> enrollment_pb2.SignCertificateRequest:
    pem = request or request_pem(new_key(), name)
    return enrollment_pb2.SignCertificateRequest(token=made.text, certificate_request_pem=pem)


def joining_service(node: Node, opened: Callable[[], discovery_pb2.Roster]) -> JoiningService:
    return JoiningService(Enrollment(node.home, node.id, node.wallet, opened))


NOBODY = discovery_pb2.Roster()
ALIVE, DEAD = discovery_pb2.MEMBER_STATE_ALIVE, discovery_pb2.MEMBER_STATE_DEAD
CALLERS = {
    "from elsewhere": (ALIVE, "10.0.0.9", False),
    "from one of its addresses": (ALIVE, "10.0.0.5", True),
    "from this machine": (ALIVE, "127.0.0.1", True),
    "from elsewhere, while it is dead": (DEAD, "10.0.0.9", True),
}


@pytest.mark.parametrize(("state", "address", "is_let_in"), CALLERS.values(), ids=CALLERS.keys())
async def test_the_id_of_a_living_member(scheduler_node: Node, state: Any, address: str, is_let_in: bool) -> None:
    name = str(uuid.uuid4())
    card = cluster_pb2.NodeCard(node_id=name, hostname="mac-two", addresses=["10.0.0.5", "fd00::5"])
    roster = discovery_pb2.Roster(members=[discovery_pb2.Member(card=card, state=state)])
    service, made = joining_service(scheduler_node, lambda: roster), token(scheduler_node)
    if is_let_in:
        await service.SignCertificate(asked(made, name), From(address))
        return
    with pytest.raises(InvalidRequest, match=rf"node {name} \(mac-two\) is alive: a copied disk\?"):
        await service.SignCertificate(asked(made, name), From(address))
    # The token still counts.
    await service.SignCertificate(asked(made, str(uuid.uuid4())), From(address))


async def test_a_token_is_looked_at_before_the_request(scheduler_node: Node) -> None:
    service, made = joining_service(scheduler_node, lambda: NOBODY), token(scheduler_node)
    wrong = JoinToken(made.address, made.authority, made.expires_s, b"w" * 16)
    with pytest.raises(Unauthenticated, match="is not known here"):
        await service.SignCertificate(asked(wrong, "", b"no request"), From("10.0.0.9"))
    with pytest.raises(InvalidRequest, match="is no node's"):
        await service.SignCertificate(asked(made, "", b"no request"), From("10.0.0.9"))


async def test_eight_join_at_a_time(scheduler_node: Node) -> None:
    service, made = joining_service(scheduler_node, lambda: NOBODY), token(scheduler_node)
    calls = [service.SignCertificate(asked(made, str(uuid.uuid4())), From("10.0.0.9")) for _ in range(12)]
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(end) for end in ends[8:]] == [Full] * 4
    assert sum(isinstance(end, Unauthenticated) for end in ends) == 7
    # They are gone.
    with pytest.raises(Unauthenticated):
        await service.SignCertificate(asked(made, str(uuid.uuid4())), From("10.0.0.9"))


async def test_refusals_are_logged_once_a_minute(scheduler_node: Node, caplog: pytest.LogCaptureFixture) -> None:
    service, made = joining_service(scheduler_node, lambda: NOBODY), token(scheduler_node)
    wrong = JoinToken(made.address, made.authority, made.expires_s, b"w" * 16)

    async def knocks(count: int) -> None:
        for _ in range(count):
            with pytest.raises(Unauthenticated):
                await service.SignCertificate(asked(wrong, str(uuid.uuid4())), From("10.0.0.9"))

    await knocks(5)
    scheduler_node.ahead_s = 61.0
    await knocks(1)
    told = [record for record in caplog.records if "did not let a node in" in record.getMessage()]
    assert [getattr(record, "more_refusals", 0) for record in told] == [0, 4]


async def test_a_long_message_does_not_reach_the_enrolment_port(scheduler_node: Node) -> None:
    async with doors(scheduler_node) as opened:
        made = token(scheduler_node)
        await until("it listens", lambda: listens(opened.enrolment))
        pinned = await asyncio.to_thread(pinned_authority, made)
        async with EnrollmentClient.joining(made.address, pinned) as enrollment:
            with pytest.raises(InvalidRequest, match="is no node's"):
                await enrollment.sign(made.text, b"x" * 60 * 1024)
            with pytest.raises(ClusterError, match="larger than max"):
                await enrollment.sign(made.text, b"x" * 65 * 1024)


# Renewals, at the scheduler's port.


async def renew(channel: grpc.aio.Channel, name: str) -> enrollment_pb2.SignCertificateResponse:
    request = enrollment_pb2.SignCertificateRequest(certificate_request_pem=request_pem(new_key(), name))
    async with channel:
        try:
            return await enrollment_pb2_grpc.EnrollmentServiceStub(channel).SignCertificate(request, timeout=10)
        except grpc.aio.AioRpcError as error:
            raise from_call(error) from None


async def joined(scheduler_node: Node, member: Node, enrolment: str) -> None:
    made = token(scheduler_node)
    await until("it listens", lambda: listens(enrolment))
    await member.join(made.text)


async def test_a_member_renews_its_own_certificate_and_nobody_elses(scheduler_node: Node, member: Node) -> None:
    async with doors(scheduler_node) as opened:
        await joined(scheduler_node, member, opened.enrolment)
        answer = await renew(dial(opened.target, member.wallet), member.id)
        assert answer.certificate_pem != member.wallet.checked().certificate_pem
        for name in (scheduler_node.id, str(uuid.uuid4())):
            with pytest.raises(Unauthenticated, match="not that of node"):
                await renew(dial(opened.target, member.wallet), name)
        with pytest.raises(InvalidRequest):
            await renew(dial(opened.target, member.wallet), "laptop")


async def test_the_scheduler_nodes_own_stays_the_scheduler_nodes(scheduler_node: Node) -> None:
    async with doors(scheduler_node) as opened:
        answer = await renew(dial(opened.target, opened.wallet), scheduler_node.id)
        found = facts(answer.certificate_pem, answer.authority_pem)
        assert found.bearer == Bearer("home", Caller.SCHEDULER, scheduler_node.id)
        assert answer.scheduler_node_id == scheduler_node.id


async def test_who_was_taken_out_renews_nothing_until_a_token_lets_it_in(scheduler_node: Node, member: Node) -> None:
    async with doors(scheduler_node) as opened:
        await joined(scheduler_node, member, opened.enrolment)
        leaving.take_out(scheduler_node.read(), member.id)
        with pytest.raises(Unauthenticated, match="has left the cluster"):
            await renew(dial(opened.target, member.wallet), member.id)
        await joined(scheduler_node, member, opened.enrolment)
        assert departed(scheduler_node.home) == frozenset()
        await renew(dial(opened.target, member.wallet), member.id)


async def test_who_has_left_by_its_own_word_renews_nothing(scheduler_node: Node, member: Node) -> None:
    async with doors(scheduler_node) as opened:
        await joined(scheduler_node, member, opened.enrolment)
        opened.members, opened.left = [member], {member.id}
        with pytest.raises(Unauthenticated, match="has left the cluster"):
            await renew(dial(opened.target, member.wallet), member.id)
        opened.left = set()
        await renew(dial(opened.target, member.wallet), member.id)


async def test_a_broken_list_of_who_left_renews_nobody(scheduler_node: Node, member: Node) -> None:
    async with doors(scheduler_node) as opened:
        await joined(scheduler_node, member, opened.enrolment)
        for text in ("", "{}", "[1]"):
            (scheduler_node.home / "cluster/left.json").write_text(text)
            with pytest.raises(Unauthenticated, match=r"left\.json"):
                await renew(dial(opened.target, member.wallet), member.id)


async def test_who_has_no_certificate_renews_nothing(scheduler_node: Node, tmp_path: Path) -> None:
    ours = authority.kept(scheduler_node.home)
    assert ours is not None
    client = Node(tmp_path / "client")
    stranger = LittleCluster(tmp_path).wallet()
    async with doors(scheduler_node) as opened:
        with pytest.raises(Unreachable):
            await renew(dial(opened.target), str(uuid.uuid4()))
        with pytest.raises(Unreachable):
            await renew(dial(opened.target, stranger), str(uuid.uuid4()))
        keep(client.home, authority.for_client(ours, "home", "laptop", time.time()))
        wallet = Wallet(client.home, "home")
        with pytest.raises(Unauthenticated, match="may not call"):
            await renew(dial(opened.target, wallet), str(uuid.uuid4()))


async def test_an_expired_member_has_to_join_again(scheduler_node: Node, member: Node) -> None:
    async with doors(scheduler_node) as opened:
        await joined(scheduler_node, member, opened.enrolment)
        member.ahead_s = CERTIFICATE_S + 1.0
        with pytest.raises(Unauthenticated, match="has expired"):
            dial(opened.target, member.wallet)
        member.ahead_s = 0.0
        await joined(scheduler_node, member, opened.enrolment)
        assert not member.said


REFUSED_AT_A_START = {
    "a plain member's": (Caller.MEMBER, "take [cluster] scheduler out of config.toml"),
    "a broken one": (None, "is broken"),
}


@pytest.mark.parametrize(("caller", "said"), REFUSED_AT_A_START.values(), ids=REFUSED_AT_A_START.keys())
async def test_a_scheduler_starts_on_no_such_certificate(tmp_path: Path, caller: Caller | None, said: str) -> None:
    keep(tmp_path, LittleCluster(tmp_path, "thunderline").identity(caller or Caller.MEMBER, node_id(tmp_path)))
    if caller is None:
        (tmp_path / "cluster/node.pem").write_bytes(b"x")
    with pytest.raises(CannotStart, match=re.escape(said)):
        await serve(settings.read({}, home=tmp_path))
