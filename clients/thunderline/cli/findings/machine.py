"""What the machine itself lacks: disk, memory, a fast BLAS, open files, ports. Pure."""

import errno as errnos
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from thunderline.cli.findings.finding import Finding, joined, note, warning, wrong

GB, GIB = 10**9, 2**30
# A model is several GB, and a disk that is nearly full gets slow: whichever is met first.
FREE_MIN_BYTES, FREE_MIN_SHARE = 5 * GB, 0.05
# Below this the scheduler's store and the logs will soon not be written any more.
FREE_WRONG_BYTES = GB // 10
# Weights that are swapped out make a token take seconds.
AVAILABLE_MIN_SHARE, SWAP_MIN_BYTES, SWAP_AVAILABLE_SHARE = 0.1, GIB, 0.25
# A gateway with its connections, or a runner with its ranks; macOS begins with 256.
FILES_MIN = 1024
# Of ports that are no role's gRPC or HTTP.
PORT_SETTINGS = {"echo": "[topology] echo_port", "enrollment": "[scheduler] enrollment_port"}


@dataclass(frozen=True, slots=True)
class Disk:
    """One file system. `uses`: the folders of ours on it; `problem`: why it could not be looked at."""

    uses: tuple[str, ...]
    free_bytes: int = 0
    total_bytes: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Memory:
    total_bytes: int
    available_bytes: int
    swap_used_bytes: int


@dataclass(frozen=True, slots=True)
class Engine:
    """What a rank would compute with. `mlx` is a version, "" where it is not installed."""

    blas: str
    is_fast: bool
    mlx: str


@dataclass(frozen=True, slots=True)
class Owner:
    """Who listens on a port. `role`: which of thunderline's it is, "" when none."""

    pid: int
    name: str
    role: str = ""

    def __str__(self) -> str:
        return f"pid {self.pid} ({f'thunderline {self.role}' if self.role else self.name})"


@dataclass(frozen=True, slots=True)
class Blocked:
    """A port on which nothing of ours listens, and nothing of ours could. `what`: "scheduler", "scheduler metrics",
    "echo"."""

    what: str
    host: str
    port: int
    errno: int
    owner: Owner | None = None


def of_disks(disks: Iterable[Disk], config: str) -> list[Finding]:
    found = []
    for one in disks:
        where = joined(one.uses)
        if one.problem:
            remedy = f"mend it, or change `[runner] model_roots` in {config}"
            found.append(warning(f"{where} cannot be looked at", one.problem, remedy))
            continue
        share = one.free_bytes / max(one.total_bytes, 1)
        free = f"{one.free_bytes / GB:.1f} of {one.total_bytes / GB:.0f} GB are free ({share:.0%})"
        seen = f"`df {one.uses[0]}`: {free}"
        remedy = (
            f"make room there (`du -sh {one.uses[0]}/*` shows what is large), or move `THUNDERLINE_HOME` to a larger "
            "disk"
        )
        if one.free_bytes < FREE_WRONG_BYTES:
            found.append(wrong(f"the disk of {where} is full", "the store cannot be written", remedy, seen))
        elif one.free_bytes < FREE_MIN_BYTES or share < FREE_MIN_SHARE:
            why = "a model takes several GB, and a disk that is nearly full gets slow"
            found.append(warning(f"the disk of {where} is nearly full", why, remedy, seen))
        else:
            found.append(note(f"disk of {where}", free))
    return found


def of_memory(one: Memory, wanted_bytes: int, config: str) -> list[Finding]:
    """`wanted_bytes`: [runner] memory_bytes, 0 when it is not set."""
    share = one.available_bytes / max(one.total_bytes, 1)
    state = (
        f"{one.available_bytes / GIB:.1f} of {one.total_bytes / GIB:.1f} GiB are available ({share:.0%}), "
        f"{one.swap_used_bytes / GIB:.1f} GiB are swapped out"
    )
    found = []
    room = "end other programs, or a model: `thunderline deployments` shows them, `thunderline undeploy NAME` ends one"
    if one.swap_used_bytes >= SWAP_MIN_BYTES and share < SWAP_AVAILABLE_SHARE:
        found.append(warning("the machine is swapping", f"{state}; a model that is swapped out is very slow", room))
    elif share < AVAILABLE_MIN_SHARE:
        found.append(warning("little memory is left", state, room))
    if wanted_bytes > one.total_bytes:
        why = f"[runner] memory_bytes is {wanted_bytes / GIB:.1f} GiB, and the machine has {one.total_bytes / GIB:.1f}"
        remedy = f"make `[runner] memory_bytes` in {config} smaller, or take the line out: then it is 75%"
        found.append(warning("ranks are promised more memory than there is", why, remedy))
    return found or [note("memory", state)]


def of_engine(one: Engine | None) -> list[Finding]:
    """None: what a rank computes with could not be found out."""
    if one is None:
        return [
            warning(
                "what a rank would compute with cannot be told",
                "the process that looks for its BLAS did not answer",
                "`pip install 'thunderline[rank]'`, or on a node that runs no ranks nothing",
            )
        ]
    if not one.mlx:
        why = "without it no rank starts here; a node that only answers HTTP needs none"
        return [warning("mlx is not installed", why, "`pip install 'thunderline[rank]'`")]
    if not one.is_fast:
        remedy = "`sudo apt-get install libopenblas0-pthread`, or the package that holds libopenblas.so.0; ranks that "
        return [warning("ranks compute slowly here", one.blas, f"{remedy}start after it find it")]
    return [note("ranks compute with", f"mlx {one.mlx}, {one.blas}")]


def of_file_limit(soft: int, hard: int, is_mac: bool) -> list[Finding]:
    """Of this shell, which what it starts inherits; a limit that is not there is a large number."""
    if soft >= FILES_MIN:
        return []
    if hard >= FILES_MIN:
        why = f"this shell allows a process {soft} (the hard limit is {hard}); under load connections are refused"
        return [warning("few open files are allowed", why, f"`ulimit -n {min(hard, 8192)}` before `thunderline up`")]
    why = f"{hard} is the hard limit; the gateway then takes fewer connections"
    remedy = (
        "`sudo launchctl limit maxfiles 8192 65536`, then a new terminal"
        if is_mac
        else "raise nofile in /etc/security/limits.conf, or `LimitNOFILE=8192` in the systemd unit; then log in anew"
    )
    return [warning("few open files are allowed", why, remedy)]


def of_ports(ports: Mapping[str, int], config: str) -> list[Finding]:
    """By the words of what listens: "scheduler", "scheduler metrics". One port is for one."""
    by_port: dict[int, list[str]] = {}
    for what, port in ports.items():
        by_port.setdefault(port, []).append(what)
    return [
        wrong(
            f"{joined(names)} have the same port",
            f"port {port} is set for {'both' if len(names) == 2 else 'all'}; metrics are at the gRPC port + 100",
            f"give one of them another: `port`, `echo_port` or `enrollment_port` of its section in {config}",
        )
        for port, names in sorted(by_port.items())
        if len(names) > 1
    ]


def of_blocked(one: Blocked, config: str) -> Finding:
    """Why a role that does not run could not start either."""
    role = one.what.split()[0]
    setting = PORT_SETTINGS.get(role, f"[{role}] port")
    flag = "--port N" if role == "gateway" else "--base-port N"
    what = f"{one.what} cannot listen on {one.host}:{one.port}"
    if one.errno == errnos.EADDRINUSE:
        end = f"end it (`kill {one.owner.pid}`)" if one.owner else f"end it (`sudo lsof -i :{one.port}` names it)"
        return wrong(
            f"port {one.port} ({one.what}) is taken",
            f"{one.owner or 'another process'} listens there",
            f"{end}, or choose another: `thunderline up {flag}`, or `{setting}` in {config}",
        )
    grpc_key = "[node] metrics_bind" if one.what.endswith("metrics") else "[node] bind"
    key = "[gateway] bind" if role == "gateway" else grpc_key
    if one.errno == errnos.EADDRNOTAVAIL:
        return wrong(
            what, f"{one.host} is no address of this machine now", f"set `{key}` in {config} to one that it has"
        )
    if one.errno in (errnos.EACCES, errnos.EPERM):
        why = "ports below 1024 are root's" if one.port < 1024 else "the system does not permit it"
        return wrong(what, why, f"choose a port above 1024: `{setting}` in {config}")
    words = errnos.errorcode.get(one.errno, str(one.errno))
    return wrong(what, f"the system says {words}", f"look at `{key}` and `{setting}` in {config}")
