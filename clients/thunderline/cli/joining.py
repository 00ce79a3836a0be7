"""`cluster join TOKEN`: makes a key here, has it signed by the cluster that the token names, and keeps both."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from thunderline.cli.adopting import agreed
from thunderline.client.enrollment import EnrollmentClient
from thunderline.cluster import NodeId
from thunderline.cluster.callers import Caller
from thunderline.cluster.certificates import Bearer, own_fault
from thunderline.cluster.errors import InvalidRequest, Unauthenticated, Unreachable
from thunderline.cluster.join_tokens import JoinToken, read
from thunderline.cluster.transport import is_loopback
from thunderline.process import authority
from thunderline.process.authority import AUTHORITY
from thunderline.process.certificates import new_key, request_pem
from thunderline.process.handshake import pinned_authority
from thunderline.process.home import leave_store, node_id, remembered_ports, write_atomically
from thunderline.process.settings import Settings
from thunderline.process.trust import (
    FOLDER,
    Identity,
    Wallet,
    forget_offers,
    identity,
    keep,
    keep_joined,
    trusted,
)
from thunderline.v1 import enrollment_pb2

# What a scheduler node may say that is written into our settings.
NAME_LENGTH_MAX, SEED_COUNT_MAX, SEED_LENGTH_MAX = 64, 64, 300
NOT_THERE = (
    "is `thunderline up` running on the scheduler node, and is the token younger than an hour? "
    "If so, ask for a new token there"
)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Joined:
    cluster: str
    node: NodeId
    scheduler: NodeId
    seeds: tuple[str, ...]


async def join(settings: Settings, text: str, yes: bool, say: Say) -> Joined:
    """Raises InvalidRequest, Unauthenticated, Unreachable, NotAdopted, CannotStart, OSError."""
    token = read(text)
    home = settings.home
    home.mkdir(parents=True, exist_ok=True)
    node = node_id(home)
    is_same = _agree(settings, token, yes, say)
    try:
        authority_pem = await asyncio.to_thread(pinned_authority, token)
    except Unreachable as error:
        raise Unreachable(f"{error.message}; {NOT_THERE}") from None
    key_pem = new_key()
    async with EnrollmentClient.joining(token.address, authority_pem) as enrollment:
        answer = await enrollment.sign(text.strip(), request_pem(key_pem, node))
    one = _checked(key_pem, answer, token, node)
    if not is_same and _is_same_cluster(settings, answer):
        say("the same cluster, under a new authority")
        is_same = True
    seeds = _seeds(token, list(answer.seeds))
    with authority.changing(home):
        if not is_same:
            _put_away(home, say)
            leave_obeyed_store(home)
        keep(home, one)
        keep_joined(home, answer.cluster_name, NodeId(answer.scheduler_node_id), seeds)
    return Joined(answer.cluster_name, node, NodeId(answer.scheduler_node_id), seeds)


def _agree(settings: Settings, token: JoinToken, yes: bool, say: Say) -> bool:
    """Whether this node belongs to the token's cluster already. Raises InvalidRequest, NotAdopted."""
    ours = authority.kept(settings.home)
    if ours is not None and token.authority in ours.ring.trusted:
        raise InvalidRequest("this node is the scheduler node that made this token: join with the other nodes")
    try:
        own = Wallet(settings.home, settings.cluster.name).identity()
    except Unauthenticated as error:
        say(f"{error.message.partition(';')[0]}: it is made anew")
        own = None
    if own is not None and token.authority in trusted(own):
        return True
    if own is not None or ours is not None:
        name = own.facts.bearer.cluster if own else settings.cluster.name
        which = "is the scheduler node of" if ours else "belongs to"
        say(f"this node {which} cluster {name!r}, under the authority {_short(_own_authority(own, settings))}")
        say(f"the token is of the authority {_short(token.authority)}, at {token.address}:")
        say("another cluster, or this one under a new authority")
    store, count = obeyed_store(settings.home)
    if count:
        say(f"this node's runner keeps deployments of its scheduler's store, {store}: {count}")
        say("in another cluster they end when `thunderline up` starts here again")
    if own is not None or ours is not None:
        agreed("leave the one and join the other?", yes)
    elif count:
        agreed("end them, and join?", yes)
    return False


def _is_same_cluster(settings: Settings, answer: enrollment_pb2.SignCertificateResponse) -> bool:
    """A member of the scheduler node's that answers, which has changed its authority since."""
    is_member = bool(settings.cluster.scheduler) and authority.kept(settings.home) is None
    return is_member and settings.cluster.scheduler == answer.scheduler_node_id


def _own_authority(own: Identity | None, settings: Settings) -> str:
    ours = authority.kept(settings.home)
    return ours.ring.signing if ours else own.facts.authority if own else ""


def _short(fingerprint: str) -> str:
    return fingerprint[:16] or "of nobody it trusts"


def _checked(
    key_pem: bytes, answer: enrollment_pb2.SignCertificateResponse, token: JoinToken, node: NodeId
) -> Identity:
    """Our key's, our name's, of that authority. Raises Unauthenticated."""
    one = identity(key_pem, answer.certificate_pem, answer.authority_pem)
    expected = Bearer(answer.cluster_name, Caller.MEMBER, node)
    fits = one.facts.bearer == expected and one.facts.authority and token.authority in trusted(one)
    if not fits or not 1 <= len(answer.cluster_name) <= NAME_LENGTH_MAX:
        raise Unauthenticated("what the scheduler node signed is not what was asked for: nothing was changed")
    if fault := own_fault(one.facts, answer.cluster_name, time.time()):
        raise Unauthenticated(f"{fault}: set this node's clock, and join with another token")
    return one


def _seeds(token: JoinToken, told: list[str]) -> tuple[str, ...]:
    """First those at the address that has answered; it was reached under a name, or through a router, if none is."""
    host = token.address.rpartition(":")[0]
    sane = [one for one in told if 0 < len(one) <= SEED_LENGTH_MAX and one.rpartition(":")[2].isdigit()]
    if not any(one.rpartition(":")[0] == host for one in sane):
        sane = [f"{host}:{sane[0].rpartition(':')[2]}" if sane else host, *sane]
    sane.sort(key=lambda one: one.rpartition(":")[0] != host)
    return tuple(dict.fromkeys(sane))[:SEED_COUNT_MAX]


def _put_away(home: Path, say: Say) -> None:
    """A former authority's key is nothing that can be made again."""
    path = home / FOLDER / AUTHORITY
    if not path.exists():
        return
    ours = authority.kept(home)
    former = home / FOLDER / "former" / f"{ours.ring.signing[:16] if ours else 'broken'}.pem"
    write_atomically(former, path.read_bytes())
    path.unlink()
    forget_offers(home, ())
    say(f"the former cluster's authority lies in {former} now")


def obeyed_store(home: Path) -> tuple[str, int]:
    """Of this node's runner: the store, "" when it obeys none yet, and how many deployments of it are kept."""
    try:
        tree = json.loads((home / "runner.json").read_text())
        return str(tree["store_id"]), len(tree["instances"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", 0


def leave_obeyed_store(home: Path) -> None:
    """With the runner's next start. Raises OSError."""
    if store := obeyed_store(home)[0]:
        leave_store(home, store)


def warnings(joined: Joined, settings: Settings) -> list[str]:
    """What in this node's own settings keeps it out of the cluster all the same."""
    found = []
    for key, said, meant in (
        ("name", settings.cluster.name, joined.cluster),
        ("scheduler", settings.cluster.scheduler, joined.scheduler),
    ):
        if said != meant:
            found.append(f"[cluster] {key} = {said!r} in config.toml, or in a variable, wins over {meant!r}: remove it")
    if is_loopback(settings.node.bind):
        found.append(f"[node] bind = {settings.node.bind!r} in config.toml, or in a variable, keeps other nodes out")
    return found


def next_step(home: Path) -> str:
    if remembered_ports(home):
        return "stop `thunderline up` here and start it again: from then on this node is a member"
    return "start `thunderline up` here: from then on this node is a member"
