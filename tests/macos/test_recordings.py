"""What is recorded here is what a node understands: whole Macs, read as a node reads them, and their cables match."""

import json
from pathlib import Path

import pytest

from macos.standing_in import StandIns
from thunderline.cluster.machine_facts import MachineFacts, ScanWarning
from thunderline.process import settings
from thunderline.process.macos.scanning import scan_once

HERE = Path(__file__).parent
MACHINES = sorted(path for folder in ("machines", "captures") for path in (HERE / folder).iterdir())
SITUATIONS = sorted((HERE / "situations").iterdir())
# What these situations are about.
FAILING = {"hanging_command": "took longer than 5 s", "missing_command": "is not there (not in PATH)"}


async def facts(folder: Path, *recordings: Path) -> MachineFacts:
    made = StandIns(folder / "bin")
    made.show(*recordings)
    forced = settings.read(environ={"THUNDERLINE_NODE_PLATFORM": "darwin"}, home=folder)
    return await scan_once(forced, made.environment)


@pytest.mark.parametrize("machine", MACHINES, ids=[f"{path.parent.name}/{path.name}" for path in MACHINES])
async def test_a_machine_is_read_without_a_warning(tmp_path: Path, machine: Path) -> None:
    found = await facts(tmp_path, machine)
    assert found.warnings == ()
    assert found.model.startswith("Mac") and found.model_name and found.chip.startswith("Apple")
    assert found.os_version and found.os_build and found.mlx_backends
    assert found.ports


@pytest.mark.parametrize("situation", SITUATIONS, ids=[path.name for path in SITUATIONS])
async def test_the_macs_of_a_situation_know_each_others_ports(tmp_path: Path, situation: Path) -> None:
    machines = json.loads((situation / "network.json").read_text())["machines"]
    by_host = {
        host: await facts(tmp_path / host, HERE / "machines" / machine, situation / host)
        for host, machine in machines.items()
    }
    warnings: list[ScanWarning] = [one for found in by_host.values() for one in found.warnings]
    assert [one.what for one in warnings] == [what for name, what in FAILING.items() if name == situation.name]
    owners = [(port.uuid, host) for host, found in by_host.items() for port in found.ports]
    assert len(dict(owners)) == len(owners)
    for host, found in by_host.items():
        for port in found.ports:
            for mac in port.macs:
                assert mac.port_uuid in dict(owners) or situation.name == "missing_command"
                assert dict(owners).get(mac.port_uuid) != host
