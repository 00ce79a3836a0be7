"""Version, hardware, power, FileVault and MLX, as they are printed."""

import pytest

from process.macos.captured import LAPTOP, MINI, STUDIO, text
from thunderline.process.macos import outputs
from thunderline.process.macos.system import (
    Hardware,
    Mlx,
    Power,
    Version,
    filevault,
    hardware,
    mlx,
    power,
    version,
)

MIB = 2**20

VERSIONS: dict[str, tuple[str, Version, int]] = {
    "with tabs": (text(STUDIO, outputs.SYSTEM_VERSION), Version("26.2", "25C56"), 0),
    "with an extra": (
        "ProductName: macOS\nProductVersion: 26.2.1\nProductVersionExtra: (a)\nBuildVersion: 25C101\n",
        Version("26.2.1", "25C101"),
        0,
    ),
    "without a build": ("ProductVersion: 26.2\n", Version("26.2", ""), 1),
    "with an empty build": ("ProductVersion: 26.2\nBuildVersion:\n", Version("26.2", ""), 1),
    "nothing": ("", Version(), 2),
    "a key twice": ("ProductVersion: 26.2\nProductVersion: 15.0\nBuildVersion: 25C56\n", Version("26.2", "25C56"), 0),
}


@pytest.mark.parametrize(("printed", "expected", "warned"), VERSIONS.values(), ids=VERSIONS.keys())
def test_a_version(printed: str, expected: Version, warned: int) -> None:
    found = version(printed)
    assert found.value == expected
    assert len(found.warnings) == warned


ULTRA = "hw.model: Mac15,14\nmachdep.cpu.brand_string: Apple M3 Ultra\n"
HARDWARE: dict[str, tuple[str, Hardware, list[str]]] = {
    "with a wired limit": (text(STUDIO, outputs.HARDWARE), Hardware("Mac15,14", "Apple M3 Ultra", 480000 * MIB), []),
    "with the system's own limit": (text(LAPTOP, outputs.HARDWARE), Hardware("Mac16,5", "Apple M4 Max", 0), []),
    "without that setting": (text(MINI, outputs.HARDWARE), Hardware("Mac16,10", "Apple M4", None), []),
    "a limit that is no number": (
        f"{ULTRA}iogpu.wired_limit_mb: all\n",
        Hardware("Mac15,14", "Apple M3 Ultra", None),
        ['its output is not understood: iogpu.wired_limit_mb is "all"'],
    ),
    "a limit below nothing": (
        f"{ULTRA}iogpu.wired_limit_mb: -1\n",
        Hardware("Mac15,14", "Apple M3 Ultra", None),
        ['its output is not understood: iogpu.wired_limit_mb is "-1"'],
    ),
    "a limit above all memory": (
        f"{ULTRA}iogpu.wired_limit_mb: 99999999\n",
        Hardware("Mac15,14", "Apple M3 Ultra", None),
        ['its output is not understood: iogpu.wired_limit_mb is "99999999"'],
    ),
    "nothing": ("", Hardware(), ["does not tell hw.model", "does not tell machdep.cpu.brand_string"]),
    "in the form of Linux": (
        "hw.model = Mac15,14\n",
        Hardware(),
        ["does not tell hw.model", "does not tell machdep.cpu.brand_string"],
    ),
}


@pytest.mark.parametrize(("printed", "expected", "said"), HARDWARE.values(), ids=HARDWARE.keys())
def test_hardware(printed: str, expected: Hardware, said: list[str]) -> None:
    found = hardware(printed)
    assert found.value == expected
    assert list(found.warnings) == said


POWER: dict[str, tuple[str, Power, int]] = {
    "never sleeps, and starts by itself": (text(STUDIO, outputs.POWER), Power(0, True), 0),
    "a laptop": (text(LAPTOP, outputs.POWER), Power(1, None), 0),
    "sleeps, and stays off": (text(MINI, outputs.POWER), Power(10, False), 0),
    "sleep is ruled out": (" SleepDisabled\t\t1\n sleep                1\n", Power(0, None), 0),
    "only other kinds of sleep": (" disksleep 10\n displaysleep 10\n Sleep On Power Button 1\n", Power(), 1),
    "sleep is a word": (" sleep                soon\n autorestart 1\n", Power(None, True), 1),
    "autorestart is a big number": (" sleep 0\n autorestart 7\n", Power(0, None), 1),
    "sleep is years": (" sleep 99999999999\n", Power(), 1),
    "nothing": ("", Power(), 1),
}


@pytest.mark.parametrize(("printed", "expected", "warned"), POWER.values(), ids=POWER.keys())
def test_power(printed: str, expected: Power, warned: int) -> None:
    found = power(printed)
    assert found.value == expected
    assert len(found.warnings) == warned


FILEVAULT: dict[str, tuple[str, bool | None]] = {
    "on": ("FileVault is On.\n", True),
    "off": ("FileVault is Off.\n", False),
    "on, and at work": (text(MINI, outputs.FILEVAULT), True),
    "off, with a plan": ("FileVault is Off, but will be enabled after the next restart.\n", False),
    "a word that begins like it": ("FileVault is Onward\n", None),
    "a complaint": ("Error: not allowed\n", None),
    "nothing": ("", None),
}


@pytest.mark.parametrize(("printed", "expected"), FILEVAULT.values(), ids=FILEVAULT.keys())
def test_filevault(printed: str, expected: bool | None) -> None:
    found = filevault(printed)
    assert found.value is expected
    assert len(found.warnings) == (expected is None)


MLX: dict[str, tuple[str, Mlx, int]] = {
    "with JACCL": (text(STUDIO, outputs.MLX), Mlx(("ring", "jaccl"), 412316860416), 0),
    "without what Metal recommends": (text(MINI, outputs.MLX), Mlx(("ring",), 0), 0),
    "with words before it": (f"a warning of MLX\n{text(MINI, outputs.MLX)}\n", Mlx(("ring",), 0), 0),
    "no backend": ('{"backends": []}', Mlx((), 0), 0),
    "without backends": ('{"device": "gpu"}', Mlx(), 1),
    "backends that are text": ('{"backends": "ring"}', Mlx(), 1),
    "a backend that is null": ('{"backends": ["ring", null]}', Mlx(), 1),
    "a size that is true": ('{"backends": ["ring"], "working_set_bytes": true}', Mlx(("ring",), 0), 1),
    "a size that is a fraction": ('{"backends": ["ring"], "working_set_bytes": 1e9}', Mlx(("ring",), 0), 1),
    "a list": ("[]", Mlx(), 1),
    "words": ("Traceback (most recent call last):\nModuleNotFoundError: no mlx\n", Mlx(), 1),
    "half of it": ('{"backends": ["ri', Mlx(), 1),
    "a bomb": ("[" * 4000, Mlx(), 1),
    "nothing": ("", Mlx(), 1),
}


@pytest.mark.parametrize(("printed", "expected", "warned"), MLX.values(), ids=MLX.keys())
def test_what_mlx_can_do(printed: str, expected: Mlx, warned: int) -> None:
    found = mlx(printed)
    assert found.value == expected
    assert len(found.warnings) == warned
