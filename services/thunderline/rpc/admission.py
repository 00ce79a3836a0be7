"""Who is calling, by the certificate of the connection, and whether the table lets it: cluster/callers.py."""

import logging
from collections.abc import Callable
from typing import Any

from thunderline.cluster.callers import Caller, check
from thunderline.cluster.certificates import Facts, check_peer
from thunderline.cluster.errors import Unauthenticated
from thunderline.process.certificates import facts
from thunderline.process.trust import Wallet

# A stranger that dials each second would fill the log.
LOG_EVERY_S = 60.0

# Given a method's full name and gRPC's context. Raises Unauthenticated.
Admit = Callable[[str, Any], None]

log = logging.getLogger(__name__)


class Admission:
    """For servers whose callers show a certificate of the cluster. Refusals are logged once a minute."""

    def __init__(self, wallet: Wallet) -> None:
        self._wallet = wallet
        self._logged_s = -LOG_EVERY_S
        self._unlogged = 0

    def __call__(self, method: str, context: Any) -> None:
        try:
            peer = caller_of(context, self._wallet)
            check(method, peer.bearer.caller, str(peer.bearer))
        except Unauthenticated as error:
            self._note(error, context.peer())
            raise

    def _note(self, error: Unauthenticated, address: str) -> None:
        now_s = self._wallet.now_s
        # A wall clock may be set back.
        if 0 <= now_s - self._logged_s < LOG_EVERY_S:
            self._unlogged += 1
            return
        more = {"more_refusals": self._unlogged} if self._unlogged else {}
        log.warning("refused a call: %s", error.message, extra={"peer": address, **more})
        self._logged_s, self._unlogged = now_s, 0


def admit_strangers(method: str, context: Any) -> None:
    """For the enrolment port: without a certificate, and for nothing else. Raises Unauthenticated."""
    check(method, Caller.STRANGER, "who has no certificate")


def caller_of(context: Any, wallet: Wallet) -> Facts:
    """Who calls. TLS has verified the chain; what it does not look at again, this does. Raises Unauthenticated."""
    shown = list(context.auth_context().get("x509_pem_cert", ()))
    one = wallet.identity()
    if len(shown) != 1 or one is None:
        raise Unauthenticated("the caller shows no certificate of this cluster")
    peer = facts(bytes(shown[0]), one.authorities_pem)
    check_peer(peer, wallet.cluster, wallet.now_s)
    return peer
