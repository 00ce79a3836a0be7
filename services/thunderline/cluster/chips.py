"""How fast Apple's chips read their memory. Pure.

Apple's own figures, from the technical specifications of the Macs that have them. Two versions of a Max differ, and the
chip's name does not tell which it is: then the lesser counts.
"""

from collections.abc import Mapping

# GB/s, of 10^9 bytes.
GB_PER_S: Mapping[str, float] = {
    "M1": 68.25,
    "M1 Pro": 200,
    "M1 Max": 400,
    "M1 Ultra": 800,
    "M2": 100,
    "M2 Pro": 200,
    "M2 Max": 400,
    "M2 Ultra": 800,
    "M3": 100,
    "M3 Pro": 150,
    # 400 with 16 cores.
    "M3 Max": 300,
    "M3 Ultra": 819,
    "M4": 120,
    "M4 Pro": 273,
    # 546 with 16 cores.
    "M4 Max": 410,
    "M5": 153,
    "M5 Pro": 307,
    # 614 with 40 GPU cores.
    "M5 Max": 460,
}


def memory_bytes_per_s(chip: str) -> int:
    """Of "Apple M3 Ultra", or "M3 Ultra"; 0: not known."""
    words = chip.lower().removeprefix("apple ").split()
    known = [name for name in GB_PER_S if name.lower().split() == words[: len(name.split())]]
    return int(GB_PER_S[max(known, key=len)] * 1e9) if known else 0
