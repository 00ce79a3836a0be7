"""The README says what the code says."""

import dataclasses
import json
import re
from pathlib import Path

from thunderline.cluster import errors
from thunderline.cluster.limits import DEFAULTS
from thunderline.scheduler.events import Kind

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_table_of_limits_is_the_codes() -> None:
    table = {
        name.strip("` "): float(value)
        for keys, values in re.findall(r"^\| (`[^|]+`) \| ([\d., ]+) \|", README, flags=re.MULTILINE)
        for name, value in zip(keys.split(","), values.split(","), strict=True)
    }
    assert table == {field.name: getattr(DEFAULTS, field.name) for field in dataclasses.fields(DEFAULTS)}


def test_every_reason_named_in_the_readme_exists() -> None:
    section = README[README.index("## Errors") : README.index("## Settings")]
    named = set(re.findall(r"\b[A-Z]+_[A-Z_]+\b", section))
    assert named <= errors.BY_REASON.keys()


def test_every_kind_of_event_is_named() -> None:
    section = README[README.index("## What happened") : README.index("## Errors")]
    assert re.findall(r"`([A-Z]+_?[A-Z_]+)`", section[section.index("Kinds:") :]) == list(Kind)


def test_every_folder_in_the_tree_exists() -> None:
    tree = README[README.index("## The tree") : README.index("## How a request")]
    for line in re.findall(r"^    (\w\S*/)", tree, flags=re.MULTILINE):
        assert (ROOT / line).is_dir(), line


def test_every_metric_is_named() -> None:
    section = README[README.index("## What Prometheus sees") : README.index("## Settings")]
    named = {f"thunderline{name}" for name in re.findall(r"`(?:thunderline)?(_[a-z_]+)`", section)}
    sources = "".join(path.read_text() for path in (ROOT / "services").rglob("*.py"))
    assert named == set(re.findall(r'(?:Gauge|Counter|Histogram)\(\s*"(thunderline_[a-z_]+)"', sources))


def test_every_measured_figure_is_the_evidences() -> None:
    section = README[README.index("## Measured") : README.index("## What Prometheus sees")]
    rows = re.findall(r"^\| [^|]+ \| ([^|]+) \| `(\w+)\.json: (\w+)` \|", section, flags=re.MULTILINE)
    assert rows
    for shown, name, key in rows:
        figures = json.loads((ROOT / "tests/evidence" / f"{name}.json").read_text())
        assert shown.split()[0] == str(figures[key]), f"{name}.json: {key}"
