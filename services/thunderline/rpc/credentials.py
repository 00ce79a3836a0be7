"""TLS of the one server and channel factory: both ends show a certificate of the cluster and ask for one."""

import grpc

from thunderline.cluster import NodeId
from thunderline.cluster.certificates import ENROLMENT_DOMAIN, domain
from thunderline.cluster.errors import Unauthenticated
from thunderline.process.certificates import Authority
from thunderline.process.trust import Identity, Wallet


def for_server(wallet: Wallet) -> grpc.ServerCredentials:
    """With the newest certificate at each handshake. Raises Unauthenticated when ours cannot be used.

    The caller keeps what it gets for as long as the server lives: gRPC itself holds no reference to it, and asks it
    at every new connection.
    """
    current = wallet.checked()

    def newest() -> grpc.ServerCertificateConfiguration | None:
        nonlocal current
        try:
            one = wallet.identity()
        except Unauthenticated:
            # A file that is broken just now: whoever is let in so far stays so.
            return None
        if one is None or one == current:
            return None
        current = one
        return _configuration(one)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(current),
        newest,  # type: ignore[arg-type]  # None is allowed: no change.
        require_client_authentication=True,
    )


def for_enrolment(authority: Authority) -> grpc.ServerCredentials:
    """The authority's own certificate, which a join token pins; who joins has none to show."""
    return grpc.ssl_server_credentials([(authority.key_pem, authority.certificate_pem)])


def for_channel(one: Identity) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(one.authorities_pem, one.key_pem, one.certificate_pem)


def for_joining(authority_pem: bytes) -> grpc.ChannelCredentials:
    """To the enrolment port, of an authority whose fingerprint was compared."""
    return grpc.ssl_channel_credentials(authority_pem)


def expects(node: NodeId | None) -> list[tuple[str, str]]:
    """Channel options: the peer is this node, or any node of the cluster. Its address is checked by nobody."""
    return [("grpc.ssl_target_name_override", domain(node))]


EXPECTS_ENROLMENT = [("grpc.ssl_target_name_override", ENROLMENT_DOMAIN)]


def _configuration(one: Identity) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(one.key_pem, one.certificate_pem)], one.authorities_pem)
