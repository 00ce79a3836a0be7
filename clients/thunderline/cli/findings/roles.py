"""Which roles of this node answer, and what to start where one does not. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from thunderline.cli.findings.finding import Finding, joined, note, warning, wrong
from thunderline.cli.findings.machine import Owner


class Answer(Enum):
    """How a role's port answered."""

    SERVING = auto()
    NOT_SERVING = auto()  # The role says so: it starts, or it drains.
    NOBODY = auto()  # Nothing listens.
    SILENT = auto()  # Something is there, and says nothing in time: `detail`.
    OTHER = auto()  # What answers is not our role, or does not take our certificate: `detail`.
    UNASKED = auto()  # It listens; our own certificate is no good for asking it.


@dataclass(frozen=True, slots=True)
class RoleLook:
    """`role`: one of ours, or "echo", which topology serves. `last_words`: why it said that it cannot start."""

    role: str
    address: str
    answer: Answer
    detail: str = ""
    owner: Owner | None = None
    last_words: str = ""
    # False: a node may do without it, and nobody here has promised it.
    is_needed: bool = True


@dataclass(frozen=True, slots=True)
class Place:
    """Where this node's roles live. `up_pid`: of the `thunderline up` that runs there; 0: none does."""

    home: str
    up_pid: int = 0

    @property
    def config(self) -> str:
        return f"{self.home}/config.toml"

    def log(self, role: str) -> str:
        return f"{self.home}/logs/{role}.log"

    def start(self, role: str) -> str:
        if self.up_pid:
            shows = f"`tail {self.log(role)}` shows why it does not come"
            return f"`thunderline up` (pid {self.up_pid}) starts it again by itself; {shows}"
        return f"`thunderline {role}` starts it alone, `thunderline up` all of them"


def of_roles(looks: Sequence[RoleLook], place: Place) -> list[Finding]:
    """`looks`: one for each role that this node should run."""
    by_role = {one.role: one for one in looks}
    roles = [one for one in looks if one.role != "echo"]
    found = []
    if roles and all(one.answer is Answer.NOBODY for one in roles) and not place.up_pid:
        ports = ", ".join(f"{one.role} ({one.address})" for one in roles)
        said = [f"; {one.role} ended with: {one.last_words}" for one in roles if one.last_words][:1]
        return [
            wrong(
                "no role of this node runs",
                f"nothing listens for {ports}{''.join(said)}",
                f"`thunderline up`; when they run in another home than {place.home}, set `THUNDERLINE_HOME` to it",
            )
        ]
    serving = [one.role for one in roles if one.answer is Answer.SERVING]
    if serving:
        found.append(note("roles that answer", joined(serving)))
    found += [finding for one in roles if (finding := _of_role(one, place))]
    echo, topology = by_role.get("echo"), by_role.get("topology")
    if echo and topology and topology.answer is Answer.SERVING and echo.answer is not Answer.SERVING:
        why = f"topology serves, and its echo at {echo.address} takes no connection: links to this node look DOWN"
        again = f"restart topology (`kill {topology.owner.pid}`)" if topology.owner else "restart topology"
        remedy = f"set `[topology] echo_port` in {place.config} to a free port, and {again}"
        found.append(wrong("peers cannot measure their links to this node", why, remedy))
    return found


def _of_role(one: RoleLook, place: Place) -> Finding | None:
    what = f"{one.role} does not answer"
    match one.answer:
        case Answer.NOBODY:
            said = f"; it ended with: {one.last_words}" if one.last_words else ""
            why = f"nothing listens at {one.address}{said}"
            if not one.is_needed and not one.last_words:
                return warning(f"{one.role} does not run here", why, f"{place.start(one.role)}; a node may do without")
            return wrong(what, why, place.start(one.role))
        case Answer.NOT_SERVING:
            remedy = f"wait some seconds; when it stays so, `tail {place.log(one.role)}` says what it waits for"
            return warning(f"{one.role} is not ready", f"it starts or drains: {one.address} says NOT_SERVING", remedy)
        case Answer.OTHER | Answer.SILENT if one.owner is not None and not one.owner.role:
            flag = "--port N" if one.role == "gateway" else "--base-port N"
            return wrong(
                f"the port of {one.role} is taken",
                f"{one.owner} listens at {one.address}, and is no role of thunderline",
                f"end it (`kill {one.owner.pid}`), or choose another port: `thunderline up {flag}`, or "
                f"`[{one.role}] port` in {place.config}",
            )
        case Answer.SILENT:
            return wrong(what, f"{one.address} {one.detail}{_held_by(one)}", _again(one, place))
        case Answer.OTHER:
            return wrong(what, f"at {one.address}: {one.detail}{_held_by(one)}", _again(one, place))
    return None


def _held_by(one: RoleLook) -> str:
    return f"; {one.owner} listens there" if one.owner else ""


def _again(one: RoleLook, place: Place) -> str:
    """A role that is there and is no use: it read its certificate or its settings when it started, or it is stuck."""
    if one.owner is None:
        find = f"`sudo lsof -i :{one.address.rpartition(':')[2]}` names it"
        return f"end what listens at {one.address} ({find}), then: {place.start(one.role)}"
    then = "`thunderline up` starts it anew" if place.up_pid else f"start it anew: `thunderline {one.role}`"
    return f"`kill {one.owner.pid}` (after 10 s `kill -9 {one.owner.pid}`), and {then}"


def of_another_node(own_id: str, answering_id: str, looks: Iterable[RoleLook], place: Place) -> list[Finding]:
    """Whether the roles at our ports are those of our home. `own_id`: "" where no role has ever started."""
    if not answering_id or answering_id == own_id:
        return []
    where = next((one.address for one in looks if one.role == "discovery"), "our port")
    who = f"this home's node is {own_id}" if own_id else "no role has ever run in this home"
    return [
        wrong(
            "another node's roles answer at this node's ports",
            f"discovery at {where} is of node {answering_id}; {who} ({place.home})",
            "set `THUNDERLINE_HOME` to the home that those run in, or start this one elsewhere: "
            "`thunderline up --port N --base-port N`",
        )
    ]
