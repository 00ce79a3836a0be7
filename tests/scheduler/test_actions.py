"""What actions are about."""

from typing import get_args

import pytest

from scheduler.scenes import I1, MODEL, START, STOPPED, A, id_of
from thunderline.cluster import InstanceId
from thunderline.scheduler.actions import (
    Action,
    AuditModel,
    EndEpoch,
    FetchModel,
    Forget,
    MakeAbsent,
    MakePrepared,
    MakeReady,
    MarkReady,
    brings_on,
)

# Whose epoch is ended when its runner refuses the action for good.
BROUGHT_ON: list[tuple[Action, InstanceId | None]] = [
    (START, I1),
    (MakePrepared(id_of(4), A), I1),
    (MakeReady(id_of(4), A), I1),
    (MakeAbsent(id_of(4), A), None),
    (MarkReady(I1, 4), None),
    (EndEpoch(I1, 4, STOPPED), None),
    (Forget(I1), None),
    (AuditModel(A, MODEL), None),
    (FetchModel(A, MODEL), None),
]


@pytest.mark.parametrize(("action", "instance"), BROUGHT_ON, ids=lambda one: type(one).__name__)
def test_an_action_brings_an_epoch_on(action: Action, instance: InstanceId | None) -> None:
    assert brings_on(action) == instance


def test_every_kind_of_action_is_there() -> None:
    assert {type(action) for action, _ in BROUGHT_ON} == set(get_args(Action))
