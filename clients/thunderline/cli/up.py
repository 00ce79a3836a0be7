"""`thunderline up`: every role of this node under one supervisor, and a model that answers."""

import asyncio
import contextlib
import errno
import gc
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from thunderline.cli import demo, deploying, saying
from thunderline.client import SchedulerClient
from thunderline.client.reaching import OwnNode, scheduler_of
from thunderline.cluster.errors import ClusterError, Unreachable
from thunderline.process import home
from thunderline.process.entry import CannotStart, first
from thunderline.process.metrics import PORT_OFFSET
from thunderline.process.settings import Settings
from thunderline.process.trust import Wallet
from thunderline.supervisor.role_process import RoleProcess
from thunderline.supervisor.supervisor import Supervisor, alone
from thunderline.v1 import cluster_pb2

ROLES = ("discovery", "topology", "scheduler", "runner", "gateway")
# Of each port of the roles: its setting, and how far it is from `--base-port`. The metrics are 100 above the roles'.
PORTS = {
    "gateway": ("gateway", "port", None),
    "discovery": ("discovery", "port", 0),
    "topology": ("topology", "port", 1),
    "scheduler": ("scheduler", "port", 2),
    "runner": ("runner", "port", 3),
    "enrollment": ("scheduler", "enrollment_port", 4),
    "echo": ("topology", "echo_port", 11),
}
# Only on the scheduler node.
SCHEDULERS = ("scheduler", "enrollment")
PROGRAM = Path(sys.executable).parent / "thunderline"
GATEWAY_DEADLINE_S = 20.0
LIST_DEADLINE_S = 5.0
LOOK_AGAIN_S = 0.5


def port_flags(port: int | None, base_port: int | None) -> dict[str, dict[str, Any]]:
    """Settings for `--port` and `--base-port`."""
    flags: dict[str, dict[str, Any]] = {} if port is None else {"gateway": {"port": port}}
    for section, key, offset in PORTS.values():
        if base_port is not None and offset is not None:
            flags.setdefault(section, {})[key] = base_port + offset
    return flags


def ports(settings: Settings, is_scheduler_node: bool) -> dict[str, int]:
    """By name, all on which this node listens for others."""
    return {
        name: getattr(getattr(settings, section), key)
        for name, (section, key, _) in PORTS.items()
        if is_scheduler_node or name not in SCHEDULERS
    }


def check_ports(settings: Settings, is_scheduler_node: bool) -> None:
    """Raises CannotStart that names the first taken port, before anything is started."""
    found = ports(settings, is_scheduler_node)
    node, gateway, metrics = settings.node.bind, settings.gateway.bind, settings.node.metrics_bind
    wanted = [(name, gateway if name == "gateway" else node, port) for name, port in found.items()]
    wanted += [(f"{role} metrics", metrics, found[role] + PORT_OFFSET) for role in ROLES[:4] if role in found]
    for what, host, port in wanted:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                flag = "--port (make up PORT=...)" if what == "gateway" else "--base-port (make up BASE_PORT=...)"
                remedy = f"choose another {flag}" if error.errno == errno.EADDRINUSE else f"look at the bind {host!r}"
                raise CannotStart(f"port {port} ({what}): {error.strerror}; {remedy}") from None


def environment(settings: Settings) -> dict[str, str]:
    """What the roles are started with: our settings."""
    mine = {
        f"THUNDERLINE_{section}_{key}".upper(): str(getattr(getattr(settings, section), key))
        for section, key, _ in PORTS.values()
    }
    return {**os.environ, "THUNDERLINE_HOME": str(settings.home), **mine}


def url(settings: Settings) -> str:
    """Of the gateway, for who is on this machine."""
    host = settings.gateway.bind
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{host}:{settings.gateway.port}/v1"


def curl(settings: Settings, name: str) -> str:
    """Works as pasted; where keys are asked for, once a key is put in."""
    body = (
        f'{{"model": "{name}", "temperature": 0, "max_tokens": 60, '
        f'"messages": [{{"role": "user", "content": "What is the capital of France?"}}]}}'
    )
    key = "  -H 'Authorization: Bearer KEY' \\\n" if settings.gateway.api_keys else ""
    return f"curl {url(settings)}/chat/completions \\\n  -H 'Content-Type: application/json' \\\n{key}  -d '{body}'"


async def up(settings: Settings, model: str | None, with_demo: bool) -> None:
    """Until Ctrl-C or SIGTERM. Raises CannotStart, DemoFailed."""
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[None] = loop.create_future()
    supervisor: Supervisor | None = None

    def on_signal() -> None:
        if not stop.done():
            saying.err.print("stopping (once more to kill)", markup=False)
            stop.set_result(None)
        elif supervisor is not None:
            supervisor.hurry()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    with alone(settings.home):
        own = OwnNode.of(settings, home.node_id(settings.home), Wallet(settings.home, settings.cluster.name))
        names = [role for role in ROLES if own.is_scheduler_node or role not in SCHEDULERS]
        check_ports(settings, own.is_scheduler_node)
        if with_demo and model is None:
            model = await _demo_model(settings, stop)
            if stop.done():
                return
        folder = Path(model).expanduser() if model else None
        root = folder.resolve() if folder is not None and folder.is_dir() else None
        if root is not None:
            model = str(root)
            home.allow_model_root(settings.home, root)
        home.remember_ports(settings.home, ports(settings, own.is_scheduler_node))
        variables = environment(settings)
        roles = [
            RoleProcess(
                role,
                [sys.executable, str(PROGRAM), role, "--home", str(settings.home)],
                settings.logs / f"{role}.log",
                variables,
            )
            for role in names
        ]
        _say(f"starting {', '.join(names)}; logs are in {settings.logs}")
        supervisor = Supervisor(roles, settings.limits, settings.run / "ranks", say=_say)
        try:
            async with asyncio.TaskGroup() as tasks:
                announcing = tasks.create_task(announce(settings, own, model))
                await supervisor.run(stop)
                announcing.cancel()
        except BaseExceptionGroup as group:
            raise first(group) from None
        finally:
            home.forget_ports(settings.home)
    _say("stopped")


async def _demo_model(settings: Settings, stop: "asyncio.Future[None]") -> str | None:
    """The demo model's folder; None when `stop` is done before it is there. Raises DemoFailed."""
    preparing = asyncio.create_task(demo.prepare(settings.models, _say))
    ends: set[asyncio.Future[Any]] = {preparing, stop}
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        return None if stop.done() else str(preparing.result())
    finally:
        preparing.cancel()
        await asyncio.gather(preparing, return_exceptions=True)


async def announce(settings: Settings, own: OwnNode, model: str | None) -> None:
    """Deploys the model, waits for it, and says how to use it; a failure is said, and the roles stay up.

    On a node that is not the scheduler node that one is found first, however long it takes.
    """
    said = ""
    while True:
        try:
            async with scheduler_of(own) as scheduler:
                await _announce(settings, scheduler, model)
            # gRPC keeps a connection, on whatever link, as long as anything refers to a call of it, be it only that
            # call's own error. Nothing else here makes the collector run.
            gc.collect()
            return
        except Unreachable as error:
            if error.message != said:
                said = error.message
                _say(f"waiting for the scheduler: {said}")
        except ClusterError as error:
            return saying.error(error.message)
        await asyncio.sleep(LOOK_AGAIN_S)


async def _announce(settings: Settings, scheduler: SchedulerClient, model: str | None) -> None:
    try:
        names = await _names(scheduler)
        if model is not None:
            spec = cluster_pb2.DeploymentSpec(model=model)
            ready = await deploying.deploy(scheduler, spec, wait=True, say=_say)
        elif names:
            ready = await deploying.until_one_ready(scheduler, names, _say)
        else:
            for problem in await _problems(scheduler):
                _say(problem)
            _say("no model is deployed; `thunderline deploy MODEL` does that")
            print(f"ready: {url(settings)}", flush=True)
            return
        await _gateway_answers(settings)
    except (ClusterError, TimeoutError) as error:
        saying.error(f"the model cannot be served: {error}")
        await _say_who_is_not_ready(scheduler, str(error))
        _say("the services stay up: mend it and run `thunderline deploy MODEL`, or stop them with Ctrl-C")
        return
    print(f"ready: {url(settings)}", flush=True)
    print(curl(settings, ready.spec.name), flush=True)
    await _say_who_is_not_ready(scheduler)


async def _say_who_is_not_ready(scheduler: SchedulerClient, said: str = "") -> None:
    """Every deployment that cannot answer now, a line each, but what is said already."""
    with contextlib.suppress(ClusterError, TimeoutError):
        async with asyncio.timeout(LIST_DEADLINE_S):
            for one in await scheduler.deployments():
                if one.state != cluster_pb2.DEPLOYMENT_STATE_READY and deploying.sentence(one) not in said:
                    _say(f"not ready: {deploying.sentence(one)}")


async def _problems(scheduler: SchedulerClient) -> list[str]:
    """What keeps the cluster from being whole, once every runner has been heard."""
    with contextlib.suppress(ClusterError, TimeoutError):
        async with asyncio.timeout(LIST_DEADLINE_S):
            async for cluster in scheduler.watch_cluster():
                if cluster.complete or cluster.problems:
                    return list(cluster.problems)
    return []


async def _names(scheduler: SchedulerClient) -> list[str]:
    """Deployments that the store knows already; the scheduler may still be starting."""
    async with asyncio.timeout(GATEWAY_DEADLINE_S):
        while True:
            try:
                return [one.spec.name for one in await scheduler.deployments()]
            except ClusterError:
                await asyncio.sleep(0.2)


async def _gateway_answers(settings: Settings) -> None:
    address = urlsplit(url(settings))
    async with asyncio.timeout(GATEWAY_DEADLINE_S):
        while True:
            try:
                _, writer = await asyncio.open_connection(address.hostname, address.port)
            except OSError:
                await asyncio.sleep(0.1)
                continue
            writer.close()
            return


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
