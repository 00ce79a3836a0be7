"""Finds peers by multicast DNS, and is found, on every interface of the node. Where that fails there are seeds."""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import AsyncIterator

from zeroconf import Error, IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from thunderline.cluster.addresses import is_ipv4
from thunderline.discovery.membership import Membership
from thunderline.discovery.sightings import (
    SERVICE_TYPE,
    SIGHTING_COUNT_MAX,
    Sighting,
    name_of,
    parted,
    sighting,
    texts,
)
from thunderline.discovery.wire import whole
from thunderline.process.version import VERSION

# Sightings are repeated this often, and interfaces looked at.
LOOK_EVERY_S = 1.0
# Begun anew this often: a malformed name on the network stops the library's questions for good (seen with 0.154).
ANEW_EVERY_S = 600.0
# After a failure; a network may get multicast later.
TRY_AGAIN_S = 10.0
# Seconds for which others believe an announcement that is not repeated: who ends without a word is soon forgotten.
TTL_S = 60
# For the records of one announcement.
RESOLVE_MS = 3_000
CLOSE_S = 5.0

GROUP = "224.0.0.251"

log = logging.getLogger(__name__)


def takes_multicast(address: str) -> bool:
    """Whether the interface of an address of ours joins the group: one that does not would spoil it for all."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            membership = socket.inet_aton(GROUP) + socket.inet_aton(address)
            probe.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        except OSError:
            return False
        return True


class Mdns:
    """Belongs to one event loop. `same_machine`: also over loopback, for tests."""

    def __init__(self, members: Membership, port: int, same_machine: bool = False) -> None:
        self._members = members
        self._port = port
        self._same_machine = same_machine
        # By name.
        self._seen: dict[str, Sighting] = {}
        self._resolving: dict[str, asyncio.Task[None]] = {}
        self._said = ""

    @property
    def sightings(self) -> tuple[Sighting, ...]:
        return tuple(self._seen.values())

    async def run(self) -> None:
        """Until cancelled, or the node has left. A failure is logged, and tried again."""
        while not self._members.has_gone:
            addresses = self._addresses()
            try:
                usable = tuple(one for one in addresses if takes_multicast(one))
                if usable:
                    async with self._announced(usable):
                        await self._follow(addresses)
                    continue
                if addresses:
                    self._say(f"no interface takes it, of {', '.join(addresses)}")
                await asyncio.sleep(LOOK_EVERY_S)
            except (Error, OSError, RuntimeError) as error:
                # TimeoutError among them. RuntimeError: an address that went while it was bound.
                self._say(str(error) or type(error).__name__)
                await asyncio.sleep(TRY_AGAIN_S)

    def _addresses(self) -> tuple[str, ...]:
        """Of the card as it is now: what others may dial is where we listen."""
        return tuple(one for one in whole(self._members.own).addresses if is_ipv4(one))

    async def _follow(self, addresses: tuple[str, ...]) -> None:
        """Until the addresses are others, or it is time to begin anew."""
        end_s = time.monotonic() + ANEW_EVERY_S
        while self._addresses() == addresses and not self._members.has_gone and time.monotonic() < end_s:
            self._tell()
            await asyncio.sleep(LOOK_EVERY_S)

    def _tell(self) -> None:
        leads, strangers = parted(self._seen.values(), self._members.own)
        self._members.sighted(leads, strangers)

    @contextlib.asynccontextmanager
    async def _announced(self, usable: tuple[str, ...]) -> AsyncIterator[None]:
        """Raises Error, OSError, RuntimeError."""
        own = self._members.own
        name = name_of(own)
        info = AsyncServiceInfo(
            SERVICE_TYPE,
            name,
            port=self._port,
            properties=texts(own, self._port, VERSION),
            server=f"{name.partition('.')[0]}.local.",
            parsed_addresses=list(self._addresses()),
            host_ttl=TTL_S,
            other_ttl=TTL_S,
        )
        # It binds sockets: some milliseconds.
        zeroconf = AsyncZeroconf(interfaces=list(usable), ip_version=IPVersion.V4Only)
        browser: AsyncServiceBrowser | None = None
        try:
            # Our name is nobody else's: nobody has to be asked for it first.
            announcing = await zeroconf.async_register_service(info, cooperating_responders=True)
            browser = AsyncServiceBrowser(zeroconf.zeroconf, SERVICE_TYPE, handlers=[self._heard])
            log.info("announced by multicast DNS", extra={"addresses": usable})
            self._said = ""
            yield
        finally:
            for task in self._resolving.values():
                task.cancel()
            self._seen.clear()
            with contextlib.suppress(Error, OSError, RuntimeError):
                async with asyncio.timeout(CLOSE_S):
                    if browser is not None:
                        await browser.async_cancel()
                        await announcing
                    await zeroconf.async_close()

    def _heard(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        if state_change is ServiceStateChange.Removed:
            self._seen.pop(name, None)
            return
        if name == name_of(self._members.own) or name in self._resolving:
            return
        if len(self._resolving) + len(self._seen) >= SIGHTING_COUNT_MAX and name not in self._seen:
            return
        task = asyncio.get_running_loop().create_task(self._resolve(zeroconf, name), name=f"resolve {name}")
        self._resolving[name] = task
        task.add_done_callback(lambda _: self._resolving.pop(name, None))

    async def _resolve(self, zeroconf: Zeroconf, name: str) -> None:
        """Anything may be in a record that anybody sends."""
        try:
            info = AsyncServiceInfo(SERVICE_TYPE, name)
            if not await info.async_request(zeroconf, RESOLVE_MS):
                return
            found = sighting(info.decoded_properties, info.parsed_addresses(), info.port, self._same_machine)
        except (Error, OSError, RuntimeError, ValueError) as error:
            log.debug("an announcement cannot be read", extra={"why": str(error)})
            return
        if found is not None:
            self._seen[name] = found
            self._tell()

    def _say(self, problem: str) -> None:
        if problem != self._said:
            self._said = problem
            log.warning("multicast DNS does not work here: only seeds find peers", extra={"why": problem})
