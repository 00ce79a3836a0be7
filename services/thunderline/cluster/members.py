"""The states of a member of the cluster."""

from enum import Enum


class MemberState(Enum):
    """Numbers are those of MemberState in discovery.proto."""

    ALIVE = 1  # Its cards come.
    SUSPECT = 2  # None came lately; after a start, none so far.
    DEAD = 3  # None came for so long that it counts as gone. It comes back with its next card.
    LEFT = 4  # It said that it goes, or the scheduler node took it out. Only another life of it comes back.


# What a node is told that was taken out.
HAS_LEFT = "has left this cluster: join again with a token (`thunderline cluster join TOKEN`)"
