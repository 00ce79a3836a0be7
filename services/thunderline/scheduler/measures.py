"""What Prometheus sees of deployments. Their names come and go without bound: one that is gone leaves no series."""

from prometheus_client import Counter, Gauge

from thunderline.scheduler.values import DeploymentState

_STATE = Gauge("thunderline_deployment_state", "1 for the state that a deployment is in.", ["deployment", "state"])
_EPOCHS = Counter("thunderline_epochs_started_total", "Epochs started.", ["deployment"])


def show_state(deployment: str, now: DeploymentState) -> None:
    for state in DeploymentState:
        _STATE.labels(deployment, state.name).set(state is now)


def count_epoch(deployment: str) -> None:
    _EPOCHS.labels(deployment).inc()


def forget(deployment: str) -> None:
    for state in DeploymentState:
        _STATE.remove(deployment, state.name)
    _EPOCHS.remove(deployment)
