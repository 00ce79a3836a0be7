"""Certificates, keys and doors: whether others take this node, whether it takes them, and who else could come in. Pure.

The remedies are here; why a certificate is no good cluster/certificates.py says.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from thunderline.cli.findings.finding import Finding, note, warning, wrong
from thunderline.cluster.callers import Caller
from thunderline.cluster.certificates import DAY_S, Facts, Freshness, freshness, own_fault, why_refused
from thunderline.cluster.transport import is_loopback

JOIN = "`thunderline cluster join TOKEN` here (`thunderline cluster init` on the scheduler node prints a token)"
JOIN_THERE = "`thunderline cluster join TOKEN` there"
RENEW_ITSELF = "`thunderline cluster init` here makes it a new certificate, and keeps the cluster's authority"
NTP = "set the clocks by NTP: `sudo timedatectl set-ntp true`, on a Mac `sudo sntp -sS time.apple.com`"


@dataclass(frozen=True, slots=True)
class Own:
    """What this node is by its files and settings. `fault`: why its certificate's file cannot be used, "" when it can;
    then `facts` is None only on a node without a certificate."""

    cluster: str
    now_s: float
    # "" where no role has ever started, or where its file is broken: `id_fault`.
    node_id: str = ""
    id_fault: str = ""
    facts: Facts | None = None
    fault: str = ""
    # Others may read it: `of_kept` says so.
    is_exposed: bool = False
    # It holds the key of its cluster's authority: only the scheduler node does.
    has_authority: bool = False
    # [cluster] scheduler: "" means this node.
    scheduler: str = ""
    bind: str = "127.0.0.1"
    # Of [discovery] seeds those that are other machines.
    far_seeds: tuple[str, ...] = ()
    home: str = ""

    @property
    def is_scheduler_node(self) -> bool:
        return self.scheduler in ("", self.node_id)

    @property
    def config(self) -> str:
        return f"{self.home}/config.toml"

    @property
    def can_dial(self) -> bool:
        """Whether it has a certificate that others may take."""
        return not self.fault and not own_fault(self.facts, self.cluster, self.now_s)

    @property
    def is_unheard(self) -> bool:
        """Whether its own certificate, or the lack of one, keeps it from calling anybody, its own roles included."""
        needs_one = self.facts is not None or not is_loopback(self.bind)
        return bool(self.fault) or (needs_one and not self.can_dial)


@dataclass(frozen=True, slots=True)
class Kept:
    """A private file or folder: its permission bits."""

    path: str
    mode: int
    is_folder: bool = False


@dataclass(frozen=True, slots=True)
class Doors:
    """Where others could come in."""

    gateway_bind: str
    has_api_keys: bool
    metrics_bind: str


@dataclass(frozen=True, slots=True)
class Try:
    """One address, dialled from here. `problem`: why nobody answered, "" when somebody did, who then showed `facts`
    (None: no certificate of thunderline, for the reason `shown`)."""

    address: str
    problem: str = ""
    facts: Facts | None = None
    shown: str = ""


def of_own(own: Own) -> list[Finding]:
    if own.id_fault:
        remedy = f"put the file back from a backup, or `rm {own.home}/node.json`: it is another node then"
        return [wrong("this node has no id", own.id_fault, remedy)]
    if own.fault and own.is_exposed:
        return []
    if own.fault:
        return [wrong("this node's certificate cannot be used", own.fault, _anew(own))]
    if own.facts is None:
        return _without(own)
    if fault := own_fault(own.facts, own.cluster, own.now_s):
        return [wrong("no other node takes this node's certificate", fault, _own_remedy(own, own.facts))]
    bearer = own.facts.bearer
    days = (own.facts.valid.ends_s - own.now_s) / DAY_S
    found = [note("certificate", f"{bearer} of cluster {bearer.cluster!r}, {days:.0f} days left")]
    if bearer.caller is Caller.CLIENT:
        why = f"it names {bearer}; nobody serves with a client's certificate"
        return [wrong("this node's certificate is no node's", why, JOIN)]
    if own.node_id and bearer.name != own.node_id:
        why = f"it names {bearer}, and this home is node {own.node_id}: one of the two was copied here"
        return [wrong("this node's certificate is another node's", why, JOIN)]
    if own.is_scheduler_node and bearer.caller is not Caller.SCHEDULER:
        why = "by its settings this node schedules, and its certificate is a plain node's: no runner obeys it"
        remedy = f"take `[cluster] scheduler` out of {own.config}, or: {JOIN}"
        found.append(wrong("this node may not command ranks", why, remedy))
    if not own.is_scheduler_node and bearer.caller is Caller.SCHEDULER:
        why = f"its certificate may command ranks, and [cluster] scheduler names {own.scheduler}"
        remedy = f"take `[cluster] scheduler` out of {own.config}, or join the other's cluster: {JOIN}"
        found.append(warning("two nodes may be meant as the scheduler node", why, remedy))
    if freshness(own.facts.valid, own.now_s) is Freshness.DUE:
        why = f"{days:.0f} days are left; it renews itself at two thirds of its life, from the scheduler node"
        where = f"`tail {own.home}/logs/discovery.log` says why it could not"
        remedy = f"{where}; `thunderline nodes` shows whether the scheduler node is ALIVE; at the last: {JOIN}"
        found.append(warning("this node's certificate should have been renewed", why, remedy))
    return found


def _without(own: Own) -> list[Finding]:
    join = f"`thunderline cluster init` on the first node, on others {JOIN}"
    if not is_loopback(own.bind):
        why = f"[node] bind is {own.bind!r}, wider than loopback, and strangers are kept out by certificates only"
        alone = f'`[node] bind = "127.0.0.1"` in {own.config}'
        return [wrong("the roles do not start: this node has no certificate", why, f"{join}; to stay alone {alone}")]
    if own.far_seeds:
        why = f"[discovery] seeds names {own.far_seeds[0]}, and without a certificate no other machine is dialled"
        return [wrong("this node reaches no other", why, join)]
    return [note("certificate", "none: this node is by itself, and its roles are reached from this machine only")]


def _own_remedy(own: Own, facts: Facts) -> str:
    if facts.bearer.cluster != own.cluster:
        return f'`[cluster] name = "{facts.bearer.cluster}"` in {own.config}, or {_anew(own)}'
    if freshness(facts.valid, own.now_s) is Freshness.NOT_YET:
        return NTP
    return _anew(own)


def _anew(own: Own) -> str:
    return RENEW_ITSELF if own.has_authority else JOIN


def of_kept(kept: Iterable[Kept], home_is_writable: bool, home: str) -> list[Finding]:
    """Of the home and of cluster/."""
    found = []
    if not home_is_writable:
        why = "no role can keep its id, its store or its sockets there"
        remedy = f"`sudo chown -R $(id -un) {home}`, or set `THUNDERLINE_HOME` to a folder of yours"
        found.append(wrong(f"{home} cannot be written", why, remedy))
    for one in kept:
        bits = f"its permissions are {one.mode & 0o777:04o}"
        if one.path == home:
            if one.mode & 0o022:
                why = f"{bits}: others could put files there that this node trusts"
                found.append(warning(f"others may write to {home}", why, f"`chmod go-w {home}`"))
        elif one.mode & 0o077 and one.is_folder:
            found.append(warning(f"others may look into {one.path}", bits, f"`chmod 700 {one.path}`"))
        elif one.mode & 0o077:
            why = f"{bits}: who has read the key can pose as this node, and its roles do not start with it"
            remedy = f"`chmod 600 {one.path}`, and where others use this machine `thunderline cluster rotate`"
            found.append(wrong(f"others may read {one.path}", why, remedy))
    return found


def of_doors(doors: Doors, config: str) -> list[Finding]:
    found = []
    if not is_loopback(doors.gateway_bind) and not doors.has_api_keys:
        why = f"[gateway] bind is {doors.gateway_bind!r}, wider than loopback, and no API key is asked for"
        remedy = (
            f"`thunderline cluster key NAME` makes one, and says what to write into `[gateway] api_keys` in {config}; "
            'or `[gateway] bind = "127.0.0.1"`'
        )
        found.append(wrong("the gateway does not start: everybody could use it", why, remedy))
    if not is_loopback(doors.metrics_bind):
        why = f"[node] metrics_bind is {doors.metrics_bind!r}: names of models and how much they are used, without TLS"
        remedy = f'`[node] metrics_bind = "127.0.0.1"` in {config}, or a firewall that lets only Prometheus in'
        found.append(warning("everybody on the network can read this node's metrics", why, remedy))
    return found


def refusal(own: Own, one: Try) -> tuple[str, str]:
    """Why a handshake with who answers there fails, and the remedy; "" and "" when nothing speaks against it."""
    if one.problem or not own.can_dial:
        return "", ""
    if one.shown:
        return one.shown, f"{JOIN_THERE}, then start its roles anew; or another program has that port"
    why = why_refused(own.facts, one.facts, own.cluster, own.now_s)
    if not why or one.facts is None:
        return why, JOIN_THERE if why else ""
    if one.facts.bearer.cluster != own.cluster:
        return why, f"is it a typo? then the same `[cluster] name` on both; else take {one.address} out of the seeds"
    if one.facts.authority and freshness(one.facts.valid, own.now_s) is Freshness.NOT_YET:
        return why, NTP
    return why, f"{JOIN_THERE}, with a new token of this cluster"


def of_seeds(own: Own, tries: Iterable[Try]) -> list[Finding]:
    """Seeds that are no known member's."""
    found = []
    for one in tries:
        if one.problem:
            mend = f"or mend `[discovery] seeds` in {own.config}"
            remedy = f"start the roles there (`thunderline up`), open that port in its firewall, {mend}"
            found.append(warning(f"seed {one.address} does not answer", one.problem, remedy))
        else:
            why, remedy = refusal(own, one)
            if why:
                found.append(warning(f"seed {one.address} and this node do not trust each other", why, remedy))
    return found
