"""What a lab needs of the machine, and what is told when it is not there."""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Machine:
    platform: str
    is_root: bool
    has_ip: bool
    has_tun: bool


def this_machine() -> Machine:
    return Machine(sys.platform, os.geteuid() == 0, shutil.which("ip") is not None, Path("/dev/net/tun").exists())


def missing(machine: Machine) -> str:
    """Why no lab can be built there; "" when one can."""
    if machine.platform != "linux":
        return "a lab is made of Linux network namespaces: this is not Linux"
    if not machine.is_root:
        return "a lab needs root, to make network namespaces"
    if not machine.has_ip:
        return "a lab needs iproute2: the command ip is not there"
    if not machine.has_tun:
        return "a lab needs /dev/net/tun"
    return ""


def demand(machine: Machine, is_ci: bool) -> None:
    """Skips the test where no lab can be built; in CI that is a failure."""
    if reason := missing(machine):
        if is_ci:
            pytest.fail(f"{reason}; in CI the lab has to run")
        pytest.skip(reason)


def demand_here() -> None:
    demand(this_machine(), bool(os.environ.get("CI")))
