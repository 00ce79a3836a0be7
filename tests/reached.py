"""The figures that the benchmark has to reach, by the file under tests/evidence and the key in it."""

from collections.abc import Mapping
from operator import ge, le
from typing import Any

# (a) mlx-lm's loop, (b) its server; seconds, milliseconds and ratios as the key says.
BOUNDS = {
    "serve": {
        "1_streams_ours_to_bare_greedy": (ge, 0.95),
        "4_streams_ours_to_bare_greedy": (ge, 0.95),
        "8_streams_ours_to_bare_greedy": (ge, 0.95),
        "1_streams_ours_to_peer_greedy": (ge, 1.0),
        "8_streams_ours_to_peer_greedy": (ge, 1.03),
        "8_streams_ours_to_peer_sampled": (ge, 1.2),
        "1_streams_ours_sampled_to_greedy": (ge, 0.93),
        "4_streams_ours_sampled_to_greedy": (ge, 0.93),
        "8_streams_ours_sampled_to_greedy": (ge, 0.93),
        "1_streams_first_token_later_than_bare_ms": (le, 15),
        "1_streams_ours_greedy_cpu_ms_per_token_outside": (le, 2.5),
        "8_streams_ours_greedy_cpu_ms_per_token_outside": (le, 1.0),
        "8_streams_of_a_tiny_model_runner_adds_ms_per_step": (le, 0.5),
    },
    "serve_16": {
        "16_streams_ours_to_bare_greedy": (ge, 0.93),
        "16_streams_ours_sampled_to_greedy": (ge, 0.93),
    },
    "serve_seeded": {"8_seeded_streams_ours_to_peer": (ge, 4.0)},
    "serve_waits": {
        "1500_tokens_beside_4_streams_first_token_to_best_chunk": (le, 1.3),
        "1500_tokens_beside_4_streams_ours_gap_max_s": (le, 1.2),
        "1500_tokens_beside_4_streams_ours_steps_over_1_s": (le, 0),
        "8_x_1000_tokens_beside_4_streams_first_answer_to_all_at_once": (le, 1 / 3),
        "8_x_1000_tokens_beside_4_streams_ours_gap_max_s": (le, 1.3),
        "8_x_1000_tokens_beside_4_streams_ours_steps_over_1_s": (le, 0),
        "1000_tokens_twice_second_time_to_first": (le, 0.1),
    },
}


def missed(name: str, figures: Mapping[str, Any]) -> list[str]:
    """The figures of one file that are not there, or not reached."""
    found = []
    for key, (holds, bound) in BOUNDS[name].items():
        value = figures.get(key)
        if value is None or not holds(value, bound):
            found.append(f"{key} is {value}, {'at least' if holds is ge else 'at most'} {bound:.3g} is asked")
    return found
