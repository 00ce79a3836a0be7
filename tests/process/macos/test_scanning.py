"""A Mac that is asked again and again: real processes, scripts that a test writes."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from discovery.little_discovery import until
from process.macos.little_mac import ANSWERS, HANGS_AFTER_S, LittleMac, quick, restless
from thunderline.cluster.machine_facts import Bridge, MachineFacts, RdmaState, ScanWarning
from thunderline.process.macos import outputs
from thunderline.process.macos.commands import MAC, Command, commands
from thunderline.process.macos.outputs import MISSING, STILL_COUNTS, Output, not_understood
from thunderline.process.macos.running import Ran, ran
from thunderline.process.macos.scanning import Asked, Runner, Scanner, scan_once

# A dozen processes, on a machine that does other things too.
SOON_S = 60.0
ENABLED = "networksetup -getnetworkserviceenabled Little Bridge"
HUNG = f"took longer than {HANGS_AFTER_S:g} s"


@pytest.fixture
def mac(tmp_path: Path) -> LittleMac:
    found = LittleMac(tmp_path)
    found.prints()
    return found


@contextlib.asynccontextmanager
async def scanning(
    mac: LittleMac, asked: Asked = quick, runner: Runner = ran, platform: str = "darwin"
) -> AsyncIterator[Scanner]:
    """It is cancelled when the block is left, and nothing of it may be alive then."""
    scanner = Scanner(mac.settings(platform), mac.environ, asked, runner)
    running = asyncio.create_task(scanner.run())
    try:
        yield scanner
    finally:
        assert not running.done(), running
        running.cancel()
        await asyncio.wait({running})
        assert not mac.living()


async def known(scanner: Scanner) -> MachineFacts:
    """What it finds first."""
    await until("it knows something", lambda: scanner.facts is not None, SOON_S)
    assert scanner.facts is not None
    return scanner.facts


def warnings(facts: MachineFacts, command: str) -> list[str]:
    return [one.what for one in facts.warnings if one.command == command]


def told(scanner: Scanner, command: str) -> list[str]:
    return warnings(scanner.facts or MachineFacts(), command)


def unhurried(platform: str, known: Mapping[str, Output]) -> tuple[Command, ...]:
    """They ask again after a moment in which one can hang."""
    return tuple(replace(one, every_s=HANGS_AFTER_S + 1) for one in quick(platform, known))


async def test_what_all_commands_say_together_is_what_it_knows(mac: LittleMac) -> None:
    async with scanning(mac) as scanner:
        facts = await known(scanner)
        assert (facts.os_version, facts.os_build) == ("26.2", "25C56")
        assert (facts.model, facts.chip, facts.rdma) == ("Mac15,14", "Apple M3 Ultra", RdmaState.DISABLED)
        assert dict(facts.hardware_ports) == {"en2": "Thunderbolt 1", "en0": "Ethernet"}
        assert facts.bridges == (Bridge("bridge0", ("en2",), "Little Bridge", True),)
        await until(
            "the heavy one", lambda: scanner.facts is not None and scanner.facts.mlx_backends is not None, SOON_S
        )
    for one in MAC:
        assert mac.calls(one.line) == 1, one.line
    assert mac.calls(ENABLED) == 1


async def test_one_that_hangs_holds_up_nobody_and_costs_its_own_field(mac: LittleMac) -> None:
    mac.does("ibv_devinfo", mac.remembering("echo $$ >>$PIDS; sleep 1000"))
    mac.does("pmset", mac.remembering("trap '' TERM; echo $$ >>$PIDS; while true; do sleep 1000; done"))
    async with scanning(mac) as scanner:
        facts = await known(scanner)
        assert warnings(facts, outputs.RDMA_PORTS) == warnings(facts, outputs.POWER) == [HUNG]
        assert facts.sleep_after_min is None
        assert (facts.rdma, facts.is_filevault_on) == (RdmaState.DISABLED, False)
        assert not mac.living()
    assert mac.calls(outputs.RDMA_PORTS) == mac.calls(outputs.POWER) == 1


async def test_while_one_hangs_the_others_are_asked_on_and_it_is_never_there_twice(mac: LittleMac) -> None:
    mac.does("ibv_devinfo", mac.remembering("echo $$ >>$PIDS; sleep 1000"))
    async with scanning(mac, restless) as scanner:
        await until("it hangs", lambda: bool(mac.living()), SOON_S)
        first = mac.calls(outputs.RDMA_STATUS)
        # No longer than it hangs for the first time.
        await until("others were asked again", lambda: mac.calls(outputs.RDMA_STATUS) > first + 1, SOON_S)
        await until("it was asked again", lambda: mac.calls(outputs.RDMA_PORTS) > 1, SOON_S)
        assert len(mac.living()) <= 1
        assert HUNG in warnings(await known(scanner), outputs.RDMA_PORTS)


async def test_one_that_hangs_later_has_its_last_answer_hold_for_a_while(mac: LittleMac) -> None:
    async with scanning(mac, unhurried) as scanner:
        assert (await known(scanner)).rdma is RdmaState.DISABLED
        mac.does("rdma_ctl", "sleep 1000")
        await until("it hangs", lambda: told(scanner, outputs.RDMA_STATUS) == [HUNG + STILL_COUNTS], SOON_S)
        assert scanner.facts is not None
        assert scanner.facts.rdma is RdmaState.DISABLED
        await until("it holds no more", lambda: (scanner.facts or MachineFacts()).rdma is RdmaState.UNKNOWN, SOON_S)
        assert told(scanner, outputs.RDMA_STATUS) == [HUNG]
        mac.prints({outputs.RDMA_STATUS: "enabled\n"})
        await until("it answers again", lambda: (scanner.facts or MachineFacts()).rdma is RdmaState.ENABLED, SOON_S)
        assert told(scanner, outputs.RDMA_STATUS) == []


def little_runner(late: Callable[[], Awaitable[Ran]]) -> Runner:
    """Starts no process. `rdma_ctl` answers once, and then as `late` does."""
    count = Counter[str]()

    async def run(words: Sequence[str], timeout_s: float, environ: Mapping[str, str] | None = None) -> Ran:
        line = " ".join(words)
        count[line] += 1
        if line == outputs.RDMA_STATUS and count[line] > 1:
            return await late()
        gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        gone.set_result(None)
        return Ran(Output(ANSWERS.get(line, ANSWERS[outputs.MLX])), gone)

    return run


async def stuck() -> Ran:
    """It could not be killed."""
    return Ran(Output(problem=HUNG), asyncio.get_running_loop().create_future(), is_hung=True)


async def silent() -> Ran:
    await asyncio.Event().wait()
    return await stuck()


@pytest.mark.parametrize("late", [stuck, silent], ids=["it is stuck in the kernel", "nothing is heard of it"])
async def test_what_never_ends_loses_its_last_answer_all_the_same(
    mac: LittleMac, late: Callable[[], Awaitable[Ran]]
) -> None:
    def impatient(platform: str, known: Mapping[str, Output]) -> tuple[Command, ...]:
        return tuple(replace(one, every_s=HANGS_AFTER_S) for one in quick(platform, known))

    async with scanning(mac, impatient, little_runner(late)) as scanner:
        assert (await known(scanner)).rdma is RdmaState.DISABLED
        await until("it holds no more", lambda: (scanner.facts or MachineFacts()).rdma is RdmaState.UNKNOWN, SOON_S)
        assert told(scanner, outputs.RDMA_STATUS) == [HUNG]


async def test_an_answer_that_is_enough_is_asked_for_until_it_is_understood(mac: LittleMac) -> None:
    def restless(platform: str, known: Mapping[str, Output]) -> tuple[Command, ...]:
        return tuple(replace(one, every_s=0.2) for one in quick(platform, known))

    mac.does("thunderline", "echo Killed")
    async with scanning(mac, restless) as scanner:
        odd = [not_understood('"Killed"')]
        await until("it is not understood", lambda: told(scanner, outputs.MLX) == odd, SOON_S)
        mac.prints({outputs.MLX: ANSWERS[outputs.MLX]})
        await until("it is", lambda: (scanner.facts or MachineFacts()).mlx_backends == ("ring", "jaccl"), SOON_S)
        assert told(scanner, outputs.MLX) == []


async def test_what_is_late_is_told_before_what_is_odd(mac: LittleMac) -> None:
    """Of many warnings the last are cut."""
    mac.does("ifconfig", "echo no")
    async with scanning(mac, unhurried) as scanner:
        await known(scanner)
        mac.does("rdma_ctl", "sleep 1000")
        late = ScanWarning(outputs.RDMA_STATUS, HUNG + STILL_COUNTS)
        await until("it is late", lambda: late in (scanner.facts or MachineFacts()).warnings, SOON_S)
        assert scanner.facts is not None
        assert scanner.facts.warnings[0] == late
        assert outputs.IFCONFIG in {one.command for one in scanner.facts.warnings[1:]}


async def test_one_that_is_missing_costs_a_warning_until_it_is_there(mac: LittleMac) -> None:
    (mac.folder / "pmset").unlink()
    async with scanning(mac, restless) as scanner:
        assert warnings(await known(scanner), outputs.POWER) == [MISSING]
        mac.prints({outputs.POWER: ANSWERS[outputs.POWER]})
        await until("it is found", lambda: told(scanner, outputs.POWER) == [], SOON_S)
        assert scanner.facts is not None
        assert (scanner.facts.sleep_after_min, scanner.facts.starts_after_power_failure) == (0, True)


async def test_a_mac_without_rdma_is_one_without_a_warning(mac: LittleMac) -> None:
    for name in ("rdma_ctl", "ibv_devices", "ibv_devinfo"):
        (mac.folder / name).unlink()
    async with scanning(mac) as scanner:
        facts = await known(scanner)
    assert facts.rdma is RdmaState.UNAVAILABLE
    assert {one.command.split()[0] for one in facts.warnings}.isdisjoint({"rdma_ctl", "ibv_devices", "ibv_devinfo"})


NONSENSE = {
    "ten megabytes": "head -c 10000000 /dev/zero | tr '\\0' x",
    "zeroes": "head -c 10000 /dev/zero",
    "half a value": "printf '{\"SPThunderboltDataType\": [{'",
    "another answer": "echo no",
}


@pytest.mark.parametrize("script", NONSENSE.values(), ids=NONSENSE.keys())
async def test_nonsense_costs_its_own_field_and_a_warning(mac: LittleMac, script: str) -> None:
    mac.does("system_profiler", script)
    mac.does("sw_vers", script)
    async with scanning(mac) as scanner:
        facts = await known(scanner)
    assert (facts.os_version, facts.ports) == ("", ())
    assert warnings(facts, outputs.THUNDERBOLT)
    assert warnings(facts, outputs.SYSTEM_VERSION)
    assert (facts.chip, facts.rdma) == ("Apple M3 Ultra", RdmaState.DISABLED)


async def test_what_changes_is_told_and_what_does_not_wakes_nobody(mac: LittleMac) -> None:
    async with scanning(mac, restless) as scanner:
        await known(scanner)
        await until(
            "the heavy one", lambda: scanner.facts is not None and scanner.facts.mlx_backends is not None, SOON_S
        )
        seen, asked = scanner.changes.version, mac.calls(outputs.RDMA_STATUS)
        await until("it is asked again", lambda: mac.calls(outputs.RDMA_STATUS) > asked + 2, SOON_S)
        assert scanner.changes.version == seen
        mac.prints({outputs.RDMA_STATUS: "enabled\n"})
        await asyncio.wait_for(scanner.changes.after(seen), SOON_S)
        assert scanner.facts is not None
        assert scanner.facts.rdma is RdmaState.ENABLED


async def test_a_bridge_whose_service_goes_is_not_asked_for_any_more(mac: LittleMac) -> None:
    without = ANSWERS[outputs.SERVICE_ORDER].replace("bridge0", "en2")
    async with scanning(mac, restless) as scanner:
        await known(scanner)
        mac.prints({**ANSWERS, outputs.SERVICE_ORDER: without})
        gone = (Bridge("bridge0", ("en2",), "", None),)
        await until("it has no service", lambda: scanner.facts is not None and scanner.facts.bridges == gone, SOON_S)
        # One that is under way may still come.
        asked, others = mac.calls(ENABLED) + 1, mac.calls(outputs.IFCONFIG)
        await until("others are asked", lambda: mac.calls(outputs.IFCONFIG) > others + 2, SOON_S)
        assert mac.calls(ENABLED) <= asked


async def test_when_the_interfaces_change_what_follows_them_is_asked_again(mac: LittleMac) -> None:
    async with scanning(mac) as scanner:
        scanner.saw(("en0",))
        await known(scanner)
        assert mac.calls(outputs.IFCONFIG) == 1
        scanner.saw(("en0", "en2"))
        await until("it is asked again", lambda: mac.calls(outputs.IFCONFIG) > 1, SOON_S)
        assert mac.calls(outputs.RDMA_STATUS) == mac.calls(outputs.POWER) == 1


async def test_who_is_cancelled_leaves_nothing_behind(mac: LittleMac) -> None:
    for name in ("ibv_devinfo", "ifconfig", "pmset"):
        mac.does(name, mac.remembering("trap '' TERM; echo $$ >>$PIDS; sleep 1000"))
    async with scanning(mac, commands):
        await until("they hang", lambda: len(mac.living()) == 3, SOON_S)


async def test_another_system_is_asked_only_what_its_mlx_can_do(mac: LittleMac) -> None:
    async with scanning(mac, commands, platform="linux") as scanner:
        await until("it has answered", lambda: scanner.facts is not None, SOON_S)
    found = await scan_once(mac.settings("linux"), mac.environ)
    assert found == scanner.facts
    assert found.mlx_backends
    assert replace(found, mlx_backends=None, working_set_bytes=0) == MachineFacts()
    assert (mac.calls(outputs.SYSTEM_VERSION), mac.calls(outputs.MLX)) == (0, 2)


async def test_one_scan_tells_as_much_as_many(mac: LittleMac) -> None:
    async with scanning(mac) as scanner:
        await known(scanner)
        await until(
            "the heavy one", lambda: scanner.facts is not None and scanner.facts.mlx_backends is not None, SOON_S
        )
        assert await scan_once(mac.settings(), mac.environ) == scanner.facts


async def test_one_scan_of_a_mac_that_hangs_all_over_comes_to_its_end(mac: LittleMac) -> None:
    for one in {one.words[0] for one in MAC}:
        mac.does(one, mac.remembering("echo $$ >>$PIDS; sleep 1000"))
    facts = await asyncio.wait_for(scan_once(mac.settings(), mac.environ, quick), SOON_S)
    assert {ScanWarning(one.line, HUNG) for one in MAC} == set(facts.warnings)
    assert not mac.living()
