"""What a certificate of the cluster says, how long it counts, and why one is refused. Pure.

A certificate names its bearer in one URI among its alternative names, thunderline://CLUSTER/CALLER/NAME; a node's
also carries DNS names, which whoever dials it checks in place of an address: addresses change with the cable.
"""

import re
from collections.abc import Iterable, Set
from dataclasses import dataclass
from enum import Enum, auto
from urllib.parse import quote, unquote

from thunderline.cluster import NodeId
from thunderline.cluster.callers import CERTIFIED, Caller
from thunderline.cluster.errors import Unauthenticated

SCHEME = "thunderline://"
# Every node's certificate is good for the first; one node's own is this name below it.
NODE_DOMAIN = "node.thunderline"
# The enrolment port shows the authority's own certificate, so that its pin can be compared.
ENROLMENT_DOMAIN = "enrolment.thunderline"

DAY_S = 86_400
# Clocks of nodes that never met differ: a certificate counts from this long before it was made.
CLOCK_SLACK_S = 3_600
# An authority outlives the machines. A certificate is renewed without anybody's doing, so a year is for nodes that
# were off for long.
AUTHORITY_S, CERTIFICATE_S = 3_650 * DAY_S, 365 * DAY_S
# Renewed after this part of its life; the rest is for a scheduler node that is away.
RENEW_AFTER = 2 / 3
# A client's name becomes a file name, and the subject of a certificate holds 64 characters.
CLIENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True, slots=True)
class Bearer:
    """Whom a certificate names. `name` is a node_id, or the name of a client."""

    cluster: str
    caller: Caller
    name: str

    @property
    def uri(self) -> str:
        return f"{SCHEME}{quote(self.cluster, safe='')}/{self.caller.value}/{quote(self.name, safe='')}"

    def __str__(self) -> str:
        kind = {Caller.SCHEDULER: "scheduler node", Caller.MEMBER: "node"}.get(self.caller, self.caller.value)
        return f"{kind} {self.name}"


def bearer(uris: Iterable[str]) -> Bearer:
    """The one that a certificate's URIs name. Raises Unauthenticated for none, or for more than one."""
    ours = [uri for uri in uris if uri.startswith(SCHEME)]
    parts = ours[0].removeprefix(SCHEME).split("/") if len(ours) == 1 else []
    callers = {one.value: one for one in CERTIFIED}
    if len(parts) != 3 or parts[1] not in callers or not parts[0] or not parts[2]:
        raise Unauthenticated("the certificate names nobody of a thunderline cluster")
    return Bearer(unquote(parts[0]), callers[parts[1]], unquote(parts[2]))


def domain(node: NodeId | None = None) -> str:
    """The name that a node's certificate is checked for; without a node, any node of the cluster will do."""
    return f"{node}.{NODE_DOMAIN}" if node else NODE_DOMAIN


@dataclass(frozen=True, slots=True)
class Validity:
    """From when to when, in seconds since 1970."""

    begins_s: int
    ends_s: int


def validity(now_s: float, life_s: int, authority_ends_s: int | None = None) -> Validity:
    """Of a certificate that is made now; none outlives the authority that signs it."""
    ends_s = int(now_s) + life_s
    return Validity(int(now_s) - CLOCK_SLACK_S, ends_s if authority_ends_s is None else min(ends_s, authority_ends_s))


class Freshness(Enum):
    NOT_YET = auto()  # This clock is behind the one that made it.
    FRESH = auto()
    DUE = auto()  # Good, and to be renewed.
    EXPIRED = auto()


def freshness(valid: Validity, now_s: float) -> Freshness:
    if now_s < valid.begins_s:
        return Freshness.NOT_YET
    if now_s >= valid.ends_s:
        return Freshness.EXPIRED
    due_s = valid.begins_s + (valid.ends_s - valid.begins_s) * RENEW_AFTER
    return Freshness.DUE if now_s >= due_s else Freshness.FRESH


@dataclass(frozen=True, slots=True)
class Facts:
    """What counts of a certificate. `authority` is the fingerprint of who signed it; "" when nobody we trust did."""

    bearer: Bearer
    valid: Validity
    authority: str


NO_CERTIFICATE = "this node has no certificate of a cluster: run `thunderline cluster join TOKEN`"


def own_fault(own: Facts | None, cluster: str, now_s: float) -> str:
    """Why our own certificate lets us neither serve nor dial others; "" when it does."""
    if own is None:
        return NO_CERTIFICATE
    if own.bearer.cluster != cluster:
        return f"this node's certificate is of cluster {own.bearer.cluster!r}, and [cluster] name is {cluster!r}"
    is_scheduler = own.bearer.caller is Caller.SCHEDULER
    remedy = f"run `thunderline cluster {'init' if is_scheduler else 'join TOKEN'}` once more"
    if not own.authority:
        return f"no authority that this node trusts signed its certificate: {remedy}"
    match freshness(own.valid, now_s):
        case Freshness.EXPIRED:
            return f"this node's certificate has expired: {remedy}"
        case Freshness.NOT_YET:
            return "this node's certificate is not valid yet: its clock is behind the scheduler node's"
    return ""


def why_refused(own: Facts | None, shown: Facts | None, cluster: str, now_s: float) -> str:
    """Why a handshake with a peer failed, for the caller's log and `doctor`; "" when both certificates look right.

    `shown` is what the peer showed: None when it is no certificate of thunderline. Who dials sees only that the
    connection was closed (facts/grpc.md), so it is concluded from both certificates.
    """
    if fault := own_fault(own, cluster, now_s):
        return fault
    if shown is None:
        return "what answers there shows no certificate of a thunderline node"
    if shown.bearer.cluster != cluster:
        return f"it is a node of another cluster, {shown.bearer.cluster!r}"
    if not shown.authority:
        return "another authority signed its certificate: it is of another cluster of this name, or missed a rotation"
    match freshness(shown.valid, now_s):
        case Freshness.EXPIRED:
            return f"the certificate of {shown.bearer} has expired"
        case Freshness.NOT_YET:
            return f"the certificate of {shown.bearer} is not valid yet: the clocks differ"
    return ""


# When both certificates look right from here.
NOT_TAKEN = "it does not take this node's certificate: it has missed a rotation, or its clock differs"


def check_peer(peer: Facts, cluster: str, now_s: float) -> None:
    """At each call, since a connection may outlive its certificate or the trust in its authority.

    Raises Unauthenticated.
    """
    if peer.bearer.cluster != cluster:
        raise Unauthenticated(f"{peer.bearer} is of another cluster, {peer.bearer.cluster!r}")
    if not peer.authority:
        raise Unauthenticated(f"the authority that signed the certificate of {peer.bearer} is not trusted any more")
    if freshness(peer.valid, now_s) in {Freshness.EXPIRED, Freshness.NOT_YET}:
        raise Unauthenticated(f"the certificate of {peer.bearer} has expired, or is not valid yet")


def renewal(own: Facts, trusted: Set[str], announced: Set[str], signing: str, now_s: float) -> str:
    """Why a node asks for a new certificate now; "" when it does not.

    `announced`: the authorities that the scheduler node's card names, `signing` the one that signs; empty and ""
    while it has not been heard.
    """
    if freshness(own.valid, now_s) in {Freshness.DUE, Freshness.EXPIRED}:
        return "it ends soon"
    if announced and announced != trusted:
        return "the cluster's authorities have changed"
    if signing and own.authority != signing:
        return "another authority signs now"
    return ""
