"""What a node keeps of its cluster: private files, old or new as a whole, read again when they change."""

import os
import stat
import time
from pathlib import Path

import pytest

from thunderline.cluster import NodeId
from thunderline.cluster.callers import Caller
from thunderline.cluster.certificates import CERTIFICATE_S, Bearer
from thunderline.cluster.errors import Unauthenticated
from thunderline.cluster.join_tokens import Offer, digest
from thunderline.process import settings
from thunderline.process.authority import AUTHORITY, found
from thunderline.process.certificates import new_authority, new_key, public_key, sign
from thunderline.process.home import node_id
from thunderline.process.trust import (
    FOLDER,
    NODE,
    OFFERS,
    Wallet,
    forget_offers,
    identity,
    keep,
    keep_joined,
    keep_offer,
    kept_offers,
    trusted,
)

NOW_S = float(int(time.time()))


def test_everything_is_private(tmp_path: Path) -> None:
    # Made by hand, say, for a joined.toml.
    (tmp_path / FOLDER).mkdir(mode=0o755)
    found(tmp_path, "home", NOW_S)
    keep_offer(tmp_path, Offer(digest(b"x"), 5))
    assert stat.S_IMODE((tmp_path / FOLDER).stat().st_mode) == 0o700
    files = [path for path in (tmp_path / FOLDER).rglob("*") if path.is_file()]
    assert {path.name for path in files} == {NODE, AUTHORITY, f"{digest(b'x')}.json"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_no_key_is_in_what_is_printed(tmp_path: Path) -> None:
    assert "PRIVATE" not in repr(found(tmp_path, "home", NOW_S))


def test_without_a_cluster_there_is_no_identity(tmp_path: Path) -> None:
    wallet = Wallet(tmp_path, "home")
    assert wallet.identity() is None
    with pytest.raises(Unauthenticated, match="cluster join TOKEN"):
        wallet.checked()


def test_a_renewal_is_seen_and_so_is_a_node_that_left(tmp_path: Path) -> None:
    wallet = Wallet(tmp_path, "home")
    first = found(tmp_path, "home", NOW_S)
    assert wallet.checked() == first
    second = found(tmp_path, "home", NOW_S)
    assert wallet.checked() == second != first
    (tmp_path / FOLDER / NODE).unlink()
    assert wallet.identity() is None


def test_a_certificate_of_another_node_than_node_json_says_is_refused(tmp_path: Path) -> None:
    found(tmp_path, "home", NOW_S)
    wallet, own = Wallet(tmp_path, "home"), node_id(tmp_path)
    wallet.checked()
    (tmp_path / "node.json").unlink()
    other = node_id(tmp_path)
    with pytest.raises(Unauthenticated, match=f"of node {own}, and .* this is node {other}: run .*cluster init"):
        wallet.checked()
    (tmp_path / "node.json").write_text("{}")
    with pytest.raises(Unauthenticated, match="holds no node_id"):
        wallet.checked()


def test_what_was_changed_with_its_time_set_back_is_read_again(tmp_path: Path) -> None:
    found(tmp_path, "home", NOW_S)
    path, wallet = tmp_path / FOLDER / NODE, Wallet(tmp_path, "home")
    before = path.stat()
    wallet.checked()
    path.write_bytes(b"broken")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(Unauthenticated, match="is broken"):
        wallet.checked()


FAULTS = {
    "another cluster's name": ("work", NOW_S, r"of cluster 'home'"),
    "after its end": ("home", NOW_S + CERTIFICATE_S, "has expired"),
    "before its begin": ("home", NOW_S - 10**6, "clock is behind"),
}


@pytest.mark.parametrize(("cluster", "now_s", "said"), FAULTS.values(), ids=FAULTS.keys())
def test_a_certificate_that_others_would_refuse_is_named_before_they_do(
    tmp_path: Path, cluster: str, now_s: float, said: str
) -> None:
    found(tmp_path, "home", NOW_S)
    with pytest.raises(Unauthenticated, match=said):
        Wallet(tmp_path, cluster, lambda: now_s).checked()


def broken(home: Path, how: str) -> None:
    path = home / FOLDER / NODE
    text = path.read_bytes()
    if how == "empty":
        path.write_bytes(b"")
    elif how == "cut":
        path.write_bytes(text[: len(text) // 2])
    elif how == "another key":
        end = b"-----END PRIVATE KEY-----\n"
        path.write_bytes(new_key() + text.partition(end)[2])
    else:
        path.chmod(0o644)


@pytest.mark.parametrize("how", ["empty", "cut", "another key", "readable by others"])
def test_a_broken_file_is_no_identity_and_says_which(tmp_path: Path, how: str) -> None:
    found(tmp_path, "home", NOW_S)
    broken(tmp_path, how)
    wallet = Wallet(tmp_path, "home")
    for _ in range(2):
        with pytest.raises(Unauthenticated, match=r"node\.pem"):
            wallet.identity()


def test_an_identity_with_two_authorities_is_read_back(tmp_path: Path) -> None:
    old, new = new_authority(NOW_S), new_authority(NOW_S)
    key = new_key()
    to = Bearer("home", Caller.MEMBER, "6b7b0f4e-2c0e-4f2e-9f4f-5a1f1f0a9c11")
    certificate = sign(old, public_key(key), to, NOW_S)
    one = identity(key, certificate, new.certificate_pem + old.certificate_pem)
    keep(tmp_path, one)
    assert Wallet(tmp_path, "home").checked() == one
    assert trusted(one) == {old.fingerprint, new.fingerprint}


def test_offers_are_kept_one_by_one(tmp_path: Path) -> None:
    assert kept_offers(tmp_path) == ()
    first, second = Offer(digest(b"1"), 5), Offer(digest(b"2"), 6, "key", 1.5)
    for one in (first, second, Offer(digest(b"1"), 5, "key", 2.0)):
        keep_offer(tmp_path, one)
    (tmp_path / FOLDER / OFFERS / "broken.json").write_text("{")
    assert set(kept_offers(tmp_path)) == {second, Offer(digest(b"1"), 5, "key", 2.0)}
    forget_offers(tmp_path, [second])
    assert kept_offers(tmp_path) == (second,)


NAMES = ["home", 'a "quoted" one', "müller's 火", "back\\slash", "\U0001f680"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seeds", [[], ["192.168.4.1:7401", "[fd00::1]:7401"]], ids=["without seeds", "with seeds"])
def test_what_joining_wrote_is_a_layer_of_settings(tmp_path: Path, name: str, seeds: list[str]) -> None:
    keep_joined(tmp_path, name, NodeId("n"), seeds)
    found = settings.read({}, home=tmp_path)
    assert (found.cluster.name, found.cluster.scheduler, found.discovery.seeds) == (name, "n", seeds)
    assert found.node.bind == "0.0.0.0"
    (tmp_path / "config.toml").write_text('[node]\nbind = "192.168.4.1"\n')
    assert settings.read({}, home=tmp_path).node.bind == "192.168.4.1"
