"""What a server shows before anything is trusted: for the pin of a join token, and for `doctor`. Blocking."""

import socket
import ssl
from pathlib import Path

from thunderline.cluster.errors import Unauthenticated, Unreachable
from thunderline.cluster.join_tokens import JoinToken
from thunderline.process.certificates import fingerprint

TIMEOUT_S = 3.0


# How HTTP/2 begins, and an empty SETTINGS frame: a server answers with its own.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


def _trusting_anybody() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # gRPC speaks nothing else.
    context.set_alpn_protocols(["h2"])
    return context


def _connected(address: str, timeout_s: float) -> socket.socket:
    """Raises Unreachable."""
    host, _, port = address.rpartition(":")
    try:
        return socket.create_connection((host.strip("[]"), int(port)), timeout_s)
    except TimeoutError:
        raise Unreachable(f"{address} does not answer within {timeout_s:.0f} s") from None
    except OSError as error:
        raise Unreachable(f"{address} cannot be reached: {error}") from None


def shown(address: str, timeout_s: float = TIMEOUT_S) -> bytes:
    """The certificate of "host:port", as PEM, verified by nobody. Raises Unreachable, Unauthenticated."""
    try:
        with _connected(address, timeout_s) as plain, _trusting_anybody().wrap_socket(plain) as secured:
            data = secured.getpeercert(binary_form=True)
    except ssl.SSLError as error:
        raise Unauthenticated(f"{address} does not speak TLS: {error.reason or error}") from None
    except TimeoutError:
        raise Unreachable(f"{address} does not answer within {timeout_s:.0f} s") from None
    except OSError as error:
        raise Unreachable(f"{address} cannot be reached: {error}") from None
    if not data:
        raise Unauthenticated(f"{address} shows no certificate")
    return ssl.DER_cert_to_PEM_cert(data).encode()


def turned_away(address: str, own_pem: Path, timeout_s: float = TIMEOUT_S) -> str:
    """Why "host:port" does not take the certificate in our node.pem, as far as it says so; "" when it does.

    With TLS 1.3 a server looks at it after our side of the handshake has ended: only its first bytes tell. Raises
    Unreachable.
    """
    context = _trusting_anybody()
    try:
        context.load_cert_chain(own_pem)
        with _connected(address, timeout_s) as plain, context.wrap_socket(plain) as secured:
            secured.sendall(PREFACE)
            return "" if secured.recv(1) else "it closes the connection"
    except ssl.SSLError as error:
        return (error.reason or str(error)).lower().replace("_", " ")
    except OSError as error:
        return f"it closes the connection: {error.strerror or error}"


def pinned_authority(token: JoinToken, timeout_s: float = TIMEOUT_S) -> bytes:
    """The authority's certificate, as PEM: its enrolment port shows it, and it is the one that the token names.

    Nothing has been sent before that. Raises Unreachable, Unauthenticated.
    """
    pem = shown(token.address, timeout_s)
    if fingerprint(pem) != token.authority:
        raise Unauthenticated(
            f"{token.address} is not the scheduler node that made this token: its authority is another one; "
            "if that has been changed since, ask for a new token there"
        )
    return pem
