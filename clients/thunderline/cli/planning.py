"""`plan`: where a model would run now, or in a cluster that is only written down, and why not otherwise."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from thunderline.cli import cluster_file, plan_tables, plan_words, saying
from thunderline.cli.asking import Home, Json, ask_scheduler, model_word, refuse
from thunderline.client import SchedulerClient
from thunderline.cluster.planning import HOSTFILE_BYTES_MAX, NODE_COUNT_MAX
from thunderline.process.entry import USAGE
from thunderline.process.home import write_atomically
from thunderline.v1 import cluster_pb2, planning_pb2

# Who waits longer is told for what.
PATIENCE_S = 1.0
# Of a cluster file: 64 nodes and 2,048 cables, with comments.
CLUSTER_FILE_BYTES_MAX = 1024 * 1024
# More than any memory holds; it stays a number for protobuf.
KV_TOKENS_MAX = 2**40


class Strategy(StrEnum):
    PIPELINE = "pipeline"
    TENSOR = "tensor"
    WHOLE = "whole"


class Backend(StrEnum):
    RING = "ring"
    JACCL = "jaccl"
    NCCL = "nccl"


def plan(
    model: Annotated[str, typer.Argument(help="a model folder, a folder under models/, or a Hugging Face id")],
    home: Home = None,
    nodes: Annotated[
        str | None, typer.Option(help="these and no others: names, or the begin of ids, separated by commas")
    ] = None,
    strategy: Annotated[Strategy | None, typer.Option(help="how it is divided (default: the best)")] = None,
    backend: Annotated[Backend | None, typer.Option(help="over which backend of MLX (default: the best)")] = None,
    min_nodes: Annotated[int, typer.Option(min=1, max=NODE_COUNT_MAX, help="over so many nodes at least")] = 1,
    kv_budget_tokens: Annotated[
        int, typer.Option(min=0, max=KV_TOKENS_MAX, help="tokens of KV for all its requests (0: as fits)")
    ] = 0,
    require_fast: Annotated[
        bool, typer.Option("--require-fast", help="over Thunderbolt and Ethernet within their minimums, or not at all")
    ] = False,
    hostfile: Annotated[
        Path | None,
        typer.Option(help="a hostfile of mlx.launch: checked, and taken as it is", exists=True, dir_okay=False),
    ] = None,
    hostfile_out: Annotated[
        Path | None, typer.Option(help="write the placement as a hostfile for mlx.launch to this new file")
    ] = None,
    cluster: Annotated[
        Path | None,
        typer.Option(help="plan for the cluster that this TOML file describes", exists=True, dir_okay=False),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="everything that was not taken, not only 20 of it")] = False,
    json: Json = False,
) -> None:
    """Where a model would run, over which links, how fast; and why not otherwise. Starts nothing."""
    if hostfile_out is not None and os.path.lexists(hostfile_out):
        # Before anybody waits for an answer.
        refuse(f"{hostfile_out} exists already: remove it, or choose another with --hostfile-out")
    spec = cluster_pb2.DeploymentSpec(model=model_word(model), kv_budget_tokens=kv_budget_tokens)
    policy = planning_pb2.PlacementPolicy(
        strategy=plan_words.STRATEGIES[strategy] if strategy else planning_pb2.SPLIT_STRATEGY_UNSPECIFIED,
        backend=plan_words.BACKENDS[backend] if backend else planning_pb2.DISTRIBUTED_BACKEND_UNSPECIFIED,
        nodes=[] if nodes is None else _words(nodes),
        node_count_min=min_nodes,
        requires_fast=require_fast,
        hostfile=_text(hostfile, HOSTFILE_BYTES_MAX) if hostfile else "",
    )
    imagined = _imagined(cluster) if cluster else None

    async def work(scheduler: SchedulerClient) -> planning_pb2.PlanPlacementResponse:
        async with _told(f"asking the nodes about {model} ..."):
            return await scheduler.plan_placement(spec, policy, imagined)

    found = ask_scheduler(home, work)
    is_placed = found.verdict == planning_pb2.PLAN_VERDICT_PLACED
    if json:
        saying.as_json(found)
    else:
        _show(model, found, None if all_ else plan_tables.REJECTED_COUNT_MAX)
    if not is_placed:
        refuse(plan_tables.verdict_line(model, found))
    if hostfile_out is not None:
        _write(hostfile_out, found.placement.launch_hostfile)
        saying.err.print(f"{hostfile_out} is written, for mlx.launch --hostfile", markup=False)


def _show(model: str, found: planning_pb2.PlanPlacementResponse, count_max: int | None) -> None:
    """The placement, or for what it waits; then what was not taken."""
    names = plan_tables.names(found)
    _say(plan_tables.model_line(model, found.facts))
    if found.verdict == planning_pb2.PLAN_VERDICT_PLACED:
        _say(found.why)
        columns, rows = plan_tables.placement_table(found.placement, found.facts, names)
        saying.table("placement", columns, rows, "no rank")
        lines = plan_tables.placement_lines(found)
    else:
        lines = [*plan_tables.waits_lines(found, names), *plan_tables.unknown_lines(found.facts)]
    for line in lines:
        _say(line)
    if found.rejected:
        saying.out.print()
        columns, rows = plan_tables.rejected_table(found, names, count_max)
        saying.table("not taken", columns, rows, "")
        if rest := plan_tables.rest_line(found, count_max):
            _say(rest)


def _say(line: str) -> None:
    saying.out.print(line, markup=False)


@contextlib.asynccontextmanager
async def _told(what: str) -> AsyncIterator[None]:
    """Who waits is told for what, after a second."""

    async def tell() -> None:
        await asyncio.sleep(PATIENCE_S)
        with saying.Progress() as progress:
            progress.say(what)
            await asyncio.Event().wait()

    telling = asyncio.create_task(tell())
    try:
        yield
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)


def _words(text: str) -> list[str]:
    found = [word.strip() for word in text.split(",") if word.strip()]
    if not found:
        # Of a variable that nobody has set: all nodes are not what was meant.
        refuse("--nodes names no node", USAGE)
    return found


def _imagined(path: Path) -> planning_pb2.ImaginedCluster:
    try:
        return cluster_file.read(_text(path, CLUSTER_FILE_BYTES_MAX))
    except cluster_file.BadClusterFile as error:
        _refuse_file(path, str(error))


def _text(path: Path, bytes_max: int) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(bytes_max + 1)
        if len(data) > bytes_max:
            _refuse_file(path, f"is longer than {bytes_max // 1024} KiB")
        if not data.strip():
            _refuse_file(path, "is empty")
        return data.decode()
    except OSError as error:
        _refuse_file(path, error.strerror or str(error))
    except UnicodeDecodeError:
        _refuse_file(path, "is no text in UTF-8")


def _refuse_file(path: Path, why: str) -> NoReturn:
    refuse(f"{path}: {why}", USAGE)


def _write(path: Path, text: str) -> None:
    try:
        write_atomically(path, text.encode(), mode=0o644)
    except OSError as error:
        refuse(f"{path} cannot be written: {error.strerror or error}")
