"""Which of the benchmark's figures do not reach what is asked."""

import reached


def test_a_figure_that_is_missed_or_missing_is_told() -> None:
    assert reached.missed("serve_seeded", {"8_seeded_streams_ours_to_peer": 4.0}) == []
    assert reached.missed("serve_seeded", {"8_seeded_streams_ours_to_peer": 3.9}) == [
        "8_seeded_streams_ours_to_peer is 3.9, at least 4 is asked"
    ]
    assert len(reached.missed("serve_seeded", {})) == 1
