"""Who is calling, by the certificate of the connection, and whether the table lets it: cluster/callers.py."""

import logging
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from thunderline.cluster.callers import Caller, check
from thunderline.cluster.certificates import Facts, check_peer
from thunderline.cluster.errors import ClusterError, Unauthenticated
from thunderline.process.certificates import facts
from thunderline.process.trust import Wallet

# A stranger that dials each second would fill the log.
LOG_EVERY_S = 60.0

# Given a method's full name and gRPC's context. Raises Unauthenticated.
Admit = Callable[[str, Any], None]

# How gRPC writes a caller's address: "ipv4:10.0.0.2:53412", "ipv6:%5Bfd00::2%5D:53412".
PEER = re.compile(r"ipv[46]:\[?([0-9a-fA-F.:]+)\]?:\d+")

log = logging.getLogger(__name__)


class Admission:
    """For servers whose callers show a certificate of the cluster. Refusals are logged once a minute."""

    def __init__(self, wallet: Wallet) -> None:
        self._wallet = wallet
        self._refusals = Refusals(wallet)

    def __call__(self, method: str, context: Any) -> None:
        try:
            peer = caller_of(context, self._wallet)
            check(method, peer.bearer.caller, str(peer.bearer))
        except Unauthenticated as error:
            self._refusals.note("refused a call", error, context.peer())
            raise


class Refusals:
    """Logs one a minute, and how many more there were."""

    def __init__(self, wallet: Wallet) -> None:
        self._wallet = wallet
        self._logged_s = -LOG_EVERY_S
        self._unlogged = 0

    def note(self, what: str, error: ClusterError, address: str) -> None:
        now_s = self._wallet.now_s
        # A wall clock may be set back.
        if 0 <= now_s - self._logged_s < LOG_EVERY_S:
            self._unlogged += 1
            return
        more = {"more_refusals": self._unlogged} if self._unlogged else {}
        log.warning("%s: %s", what, error.message, extra={"peer": address, **more})
        self._logged_s, self._unlogged = now_s, 0


def admit_strangers(method: str, context: Any) -> None:
    """For the enrolment port: without a certificate, and for nothing else. Raises Unauthenticated."""
    check(method, Caller.STRANGER, "who has no certificate")


def address_of(peer: str) -> str:
    """The IP address in what gRPC calls a peer; "" where it has none, as over a Unix socket."""
    found = PEER.fullmatch(unquote(peer))
    return found[1] if found else ""


def caller_of(context: Any, wallet: Wallet) -> Facts:
    """Who calls. TLS has verified the chain; what it does not look at again, this does. Raises Unauthenticated."""
    shown = list(context.auth_context().get("x509_pem_cert", ()))
    one = wallet.identity()
    if len(shown) != 1 or one is None:
        raise Unauthenticated("the caller shows no certificate of this cluster")
    peer = facts(bytes(shown[0]), one.authorities_pem)
    check_peer(peer, wallet.cluster, wallet.now_s)
    return peer
