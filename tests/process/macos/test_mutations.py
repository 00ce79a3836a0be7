"""Captures that something has gone wrong with: no reader raises, and what was not touched reads the same.

With PROVE in the environment these are 2,600 mutations, without it a tenth.
"""

import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from process.macos.captured import COMMANDS, MACHINES, text, whole
from process.macos.mutations import Mutation, as_printed, mutated, mutations
from thunderline.cluster.machine_facts import MachineFacts, RdmaPortState, ThunderboltPort
from thunderline.process.macos import networks, outputs, rdma, system
from thunderline.process.macos.assembling import WARNING_COUNT_MAX, assemble
from thunderline.process.macos.outputs import Output
from thunderline.process.macos.thunderbolt import LIST, thunderbolt

SHARE = 1 if os.environ.get("PROVE") else 10
TREE_COUNT, WHOLE_COUNT, LINE_COUNT, BYTE_COUNT, TEXT_COUNT = 800, 400, 800, 400, 200

TREES = {machine: json.loads(text(machine, outputs.THUNDERBOLT)) for machine in MACHINES}
MUTATIONS = {machine: mutations(tree) for machine, tree in TREES.items()}
WHOLE = {machine: whole(machine) for machine in MACHINES}
SOUND = {machine: assemble(printed) for machine, printed in WHOLE.items()}


def some(count: int) -> settings:
    return settings(max_examples=count // SHARE, deadline=None)


@st.composite
def wrong_trees(draw: st.DrawFn, count_max: int) -> tuple[str, Any]:
    """A machine, and its tree with some mutations."""
    machine = draw(st.sampled_from(MACHINES))
    wanted: list[Mutation] = draw(st.lists(st.sampled_from(MUTATIONS[machine]), min_size=1, max_size=count_max))
    return machine, mutated(TREES[machine], wanted)


def buses(tree: Any) -> list[Any]:
    found = tree.get(LIST) if isinstance(tree, dict) else None
    return found if isinstance(found, list) else []


def untouched(machine: str, tree: Any) -> set[str]:
    """Names of the buses that are in it as they were."""
    return {one["_name"] for one in buses(TREES[machine]) if one in buses(tree)}


@some(TREE_COUNT)
@given(wrong_trees(3))
def test_a_mutated_tree_costs_no_other_bus(case: tuple[str, Any]) -> None:
    machine, tree = case
    found = thunderbolt(as_printed(tree)).value
    sound = thunderbolt(text(machine, outputs.THUNDERBOLT)).value
    expected = [one for one in sound.ports if one.bus in untouched(machine, tree)]
    assert [one for one in expected if one not in found.ports] == []


@some(WHOLE_COUNT)
@given(wrong_trees(1))
def test_a_mutated_tree_costs_nothing_else_of_the_machine(case: tuple[str, Any]) -> None:
    machine, tree = case
    found = assemble({**WHOLE[machine], outputs.THUNDERBOLT: Output(as_printed(tree))})
    expected = [one for one in SOUND[machine].ports if one.bus in untouched(machine, tree)]
    assert [one for one in expected if one not in found.ports] == []
    assert differing(found, SOUND[machine]) <= FIELDS[outputs.THUNDERBOLT]
    assert_bounded(found)


def entries(value: Any) -> set[tuple[str, Any]]:
    """The fields that say something."""
    return {(one.name, told) for one in dataclasses.fields(value) if (told := getattr(value, one.name)) != one.default}


def paragraphs(output: str) -> list[str]:
    return output.strip("\n").split("\n\n")


def sections(output: str) -> list[str]:
    """Each with the indented lines below its first."""
    return re.split(r"\n(?=\S)", output.rstrip("\n"))


# How a text falls into parts, and what one of them says, alone or among others.
PARTS: dict[str, tuple[Callable[[str], list[str]], Callable[[str], set[Any]]]] = {
    outputs.HARDWARE_PORTS: (paragraphs, lambda part: set(networks.hardware_ports(part).value)),
    outputs.SERVICE_ORDER: (paragraphs, lambda part: set(networks.services(part).value)),
    outputs.IFCONFIG: (sections, lambda part: set(networks.interfaces(part).value)),
    outputs.RDMA_DEVICES: (str.splitlines, lambda part: set(rdma.devices(part).value)),
    outputs.RDMA_PORTS: (paragraphs, lambda part: set(rdma.port_states(part).value.items())),
    outputs.SYSTEM_VERSION: (str.splitlines, lambda part: entries(system.version(part).value)),
    outputs.HARDWARE: (str.splitlines, lambda part: entries(system.hardware(part).value)),
    outputs.POWER: (str.splitlines, lambda part: entries(system.power(part).value)),
}
# Of every line-based command, the machines that have it.
PRINTED = [
    (command, found.text)
    for machine in MACHINES
    for command, found in WHOLE[machine].items()
    if command in PARTS and found.text
]
ODD_LINES = ("", "\x00", "?" * 5000, ":", "Device:", "(7)", "\t", "\tstatus:", "hca_id:", "** Error", "\ufffd")


@st.composite
def wrong_lines(draw: st.DrawFn) -> tuple[str, str, str]:
    """A command, what it prints, and what has become of it."""
    command, sound = draw(st.sampled_from(PRINTED))
    if draw(st.booleans()):
        return command, sound, sound[: draw(st.integers(0, len(sound)))]
    lines = sound.split("\n")
    places = draw(st.lists(st.integers(0, len(lines) - 1), min_size=1, max_size=3, unique=True))
    # From the end, so that the places before stay where they are.
    for place in sorted(places, reverse=True):
        line = lines[place]
        wrong = [[], [line, line], [line[: draw(st.integers(0, len(line)))]], [draw(st.sampled_from(ODD_LINES))]]
        lines[place : place + 1] = draw(st.sampled_from(wrong))
    return command, sound, "\n".join(lines)


@some(LINE_COUNT)
@given(wrong_lines())
def test_mutated_lines_cost_no_other_part(case: tuple[str, str, str]) -> None:
    command, sound, wrong = case
    parts, says = PARTS[command]
    found = says(wrong)
    for part in set(parts(sound)) & set(parts(wrong)):
        assert says(part) <= found


# What each command tells, and no other does.
FIELDS: dict[str, set[str]] = {
    outputs.THUNDERBOLT: {"ports", "model_name"},
    outputs.HARDWARE_PORTS: {"ports", "hardware_ports"},
    outputs.SERVICE_ORDER: {"bridges"},
    outputs.IFCONFIG: {"bridges", "ports"},
    outputs.RDMA_STATUS: {"rdma"},
    outputs.RDMA_DEVICES: {"ports"},
    outputs.RDMA_PORTS: {"ports"},
    outputs.SYSTEM_VERSION: {"os_version", "os_build"},
    outputs.HARDWARE: {"model", "chip", "wired_limit_bytes", "ports"},
    outputs.POWER: {"sleep_after_min", "starts_after_power_failure"},
    outputs.FILEVAULT: {"is_filevault_on"},
    outputs.MLX: {"mlx_backends", "working_set_bytes"},
}


def differing(one: MachineFacts, other: MachineFacts) -> set[str]:
    """Names of fields, warnings left out."""
    names = {field.name for field in dataclasses.fields(one)} - {"warnings"}
    return {name for name in names if getattr(one, name) != getattr(other, name)}


def bare(ports: tuple[ThunderboltPort, ...]) -> list[ThunderboltPort]:
    """Without what other commands than Thunderbolt's say."""
    unknown = RdmaPortState.UNKNOWN
    return [
        dataclasses.replace(one, interface="", rdma_device="", rdma_port=unknown, bridge="", is_next_to_ethernet=False)
        for one in ports
    ]


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple):
        for one in value:
            yield from texts(one)


def assert_bounded(facts: MachineFacts) -> None:
    for one in texts(dataclasses.astuple(facts)):
        assert len(one) <= outputs.WARNING_LENGTH_MAX
        assert one == "" or one.isprintable()
        one.encode()
    assert len(facts.warnings) <= WARNING_COUNT_MAX


def check_others(machine: str, command: str, wrong: str) -> None:
    """`wrong` in the place of what one command prints costs nothing that others tell."""
    found = assemble({**WHOLE[machine], command: Output(wrong)})
    assert differing(found, SOUND[machine]) <= FIELDS[command]
    if command != outputs.THUNDERBOLT:
        assert bare(found.ports) == bare(SOUND[machine].ports)
    assert_bounded(found)


ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "latin-1", "cp037", "utf-7")
# Neither letters nor figures: those make another name, which is read as well as the first.
ODD_BYTES = b'\x00\n\r\t\x1b "\\{}[],:()\x7f\x80\xc3\xed\xf0\xff'


@st.composite
def wrong_bytes(draw: st.DrawFn) -> tuple[str, str, str]:
    """A machine, a command, and what it prints in another encoding or with wrong bytes in it."""
    machine, command = draw(st.sampled_from(MACHINES)), draw(st.sampled_from(COMMANDS))
    sound = WHOLE[machine][command].text or "?"
    if draw(st.integers(0, 3)) == 0:
        data = bytearray(sound.encode(draw(st.sampled_from(ENCODINGS))))
    else:
        data = bytearray(sound.encode())
    for _ in range(draw(st.integers(0, 4))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.sampled_from(ODD_BYTES))
    return machine, command, data.decode(errors="replace")


@some(BYTE_COUNT)
@given(wrong_bytes())
def test_wrong_bytes_cost_nothing_that_other_commands_tell(case: tuple[str, str, str]) -> None:
    check_others(*case)


@some(TEXT_COUNT)
@given(st.sampled_from(MACHINES), st.sampled_from(COMMANDS), st.text() | st.text(alphabet='[]{}",:0\n \t()*-'))
def test_any_text_costs_nothing_that_other_commands_tell(machine: str, command: str, wrong: str) -> None:
    check_others(machine, command, wrong)


@pytest.mark.parametrize("machine", MACHINES)
def test_half_a_tree_is_none(machine: str) -> None:
    sound = text(machine, outputs.THUNDERBOLT)
    for length in range(0, len(sound.rstrip()), len(sound) // 40):
        found = thunderbolt(sound[:length])
        assert (found.value.ports, len(found.warnings)) == ((), 1)
