"""`thunderline plan` as a process, against a scheduler that has one answer."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from typer.testing import CliRunner

from cli.plans import PLAN, REFUSED
from scheduler.little_scheduler import free_address
from thunderline.cli.app import app
from thunderline.cli.asking import model_word
from thunderline.cluster.errors import ClusterError, InvalidRequest, NotFound
from thunderline.rpc.server import serving
from thunderline.v1 import planning_pb2, scheduler_pb2_grpc

MANY = "\n".join(f'[[node]]\nname = "n{i}"\nmemory = "1 GB"' for i in range(3))


class Planner(scheduler_pb2_grpc.SchedulerServiceServicer):
    """Tells one plan, or raises one error, after some time."""

    def __init__(self) -> None:
        self.asked: list[planning_pb2.PlanPlacementRequest] = []
        self.answer: planning_pb2.PlanPlacementResponse | ClusterError = PLAN
        self.takes_s = 0.0

    async def PlanPlacement(self, request: Any, context: Any) -> planning_pb2.PlanPlacementResponse:
        self.asked.append(request)
        await asyncio.sleep(self.takes_s)
        if isinstance(self.answer, ClusterError):
            raise self.answer
        return self.answer

    def register(self, server: grpc.aio.Server) -> None:
        scheduler_pb2_grpc.add_SchedulerServiceServicer_to_server(self, server)


@dataclass
class Rig:
    home: Path
    port: str
    planner: Planner = field(default_factory=Planner)

    async def run(self, *words: str, home: Path | None = None) -> tuple[int, str, str]:
        """A process of its own: gRPC has one event loop in each."""
        environ = {key: value for key, value in os.environ.items() if not key.startswith("THUNDERLINE_")}
        environ["THUNDERLINE_SCHEDULER_PORT"] = self.port
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).parent / "thunderline"),
            "plan",
            "--home",
            str(home or self.home),
            *words,
            env=environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()


def refused(*words: str) -> tuple[int, str, str]:
    """Of what ends before anybody is asked, in this process."""
    found = CliRunner().invoke(app, ["plan", *words])
    return found.exit_code, found.stdout, found.stderr


@contextlib.asynccontextmanager
async def rig(home: Path) -> AsyncIterator[Rig]:
    address = free_address()
    found = Rig(home, address.rpartition(":")[2])
    async with serving(address, [], found.planner.register):
        yield found


async def test_a_placement_is_shown_and_told_to_programs(tmp_path: Path) -> None:
    async with rig(tmp_path) as one:
        code, out, err = await one.run("some/model")
        assert (code, err) == (0, "")
        lines = out.splitlines()
        assert lines[0].startswith("some/model: llama, 32 layers")
        assert lines[1] == PLAN.why
        assert [line.split()[:2] for line in lines if line.startswith(("0 ", "1 "))] == [["0", "studio"], ["1", "mini"]]
        assert "why: not pipeline over jaccl: RDMA is off on mini" in lines
        assert "not taken" not in out
        code, out, err = await one.run("some/model", "--json")
        assert (code, err) == (0, "")
        told = json.loads(out)
        assert (told["verdict"], told["placement"]["ranks"][1]["hostname"]) == ("PLAN_VERDICT_PLACED", "mini")
        spec, policy = one.planner.asked[0].spec, one.planner.asked[0].policy
        assert (spec.model, spec.kv_budget_tokens) == ("some/model", 0)
        assert policy == planning_pb2.PlacementPolicy(node_count_min=1)
        assert not one.planner.asked[0].HasField("cluster")


async def test_every_wish_reaches_the_scheduler(tmp_path: Path) -> None:
    (tmp_path / "hosts.json").write_text('{"hosts": []}\n')
    (tmp_path / "some.toml").write_text(MANY)
    words = "--nodes studio,bbbb --strategy tensor --backend jaccl --min-nodes 2 --kv-budget-tokens 9000 --require-fast"
    files = ["--hostfile", str(tmp_path / "hosts.json"), "--cluster", str(tmp_path / "some.toml")]
    async with rig(tmp_path) as one:
        code, _, err = await one.run(str(tmp_path), *words.split(), *files)
        assert (code, err) == (0, "")
        (asked,) = one.planner.asked
    # A folder is told whole: the scheduler stands elsewhere.
    assert (asked.spec.model, asked.spec.kv_budget_tokens) == (str(tmp_path.resolve()), 9000)
    assert asked.policy == planning_pb2.PlacementPolicy(
        strategy=planning_pb2.SPLIT_STRATEGY_TENSOR,
        backend=planning_pb2.DISTRIBUTED_BACKEND_JACCL,
        nodes=["studio", "bbbb"],
        node_count_min=2,
        requires_fast=True,
        hostfile='{"hosts": []}\n',
    )
    assert [node.name for node in asked.cluster.nodes] == ["n0", "n1", "n2"]


async def test_what_has_no_place_ends_with_the_reason(tmp_path: Path) -> None:
    async with rig(tmp_path) as one:
        one.planner.answer = REFUSED
        code, out, err = await one.run("m")
        assert (code, err) == (1, "thunderline: m is WAITING for links: studio → mini: no address is known\n")
        # Brackets are no markup.
        assert out.count("[not bold]") == len(REFUSED.rejected)
        code, out, err = await one.run("m", "--json", "--hostfile-out", str(tmp_path / "hosts.json"))
        assert (code, json.loads(out)["verdict"]) == (1, "PLAN_VERDICT_WAITING")
        assert "m is WAITING" in err
        # Nothing is written of what has no place.
        assert not (tmp_path / "hosts.json").exists()


async def test_of_many_refusals_the_first_are_shown(tmp_path: Path) -> None:
    async with rig(tmp_path) as one:
        many = planning_pb2.PlanPlacementResponse(verdict=planning_pb2.PLAN_VERDICT_IMPOSSIBLE, why="too large")
        many.rejected.extend(list(REFUSED.rejected) * 10)
        one.planner.answer = many
        _, out, _ = await one.run("m")
        assert out.count("[not bold]") == 20 and "and 20 more (" in out
        _, out, _ = await one.run("m", "--all")
        assert out.count("[not bold]") == 40 and "more (" not in out


async def test_a_hostfile_is_written_once_and_nothing_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "new" / "hosts.json"
    async with rig(tmp_path) as one:
        answer = planning_pb2.PlanPlacementResponse()
        answer.CopyFrom(PLAN)
        answer.placement.launch_hostfile = '{"backend": "ring"}\n'
        one.planner.answer = answer
        code, out, err = await one.run("m", "--hostfile-out", str(path))
        assert (code, err) == (0, f"{path} is written, for mlx.launch --hostfile\n")
        assert path.read_text() == answer.placement.launch_hostfile and path.stat().st_mode & 0o777 == 0o644
        assert [one.name for one in path.parent.iterdir()] == ["hosts.json"]
        path.write_text("mine")
        code, out, err = await one.run("m", "--hostfile-out", str(path))
        assert (code, out) == (1, "") and f"{path} exists already" in err
        assert path.read_text() == "mine" and len(one.planner.asked) == 1
        code, out, err = await one.run("m", "--hostfile-out", str(path / "below"))
        # What was asked for is told all the same.
        assert code == 1 and PLAN.why in out and f"{path / 'below'} cannot be written: " in err


# What the scheduler says of a wish: how that ends.
ERRORS: dict[str, ClusterError] = {
    "no such model": NotFound("no node has nobody/nothing, and Hugging Face does not know it either"),
    "an ambiguous node": InvalidRequest("nodes: 'mac' may be mac (aaaa) or mac (bbbb)", param="nodes"),
}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS.keys())
async def test_what_the_scheduler_refuses_is_one_line(tmp_path: Path, error: ClusterError) -> None:
    async with rig(tmp_path) as one:
        one.planner.answer = error
        assert await one.run("m") == (1, "", f"thunderline: {error.message}\n")


@pytest.mark.parametrize("word", ["x" * 5000, "~nobody-of-this-name/model"], ids=["too long", "of no user"])
def test_what_can_be_no_folder_is_the_schedulers_to_judge(word: str) -> None:
    assert model_word(word) == word


@pytest.mark.parametrize("command", ["plan", "deploy"])
def test_an_empty_model_is_not_this_folder(command: str) -> None:
    found = CliRunner().invoke(app, [command, ""])
    assert (found.exit_code, found.stderr) == (2, "thunderline: MODEL is empty\n")


# Files that nobody can read: what is said of them.
FILES: dict[str, tuple[str, bytes, str]] = {
    "a cluster that is no TOML": ("--cluster", b"[[node]\n", "is no TOML: "),
    "a cluster with a wrong key": ("--cluster", b'[[node]]\nname = "a"\nram = 1', '[[node]] 1 ("a"): has no memory'),
    "a cluster in Latin-1": ("--cluster", b'name = "caf\xe9"', "is no text in UTF-8"),
    "a hostfile with nothing in it": ("--hostfile", b" \n", "is empty"),
    "a hostfile that is too long": ("--hostfile", b" " * 65537, "is longer than 64 KiB"),
}


@pytest.mark.parametrize(("option", "data", "said"), FILES.values(), ids=FILES.keys())
def test_a_file_that_is_wrong_is_named_before_anybody_is_asked(
    tmp_path: Path, option: str, data: bytes, said: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    code, out, err = refused("m", option, str(path))
    assert (code, out) == (2, "")
    assert err.startswith(f"thunderline: {path}: ") and said in err and err.count("\n") == 1


# What typer refuses by itself.
USAGE: dict[str, list[str]] = {
    "no model": [],
    "a strategy that nobody knows": ["m", "--strategy", "expert"],
    "a backend that nobody knows": ["m", "--backend", "mpi"],
    "no nodes at all": ["m", "--min-nodes", "0"],
    "less KV than none": ["m", "--kv-budget-tokens", "-1"],
    "a hostfile that is not there": ["m", "--hostfile", "nowhere.json"],
    "a cluster that is a folder": ["m", "--cluster", "."],
}


@pytest.mark.parametrize("words", USAGE.values(), ids=USAGE.keys())
def test_wrong_usage_is_2(words: list[str]) -> None:
    code, out, err = refused(*words)
    assert (code, out) == (2, "") and "Usage" in err


def test_nodes_that_name_none_are_not_all_of_them() -> None:
    assert refused("m", "--nodes", " , ") == (2, "", "thunderline: --nodes names no node\n")


async def test_no_scheduler_and_no_home_are_one_line(tmp_path: Path) -> None:
    one = Rig(tmp_path, free_address().rpartition(":")[2])
    code, out, err = await one.run("m")
    assert (code, out) == (1, "") and f"nothing answers at 127.0.0.1:{one.port}" in err.splitlines()[-1]
    code, out, err = await one.run("m", home=tmp_path / "nowhere")
    assert (code, out) == (1, "") and "there is no " in err


async def test_who_waits_is_told_for_what(tmp_path: Path) -> None:
    async with rig(tmp_path) as one:
        one.planner.takes_s = 2.0
        code, _, err = await one.run("some/model")
        assert (code, err) == (0, "asking the nodes about some/model ...\n")
