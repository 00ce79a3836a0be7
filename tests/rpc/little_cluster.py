"""Nodes of a cluster, and strangers to it: each a wallet in a folder of its own."""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from thunderline.cluster.callers import Caller
from thunderline.cluster.certificates import Bearer
from thunderline.process.certificates import Authority, new_authority, new_key, public_key, sign
from thunderline.process.trust import Identity, Wallet, identity, keep

YEAR_S = 365 * 86_400


@dataclass
class LittleCluster:
    """`bundle` is whom its nodes trust; by default its one authority."""

    root: Path
    name: str = "home"
    # Its authority is two years old: its certificates may be, too.
    authority: Authority = field(default_factory=lambda: new_authority(time.time() - 2 * YEAR_S))
    bundle: bytes = b""

    def identity(self, caller: Caller = Caller.MEMBER, name: str = "", age_s: float = 0.0) -> Identity:
        key = new_key()
        to = Bearer(self.name, caller, name or str(uuid.uuid4()))
        certificate = sign(self.authority, public_key(key), to, time.time() - age_s)
        return identity(key, certificate, self.bundle or self.authority.certificate_pem)

    def wallet(
        self, caller: Caller = Caller.MEMBER, name: str = "", age_s: float = 0.0, clock: Callable[[], float] = time.time
    ) -> Wallet:
        home = self.root / uuid.uuid4().hex
        keep(home, self.identity(caller, name, age_s))
        return Wallet(home, self.name, clock)
