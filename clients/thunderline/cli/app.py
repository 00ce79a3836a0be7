"""The commands that people type; the roles are in roles.py."""

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from thunderline.cli import chatting, deploying, doctor, links, nodes, planning, saying
from thunderline.cli import events as telling
from thunderline.cli.asking import Home, Json, ask, ask_scheduler, model_word, own_node, refuse, settings
from thunderline.cli.cluster import cluster
from thunderline.client import RunnerClient, SchedulerClient
from thunderline.process.entry import CannotStart
from thunderline.process.version import VERSION
from thunderline.v1 import cluster_pb2, runner_pb2, scheduler_pb2

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Serves large language models on a few Macs, and stays up.",
    epilog="Roles: discovery, topology, scheduler, runner, gateway; see `thunderline ROLE --help`.",
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"thunderline {VERSION}")
        raise typer.Exit


@app.callback()
def _main(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False) -> None:
    pass


@app.command()
def up(
    home: Home = None,
    model: Annotated[str | None, typer.Option(help="a model folder or a Hugging Face id to serve")] = None,
    demo: Annotated[bool, typer.Option("--demo", help="serve the demo model, made when it is not there")] = False,
    port: Annotated[int | None, typer.Option(help="HTTP port of the gateway (default 8000)")] = None,
    base_port: Annotated[
        int | None,
        typer.Option(help="first gRPC port; five in a row, one 11 above, and four 100 above (default 7401)"),
    ] = None,
) -> None:
    """Start every service of this node, and serve a model until Ctrl-C."""
    from thunderline.cli import up as starting
    from thunderline.cli.demo import DemoFailed

    found = settings(home, starting.port_flags(port, base_port))
    try:
        asyncio.run(starting.up(found, model, demo))
    except (CannotStart, DemoFailed) as error:
        refuse(f"up: {error}")


@app.command()
def status(home: Home = None, json: Json = False) -> None:
    """Nodes and deployments at a glance."""
    found = ask_scheduler(home, lambda scheduler: scheduler.cluster())
    if json:
        saying.as_json(found)
        return
    # It is the scheduler's: what is "this node" there may be another here.
    found.roster.node_id = own_node(home).node
    nodes.table(found.roster)
    saying.out.print()
    _deployments(list(found.deployments))
    for problem in found.problems:
        saying.out.print(problem, markup=False)


app.command()(nodes.nodes)
app.command()(links.links)
app.command()(planning.plan)


@app.command()
def models(home: Home = None, json: Json = False) -> None:
    """The models on this node."""
    found = ask(home, "runner", RunnerClient, lambda runner: runner.models())
    if json:
        saying.as_json(runner_pb2.ListModelsResponse(models=found))
        return
    rows = [
        (
            one.name,
            one.facts.architecture,
            f"{one.facts.weight_bytes / 1e9:.2f} GB",
            str(one.facts.context_length_tokens),
            "; ".join(one.problems) or "usable",
            one.folder,
        )
        for one in found
    ]
    saying.table("models", ("model", "architecture", "weights", "context", "state", "folder"), rows, "no models here")


@app.command()
def deployments(home: Home = None, json: Json = False) -> None:
    """What should be served, and how that stands."""
    found = ask_scheduler(home, lambda scheduler: scheduler.deployments())
    if json:
        saying.as_json(scheduler_pb2.ListDeploymentsResponse(deployments=found))
    else:
        _deployments(found)


def _deployments(found: list[cluster_pb2.Deployment]) -> None:
    rows = [
        (
            one.spec.name,
            deploying.state_name(one),
            one.state_since.ToDatetime().strftime("%H:%M:%S UTC"),
            str(sum(rank.running_request_count + rank.waiting_request_count for rank in one.ranks)),
            str(one.queued_request_count),
            one.reason + (f" (waits for {one.waits_for})" if one.waits_for else ""),
        )
        for one in found
    ]
    columns = ("deployment", "state", "since", "running", "queued", "reason")
    saying.table("deployments", columns, rows, "nothing is deployed; `thunderline deploy MODEL` does that")


@app.command()
def events(
    deployment: Annotated[str | None, typer.Argument(help="only what happened to this one")] = None,
    home: Home = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on with what happens, until Ctrl-C")] = False,
    count: Annotated[int, typer.Option(min=1, max=1000, help="how many of the newest")] = 50,
    json: Annotated[bool, typer.Option("--json", help="print the proto's JSON, one event a line")] = False,
) -> None:
    """What happened, when, to what, how many requests it touched, and what was done."""

    def show(event: scheduler_pb2.Event) -> None:
        telling.put(telling.json_line(event) if json else telling.line(event, datetime.now().astimezone()))

    try:
        if follow:
            ask_scheduler(home, lambda scheduler: telling.follow(scheduler, count, deployment, show, saying.error))
            return
        found = ask_scheduler(home, lambda scheduler: telling.kept(scheduler, count, deployment))
        if json:
            for event in found:
                show(event)
        else:
            telling.table(found, datetime.now().astimezone(), deployment)
    except BrokenPipeError:
        # `| head` has read enough.
        telling.hush()


@app.command()
def deploy(
    model: Annotated[str, typer.Argument(help="a model folder, a folder under models/, or a Hugging Face id")],
    home: Home = None,
    name: Annotated[str, typer.Option(help="its name in requests (default: the last part of MODEL)")] = "",
    kv_budget_tokens: Annotated[int, typer.Option(help="tokens of KV for all its requests (0: as fits)")] = 0,
    wait: Annotated[bool, typer.Option(help="watch until it is READY or cannot become so")] = True,
) -> None:
    """Serve a model; again after a failure it is tried anew."""
    spec = cluster_pb2.DeploymentSpec(name=name, model=model_word(model), kv_budget_tokens=kv_budget_tokens)
    with saying.Progress() as progress:
        ready = ask_scheduler(home, lambda scheduler: deploying.deploy(scheduler, spec, wait, progress.say))
    saying.out.print(deploying.sentence(ready), markup=False)


@app.command()
def undeploy(
    name: Annotated[str, typer.Argument(help="the deployment's name")],
    home: Home = None,
    wait: Annotated[bool, typer.Option(help="watch until nothing of it is left")] = True,
) -> None:
    """Stop serving a model. Its files stay."""

    async def work(scheduler: SchedulerClient) -> None:
        await scheduler.undeploy(name)
        if wait:
            await deploying.until_gone(scheduler, name, progress.say)

    with saying.Progress() as progress:
        ask_scheduler(home, work)
    saying.out.print(f"{name} is undeployed" if wait else f"{name} is being undeployed", markup=False)


@app.command()
def chat(
    prompt: Annotated[str | None, typer.Argument(help="one question; without it a conversation")] = None,
    model: Annotated[str | None, typer.Option(help="a deployment's name (default: the only one that is READY)")] = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy")] = 0.7,
    max_tokens: Annotated[int, typer.Option(help="tokens of an answer; 0: as many as fit")] = 1024,
    home: Home = None,
) -> None:
    """Talk to a model in the terminal."""
    ask_scheduler(home, lambda scheduler: chatting.chat(scheduler, model, prompt, temperature, max_tokens))


app.add_typer(cluster, name="cluster")
doctor.register(app)
bench = typer.Typer(no_args_is_help=True, help="Measure, side by side, in one run.")
app.add_typer(bench, name="bench")


@bench.command("serve")
def bench_serve(
    model: Annotated[Path, typer.Argument(help="a model folder with a tokenizer.json", exists=True, file_okay=False)],
    out: Annotated[Path, typer.Option(help="where the figures are written; an unfinished run is gone on with")] = Path(
        "bench-serve.json"
    ),
    streams: Annotated[str, typer.Option(help="counts of concurrent streams")] = "1,4,8,16",
    seeded: Annotated[str, typer.Option(help="counts for the cells with a seed a request")] = "8",
    waits: Annotated[bool, typer.Option(help="long prompts beside streams, and a prompt that comes again")] = True,
    hop: Annotated[bool, typer.Option(help="what a runner adds to a step of a tiny model")] = True,
    rounds: Annotated[int, typer.Option(help="interleaved rounds of each cell")] = 9,
    end_token_id: Annotated[int, typer.Option(help="a special token that the model never makes")] = 6,
) -> None:
    """mlx-lm's loop, mlx-lm's server and thunderline on the same model, prompts and BLAS."""
    from thunderline.cli.bench import serve
    from thunderline.cli.bench.cells import cells
    from thunderline.cli.bench.load import WrongAnswer

    counts = [[int(n) for n in text.split(",") if n] for text in (streams, seeded)]
    wanted = cells(counts[0], counts[1], waits, hop)
    try:
        found = asyncio.run(serve.serve(model, out, wanted, rounds, end_token_id, lambda text: print(text, flush=True)))
    except WrongAnswer as error:
        refuse(str(error))
    for name, cell in found["cells"].items():
        for figure, value in cell.get("summary", {}).items():
            print(f"{name}: {figure}: {value}")
