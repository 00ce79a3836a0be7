"""The scheduler node's authorities on disk: kept through a change of one for another, and never made anew."""

import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest

from thunderline.cluster import NodeId
from thunderline.cluster.authorities import Ring, Turn, begun, hastened
from thunderline.cluster.callers import Caller
from thunderline.cluster.certificates import CERTIFICATE_S, Bearer
from thunderline.process.authority import (
    AUTHORITY,
    Announced,
    Authorities,
    Held,
    announced,
    change,
    changing,
    for_client,
    found,
    keep_authorities,
    kept,
    refresh,
)
from thunderline.process.certificates import new_authority, new_key, public_key, sign
from thunderline.process.departed import LEFT, depart
from thunderline.process.entry import CannotStart
from thunderline.process.home import node_id
from thunderline.process.trust import FOLDER, NODE, Wallet, identity, keep, trusted

NOW_S = float(int(time.time()))
OLD, NEW, OTHER = new_authority(NOW_S), new_authority(NOW_S), new_authority(NOW_S)
A, B = OLD.fingerprint, NEW.fingerprint


def test_the_first_node_is_the_scheduler_node(tmp_path: Path) -> None:
    one = found(tmp_path, "home", NOW_S)
    assert one.facts.bearer == Bearer("home", Caller.SCHEDULER, node_id(tmp_path))
    ours = kept(tmp_path)
    assert ours is not None
    assert one.facts.authority == ours.signing.fingerprint
    assert ours.bundle == one.authorities_pem
    assert Wallet(tmp_path, "home").checked() == one


def test_once_more_the_authority_stays(tmp_path: Path) -> None:
    first, second = found(tmp_path, "home", NOW_S), found(tmp_path, "home", NOW_S)
    assert second.facts.authority == first.facts.authority
    assert second.certificate_pem != first.certificate_pem


def test_another_node_keeps_no_authority(tmp_path: Path) -> None:
    assert kept(tmp_path) is None
    assert refresh(tmp_path, Wallet(tmp_path, "home")) == ""
    assert announced(tmp_path, Wallet(tmp_path, "home")) == Announced()


BROKEN = {
    "empty": b"",
    "text": b"hello",
    "only a key": new_key(),
    "only a certificate": OLD.certificate_pem,
    "a key of another": NEW.key_pem + OLD.certificate_pem,
    "cut": OLD.key_pem + OLD.certificate_pem[:-40],
    "three": Authorities(OLD, NEW, new_authority(NOW_S).certificate_pem).text,
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_authority_is_not_made_anew(tmp_path: Path, text: bytes) -> None:
    found(tmp_path, "home", NOW_S)
    (tmp_path / FOLDER / AUTHORITY).write_bytes(text)
    with pytest.raises(CannotStart, match=r"authority\.pem"):
        found(tmp_path, "home", NOW_S)
    assert (tmp_path / FOLDER / AUTHORITY).read_bytes() == text
    assert announced(tmp_path, Wallet(tmp_path, "home")) == Announced()


STAGES = {
    "one": (Authorities(OLD), Ring((A,), A)),
    "the next one is trusted": (Authorities(OLD, NEW), Ring((A, B), A)),
    "it signs": (Authorities(NEW, former_pem=OLD.certificate_pem), Ring((A, B), B)),
    "the former one is dropped": (Authorities(NEW), Ring((B,), B)),
}


@pytest.mark.parametrize(("ours", "ring"), STAGES.values(), ids=STAGES.keys())
def test_each_stage_of_a_rotation_is_read_back_as_it_was(tmp_path: Path, ours: Authorities, ring: Ring) -> None:
    keep_authorities(tmp_path, ours)
    assert kept(tmp_path) == ours
    assert ours.ring == ring


def test_the_stages_follow_each_other_as_decided() -> None:
    stages = [ours for ours, _ in STAGES.values()]
    assert stages[1].ring == begun(stages[0].ring, B)
    assert [stages[1].turned(Turn.SIGN), stages[2].turned(Turn.DROP)] == stages[2:]
    for ours in stages:
        assert ours.turned(Turn.WAIT) == ours.turned(Turn.REST) == ours
        assert ours.hastened(OTHER).ring == hastened(ours.ring, OTHER.fingerprint)


def test_the_former_ones_key_is_gone_once_another_signs() -> None:
    assert OLD.key_pem not in Authorities(OLD, NEW).turned(Turn.SIGN).text


def test_the_scheduler_nodes_own_certificate_follows_its_authorities(tmp_path: Path) -> None:
    keep_authorities(tmp_path, Authorities(OLD))
    found(tmp_path, "home", NOW_S)
    wallet = Wallet(tmp_path, "home")
    for stage, (ours, ring) in STAGES.items():
        with changing(tmp_path):
            keep_authorities(tmp_path, ours)
            assert bool(refresh(tmp_path, wallet)) is (stage != "one")
            assert refresh(tmp_path, wallet) == ""
        own = wallet.checked()
        assert (trusted(own), own.facts.authority) == (frozenset(ring.trusted), ring.signing)
        assert own.facts.bearer.caller is Caller.SCHEDULER
        assert announced(tmp_path, wallet) == Announced(tuple(sorted(ring.trusted)), ring.signing, ring.signing)


def test_it_is_renewed_before_it_ends(tmp_path: Path) -> None:
    found(tmp_path, "home", NOW_S)
    wallet = Wallet(tmp_path, "home", lambda: NOW_S + 0.7 * CERTIFICATE_S)
    before = wallet.checked()
    assert refresh(tmp_path, wallet) == "it ends soon"
    assert wallet.checked().facts.valid.ends_s > before.facts.valid.ends_s


def test_only_the_scheduler_node_announces_who_was_taken_out(tmp_path: Path) -> None:
    out = NodeId(str(uuid.uuid4()))
    depart(tmp_path, out)
    wallet = Wallet(tmp_path, "home")
    assert announced(tmp_path, wallet) == Announced()
    found(tmp_path, "home", NOW_S)
    assert announced(tmp_path, wallet).departed == (out,)
    # A file that is broken lets nobody back.
    (tmp_path / FOLDER / NODE).write_bytes(b"")
    assert announced(tmp_path, wallet) == Announced(departed=(out,))
    (tmp_path / FOLDER / LEFT).write_text("[")
    with pytest.raises(CannotStart, match=r"left\.json"):
        announced(tmp_path, wallet)


def test_a_change_is_whole(tmp_path: Path) -> None:
    found(tmp_path, "home", NOW_S)
    change(tmp_path, Authorities(OLD, NEW), "home", NOW_S)
    own = Wallet(tmp_path, "home").checked()
    assert (trusted(own), own.facts.authority) == (frozenset({A, B}), A)


def test_a_member_announces_what_it_trusts_and_nothing_that_signs(tmp_path: Path) -> None:
    key, node = new_key(), str(uuid.uuid4())
    certificate = sign(OLD, public_key(key), Bearer("home", Caller.MEMBER, node), NOW_S)
    keep(tmp_path, identity(key, certificate, Authorities(OLD, NEW).bundle))
    assert announced(tmp_path, Wallet(tmp_path, "home")) == Announced(tuple(sorted((A, B))), A, "")
    (tmp_path / FOLDER / NODE).write_bytes(b"")
    assert announced(tmp_path, Wallet(tmp_path, "home")) == Announced()


HOLD = """
import sys
from pathlib import Path
from thunderline.process.authority import changing
with changing(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_process_that_was_stopped_while_it_changes_something_holds_nobody_up_for_ever(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        try:
            holder.send_signal(signal.SIGSTOP)
            begun_s = time.monotonic()
            said = rf"\.lock is held by process {holder.pid} for over 0\.2 s"
            with pytest.raises(Held, match=said), changing(tmp_path, 0.2):
                pass
            assert time.monotonic() - begun_s < 5
        finally:
            holder.kill()
    # With its end it has let go.
    with changing(tmp_path, 0.2):
        pass


def test_who_waits_for_the_lock_gets_it_in_its_turn(tmp_path: Path) -> None:
    turns: list[int] = []

    def take(number: int) -> None:
        with changing(tmp_path):
            turns.append(number)

    with changing(tmp_path):
        waiting = [threading.Thread(target=take, args=(number,)) for number in range(3)]
        for one in waiting:
            one.start()
        assert not turns
    for one in waiting:
        one.join(10)
    assert sorted(turns) == [0, 1, 2]


def test_a_client_gets_a_key_of_its_own() -> None:
    one, other = (for_client(Authorities(OLD, NEW), "home", "laptop", NOW_S) for _ in range(2))
    assert one.facts.bearer == Bearer("home", Caller.CLIENT, "laptop")
    assert (one.facts.authority, trusted(one)) == (A, frozenset({A, B}))
    assert one.key_pem != other.key_pem
