"""What a server shows before anything is trusted: for the pin of a join token, and for `doctor`. Blocking."""

import socket
import ssl

from thunderline.cluster.errors import Unauthenticated, Unreachable
from thunderline.cluster.join_tokens import JoinToken
from thunderline.process.certificates import fingerprint

TIMEOUT_S = 3.0


def shown(address: str, timeout_s: float = TIMEOUT_S) -> bytes:
    """The certificate of "host:port", as PEM, verified by nobody. Raises Unreachable, Unauthenticated."""
    host, _, port = address.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # gRPC speaks nothing else.
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((host.strip("[]"), int(port)), timeout_s) as plain,
            context.wrap_socket(plain) as secured,
        ):
            data = secured.getpeercert(binary_form=True)
    except ssl.SSLError as error:
        raise Unauthenticated(f"{address} does not speak TLS: {error.reason or error}") from None
    except OSError as error:
        raise Unreachable(f"{address} cannot be reached: {error}") from None
    if not data:
        raise Unauthenticated(f"{address} shows no certificate")
    return ssl.DER_cert_to_PEM_cert(data).encode()


def pinned_authority(token: JoinToken, timeout_s: float = TIMEOUT_S) -> bytes:
    """The authority's certificate, as PEM: its enrolment port shows it, and it is the one that the token names.

    Nothing has been sent before that. Raises Unreachable, Unauthenticated.
    """
    pem = shown(token.address, timeout_s)
    if fingerprint(pem) != token.authority:
        raise Unauthenticated(
            f"{token.address} is not the scheduler node that made this token: its authority is another one"
        )
    return pem
