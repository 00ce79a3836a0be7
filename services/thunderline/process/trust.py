"""What a node keeps of its cluster, under $THUNDERLINE_HOME/cluster/ (0700, every file 0600).

node.pem        its key, its certificate, and the authorities that it trusts: one file, so that a renewal is whole
joined.toml     what `cluster init` and `cluster join` set: a layer of settings below config.toml
authority.pem   only on the scheduler node: process/authority.py
offers/         only on the scheduler node: join tokens, a file each: the command line makes one, the scheduler ends it
left.json       only on the scheduler node: process/departed.py
"""

import json
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

from thunderline.cluster import NodeId
from thunderline.cluster.callers import Caller
from thunderline.cluster.certificates import NO_CERTIFICATE, Bearer, Facts, own_fault
from thunderline.cluster.errors import Unauthenticated
from thunderline.cluster.join_tokens import Offer
from thunderline.process.certificates import PEM_BLOCK, authorities, belongs, facts, fingerprint
from thunderline.process.entry import CannotStart
from thunderline.process.home import node_id, write_atomically
from thunderline.process.settings import JOINED

FOLDER, NODE, OFFERS = "cluster", "node.pem", "offers"


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


def trusted(one: Identity) -> frozenset[str]:
    """Fingerprints of the authorities that it trusts."""
    return _fingerprints(one.authorities_pem)


@lru_cache(maxsize=64)
def _fingerprints(bundle: bytes) -> frozenset[str]:
    return frozenset(fingerprint(pem) for pem in authorities(bundle))


def folder(home: Path) -> Path:
    """Raises OSError."""
    path = home / FOLDER
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


def keep(home: Path, one: Identity) -> None:
    """Raises OSError."""
    write_atomically(folder(home) / NODE, one.text)


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
    write_atomically(folder(home) / OFFERS / f"{offer.digest}.json", json.dumps(asdict(offer)).encode())


def forget_offers(home: Path, kept: Collection[Offer]) -> None:
    """All but these. Raises OSError."""
    digests = {one.digest for one in kept}
    for path in (home / FOLDER / OFFERS).glob("*.json"):
        if path.stem not in digests:
            path.unlink(missing_ok=True)


def keep_joined(home: Path, cluster: str, scheduler: NodeId, seeds: Sequence[str] = ()) -> None:
    """The layer of settings of a node that belongs to a cluster. Raises OSError."""
    # JSON's strings and lists are TOML's, when no character is written as two.
    name, node, found = (json.dumps(one, ensure_ascii=False) for one in (cluster, scheduler, list(seeds)))
    text = (
        "# Written by `thunderline cluster init` or `cluster join`. config.toml, beside this folder, wins over it.\n"
        f'[cluster]\nname = {name}\nscheduler = {node}\n\n[node]\nbind = "0.0.0.0"\n'
    )
    text += f"\n[discovery]\nseeds = {found}\n" if seeds else ""
    write_atomically(folder(home).parent / JOINED, text.encode())


class Wallet:
    """A node's identity as it is on disk now: a renewal counts from the next handshake on."""

    def __init__(self, home: Path, cluster: str, clock: Callable[[], float] = time.time) -> None:
        self.cluster = cluster
        self.path = home / FOLDER / NODE
        self._home = home
        self._clock = clock
        self._seen: tuple[int, int, int] | None = None
        self._identity: Identity | None = None
        self._fault = NO_CERTIFICATE

    @property
    def now_s(self) -> float:
        return self._clock()

    def identity(self) -> Identity | None:
        """None where this node belongs to no cluster. Raises Unauthenticated for a broken file."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            self._seen, self._identity = None, None
            return None
        except OSError as error:
            raise Unauthenticated(f"{self.path}: {error}") from None
        seen = (status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        if seen != self._seen:
            self._identity, self._fault = self._read()
            self._seen = seen
        if self._identity is None:
            raise Unauthenticated(self._fault)
        return self._identity

    def _read(self) -> tuple[Identity | None, str]:
        try:
            if self.path.stat().st_mode & 0o077:
                return None, f"{self.path} can be read by others: `chmod 600` it, and `thunderline cluster rotate`"
            return parsed(self.path.read_bytes()), ""
        except (OSError, Unauthenticated) as error:
            remedy = "run `thunderline cluster join TOKEN` once more (on the scheduler node `thunderline cluster init`)"
            return None, f"{self.path} is broken: {error}; {remedy}"

    def checked(self) -> Identity:
        """One that others will take. Raises Unauthenticated, which says what to do: gRPC itself would only say
        "Socket closed" (protocols H, point 2)."""
        one = self.identity()
        fault = own_fault(one.facts if one else None, self.cluster, self._clock())
        if fault or one is None:
            raise Unauthenticated(fault)
        self._check_node(one.facts.bearer)
        return one

    def _check_node(self, bearer: Bearer) -> None:
        """Raises Unauthenticated where node.json and node.pem name two nodes: one of them was copied here."""
        if bearer.caller is Caller.CLIENT or not (self._home / "node.json").exists():
            return
        try:
            own = node_id(self._home)
        except (OSError, CannotStart) as error:
            raise Unauthenticated(str(error)) from None
        if own != bearer.name:
            again = "init" if bearer.caller is Caller.SCHEDULER else "join TOKEN"
            raise Unauthenticated(
                f"{self.path} is the certificate of node {bearer.name}, and node.json says that this is node {own}: "
                f"run `thunderline cluster {again}` once more, or restore the node.json that belongs to it"
            )
