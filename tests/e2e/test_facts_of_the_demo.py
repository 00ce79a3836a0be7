"""What is known of the demo model without loading it is what MLX has once it is loaded."""

from pathlib import Path

from audit.test_facts_of_every_architecture import compare, told_by_mlx, told_by_the_files
from installation import DEMO


def test_the_demo_models_facts(demo_folder: Path) -> None:
    facts = told_by_the_files(demo_folder.parents[1], DEMO)
    assert (facts.architecture, facts.layer_count, facts.is_tied) == ("llama", 30, True)
    compare(facts, told_by_mlx(demo_folder))
