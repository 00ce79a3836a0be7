"""`thunderline up`: every role of this node under one supervisor, and a model that answers."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from thunderline.cli import demo, deploying, saying
from thunderline.client import SchedulerClient
from thunderline.cluster.errors import ClusterError
from thunderline.process import home
from thunderline.process.entry import CannotStart, first
from thunderline.process.metrics import PORT_OFFSET
from thunderline.process.settings import Settings
from thunderline.supervisor.role_process import RoleProcess
from thunderline.supervisor.supervisor import Supervisor, alone
from thunderline.v1 import cluster_pb2

ROLES = ("discovery", "topology", "scheduler", "runner", "gateway")
PROGRAM = Path(sys.executable).parent / "thunderline"
GATEWAY_DEADLINE_S = 20.0
LIST_DEADLINE_S = 5.0


def check_ports(settings: Settings) -> None:
    """Raises CannotStart that names the first taken port, before anything is started."""
    grpc = {role: getattr(settings, role).port for role in ROLES if role != "gateway"}
    ports = {f"{role}": port for role, port in grpc.items()}
    ports |= {f"{role} metrics": port + PORT_OFFSET for role, port in grpc.items()}
    for what, port in [("gateway", settings.gateway.port), *ports.items()]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                flag = "--port (make up PORT=...)" if what == "gateway" else "--base-port (make up BASE_PORT=...)"
                raise CannotStart(f"port {port} ({what}): {error.strerror}; choose another {flag}") from None


def environment(settings: Settings) -> dict[str, str]:
    """What the roles are started with: our settings."""
    mine = {"THUNDERLINE_HOME": str(settings.home), "THUNDERLINE_GATEWAY_PORT": str(settings.gateway.port)}
    mine |= {f"THUNDERLINE_{role.upper()}_PORT": str(getattr(settings, role).port) for role in ROLES}
    return {**os.environ, **mine}


def curl(settings: Settings, name: str) -> str:
    """Works as pasted."""
    body = (
        f'{{"model": "{name}", "temperature": 0, "max_tokens": 60, '
        f'"messages": [{{"role": "user", "content": "What is the capital of France?"}}]}}'
    )
    return (
        f"curl http://127.0.0.1:{settings.gateway.port}/v1/chat/completions \\\n"
        f"  -H 'Content-Type: application/json' \\\n  -d '{body}'"
    )


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
        check_ports(settings)
        if with_demo and model is None:
            model = await _demo_model(settings, stop)
            if stop.done():
                return
        folder = Path(model).expanduser() if model else None
        root = folder.resolve() if folder is not None and folder.is_dir() else None
        if root is not None:
            model = str(root)
            home.allow_model_root(settings.home, root)
        home.remember_ports(settings.home, {role: getattr(settings, role).port for role in ROLES})
        variables = environment(settings)
        roles = [
            RoleProcess(
                role,
                [sys.executable, str(PROGRAM), role, "--home", str(settings.home)],
                settings.logs / f"{role}.log",
                variables,
            )
            for role in ROLES
        ]
        _say(f"starting {', '.join(ROLES)}; logs are in {settings.logs}")
        supervisor = Supervisor(roles, settings.limits, settings.run / "ranks", say=_say)
        try:
            async with asyncio.TaskGroup() as tasks:
                announcing = tasks.create_task(announce(settings, model))
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


async def announce(settings: Settings, model: str | None) -> None:
    """Deploys the model, waits for it, and says how to use it; a failure is said, and the roles stay up."""
    async with SchedulerClient(f"{settings.host}:{settings.scheduler.port}") as scheduler:
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
                print(f"ready: http://127.0.0.1:{settings.gateway.port}/v1", flush=True)
                return
            await _gateway_answers(settings.gateway.port)
        except (ClusterError, TimeoutError) as error:
            saying.error(f"the model cannot be served: {error}")
            await _say_who_is_not_ready(scheduler, str(error))
            _say("the services stay up: mend it and run `thunderline deploy MODEL`, or stop them with Ctrl-C")
            return
        print(f"ready: http://127.0.0.1:{settings.gateway.port}/v1", flush=True)
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


async def _gateway_answers(port: int) -> None:
    async with asyncio.timeout(GATEWAY_DEADLINE_S):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.1)
                continue
            writer.close()
            return


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
