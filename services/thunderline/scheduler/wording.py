"""What the reconciler says of a deployment, for people. Pure."""

import re
from collections.abc import Iterable, Mapping

from thunderline.cluster import NodeId, StoreId
from thunderline.cluster.ranks import RankState
from thunderline.scheduler.attempts import Attempt, is_deliberate
from thunderline.scheduler.placing.values import Plan, Reason, Rejected, WaitFor
from thunderline.scheduler.placing.wording import gib
from thunderline.scheduler.values import Cause, DeploymentState, Epoch, RankView, RunnerView, Spec, Standing, Wish

# Causes in a sentence: the newest so many, each so long.
CAUSE_COUNT_MAX, CAUSE_LENGTH_MAX = 8, 200
# An event; what is too much is taken from the detail of a cause, not from its remedy.
TEXT_LENGTH_MAX = 600
PLAIN_WORD = re.compile(r"[\w./-]+")
ADOPT = "`thunderline cluster adopt`"


def crashed(attempt: Attempt, spec: Spec) -> str:
    """Why the circuit is open, and how to close it."""
    return (
        f"crashed {attempt.crash_count} times in a row: {last(attempt)}; mend it and run `{deploy_again(spec)}` again"
    )


def used_up(attempt: Attempt) -> str:
    told = attempt.failed[-CAUSE_COUNT_MAX:]
    causes = "; ".join(f"epoch {epoch.number}: {say(epoch.cause)}" for epoch in told)
    hints = [hint(epoch.cause) for epoch in told if hint(epoch.cause)]
    return f"attempts used up: {causes}{hints[-1] if hints else ''}"


def last(attempt: Attempt) -> str:
    return explain(attempt.failed[-1].cause) if attempt.failed else "unknown"


def say(cause: Cause | None) -> str:
    if cause is None:
        return "unknown"
    where = "" if cause.state is RankState.UNKNOWN else f" while {cause.state.name}"
    return f"{cause.name}{where}: {cause.detail[:CAUSE_LENGTH_MAX]}"


def hint(cause: Cause | None) -> str:
    """What others have found out of such an end, and what to do."""
    return f": likely {cause.signature}; {cause.remedy}" if cause is not None and cause.signature else ""


def explain(cause: Cause | None) -> str:
    return f"{say(cause)}{hint(cause)}"


def ended(epoch: Epoch, pid: int, uptime_s: float) -> str:
    """ "epoch 3 ended: SIGNAL SIGKILL while READY (pid 1234, 41 s up): killed from outside"."""
    cause = epoch.cause
    if cause is None:
        return f"epoch {epoch.number} ended: unknown"
    name, detail = cause.name, cause.detail
    if name == "SIGNAL":
        signal, _, detail = detail.partition(": ")
        name = f"{name} {signal}"
        detail = detail or ("killed from outside" if signal == "SIGKILL" else "")
    where = "" if cause.state is RankState.UNKNOWN else f" while {cause.state.name}"
    up_s = uptime_s or (epoch.ended_s or epoch.started_s) - epoch.started_s
    # Of one that ended with its runner nobody has seen when.
    unseen = "" if is_deliberate(epoch) else f" ({span(up_s)} up)"
    process = f" (pid {pid}, {span(up_s)} up)" if pid else unseen
    told = f"epoch {epoch.number} ended: {name}{where}{process}{f': {detail}' if detail else ''}"
    return told[: max(0, TEXT_LENGTH_MAX - len(hint(cause)))] + hint(cause)


def how(rank: RankView) -> str:
    """How its requests are batched, where that is not the plain way."""
    if rank.batching in {"", "batch"}:
        return ""
    return f", {rank.batching.replace('_', ' ')}" + (f" ({rank.batching_reason})" if rank.batching_reason else "")


def short(node: NodeId) -> str:
    """Enough of a UUID to tell nodes apart."""
    return node[:8]


def span(seconds: float) -> str:
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def wrong_store(node: NodeId, obeyed: StoreId, ours: StoreId) -> str:
    return (
        f"WRONG_STORE: the runner of node {short(node)} obeys store {obeyed}, not this scheduler's {ours}; "
        f"{ADOPT} shows both and changes that"
    )


def unheard(node: NodeId, view: RunnerView | None) -> Standing:
    """Of a deployment whose epoch is at a runner that cannot be commanded."""
    if view is not None and view.refusal:
        return Standing(DeploymentState.WAITING, view.refusal, ADOPT)
    waits_for = f"the runner of node {short(node)}"
    return Standing(DeploymentState.WAITING, f"{waits_for} cannot be reached", waits_for)


def no_runner(views: Iterable[RunnerView]) -> Standing:
    """Of a deployment that no runner can begin."""
    refusals = [view.refusal for view in views if view.refusal]
    if refusals:
        return Standing(DeploymentState.WAITING, refusals[0], ADOPT)
    return Standing(DeploymentState.WAITING, "no runner can be reached", "a runner")


def why_not_there(found: Plan, words: Mapping[NodeId, str]) -> list[str]:
    """Of nodes that did not get the whole of a model."""
    told = (_not_there(one, words) for one in found.rejected)
    return [text for text in told if text]


def _not_there(one: Rejected, words: Mapping[NodeId, str]) -> str:
    if one.reason in (Reason.FILES, Reason.NODE):
        return one.text
    if one.reason not in (Reason.MEMORY, Reason.PREFERENCE):
        return ""
    node = one.nodes[0]
    more = f" (and {one.count - 1} more)" if one.count > 1 else ""
    return f"{words.get(node, short(node))}: {one.text}{more}"


def runs_already(found: Plan, wishes: Iterable[Wish], model: str, words: Mapping[NodeId, str]) -> str:
    """Where memory is lacking of which a deployment of the same model has some; "" where it is not that."""
    if all(one.what is not WaitFor.MEMORY for one in found.waits):
        return ""
    told = [
        f"; {wish.spec.name} runs it already, with {gib(epoch.memory_bytes)} on {words.get(epoch.node, '')}"
        for wish in wishes
        if wish.spec.model == model and (epoch := wish.current)
    ]
    return "".join(told)


def on_several(model: str) -> str:
    return f"`thunderline plan {_quoted(model)}` shows how several could run it; starting them is not there yet"


def deploy_again(spec: Spec) -> str:
    """The command that says the same wish once more."""
    words = ["thunderline", "deploy", _quoted(spec.model)]
    if spec.name != spec.model.rstrip("/").rsplit("/", 1)[-1].lower():
        words += ["--name", spec.name]
    if spec.kv_budget_tokens:
        words += ["--kv-budget-tokens", str(spec.kv_budget_tokens)]
    return " ".join(words)


def _quoted(word: str) -> str:
    """For a shell; shlex would do, and quotes more than people write."""
    return word if PLAIN_WORD.fullmatch(word) else "'" + word.replace("'", "'\\''") + "'"
