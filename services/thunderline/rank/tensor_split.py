"""Whether a tiny copy answers the same when each layer is divided between two ranks: mlx-lm's own `shard`, tried by two
processes on a ring over loopback.

`python -m thunderline.rank.tensor_split FILE` is one of the two: FILE holds {"config", "small", "batching", "seeds"}.
It prints the fields of Shares. Exit code 0 whatever the answer is.
"""

import asyncio
import contextlib
import json
import os
import random
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from thunderline.process import tethered

RANK_COUNT = 2
# Two imports of the engine, a ring, four stories: 11 s on two cores, and several times that where others want them.
DEADLINE_S = 60.0
TRY_COUNT = 3
# Below the ephemeral ranges of Linux (32768 on) and macOS (49152 on), above the ports that services are known by.
PORTS = range(21000, 31000)
# Sums in another order: rounding, of log-probabilities. A head or an expert that is left out makes 1e-1 and more.
DIFFERENCE_MAX = 1e-3
# A copy whose shares weigh more than this of the whole is not divided at all.
SHARE_MAX = 0.95


@dataclass(frozen=True, slots=True)
class Shares:
    """`reason` says why not. Of layers' weights and of KV, the share that each rank has whole: norms, routers."""

    reason: str = ""
    weights: float = 0.0
    kv: float = 0.0


class Untried(Exception):
    """The machine did not let it be tried; nothing is known of the architecture."""


def tensor(config: Mapping[str, Any], small: Mapping[str, Any], batching: str, seeds: Sequence[int]) -> Shares:
    """Whether the layers of a config's tiny copy, `small`, can be divided among ranks. Raises Untried."""
    from thunderline.rank.architecture import build

    if not hasattr(build(small), "shard"):
        return Shares("mlx-lm cannot divide its layers: it has no `shard` for them")
    last = ""
    for _ in range(TRY_COUNT):
        with tempfile.TemporaryDirectory() as folder, held_ports() as ports:
            task, hostfile = Path(folder) / "task.json", Path(folder) / "ring.json"
            said = {"config": config, "small": small, "batching": batching, "seeds": list(seeds)}
            task.write_text(json.dumps(said))
            hostfile.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in ports]))
            try:
                return asyncio.run(_ask(task, hostfile))
            except TimeoutError:
                raise Untried(f"two ranks on loopback were not done after {DEADLINE_S:.0f} s") from None
            except _RankFailed as error:
                # Another process may have taken a port between our look and the ring's.
                last = str(error)
    raise Untried(f"two ranks on loopback: {last}")


class _RankFailed(Exception):
    pass


@contextlib.contextmanager
def held_ports() -> Iterator[list[int]]:
    """TCP ports on which nobody listens. Held against other audits by the UDP ports of the same numbers: MLX's ring
    shares its port with whoever asks, and two rings would become one.
    """
    with contextlib.ExitStack() as stack:
        found: list[int] = []
        for port in random.sample(PORTS, len(PORTS)):
            with socket.socket() as probe, contextlib.ExitStack() as mine:
                try:
                    held = mine.enter_context(socket.socket(type=socket.SOCK_DGRAM))
                    held.bind(("127.0.0.1", port))
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
                stack.push(mine.pop_all())
                found.append(port)
            if len(found) == RANK_COUNT:
                yield found
                return
        raise Untried(f"no {RANK_COUNT} ports of {PORTS.start} to {PORTS.stop} are free")


async def _ask(task: Path, hostfile: Path) -> Shares:
    """What the ranks say. Raises _RankFailed, TimeoutError."""
    found = Shares()
    try:
        async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
            ranks = [group.create_task(_rank(rank, task, hostfile)) for rank in range(RANK_COUNT)]
            for done in asyncio.as_completed(ranks):
                found = await done
                if found.reason:
                    # The other may wait for this one without end.
                    for rank in ranks:
                        rank.cancel()
                    break
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return found


async def _rank(rank: int, task: Path, hostfile: Path) -> Shares:
    variables = {"MLX_RANK": str(rank), "MLX_HOSTFILE": str(hostfile)}
    command = tethered.command("thunderline.rank.tensor_split", str(task))
    async with tethered.child(command, asyncio.subprocess.PIPE, variables) as process:
        out, err = await process.communicate()
    try:
        return Shares(**json.loads(out.splitlines()[-1]))
    except (IndexError, ValueError, KeyError, TypeError):
        words = " ".join(err.decode(errors="replace").split())[-200:]
        raise _RankFailed(f"rank {rank} ended with {process.returncode}: {words}") from None


def judge(task: Mapping[str, Any]) -> Shares:
    """In a rank: whether its share of the work gives the answers of the whole."""
    import mlx.core as mx

    group = mx.distributed.init(strict=True, backend="ring")
    if group.size() != RANK_COUNT:
        raise RuntimeError(f"a ring of {group.size()} ranks")
    reason = ""
    # A router's near-tie, which rounding decides, is in one copy; a share that is missing is in each.
    for seed in task["seeds"]:
        try:
            reason = _differs(task, seed, group)
        except Exception as error:  # whatever an architecture's code makes of half its heads, on both ranks alike
            return Shares(f"a tiny copy on {RANK_COUNT} ranks fails: {type(error).__name__}: {error}"[:200])
        if not reason:
            return _shares(task["config"], task["small"], group)
    return Shares(reason)


def _differs(task: Mapping[str, Any], seed: int, group: Any) -> str:
    import mlx.core as mx

    from thunderline.rank.architecture import BATCHINGS, random_weights
    from thunderline.rank.splits import difference, fresh, tell

    batching = BATCHINGS[task["batching"]]
    whole, divided = (random_weights(fresh(task["small"], seed), seed) for _ in range(2))
    divided.shard(group)
    mx.eval(divided.parameters())
    if _weight_bytes(divided) > SHARE_MAX * _weight_bytes(whole):
        return "its `shard` leaves the weights whole"
    found = difference(tell(divided, batching), tell(whole, batching), DIFFERENCE_MAX)
    return f"a tiny copy on {RANK_COUNT} ranks answers otherwise: {found}" if found else ""


def _shares(config: Mapping[str, Any], small: Mapping[str, Any], group: Any) -> Shares:
    """By the real sizes, of which nothing is computed; by the tiny ones where two ranks cannot divide these."""
    from thunderline.rank.architecture import build
    from thunderline.rank.kept import is_lazy, of_layers
    from thunderline.rank.pipeline import layers_of

    for sizes in (config, small) if is_lazy(build(small)) else (small,):
        try:
            whole, divided = build(sizes), build(sizes)
            divided.shard(group)
            weights = [sum(map(_weight_bytes, layers_of(model))) for model in (whole, divided)]
            kv = [sum(one.kv_elements_per_token for one in of_layers(model)) for model in (whole, divided)]
        except Exception:  # as above
            continue
        return Shares("", _whole_share(*weights), _whole_share(*kv))
    return Shares()


def _whole_share(whole: int, mine: int) -> float:
    """Of what one rank has, w + (whole - w) / RANK_COUNT, the share w / whole."""
    return round((RANK_COUNT * mine - whole) / (RANK_COUNT - 1) / whole, 4) if whole else 0.0


def _weight_bytes(model: Any) -> int:
    from mlx.utils import tree_flatten

    return sum(array.nbytes for _, array in tree_flatten(model.parameters()))


def main() -> int:
    from thunderline.rank import blas

    blas.load()
    print(json.dumps(asdict(judge(json.loads(Path(sys.argv[1]).read_text())))), flush=True)
    # The ring's threads may still wait for the other rank.
    os._exit(0)


if __name__ == "__main__":
    main()
