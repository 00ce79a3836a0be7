"""`thunderline cluster init | client | key | rotate`, as they are typed: what they write, print and refuse."""

import json
import stat
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from typer.testing import CliRunner

from rpc.little_cluster import YEAR_S, LittleCluster
from rpc.little_service import ASK, SERVICE, LittleService
from scheduler.little_scheduler import free_address
from thunderline.cli import joining, leaving
from thunderline.cli.app import app
from thunderline.cluster import NodeId
from thunderline.cluster.api_keys import digest, refusal
from thunderline.cluster.callers import Caller
from thunderline.cluster.certificates import Bearer
from thunderline.cluster.errors import InvalidRequest, Unauthenticated
from thunderline.cluster.join_tokens import JoinToken, read
from thunderline.cluster.media import Medium
from thunderline.cluster.reachable import Face, addresses
from thunderline.process import authority, settings
from thunderline.process.certificates import Authority, new_authority, new_key, public_key, sign
from thunderline.process.home import node_id, remember_ports
from thunderline.process.interfaces import interfaces
from thunderline.process.trust import Wallet, keep, keep_joined, kept_offers, parsed
from thunderline.rpc.server import serving
from thunderline.v1 import cluster_pb2, discovery_pb2, enrollment_pb2, topology_pb2_grpc

NOBODY = "127.0.0.1"


def typed(home: Path, *words: str) -> Any:
    return CliRunner().invoke(app, ["cluster", *words, "--home", str(home)])


def done(home: Path, *words: str) -> str:
    found = typed(home, *words)
    assert found.exit_code == 0, found.output
    return str(found.stdout)


def refused(home: Path, *words: str) -> str:
    """What it says in its one line."""
    found = typed(home, *words)
    assert found.exit_code == 1, found.output
    assert len(found.stderr.strip().splitlines()) == 1
    return str(found.stderr)


def test_init_founds_a_cluster_on_an_empty_home(tmp_path: Path) -> None:
    home = tmp_path / "home"
    told = json.loads(done(home, "init", "--name", "study", "--address", "mac-one.local", "--json"))
    assert (told["cluster"], told["scheduler_node_id"], told["founded"]) == ("study", node_id(home), True)
    token = read(told["token"])
    assert token.address == told["address"] == "mac-one.local:7405"
    found = settings.read({}, home=home)
    assert (found.cluster.name, found.cluster.scheduler, found.node.bind) == ("study", node_id(home), "0.0.0.0")
    own = Wallet(home, "study").checked()
    assert own.facts.bearer.caller is Caller.SCHEDULER
    assert token.authority == own.facts.authority
    assert len(kept_offers(home)) == 1
    files = [path for path in (home / "cluster").rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_init_once_more_makes_another_token_and_changes_nothing_else(tmp_path: Path) -> None:
    def kept() -> dict[str, bytes]:
        names = ("cluster/node.pem", "cluster/authority.pem", "cluster/joined.toml", "node.json")
        return {name: (tmp_path / name).read_bytes() for name in names}

    first = done(tmp_path, "init", "--address", NOBODY)
    before = kept()
    second = done(tmp_path, "init", "--address", NOBODY)
    assert kept() == before
    assert "is founded" in first and "is founded" not in second
    tokens = {line for text in (first, second) for line in text.splitlines() if line.startswith("thunderline cluster")}
    assert len(tokens) == 2
    assert len(kept_offers(tmp_path)) == 2
    assert "stays" in refused(tmp_path, "init", "--name", "other")


def test_init_mends_a_certificate_that_is_no_good(tmp_path: Path) -> None:
    done(tmp_path, "init", "--address", NOBODY)
    before = Wallet(tmp_path, "thunderline").checked()
    (tmp_path / "cluster/node.pem").write_bytes(b"")
    done(tmp_path, "init", "--address", NOBODY)
    after = Wallet(tmp_path, "thunderline").checked()
    assert after.facts.bearer == before.facts.bearer
    assert after.facts.authority == before.facts.authority


def test_init_mends_a_certificate_of_another_node(tmp_path: Path) -> None:
    done(tmp_path, "init", "--address", NOBODY)
    (tmp_path / "node.json").unlink()
    done(tmp_path, "init", "--address", NOBODY)
    assert Wallet(tmp_path, "thunderline").checked().facts.bearer.name == node_id(tmp_path)
    assert settings.read({}, home=tmp_path).cluster.scheduler == node_id(tmp_path)


def test_init_on_a_member_says_where_to_run_it(tmp_path: Path) -> None:
    keep(tmp_path, LittleCluster(tmp_path, "thunderline").identity(name=node_id(tmp_path)))
    assert "run this there for a token" in refused(tmp_path, "init")


def test_what_config_says_of_another_cluster_is_not_overruled(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[cluster]\nname = "work"\n')
    assert "wins" in refused(tmp_path, "init", "--name", "home")
    assert not (tmp_path / "cluster/joined.toml").exists()
    assert authority.kept(tmp_path) is None
    done(tmp_path, "init", "--name", "work", "--address", NOBODY)


@pytest.mark.parametrize("address", ["a host", "", "10.0.0.1:7405", "http://x", "a,b"])
def test_an_address_is_a_host(tmp_path: Path, address: str) -> None:
    assert "is no host" in refused(tmp_path, "init", "--address", address)
    assert authority.kept(tmp_path) is None


@pytest.mark.parametrize(("given", "written"), [("fd00::1", "[fd00::1]:7405"), ("[fd00::1]", "[fd00::1]:7405")])
def test_an_ipv6_address_is_written_as_in_a_url(tmp_path: Path, given: str, written: str) -> None:
    assert json.loads(done(tmp_path, "init", "--address", given, "--json"))["address"] == written


def test_the_token_names_the_best_address_of_this_machine(tmp_path: Path) -> None:
    faces = [Face(one.medium, one.addresses, one.is_up) for one in interfaces()]
    best = addresses("0.0.0.0", faces)
    if not best:
        assert "--address HOST" in refused(tmp_path, "init")
        return
    told = json.loads(done(tmp_path, "init", "--json"))
    assert told["address"] == f"{best[0]}:7405"
    assert told["other_addresses"] == list(best[1:])


def test_a_token_and_a_clients_file_name_the_ports_of_the_up_that_runs(tmp_path: Path) -> None:
    """`up --base-port` is in no settings."""
    remember_ports(tmp_path, {"scheduler": 17402, "enrollment": 17404})
    assert json.loads(done(tmp_path, "init", "--address", NOBODY, "--json"))["address"] == f"{NOBODY}:17404"
    told = json.loads(done(tmp_path, "client", "laptop", "--out", str(tmp_path / "laptop.pem"), "--json"))
    assert told["target"].endswith(":17402")


def face(medium: Medium, *found: str, is_up: bool = True) -> Face:
    return Face(medium, found, is_up)


WIFI, CABLE = face(Medium.WIFI, "192.168.1.5"), face(Medium.THUNDERBOLT, "169.254.7.1", "192.168.4.1")
REACHED = {
    "the best medium, a private address first": (
        "0.0.0.0",
        [WIFI, CABLE],
        ("192.168.4.1", "169.254.7.1", "192.168.1.5"),
    ),
    "a VPN comes last": ("0.0.0.0", [face(Medium.VPN, "100.64.0.2"), WIFI], ("192.168.1.5", "100.64.0.2")),
    "by number, not by text": (
        "0.0.0.0",
        [face(Medium.ETHERNET, "10.0.0.10", "10.0.0.9")],
        ("10.0.0.9", "10.0.0.10"),
    ),
    "not loopback, not what is down": (
        "0.0.0.0",
        [face(Medium.LOOPBACK, "127.0.0.1"), face(Medium.ETHERNET, "10.0.0.1", is_up=False)],
        (),
    ),
    "IPv6 only where it is listened on": ("0.0.0.0", [face(Medium.ETHERNET, "fd00::1")], ()),
    "IPv6 too": ("::", [face(Medium.ETHERNET, "fd00::1", "fe80::1", "10.0.0.1")], ("10.0.0.1", "fd00::1")),
    "one address alone": ("192.168.4.1", [WIFI, CABLE], ("192.168.4.1",)),
    "loopback": ("127.0.0.1", [WIFI], ("127.0.0.1",)),
    "a name": ("mac-one.local", [WIFI], ()),
}


@pytest.mark.parametrize(("bind", "faces", "expected"), REACHED.values(), ids=REACHED.keys())
def test_where_others_reach_a_node(bind: str, faces: list[Face], expected: tuple[str, ...]) -> None:
    assert addresses(bind, faces) == expected
    assert addresses(bind, faces[::-1]) == expected


def test_a_key_is_shown_once_and_its_digest_is_a_setting(tmp_path: Path) -> None:
    told = json.loads(done(tmp_path, "key", "laptop", "--json"))
    assert told["digest"] == digest(told["key"])
    assert refusal(f"Bearer {told['key']}", [told["digest"]]) == ""
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and told["key"] in path.read_text()]
    text = done(tmp_path, "key", "laptop")
    section = text[text.index("[gateway]") :]
    (tmp_path / "config.toml").write_text(section)
    (kept,) = settings.read({}, home=tmp_path).gateway.api_keys
    assert any(digest(line) == kept for line in text.splitlines())


@pytest.mark.parametrize("name", ["", "a b", "../x", "x" * 64, 'a"'])
def test_a_name_is_one_word(tmp_path: Path, name: str) -> None:
    assert "is no name" in refused(tmp_path, "key", name)
    assert "is no name" in refused(tmp_path, "client", name)


async def test_a_clients_file_is_all_that_python_needs(tmp_path: Path) -> None:
    address = free_address()
    done(tmp_path, "init", "--address", NOBODY)
    path = tmp_path / "laptop.pem"
    text = done(tmp_path, "client", "laptop", "--out", str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert parsed(path.read_bytes()).facts.bearer.name == "laptop"
    assert "exists already" in refused(tmp_path, "client", "laptop", "--out", str(path))
    wallet = Wallet(tmp_path, "thunderline")
    async with serving(address, [SERVICE], LittleService().register, wallet), _as_printed(text, address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await topology_pb2_grpc.TopologyServiceStub(channel).GetTopology(ASK, timeout=10)
    # Its certificate is taken, and the table says what a client may call.
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "client laptop may not call" in (caught.value.details() or "")


async def test_a_client_made_as_printed_takes_no_other_node_for_the_scheduler(tmp_path: Path) -> None:
    address, home, path = free_address(), tmp_path / "home", tmp_path / "laptop.pem"
    done(home, "init", "--address", NOBODY)
    ours = authority.kept(home)
    assert ours is not None
    member = LittleCluster(tmp_path, "thunderline", ours.signing).wallet()
    text = done(home, "client", "laptop", "--out", str(path))
    async with serving(address, [SERVICE], LittleService().register, member), _as_printed(text, address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await topology_pb2_grpc.TopologyServiceStub(channel).GetTopology(ASK, timeout=10)
    # Its name is not the one that was asked for.
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    server = f"{node_id(home)}.node.thunderline"
    assert text.count(server) == 2
    told = json.loads(done(home, "client", "tablet", "--out", str(tmp_path / "tablet.pem"), "--json"))
    assert told["server_name"] == server


def _as_printed(text: str, address: str) -> grpc.aio.Channel:
    """The channel of the recipe, to the address of a test's server."""
    lines = text[text.index("import pathlib") :].replace("grpc.secure_channel", "grpc.aio.secure_channel").splitlines()
    made: dict[str, Any] = {}
    exec("\n".join(line if "secure_channel" not in line else _at(line, address) for line in lines), made)
    channel: grpc.aio.Channel = made["channel"]
    return channel


def _at(line: str, address: str) -> str:
    before, _, rest = line.partition('"')
    return f'{before}"{address}"{rest.partition(chr(34))[2]}'


def test_only_the_scheduler_node_makes_certificates(tmp_path: Path) -> None:
    assert "keeps no authority" in refused(tmp_path, "client", "laptop", "--out", str(tmp_path / "laptop.pem"))
    assert not (tmp_path / "laptop.pem").exists()
    assert "keeps no authority" in refused(tmp_path, "rotate")


def test_a_rotation_begins_once_and_in_haste_ends_at_once(tmp_path: Path) -> None:
    # Nobody is asked for whom it waits.
    (tmp_path / "config.toml").write_text("[discovery]\nport = 9\n")
    done(tmp_path, "init", "--address", NOBODY)
    first = Wallet(tmp_path, "thunderline").checked().facts.authority
    begun = json.loads(done(tmp_path, "rotate", "--json"))
    assert (begun["began"], begun["signing"], begun["trusted"][0], len(begun["trusted"])) == (True, first, first, 2)
    again = json.loads(done(tmp_path, "rotate", "--json"))
    assert again == {**begun, "began": False}
    assert "1 of 2" in done(tmp_path, "rotate")
    hastened = json.loads(done(tmp_path, "rotate", "--now", "--json"))
    # The one that was to follow lay in the same file: its key may be lost too.
    assert hastened["trusted"] == [hastened["signing"]]
    assert hastened["signing"] not in begun["trusted"]
    assert Wallet(tmp_path, "thunderline").checked().facts.authority == hastened["signing"]
    # Where none is under way it begins and ends one.
    assert json.loads(done(tmp_path, "rotate", "--now", "--json"))["trusted"] not in ([first], hastened["trusted"])
    assert "restart `up` on this node: connections that stand go on until then" in done(tmp_path, "rotate", "--now")


def test_a_change_of_who_signs_forgets_the_open_tokens(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[discovery]\nport = 9\n")
    done(tmp_path, "init", "--address", NOBODY)
    done(tmp_path, "rotate")
    # It still signs, whom the token names.
    assert len(kept_offers(tmp_path)) == 1
    done(tmp_path, "rotate", "--now")
    assert not kept_offers(tmp_path)


def roster(**names: str) -> discovery_pb2.Roster:
    cards = [cluster_pb2.NodeCard(node_id=node, hostname=host) for node, host in names.items()]
    return discovery_pb2.Roster(members=[discovery_pb2.Member(card=card) for card in cards])


def test_a_member_is_named_by_id_host_or_beginning() -> None:
    members = roster(aa1="mac-one", ab2="mac-two", ab3="mac-two")
    assert leaving.named(members, "aa1") == leaving.named(members, "mac-one") == leaving.named(members, "aa") == "aa1"
    for word, said in (("mac-two", "several"), ("ab", "several"), ("x", "no member"), ("", "no member")):
        with pytest.raises(InvalidRequest, match=said):
            leaving.named(members, word)


def test_the_scheduler_node_does_not_leave_nor_one_that_is_alone(tmp_path: Path) -> None:
    assert "on its own" in refused(tmp_path, "leave", "--yes")
    done(tmp_path, "init", "--address", NOBODY)
    assert "cannot leave" in refused(tmp_path, "leave", "--yes")


@pytest.mark.parametrize("yes", [True, False], ids=["as asked", "not unasked"])
def test_a_node_whose_certificate_has_expired_leaves_without_telling(tmp_path: Path, yes: bool) -> None:
    node = node_id(tmp_path)
    little = LittleCluster(tmp_path, "thunderline")
    keep(tmp_path, little.identity(name=node, age_s=1.5 * YEAR_S))
    keep_joined(tmp_path, "thunderline", NodeId(ANOTHER))
    before = Wallet(tmp_path, "thunderline").identity()
    if not yes:
        assert "--yes" in refused(tmp_path, "leave")
        assert Wallet(tmp_path, "thunderline").identity() == before
        return
    assert "has left cluster" in done(tmp_path, "leave", "--yes")
    assert Wallet(tmp_path, "thunderline").identity() is None
    assert not settings.read({}, home=tmp_path).cluster.scheduler


def test_what_keeps_a_node_out_all_the_same_is_said(tmp_path: Path) -> None:
    joined = joining.Joined("home", NodeId("m"), NodeId("s"), ())
    (tmp_path / "config.toml").write_text('[cluster]\nname = "work"\n\n[node]\nbind = "127.0.0.1"\n')
    said = joining.warnings(joined, settings.read({}, home=tmp_path))
    assert len(said) == 3
    assert "'work'" in said[0] and "[node] bind" in said[2]


SEEDS = {
    "those of the address that answered first": (
        ["10.0.0.9:7401", "10.0.0.1:7401"],
        ["10.0.0.1:7401", "10.0.0.9:7401"],
    ),
    "that address, when the node knows it under none": (["10.0.0.9:8401"], ["10.0.0.1:8401", "10.0.0.9:8401"]),
    "none told": ([], ["10.0.0.1"]),
    "what is no address is left out": (["", "x" * 400 + ":1", "nonsense", "10.0.0.1:7401"], ["10.0.0.1:7401"]),
}


@pytest.mark.parametrize(("told", "expected"), SEEDS.values(), ids=SEEDS.keys())
def test_where_a_new_node_looks_first(told: list[str], expected: list[str]) -> None:
    token = JoinToken("10.0.0.1:7405", "ab" * 32, 0, b"s" * 16)
    assert list(joining._seeds(token, told)) == expected


OWN, ANOTHER = NodeId("6b7b0f4e-2c0e-4f2e-9f4f-5a1f1f0a9c11"), "11111111-1111-1111-1111-111111111111"
KEY, OTHER_KEY = new_key(), new_key()
HOME, AWAY = new_authority(time.time()), new_authority(time.time())
SIGNED = {
    "of this node": (Bearer("home", Caller.MEMBER, OWN), KEY, HOME, HOME, True),
    "of another node": (Bearer("home", Caller.MEMBER, ANOTHER), KEY, HOME, HOME, False),
    "of a scheduler node": (Bearer("home", Caller.SCHEDULER, OWN), KEY, HOME, HOME, False),
    "of another cluster": (Bearer("work", Caller.MEMBER, OWN), KEY, HOME, HOME, False),
    "of another key": (Bearer("home", Caller.MEMBER, OWN), OTHER_KEY, HOME, HOME, False),
    "by an authority that it does not show": (Bearer("home", Caller.MEMBER, OWN), KEY, AWAY, HOME, False),
    "by an authority that the token does not name": (Bearer("home", Caller.MEMBER, OWN), KEY, AWAY, AWAY, False),
}


@pytest.mark.parametrize(("to", "key", "signer", "shown", "is_fine"), SIGNED.values(), ids=SIGNED.keys())
def test_only_what_was_asked_for_is_kept(
    to: Bearer, key: bytes, signer: Authority, shown: Authority, is_fine: bool
) -> None:
    answer = enrollment_pb2.SignCertificateResponse(
        certificate_pem=sign(signer, public_key(key), to, time.time()),
        authority_pem=shown.certificate_pem,
        cluster_name="home",
        scheduler_node_id=ANOTHER,
    )
    token = JoinToken("10.0.0.1:7405", HOME.fingerprint, 0, b"s" * 16)
    if is_fine:
        assert joining._checked(KEY, answer, token, OWN).facts.bearer == to
    else:
        with pytest.raises(Unauthenticated):
            joining._checked(KEY, answer, token, OWN)
