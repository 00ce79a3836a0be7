"""What a node keeps of its cluster, under $THUNDERLINE_HOME/cluster/ (0700, every file 0600).

node.pem        its key, its certificate, and the authorities that it trusts: one file, so that a renewal is whole
authority.pem   only on the scheduler node: the authority that signs, key and certificate, then the others' certificates
offers/         only on the scheduler node: join tokens, a file each: the command line makes one, the scheduler ends it
"""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from thunderline.cluster.callers import Caller
from thunderline.cluster.certificates import NO_CERTIFICATE, Bearer, Facts, own_fault
from thunderline.cluster.errors import Unauthenticated
from thunderline.cluster.join_tokens import Offer
from thunderline.process.certificates import (
    PEM_BLOCK,
    Authority,
    authorities,
    belongs,
    facts,
    new_authority,
    new_key,
    public_key,
    sign,
)
from thunderline.process.entry import CannotStart
from thunderline.process.home import node_id, write_atomically

FOLDER, NODE, AUTHORITY, OFFERS = "cluster", "node.pem", "authority.pem", "offers"


@dataclass(frozen=True, slots=True)
class Identity:
    """What both ends of a TLS connection are made from."""

    key_pem: bytes = field(repr=False)
    certificate_pem: bytes
    authorities_pem: bytes
    facts: Facts

    @property
    def text(self) -> bytes:
        """The whole file, for curl and grpcurl too: `--cert` and `--cacert` find in it what they need."""
        return self.key_pem + self.certificate_pem + self.authorities_pem


def identity(key_pem: bytes, certificate_pem: bytes, authorities_pem: bytes) -> Identity:
    """Raises Unauthenticated for a certificate that is not this key's, or nobody's of thunderline."""
    try:
        if not belongs(key_pem, certificate_pem):
            raise Unauthenticated("the certificate is of another key")
    except ValueError:
        raise Unauthenticated("the key or the certificate cannot be read") from None
    return Identity(key_pem, certificate_pem, authorities_pem, facts(certificate_pem, authorities_pem))


def parsed(text: bytes) -> Identity:
    """Raises Unauthenticated."""
    keys = [match[0] for match in PEM_BLOCK.finditer(text) if match[1].endswith(b"PRIVATE KEY")]
    certificates = authorities(text)
    if len(keys) != 1 or len(certificates) < 2:
        raise Unauthenticated("a key, a certificate and an authority's certificate are needed")
    return identity(keys[0], certificates[0], b"".join(certificates[1:]))


def folder(home: Path) -> Path:
    """Raises OSError."""
    path = home / FOLDER
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


def keep(home: Path, one: Identity) -> None:
    """Raises OSError."""
    write_atomically(folder(home) / NODE, one.text)


def keep_authorities(home: Path, signing: Authority, others_pem: Iterable[bytes] = ()) -> None:
    """Raises OSError."""
    text = signing.key_pem + signing.certificate_pem + b"".join(others_pem)
    write_atomically(folder(home) / AUTHORITY, text)


def kept_authority(home: Path) -> tuple[Authority, bytes] | None:
    """Who signs, and the bundle of all that are trusted; None on a node that is no scheduler node.

    Raises CannotStart.
    """
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
        if len(keys) != 1 or not certificates or not belongs(keys[0], certificates[0]):
            raise ValueError
    except ValueError:
        raise CannotStart(f"{path} is broken: no authority's key with its certificate") from None
    return Authority(keys[0], certificates[0]), b"".join(certificates)


def found(home: Path, cluster: str, now_s: float) -> Identity:
    """`cluster init`: an authority, and this node as the scheduler node. Raises OSError, CannotStart, InvalidRequest.

    Where there is an authority already it stays, and the node gets a new certificate.
    """
    known = kept_authority(home)
    signing, bundle = known or (new_authority(now_s), b"")
    bundle = bundle or signing.certificate_pem
    if known is None:
        keep_authorities(home, signing)
    key_pem = new_key()
    to = Bearer(cluster, Caller.SCHEDULER, node_id(home))
    one = identity(key_pem, sign(signing, public_key(key_pem), to, now_s), bundle)
    keep(home, one)
    return one


def kept_offers(home: Path) -> tuple[Offer, ...]:
    """A file that cannot be read lets nobody in."""
    offers = []
    for path in sorted((home / FOLDER / OFFERS).glob("*.json")):
        try:
            offers.append(Offer(**json.loads(path.read_text())))
        except (OSError, ValueError, TypeError):
            continue
    return tuple(offers)


def keep_offer(home: Path, offer: Offer) -> None:
    """Raises OSError."""
    tree = {
        "digest": offer.digest,
        "expires_s": offer.expires_s,
        "used_by": offer.used_by,
        "used_s": offer.used_s,
    }
    write_atomically(folder(home) / OFFERS / f"{offer.digest}.json", json.dumps(tree).encode())


class Wallet:
    """A node's identity as it is on disk now: a renewal counts from the next handshake on."""

    def __init__(self, home: Path, cluster: str, clock: Callable[[], float] = time.time) -> None:
        self.cluster = cluster
        self._path = home / FOLDER / NODE
        self._clock = clock
        self._seen: tuple[int, int] | None = None
        self._identity: Identity | None = None
        self._fault = NO_CERTIFICATE

    @property
    def now_s(self) -> float:
        return self._clock()

    def identity(self) -> Identity | None:
        """None where this node belongs to no cluster. Raises Unauthenticated for a broken file."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            self._seen, self._identity = None, None
            return None
        except OSError as error:
            raise Unauthenticated(f"{self._path}: {error}") from None
        seen = (status.st_mtime_ns, status.st_ino)
        if seen != self._seen:
            self._identity, self._fault = self._read()
            self._seen = seen
        if self._identity is None:
            raise Unauthenticated(self._fault)
        return self._identity

    def _read(self) -> tuple[Identity | None, str]:
        try:
            if self._path.stat().st_mode & 0o077:
                return None, f"{self._path} can be read by others: `chmod 600` it, and `thunderline cluster rotate`"
            return parsed(self._path.read_bytes()), ""
        except (OSError, Unauthenticated) as error:
            return None, f"{self._path} is broken: {error}; run `thunderline cluster join TOKEN` once more"

    def checked(self) -> Identity:
        """One that others will take. Raises Unauthenticated, which says what to do: gRPC itself would only say
        "Socket closed" (protocols H, point 2)."""
        one = self.identity()
        fault = own_fault(one.facts if one else None, self.cluster, self._clock())
        if fault or one is None:
            raise Unauthenticated(fault)
        return one
