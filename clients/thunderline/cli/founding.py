"""`cluster init`: makes this node the scheduler node of a cluster, and a token for the next node that joins."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thunderline.cluster import NodeId
from thunderline.cluster.errors import InvalidRequest, Unauthenticated
from thunderline.cluster.join_tokens import SECRET_BYTES, JoinToken, offer
from thunderline.cluster.reachable import Face, addresses
from thunderline.cluster.transport import is_loopback
from thunderline.process import authority
from thunderline.process.authority import Authorities
from thunderline.process.home import node_id, remembered_ports
from thunderline.process.interfaces import interfaces
from thunderline.process.settings import JOINED, Settings
from thunderline.process.trust import Wallet, forget_offers, keep_joined, keep_offer, kept_offers

Read = Callable[[], Settings]


@dataclass(frozen=True, slots=True)
class Founded:
    """`others` are addresses of this node that the token does not name."""

    cluster: str
    node: NodeId
    token: JoinToken
    is_new: bool
    others: tuple[str, ...]
    # Whether `thunderline up` runs here, as it was before.
    is_up: bool
    bind: str

    def as_tree(self) -> dict[str, Any]:
        return {
            "cluster": self.cluster,
            "scheduler_node_id": self.node,
            "founded": self.is_new,
            "token": self.token.text,
            "address": self.token.address,
            "expires_s": self.token.expires_s,
            "other_addresses": list(self.others),
        }

    def lines(self) -> list[str]:
        found = []
        if self.is_new:
            found.append(f"cluster {self.cluster!r} is founded; this node, {self.node}, is its scheduler node")
            again = "stop `thunderline up` here and start it again" if self.is_up else "start `thunderline up` here"
            found.append(f"{again}: from then on it speaks TLS, and listens for the others")
        found += ["within an hour, on the node that joins:", "", f"thunderline cluster join {self.token.text}", ""]
        where = f"it reaches this node at {self.token.address}"
        more = f"; `--address HOST` chooses another: {', '.join(self.others)}" if self.others else ""
        if is_loopback(self.bind):
            more = f"; [node] bind = {self.bind!r} in config.toml, or in a variable, keeps other machines out"
        found += [where + more, "the token lets in one node: `thunderline cluster init` makes the next one"]
        return found


def init(read: Read, name: str | None, address: str | None, now_s: float) -> Founded:
    """Raises InvalidRequest, Unauthenticated, CannotStart, OSError."""
    given = None if address is None else _written(address)
    before = read()
    before.home.mkdir(parents=True, exist_ok=True)
    node = node_id(before.home)
    with authority.changing(before.home):
        is_new = authority.kept(before.home) is None
        if is_new:
            after = _found(read, before, name, node, now_s)
        else:
            _check_name(before, name)
            _mend(before, node, now_s)
            after = read()
        ours = authority.kept(before.home)
    assert ours is not None
    found = reached(after)
    if not (given or found):
        raise InvalidRequest("no interface of this node is up but loopback: say --address HOST")
    host = given or found[0]
    # The `up` that runs may have been given others than the settings say.
    ports = remembered_ports(before.home)
    port = ports.get("enrollment", after.scheduler.enrollment_port)
    token = _token(after.home, f"{host}:{port}", ours, now_s)
    others = tuple(one for one in found if one != host)
    return Founded(after.cluster.name, node, token, is_new, others, bool(ports), after.node.bind)


def _check_name(settings: Settings, name: str | None) -> None:
    if name not in (None, settings.cluster.name):
        raise InvalidRequest(f"this cluster's name is {settings.cluster.name!r} and stays: leave --name out")


def _mend(settings: Settings, node: NodeId, now_s: float) -> None:
    """The scheduler node's own certificate, where it is no good any more; else nothing changes."""
    try:
        Wallet(settings.home, settings.cluster.name, lambda: now_s).checked()
    except Unauthenticated:
        authority.found(settings.home, settings.cluster.name, now_s)
        if settings.cluster.scheduler != node:
            # node.json is another one now.
            keep_joined(settings.home, settings.cluster.name, node)


def _found(read: Read, before: Settings, name: str | None, node: NodeId, now_s: float) -> Settings:
    """The settings of a node that has a cluster."""
    own = Wallet(before.home, before.cluster.name).identity()
    if own is not None:
        raise InvalidRequest(
            f"this node belongs to cluster {own.facts.bearer.cluster!r}, whose scheduler node is "
            f"{before.cluster.scheduler or 'another one'}: run this there for a token; to found a cluster of its own, "
            "run `thunderline cluster leave` here first"
        )
    wanted = name or before.cluster.name
    joined = before.home / JOINED
    keep_joined(before.home, wanted, node)
    try:
        after = read()
        if (after.cluster.name, after.cluster.scheduler) != (wanted, node):
            raise InvalidRequest(
                f"[cluster] of {before.home / 'config.toml'}, or a variable, says name = {after.cluster.name!r} and "
                f"scheduler = {after.cluster.scheduler!r}, and wins: take that away, or give the same --name"
            )
        authority.found(before.home, wanted, now_s)
    except BaseException:
        # Without a certificate nothing would start with it.
        joined.unlink(missing_ok=True)
        raise
    return after


def reached(settings: Settings) -> list[str]:
    """The addresses of this node at which others reach its roles, the best first, as a URL has them."""
    faces = [Face(one.medium, one.addresses, one.is_up) for one in interfaces(overrides=settings.media)]
    return [f"[{one}]" if ":" in one else one for one in addresses(settings.node.bind, faces)]


def _written(address: str) -> str:
    """A host, as a URL has it. Raises InvalidRequest."""
    host = f"[{address}]" if address.count(":") > 1 and not address.startswith("[") else address
    if not host or any(mark.isspace() or mark in "/@,#" for mark in host) or (":" in host and host[0] != "["):
        raise InvalidRequest(f"--address {address!r} is no host: give a name or an IP address, without a port")
    return host


def _token(home: Path, address: str, ours: Authorities, now_s: float) -> JoinToken:
    """Raises InvalidRequest when there are too many, OSError."""
    secret = secrets.token_bytes(SECRET_BYTES)
    offers = offer(kept_offers(home), secret, now_s)
    keep_offer(home, offers[-1])
    forget_offers(home, offers)
    return JoinToken(address, ours.signing.fingerprint, offers[-1].expires_s, secret)
