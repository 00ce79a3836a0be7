"""`thunderline plan` as a user asks it: of the node that serves, and of a cluster that is only written down."""

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from e2e import shapes
from installation import DEMO, Installation

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "deploy/cluster.example.toml"
# Three Macs in a triangle of cables: a tensor group needs 3, as the demo has 9 heads.
TRIANGLE = ["--cluster", str(EXAMPLE), "--nodes", "studio-1,studio-2,macbook"]
# So little that only two nodes have room for the demo: whole it takes 1.1 GiB with its KV and activations.
SMALL = """
[[node]]
name = "left"
ranks_memory = "900 MB"
[[node]]
name = "right"
ranks_memory = "900 MB"
"""
# The first tries whether the demo's architecture can be divided.
FIRST_S = 180


def asked(one: Installation, *words: str) -> dict[str, Any]:
    """The answer, whether there is a place or not."""
    answer = one.run("plan", DEMO, "--json", *words, timeout_s=FIRST_S)
    assert answer.stdout, answer.stderr
    found: dict[str, Any] = json.loads(answer.stdout)
    assert (answer.returncode == 0) == (found["verdict"] == "PLAN_VERDICT_PLACED"), answer.stderr
    return found


def shape(plan: dict[str, Any]) -> str:
    """ "TENSOR JACCL studio-1 macbook", rank 0 first; or the verdict."""
    placement = plan.get("placement")
    if not placement:
        return str(plan["verdict"]).removeprefix("PLAN_VERDICT_")
    strategy = placement["strategy"].removeprefix("SPLIT_STRATEGY_")
    backend = placement["backend"].removeprefix("DISTRIBUTED_BACKEND_").replace("UNSPECIFIED", "")
    return " ".join([strategy, *filter(None, [backend]), *(rank["hostname"] for rank in placement["ranks"])])


def written(path: Path, text: str) -> list[str]:
    path.write_text(text)
    return ["--cluster", str(path)]


def test_the_demo_has_a_place_on_this_node(fresh: Installation) -> None:
    found = asked(fresh)
    (rank,) = found["placement"]["ranks"]
    assert (rank["first_layer"], rank["end_layer"]) == (0, 30)
    assert found["placement"]["strategy"] == "SPLIT_STRATEGY_WHOLE"
    # It runs there already, and what that holds is not promised twice.
    (deployed,) = [one for one in fresh.deployments() if one["spec"]["name"] == DEMO]
    (report,) = [one for one in deployed["ranks"] if one["state"] == "RANK_STATE_READY"]
    audited = sum(int(one["memory_bytes"]) for one in report["placement"]["ranks"])
    total = int(rank["needed_bytes"]) + int(rank["left_bytes"])
    free = asked(fresh, "--kv-budget-tokens", "64")["placement"]["ranks"][0]
    assert int(free["needed_bytes"]) + int(free["left_bytes"]) == total
    assert audited > 0 and int(free["needed_bytes"]) < int(rank["needed_bytes"])


def test_it_is_told_in_words(fresh: Installation) -> None:
    answer = fresh.run("plan", DEMO, timeout_s=FIRST_S)
    assert (answer.returncode, answer.stderr.replace(f"asking the nodes about {DEMO} ...\n", "")) == (0, "")
    assert answer.stdout.startswith(f"{DEMO}: llama, 30 layers, ")
    assert "30 (0-29)" in answer.stdout
    assert "strategy: whole; " in answer.stdout
    # Of this machine's memory nobody tells how fast it is.
    assert "estimate: " in answer.stdout


def test_two_nodes_are_more_than_there_are(fresh: Installation) -> None:
    answer = fresh.run("plan", DEMO, "--min-nodes", "2", timeout_s=FIRST_S)
    assert answer.returncode == 1
    assert answer.stderr.splitlines()[-1].startswith(f"thunderline: {DEMO} is ")
    assert "2 nodes at least are asked for, 1 can take part" in answer.stdout


# What is asked of the cluster in deploy/: what comes out.
OF_THE_EXAMPLE: dict[str, tuple[Sequence[str], str]] = {
    "three Macs with RDMA divide the heads": (
        [*TRIANGLE, "--strategy", "tensor"],
        "TENSOR JACCL macbook studio-1 studio-2",
    ),
    "without RDMA a pipeline": ([*TRIANGLE, "--backend", "ring"], "PIPELINE RING macbook studio-1 studio-2"),
    "two do not divide nine heads": (
        ["--cluster", str(EXAMPLE), "--nodes", "studio-1,studio-2"],
        "PIPELINE JACCL studio-1 studio-2",
    ),
    "NCCL is what one node alone has": (["--cluster", str(EXAMPLE), "--backend", "nccl"], "IMPOSSIBLE"),
}


@pytest.mark.parametrize(("words", "expected"), OF_THE_EXAMPLE.values(), ids=OF_THE_EXAMPLE.keys())
def test_the_example_of_a_cluster(fresh: Installation, words: Sequence[str], expected: str) -> None:
    assert shape(asked(fresh, *words)) == expected


def test_an_estimate_of_the_example_is_told_with_its_parts(fresh: Installation) -> None:
    told = asked(fresh, *TRIANGLE, "--strategy", "tensor")["placement"]["estimate"]
    assert told["tokens_per_s"] == pytest.approx(1 / (told["memory_s"] + told["links_s"]))
    assert told["memory_s"] > 0 and told["links_s"] > 0


def test_a_hostfile_comes_back_as_it_went_and_a_wrong_one_is_named(fresh: Installation, tmp_path: Path) -> None:
    path = tmp_path / "hosts.json"
    for words in (
        [*TRIANGLE, "--strategy", "tensor"],
        # Which strategy was meant a hostfile does not say: the heads do.
        ["--cluster", str(EXAMPLE), "--nodes", "studio-1,studio-2"],
        [*TRIANGLE, "--backend", "ring"],
    ):
        first = asked(fresh, *words, "--hostfile-out", str(path))
        hosts = json.loads(path.read_text())
        assert path.read_text() == first["placement"]["launch_hostfile"]
        assert [one["ssh"] for one in hosts["hosts"]] == [one["hostname"] for one in first["placement"]["ranks"]]
        again = asked(fresh, *TRIANGLE[:2], "--hostfile", str(path))
        assert shape(again) == shape(first)
        assert again["placement"]["launch_hostfile"] == path.read_text()
        path.unlink()
    hosts["hosts"][0]["ips"] = ["10.99.99.99"]
    path.write_text(json.dumps(hosts))
    answer = fresh.run("plan", DEMO, *TRIANGLE, "--hostfile", str(path), timeout_s=FIRST_S)
    assert answer.returncode == 1 and "10.99.99.99 cannot be dialled" in answer.stderr
    path.write_text('{"hosts": 3}')
    answer = fresh.run("plan", DEMO, *TRIANGLE, "--hostfile", str(path), timeout_s=FIRST_S)
    assert answer.returncode == 1 and "has no list of hosts" in answer.stderr


def test_two_small_nodes_need_a_link_and_a_fast_one_where_that_is_asked_for(
    fresh: Installation, tmp_path: Path
) -> None:
    path = tmp_path / "small.toml"
    alone = asked(fresh, *written(path, SMALL))
    assert shape(alone) == "WAITING" and alone["waits"][0]["what"] == "links"
    vpn = SMALL + '[[network]]\nmedium = "vpn"\n'
    slow = asked(fresh, *written(path, vpn))
    assert shape(slow) == "PIPELINE RING left right" and slow["placement"]["slow"]
    refused = asked(fresh, *written(path, vpn), "--require-fast")
    assert shape(refused) == "WAITING"
    cabled = asked(fresh, *written(path, vpn + '[[cable]]\nbetween = ["left", "right"]\n'), "--require-fast")
    assert shape(cabled) == "PIPELINE RING left right" and not cabled["placement"]["slow"]
    media = {dial["link"]["medium"] for rank in cabled["placement"]["ranks"] for dial in rank["dials"]}
    assert media == {"MEDIUM_THUNDERBOLT"}


def test_too_little_memory_is_impossible_with_the_figures(fresh: Installation, tmp_path: Path) -> None:
    tiny = SMALL.replace("900 MB", "100 MB") + "[[network]]\n"
    answer = fresh.run("plan", DEMO, *written(tmp_path / "tiny.toml", tiny), timeout_s=FIRST_S)
    assert answer.returncode == 1
    assert answer.stderr.splitlines()[-1].startswith(f"thunderline: {DEMO} is IMPOSSIBLE: needs ")
    assert "2 nodes together have 0.20 GiB" in answer.stderr


@pytest.fixture
def large(fresh: Installation) -> Iterator[str]:
    """A model of which only the headers are there."""
    folder = fresh.home / "models/llama-70b-4bit"
    shapes.write(folder, fresh.home / "models" / DEMO)
    yield folder.name
    shutil.rmtree(folder)


def test_the_example_of_the_readme_is_what_a_user_sees(fresh: Installation, large: str, tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text()
    section = text[text.index("## Where a model runs") : text.index("## When a store is lost")]
    shown, described = (re.sub(r"^    ", "", one, flags=re.MULTILINE) for one in _blocks(section)[:2])
    command, _, expected = shown.partition("\n")
    assert command == f"$ thunderline plan {large} --cluster minis.toml"
    answer = fresh.run("plan", large, *written(tmp_path / "minis.toml", described), timeout_s=FIRST_S)
    assert answer.returncode == 0, answer.stderr
    # A terminal breaks lines where it ends.
    assert answer.stdout.split() == expected.split()


def _blocks(text: str) -> list[str]:
    """What is indented, with the blank lines in it."""
    return re.findall(r"(?:^    .*\n(?:\n(?=    ))?)+", text, flags=re.MULTILINE)


# Wrong wishes: what the last line of all names.
WRONG: dict[str, tuple[list[str], str]] = {
    "a model that nobody has": (["no-such-model-of-anybody"], "no-such-model-of-anybody"),
    "a node that nobody knows": ([DEMO, "--nodes", "nobody"], "nobody"),
    "a node of a cluster that is written down": ([DEMO, *TRIANGLE[:2], "--nodes", "studio-9"], "studio-9"),
    "letters of several nodes": ([DEMO, *TRIANGLE[:2], "--nodes", "studio"], "studio"),
}


@pytest.mark.parametrize(("words", "said"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_wish_is_one_line_that_names_it(fresh: Installation, words: list[str], said: str) -> None:
    answer = fresh.run("plan", *words, timeout_s=FIRST_S)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert said in answer.stderr.splitlines()[-1]
