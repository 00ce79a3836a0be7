"""The vocabulary that every process shares: immutable values and rules, no I/O, standard library only."""

from dataclasses import dataclass
from typing import NewType

NodeId = NewType("NodeId", str)
StoreId = NewType("StoreId", str)
InstanceId = NewType("InstanceId", str)
RequestId = NewType("RequestId", str)


@dataclass(frozen=True, slots=True, order=True)
class RankId:
    """One rank of one epoch of an instance."""

    instance: InstanceId
    epoch: int
    rank: int

    def __str__(self) -> str:
        return f"{self.instance}-{self.epoch}-{self.rank}"
