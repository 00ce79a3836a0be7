"""The one factory of channels, and the options that both ends share. Each reason is measured: README.md, decisions."""

from typing import TYPE_CHECKING

import grpc

from thunderline.cluster import NodeId
from thunderline.cluster.certificates import NO_CERTIFICATE
from thunderline.cluster.errors import Unauthenticated
from thunderline.cluster.limits import DEFAULTS
from thunderline.cluster.transport import Transport, transport

if TYPE_CHECKING:
    # With it comes `cryptography`: a rank dials its runner's socket, and needs none.
    from thunderline.process.trust import Identity, Wallet

# A silent dead peer is noticed after ping time + time-out. A long prefill is silence too, so pings go without data.
_KEEP_ALIVE = [
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]

# Probing for the bandwidth answers every token with a ping. The window is fixed instead: a whole prompt at once.
_WINDOW = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1024 * 1024)]

CHANNEL_OPTIONS: list[tuple[str, int]] = [
    *_KEEP_ALIVE,
    *_WINDOW,
    # The default waits from 1 s up to 2 minutes before it dials a restarted role again.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 250),
    # Else a new channel shares the old one's back-off.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", DEFAULTS.message_bytes_max),
    ("grpc.max_send_message_length", DEFAULTS.message_bytes_max),
    ("grpc.enable_retries", 0),
]

# gRPC gives a connection no longer than its back-off, or this. TCP, TLS and HTTP/2 need four round trips, over a VPN
# 0.3 s; and with the roles' poller (cli/__main__.py) each waits up to 0.2 s while no call waits for the connection.
TLS_CONNECT_MS = 2_000
_CONNECT = "grpc.min_reconnect_backoff_ms"
TLS_CHANNEL_OPTIONS = [(name, TLS_CONNECT_MS if name == _CONNECT else value) for name, value in CHANNEL_OPTIONS]

SERVER_OPTIONS: list[tuple[str, int]] = [
    *_KEEP_ALIVE,
    *_WINDOW,
    # By default a second server on a taken port starts, silently, and gets half of the calls.
    ("grpc.so_reuseport", 0),
    # Else a client that pings through a long prefill is sent away with "too_many_pings".
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.max_receive_message_length", DEFAULTS.message_bytes_max),
    ("grpc.max_send_message_length", DEFAULTS.message_bytes_max),
]


def dial(target: str, wallet: "Wallet | None" = None, node: NodeId | None = None) -> grpc.aio.Channel:
    """A channel to "host:port" or "unix:path". Dialling is lazy; calls take their own deadlines.

    With a wallet, and on a node of a cluster, by TLS: to `node`, or to whichever node answers there; each call goes by
    the newest certificate. Raises Unauthenticated when others would not take ours.
    """
    if wallet is None or target.startswith("unix:"):
        return _plain(target)
    from thunderline.rpc import credentials
    from thunderline.rpc.lasting_channel import LastingChannel

    options = [*TLS_CHANNEL_OPTIONS, *credentials.expects(node)]

    def make(one: "Identity | None") -> grpc.aio.Channel:
        if one is None:
            return _plain(target)
        return grpc.aio.secure_channel(target, credentials.for_channel(one), options=options)

    return LastingChannel(wallet, make)


def _plain(target: str) -> grpc.aio.Channel:
    """Raises Unauthenticated."""
    if transport(target, has_certificate=False) is Transport.REFUSED:
        raise Unauthenticated(f"{target} is another machine's: {NO_CERTIFICATE}")
    return grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS)


def dial_enrolment(target: str, authority_pem: bytes) -> grpc.aio.Channel:
    """To the enrolment port, of an authority whose fingerprint was compared with the token's: process/handshake.py."""
    from thunderline.rpc import credentials

    options = [*TLS_CHANNEL_OPTIONS, *credentials.EXPECTS_ENROLMENT]
    return grpc.aio.secure_channel(target, credentials.for_joining(authority_pem), options=options)
