"""How `doctor` asks who is there: this node's roles, and who answers at a peer's address. Nothing waits for ever."""

import asyncio
import contextlib
import errno
import http.client
import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from thunderline.cli.findings.privacy import Dial
from thunderline.cli.findings.roles import Answer, RoleLook
from thunderline.cli.findings.trust import Own, Try, refusal
from thunderline.client.health import HealthClient
from thunderline.cluster import addresses
from thunderline.cluster.errors import ClusterError, DeadlinePassed, Unauthenticated, Unreachable
from thunderline.process.certificates import facts
from thunderline.process.handshake import shown
from thunderline.process.trust import Wallet

# One connection on this machine, then one answer of a role.
CONNECT_S, ANSWER_S = 1.0, 3.0
# A connection to a peer, and as long for its handshake; then for the name of a seed.
DIAL_S, TRY_S = 2.0, 6.0
# `/healthz` answers with a few words.
BODY_BYTES_MAX = 4096
# What a client of HTTP/2 begins with, and an empty SETTINGS frame: a server answers with its own.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
TOO_LATE = (Answer.SILENT, f"takes connections, and answers nothing within {ANSWER_S:.0f} s")

T = TypeVar("T")


async def in_thread(call: Callable[[], T], limit_s: float) -> T:
    """A blocking call, in a thread for which nobody waits: a network disk that hangs would hold the process's end.

    Raises what it raises, and TimeoutError.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(outcome: Callable[[], None]) -> None:
        if not done.done():
            outcome()

    def work() -> None:
        outcome: Callable[[], None]
        try:
            result = call()
        except Exception as error:
            outcome = partial(done.set_exception, error)
        else:
            outcome = partial(done.set_result, result)
        with contextlib.suppress(RuntimeError):
            # The loop is closed when this comes too late.
            loop.call_soon_threadsafe(settle, outcome)

    threading.Thread(target=work, daemon=True).start()
    async with asyncio.timeout(limit_s):
        return await done


async def look_at(role: str, host: str, port: int, wallet: Wallet, own: Own | None) -> RoleLook:
    """One role of this node, by its port. `own`: None when that could not be found out."""
    address = joined(host, port)
    answer, detail = await connected(host, port)
    if answer is Answer.SERVING:
        if role == "gateway":
            try:
                answer, detail = await in_thread(lambda: _http_health(host, port), 2 * ANSWER_S)
            except TimeoutError:
                answer, detail = TOO_LATE
        else:
            answer, detail = await _grpc_health(address, wallet, own)
    return RoleLook(role, address, answer, detail)


def joined(host: str, port: int) -> str:
    return addresses.target(host, port)


async def connected(host: str, port: int) -> tuple[Answer, str]:
    """Whether anybody takes a connection: SERVING, NOBODY or SILENT."""
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return Answer.SILENT, f"takes no connection within {CONNECT_S:.0f} s"
    except OSError as error:
        return Answer.NOBODY, str(error)
    writer.close()
    return Answer.SERVING, ""


async def dialled(host: str, port: int) -> Dial:
    """How a connection to an IP address ends, and after what time."""
    clock = asyncio.get_running_loop().time
    begun_s, number = clock(), 0
    try:
        async with asyncio.timeout(DIAL_S):
            _, writer = await asyncio.open_connection(host, port)
        writer.close()
    except TimeoutError:
        number = errno.ETIMEDOUT
    except OSError as error:
        number = error.errno or errno.EIO
    return Dial(number, clock() - begun_s)


def _http_health(host: str, port: int) -> tuple[Answer, str]:
    connection = http.client.HTTPConnection(host, port, timeout=ANSWER_S)
    try:
        connection.request("GET", "/healthz")
        response = connection.getresponse()
        is_ours = response.status == 200 and b"alive" in response.read(BODY_BYTES_MAX)
    except TimeoutError:
        return TOO_LATE
    except (OSError, http.client.HTTPException) as error:
        return Answer.OTHER, f"it does not speak HTTP ({error or type(error).__name__})"
    finally:
        connection.close()
    return (Answer.SERVING, "") if is_ours else (Answer.OTHER, f"it answers /healthz with {response.status}")


async def _grpc_health(address: str, wallet: Wallet, own: Own | None) -> tuple[Answer, str]:
    try:
        async with HealthClient(address, wallet) as client:
            serving = await client.is_serving(ANSWER_S)
        return (Answer.SERVING if serving else Answer.NOT_SERVING), ""
    except DeadlinePassed:
        return TOO_LATE
    except (Unreachable, Unauthenticated) as error:
        if own is None or own.is_unheard:
            return Answer.UNASKED, error.message
        if await _is_silent(address):
            return TOO_LATE
        return Answer.OTHER, await _why_closed(address, wallet, own)
    except ClusterError as error:
        return Answer.OTHER, error.message


async def _is_silent(address: str) -> bool:
    """Whether it says nothing, not even that it does not understand: gRPC gives up after 0.1 s without a reason."""

    def look() -> bool:
        host, _, port = address.rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), CONNECT_S) as plain:
                plain.settimeout(ANSWER_S)
                plain.sendall(PREFACE)
                plain.recv(1)
        except TimeoutError:
            return True
        except OSError:
            return False
        return False

    try:
        return await in_thread(look, CONNECT_S + 2 * ANSWER_S)
    except TimeoutError:
        return True


async def _why_closed(address: str, wallet: Wallet, own: Own) -> str:
    """A handshake that fails says only that the connection was closed."""
    if own.facts is None:
        return "it closes the connection: it wants a certificate, and this node has none; or it is no role of ours"
    found = await tried(address, wallet)
    why, _ = refusal(own, found)
    if found.shown:
        return f"{why}: it runs since before this node had its certificate, or is no role of thunderline"
    return why or found.problem or "it closes the connection, and its log says why"


async def tried(address: str, wallet: Wallet) -> Try:
    """A connection to "host:port" and, on a node of a cluster, the certificate that is shown there."""
    try:
        identity = wallet.identity()
        bundle = identity.authorities_pem if identity else None
        return await in_thread(lambda: _tried(address, bundle), TRY_S)
    except Unauthenticated as error:
        return Try(address, problem=error.message)
    except TimeoutError:
        return Try(address, problem=f"no answer within {TRY_S:.0f} s")


def _tried(address: str, authorities_pem: bytes | None) -> Try:
    host, _, port = address.rpartition(":")
    try:
        if authorities_pem is None:
            socket.create_connection((host.strip("[]"), int(port)), DIAL_S).close()
            return Try(address)
        return Try(address, facts=facts(shown(address, DIAL_S), authorities_pem))
    except Unauthenticated as error:
        return Try(address, shown=error.message.removeprefix(f"{address} "))
    except Unreachable as error:
        return Try(address, problem=error.message.removeprefix(f"{address} "))
    except (OSError, ValueError) as error:
        return Try(address, problem=str(error))
