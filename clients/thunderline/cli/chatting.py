"""`chat`: one answer, or a conversation, in the terminal."""

import asyncio
import signal
import sys

from thunderline.cli import saying
from thunderline.client import SchedulerClient
from thunderline.cluster.errors import NotFound
from thunderline.v1 import cluster_pb2


async def model_to_ask(scheduler: SchedulerClient, wanted: str | None) -> str:
    """The model named, or the only READY one. Raises NotFound."""
    if wanted:
        return wanted
    ready = [one.spec.name for one in await scheduler.deployments() if one.state == cluster_pb2.DEPLOYMENT_STATE_READY]
    if len(ready) != 1:
        what = f"several models are READY ({', '.join(ready)})" if ready else "no model is READY"
        raise NotFound(f"{what}; name one with --model, see `thunderline deployments`")
    return ready[0]


async def answer(
    scheduler: SchedulerClient, model: str, messages: list[cluster_pb2.ChatMessage], temperature: float, max_tokens: int
) -> str:
    """Prints as it comes. Ctrl-C ends the answer, not the program."""
    wish = cluster_pb2.Generation(model=model, chat=cluster_pb2.Chat(messages=messages), max_tokens=max_tokens)
    wish.sampling.temperature = temperature
    wish.sampling.top_p = 0.95
    pieces: list[str] = []

    async def show() -> None:
        async for delta in scheduler.generate(wish):
            pieces.append(delta.text)
            sys.stdout.write(delta.text)
            sys.stdout.flush()

    task = asyncio.create_task(show())
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        sys.stdout.write(" [stopped]")
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        sys.stdout.write("\n")
        sys.stdout.flush()
    return "".join(pieces)


async def chat(
    scheduler: SchedulerClient, wanted: str | None, prompt: str | None, temperature: float, max_tokens: int
) -> None:
    """Raises ClusterError."""
    model = await model_to_ask(scheduler, wanted)
    if prompt is None and not sys.stdin.isatty():
        prompt = (await asyncio.to_thread(sys.stdin.read)).strip()
    if prompt is not None:
        await answer(scheduler, model, [cluster_pb2.ChatMessage(role="user", content=prompt)], temperature, max_tokens)
        return
    saying.err.print(f"chatting with {model}; Ctrl-C stops an answer, Ctrl-D ends", markup=False)
    messages: list[cluster_pb2.ChatMessage] = []
    while True:
        try:
            line = await asyncio.to_thread(input, "> ")
        except EOFError:
            return
        if not line.strip():
            continue
        messages.append(cluster_pb2.ChatMessage(role="user", content=line))
        text = await answer(scheduler, model, messages, temperature, max_tokens)
        messages.append(cluster_pb2.ChatMessage(role="assistant", content=text))
