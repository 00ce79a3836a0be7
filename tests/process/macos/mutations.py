"""What can go wrong with what a command prints, one thing at a time."""

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

Path = tuple[str | int, ...]

# Each of another type than most of what it takes the place of.
WRONG: tuple[Any, ...] = (
    None,
    True,
    7,
    -1.5,
    10**400,
    "",
    "\ud800\x00\x1b[2J",
    "x" * 3000,
    [],
    [[]],
    ["service_ip", 3, None],
    {},
    {"_name": ["x"], "_items": {"_items": []}},
    [{"_name": None, "domain_uuid_key": 5, "services_title": 1}],
)


class Kind(Enum):
    DROPPED = "dropped"
    EMPTIED = "emptied"
    DOUBLED = "doubled"
    WRONG = "another value"


@dataclass(frozen=True)
class Mutation:
    """Of one place of a JSON tree; `value` is of Kind.WRONG."""

    path: Path
    kind: Kind
    value: Any = None

    def __repr__(self) -> str:
        value = f" {self.value!r:.20}" if self.kind is Kind.WRONG else ""
        return f"{'.'.join(map(str, self.path))} {self.kind.value}{value}"


def paths(tree: Any, path: Path = ()) -> Iterator[Path]:
    """Of every value in it, itself left out."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in pairs:
        yield (*path, key)
        yield from paths(value, (*path, key))


def mutations(tree: Any) -> list[Mutation]:
    """All there are."""
    found = []
    for path in paths(tree):
        found.append(Mutation(path, Kind.DROPPED))
        found += [Mutation(path, Kind.WRONG, value) for value in WRONG]
        if isinstance(at(tree, path), list):
            found += [Mutation(path, Kind.EMPTIED), Mutation(path, Kind.DOUBLED)]
    return found


def at(tree: Any, path: Path) -> Any:
    """Raises LookupError or TypeError where there is nothing any more."""
    for key in path:
        tree = tree[key]
    return tree


def mutated(tree: Any, wanted: list[Mutation]) -> Any:
    """A copy with all of them, in their order; what an earlier one has taken away stays away."""
    new = copy.deepcopy(tree)
    for one in wanted:
        *before, last = one.path
        try:
            place = at(new, tuple(before))
            value = place[last]
            if one.kind is Kind.DROPPED:
                del place[last]
            elif one.kind is Kind.EMPTIED:
                value.clear()
            elif one.kind is Kind.DOUBLED:
                value += copy.deepcopy(value)
            else:
                place[last] = copy.deepcopy(one.value)
        except (LookupError, TypeError, AttributeError):
            continue
    return new


def as_printed(tree: Any) -> str:
    """As system_profiler does."""
    return json.dumps(tree, indent=2, separators=(",", " : "))
