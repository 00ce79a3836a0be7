"""What only the scheduler node keeps of its cluster: cluster/authority.pem, the authorities with their keys.

The one that signs comes first: its key, its certificate. While the cluster changes its authority there are two: the
next one follows with its key too; once it signs, it comes first, and of the former one only the certificate is left.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from thunderline.cluster import NodeId
from thunderline.cluster.authorities import Ring, Turn, hastened
from thunderline.cluster.callers import Caller
from thunderline.cluster.certificates import Bearer, renewal
from thunderline.cluster.errors import Unauthenticated
from thunderline.process.certificates import (
    PEM_BLOCK,
    Authority,
    authorities,
    belongs,
    fingerprint,
    new_authority,
    new_key,
    public_key,
    sign,
)
from thunderline.process.departed import departed
from thunderline.process.entry import CannotStart
from thunderline.process.home import node_id, write_atomically
from thunderline.process.trust import FOLDER, Identity, Wallet, folder, forget_offers, identity, keep, trusted

AUTHORITY, LOCK = "authority.pem", ".lock"
# Who has the lock writes some small files. One that is stopped meanwhile (Ctrl-Z) would hold up the roles for ever.
LOCK_WAIT_S = 10.0
LOCK_LOOK_S = 0.05
PID_BYTES = 16


@dataclass(frozen=True, slots=True)
class Authorities:
    """`following` signs later, and is trusted already; `former_pem` signed before, and is trusted still."""

    signing: Authority
    following: Authority | None = None
    former_pem: bytes = b""

    @property
    def bundle(self) -> bytes:
        """The certificates of all that are trusted."""
        following_pem = self.following.certificate_pem if self.following else b""
        return self.signing.certificate_pem + following_pem + self.former_pem

    @property
    def ring(self) -> Ring:
        signing = self.signing.fingerprint
        if self.following is not None:
            return Ring((signing, self.following.fingerprint), signing)
        former = (fingerprint(self.former_pem),) if self.former_pem else ()
        return Ring((*former, signing), signing)

    @property
    def text(self) -> bytes:
        both = [self.signing, *([self.following] if self.following else [])]
        return b"".join(one.key_pem + one.certificate_pem for one in both) + self.former_pem

    def turned(self, turn: Turn) -> "Authorities":
        """What cluster/authorities.py has decided."""
        if turn is Turn.SIGN and self.following is not None:
            return Authorities(self.following, former_pem=self.signing.certificate_pem)
        return Authorities(self.signing) if turn is Turn.DROP else self

    def hastened(self, new: Authority) -> "Authorities":
        """As `cluster rotate --now` has decided. Raises InvalidRequest."""
        hastened(self.ring, new.fingerprint)
        return Authorities(new)


class Held(OSError):
    """Another process does not let go of the lock."""


@contextlib.contextmanager
def changing(home: Path, wait_s: float = LOCK_WAIT_S) -> Iterator[None]:
    """One process at a time changes node.pem, authority.pem or left.json. Blocking, while another one does.

    Raises OSError; Held when that takes longer than `wait_s`.
    """
    path = folder(home) / LOCK
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _lock(handle, path, wait_s)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, path: Path, wait_s: float) -> None:
    """With our pid in the file, for those who wait in vain. Raises Held, OSError."""
    gives_up_s = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() >= gives_up_s:
                pid = os.pread(handle, PID_BYTES, 0).decode(errors="replace").strip()
                who = f"process {pid}" if pid.isdecimal() else "another process"
                over = f"{path} is held by {who} for over {wait_s:g} s"
                raise Held(f"{over}: is that stopped? let it go on, or end it") from None
        time.sleep(LOCK_LOOK_S)
    # A full disk hinders what comes after, not this.
    with contextlib.suppress(OSError):
        os.pwrite(handle, f"{os.getpid():<{PID_BYTES}}".encode(), 0)


def kept(home: Path) -> Authorities | None:
    """None on a node that is no scheduler node. Raises CannotStart for a broken file: it is never made anew."""
    path = home / FOLDER / AUTHORITY
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CannotStart(f"{path}: {error}") from None
    keys = [match[0] for match in PEM_BLOCK.finditer(text) if match[1].endswith(b"PRIVATE KEY")]
    certificates = authorities(text)
    try:
        known = [Authority(key, pem) for key, pem in zip(keys, certificates, strict=False) if belongs(key, pem)]
        if not keys or len(known) != len(keys) or not len(keys) <= len(certificates) <= 2:
            raise ValueError
    except ValueError:
        raise CannotStart(f"{path} is broken: no authority's key with its certificate; restore it") from None
    return Authorities(known[0], known[1] if len(known) > 1 else None, b"".join(certificates[len(known) :]))


def keep_authorities(home: Path, ours: Authorities) -> None:
    """Raises OSError."""
    write_atomically(folder(home) / AUTHORITY, ours.text)


def found(home: Path, cluster: str, now_s: float) -> Identity:
    """`cluster init`: an authority, and this node as the scheduler node. Raises OSError, CannotStart.

    Where there is an authority already it stays, and the node gets a new certificate of it.
    """
    ours = kept(home)
    if ours is None:
        ours = Authorities(new_authority(now_s))
        keep_authorities(home, ours)
    return _hold(home, ours, cluster, now_s)


def change(home: Path, ours: Authorities, cluster: str, now_s: float) -> None:
    """Other authorities from now on, and a certificate that goes with them. Within `changing`.

    Join tokens name the authority that signs: when another does, those that are open are forgotten. Raises OSError,
    CannotStart.
    """
    before = kept(home)
    keep_authorities(home, ours)
    if before is None or before.ring.signing != ours.ring.signing:
        forget_offers(home, ())
    _hold(home, ours, cluster, now_s)


def refresh(home: Path, wallet: Wallet) -> str:
    """Renews the scheduler node's own certificate if it is time: why, or "". Within `changing`.

    Raises OSError, CannotStart, Unauthenticated.
    """
    ours, own = kept(home), wallet.identity()
    if ours is None or own is None or own.facts.bearer.cluster != wallet.cluster:
        return ""
    why = renewal(own.facts, trusted(own), set(ours.ring.trusted), ours.ring.signing, wallet.now_s)
    if why:
        _hold(home, ours, wallet.cluster, wallet.now_s)
    return why


def _hold(home: Path, ours: Authorities, cluster: str, now_s: float) -> Identity:
    key_pem = new_key()
    to = Bearer(cluster, Caller.SCHEDULER, node_id(home))
    one = identity(key_pem, sign(ours.signing, public_key(key_pem), to, now_s), ours.bundle)
    keep(home, one)
    return one


def for_client(ours: Authorities, cluster: str, name: str, now_s: float) -> Identity:
    """`cluster client NAME`. Raises InvalidRequest for what is no name."""
    key_pem = new_key()
    certificate = sign(ours.signing, public_key(key_pem), Bearer(cluster, Caller.CLIENT, name), now_s)
    return identity(key_pem, certificate, ours.bundle)


@dataclass(frozen=True, slots=True)
class Announced:
    """What a node's card says of its trust, in fingerprints; all empty on a node without a cluster."""

    trusted: tuple[str, ...] = ()
    signed_by: str = ""
    # Only on the scheduler node: the one that signs now, and who was taken out.
    signing: str = ""
    departed: tuple[NodeId, ...] = ()


def announced(home: Path, wallet: Wallet) -> Announced:
    """What is on disk now; a broken file announces nothing. Blocking, under a millisecond.

    Raises CannotStart for a broken left.json.
    """
    out = tuple(sorted(departed(home))) if (home / FOLDER / AUTHORITY).exists() else ()
    try:
        own, ours = wallet.identity(), kept(home)
    except (Unauthenticated, CannotStart):
        return Announced(departed=out)
    if own is None:
        return Announced(departed=out)
    return Announced(tuple(sorted(trusted(own))), own.facts.authority, ours.ring.signing if ours else "", out)


def node_bearer(cluster: str, node: NodeId, scheduler: NodeId) -> Bearer:
    """What a node's certificate says of it."""
    return Bearer(cluster, Caller.SCHEDULER if node == scheduler else Caller.MEMBER, node)
