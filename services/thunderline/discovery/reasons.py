"""Why a peer that is there refuses us: gRPC says only that the connection was closed, so both certificates are read."""

import asyncio
import time

from thunderline.cluster.certificates import NOT_TAKEN, why_refused
from thunderline.cluster.errors import ClusterError
from thunderline.process.certificates import facts
from thunderline.process.handshake import shown, turned_away
from thunderline.process.trust import Wallet

# A look dials once more, and what it finds is logged.
LOOK_EVERY_S = 60.0
# After a look that met nobody: a node that starts comes back within seconds.
NOBODY_S = 5.0
LOOK_TIMEOUT_S = 1.0
ADDRESS_COUNT_MAX = 1024


class Reasons:
    """Looked for once a minute at each address, one at a time; between looks the last one counts."""

    def __init__(self, wallet: Wallet) -> None:
        self._wallet = wallet
        # With the time from which on another look is due.
        self._found: dict[str, tuple[str, float]] = {}
        self._looking = asyncio.Lock()

    def known(self, address: str) -> str:
        """ "" when nothing is known that certificates are to blame for."""
        return self._found.get(address, ("", 0.0))[0]

    async def look(self, address: str) -> str:
        """What a look finds, if one is due; else ""."""
        now_s = time.monotonic()
        if now_s < self._found.get(address, ("", 0.0))[1] or self._looking.locked():
            return ""
        async with self._looking:
            reason = await asyncio.to_thread(self._look, address)
        self._found = {one: found for one, found in self._found.items() if now_s < found[1] + LOOK_EVERY_S}
        if len(self._found) < ADDRESS_COUNT_MAX:
            self._found[address] = (reason or "", now_s + (NOBODY_S if reason is None else LOOK_EVERY_S))
        return reason or ""

    def _look(self, address: str) -> str | None:
        """None when nobody is there, or no node: gRPC's own words say so."""
        try:
            pem = shown(address, LOOK_TIMEOUT_S)
        except ClusterError:
            return None
        try:
            own = self._wallet.identity()
            peer = facts(pem, own.authorities_pem) if own else None
        except ClusterError:
            own, peer = None, None
        reason = why_refused(own.facts if own else None, peer, self._wallet.cluster, self._wallet.now_s)
        if reason or own is None:
            return reason
        try:
            return NOT_TAKEN if turned_away(address, self._wallet.path, LOOK_TIMEOUT_S) else ""
        except ClusterError:
            return None
