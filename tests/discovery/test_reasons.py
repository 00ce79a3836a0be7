"""The reason that is told when a peer and this node do not take each other: against real servers."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from discovery.little_discovery import free_port
from rpc.little_cluster import YEAR_S, LittleCluster
from rpc.little_service import SERVICE, LittleService
from thunderline.cluster.certificates import NOT_TAKEN
from thunderline.discovery.reasons import Reasons
from thunderline.process.trust import Wallet
from thunderline.rpc.server import serving


@contextlib.asynccontextmanager
async def peer(wallet: Wallet | None) -> AsyncIterator[str]:
    address = f"127.0.0.1:{free_port()}"
    async with serving(address, [SERVICE], LittleService().register, wallet):
        yield address


async def test_one_that_takes_us_has_no_reason(tmp_path: Path) -> None:
    cluster = LittleCluster(tmp_path)
    async with peer(cluster.wallet()) as address:
        assert await Reasons(cluster.wallet()).look(address) == ""


async def test_one_of_another_cluster_is_told_by_its_name(tmp_path: Path) -> None:
    async with peer(LittleCluster(tmp_path, "work").wallet()) as address:
        assert "another cluster, 'work'" in await Reasons(LittleCluster(tmp_path).wallet()).look(address)


async def test_one_of_another_authority_is_told(tmp_path: Path) -> None:
    async with peer(LittleCluster(tmp_path).wallet()) as address:
        assert "another authority" in await Reasons(LittleCluster(tmp_path).wallet()).look(address)


async def test_one_that_has_missed_a_rotation_does_not_take_ours(tmp_path: Path) -> None:
    old, new = LittleCluster(tmp_path), LittleCluster(tmp_path)
    new.bundle = new.authority.certificate_pem + old.authority.certificate_pem
    async with peer(old.wallet()) as address:
        assert await Reasons(new.wallet()).look(address) == NOT_TAKEN


async def test_our_own_fault_is_told_first(tmp_path: Path) -> None:
    cluster = LittleCluster(tmp_path)
    async with peer(LittleCluster(tmp_path, "work").wallet()) as address:
        assert "has expired" in await Reasons(cluster.wallet(age_s=1.5 * YEAR_S)).look(address)


async def test_where_nobody_speaks_tls_nothing_is_said_of_certificates(tmp_path: Path) -> None:
    reasons = Reasons(LittleCluster(tmp_path).wallet())
    assert await reasons.look(f"127.0.0.1:{free_port()}") == ""
    async with peer(None) as address:
        assert await reasons.look(address) == ""


async def test_a_look_is_taken_once_a_minute(tmp_path: Path) -> None:
    reasons = Reasons(LittleCluster(tmp_path).wallet())
    async with peer(LittleCluster(tmp_path, "work").wallet()) as address:
        assert await reasons.look(address)
        assert await reasons.look(address) == ""
        assert "'work'" in reasons.known(address)
