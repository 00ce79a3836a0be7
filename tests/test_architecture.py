"""The dependency direction of README.md, and what a pure module may not do, checked against the sources."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE_ROOTS = [ROOT / "protos/gen", ROOT / "services", ROOT / "clients"]
ROLES = {"discovery", "topology", "scheduler", "runner", "gateway", "rank"}

# Each package may import only the packages listed after it.
ALLOWED: dict[str, set[str]] = {
    "v1": set(),
    "cluster": set(),
    "process": {"cluster"},
    "rpc": {"cluster", "process", "v1"},
    **{role: {"cluster", "process", "rpc", "v1"} for role in ROLES},
    # Resume lives in the client once: whoever holds the client holds the request.
    "gateway": {"client", "cluster", "process", "rpc", "v1"},
    "supervisor": {"cluster", "process"},
    "client": {"cluster", "process", "rpc", "v1"},
    # `up` runs the supervisor; roles.py starts a role by its name, without an import statement.
    "cli": {"client", "cluster", "process", "supervisor", "v1"},
}

# Modules of decisions: what they decide follows from their arguments alone.
PURE = {
    "cluster/*",
    "discovery/differences.py",
    "discovery/member_life.py",
    "discovery/peers.py",
    "discovery/roster.py",
    "discovery/sightings.py",
    "discovery/values.py",
    "discovery/wire.py",
    "process/macos/assembling.py",
    "process/macos/networks.py",
    "process/macos/outputs.py",
    "process/macos/rdma.py",
    "process/macos/system.py",
    "process/macos/thunderbolt.py",
    "rank/admission.py",
    "rank/prefill.py",
    "rank/prefix_cache.py",
    "runner/adoption.py",
    "runner/detokenize.py",
    "runner/exit_cause.py",
    "runner/fence.py",
    "runner/loaded_weights.py",
    "runner/model_facts.py",
    "runner/model_files.py",
    "runner/rank_life.py",
    "runner/signatures.py",
    "runner/stop_strings.py",
    "runner/validate.py",
    "process/macos/commands.py",
    "rpc/graph.py",
    "rpc/machine_facts.py",
    "rpc/moves.py",
    "rpc/rails.py",
    "scheduler/actions.py",
    "scheduler/adoption.py",
    "scheduler/ages.py",
    "scheduler/attempts.py",
    "scheduler/events.py",
    "scheduler/imagined.py",
    "scheduler/known_model.py",
    "scheduler/members.py",
    "scheduler/placing/*",
    "scheduler/plan_wire.py",
    "scheduler/reconciler.py",
    "scheduler/reservations.py",
    "scheduler/routing.py",
    "scheduler/situation.py",
    "scheduler/starting.py",
    "scheduler/values.py",
    "scheduler/wording.py",
    "gateway/certain_logprobs.py",
    "gateway/openai_errors.py",
    "gateway/openai_requests.py",
    "gateway/openai_responses.py",
    "supervisor/backoff.py",
    "topology/cables.py",
    "topology/echo_messages.py",
    "topology/health.py",
    "topology/knowledge.py",
    "topology/members.py",
    "topology/ports.py",
    "topology/probes.py",
    "topology/reports.py",
    "topology/talk.py",
    "topology/telling.py",
    "topology/wire.py",
    "topology/wording.py",
    "cli/bench/cells.py",
    "cli/cluster_file.py",
    "cli/findings/*",
    "cli/plan_tables.py",
    "cli/plan_words.py",
    "cli/rails.py",
    "client/resume.py",
}
IMPURE = {"grpc", "asyncio", "mlx", "mlx_lm", "time", "logging", "os", "subprocess", "socket", "threading"}
# Tables of cases grow longer than what they test.
LINE_COUNT_MAX = {"file": 350, "tests": 500, "function": 70}


def python_files(package: str) -> list[Path]:
    return [path for root in SOURCE_ROOTS for path in sorted((root / "thunderline" / package).rglob("*.py"))]


def imports(path: Path) -> set[str]:
    """Full names of imported modules."""
    tree = ast.parse(path.read_text())
    found = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    return found | {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}


def pure_files() -> list[Path]:
    return sorted(
        path
        for pattern in PURE
        for root in SOURCE_ROOTS
        for path in (root / "thunderline").glob(pattern)
        if path.suffix == ".py"
    )


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_imports_point_down(package: str) -> None:
    found = {
        (str(path.relative_to(ROOT)), name.split(".")[1])
        for path in python_files(package)
        for name in imports(path)
        if name.startswith("thunderline.")
    }
    assert not {(path, name) for path, name in found if name != package and name not in ALLOWED[package]}


def test_every_package_has_its_rule() -> None:
    found = {path.name for root in SOURCE_ROOTS for path in (root / "thunderline").iterdir() if path.is_dir()}
    assert found - {"__pycache__"} == ALLOWED.keys()


def test_only_the_rank_imports_mlx() -> None:
    packages = set(ALLOWED) - {"rank"}
    users = {
        str(path)
        for package in packages
        for path in python_files(package)
        for name in imports(path)
        if name.split(".")[0] in {"mlx", "mlx_lm", "transformers"}
    }
    assert not users


@pytest.mark.parametrize("path", pure_files(), ids=lambda path: "/".join(path.parts[-2:]))
def test_a_pure_module_reaches_nothing_outside(path: Path) -> None:
    assert not {name for name in imports(path) if name.split(".")[0] in IMPURE}


def test_every_pure_pattern_names_something() -> None:
    empty = [
        pattern
        for pattern in PURE
        if not any(path for root in SOURCE_ROOTS for path in (root / "thunderline").glob(pattern))
    ]
    assert not empty


def test_the_namespace_has_no_init() -> None:
    """A thunderline/__init__.py in one root would hide the parts of thunderline in the others."""
    assert not [root for root in SOURCE_ROOTS if (root / "thunderline/__init__.py").exists()]


def our_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    names = [name for name in listed.stdout.split() if not name.startswith("protos/gen/")]
    return [ROOT / name for name in names if (ROOT / name).exists()]


def test_files_and_functions_stay_readable() -> None:
    long = []
    for path in our_files():
        text = path.read_text()
        limit = LINE_COUNT_MAX["tests" if "tests" in path.parts else "file"]
        if text.count("\n") > limit:
            long.append(str(path.relative_to(ROOT)))
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if (node.end_lineno or 0) - node.lineno >= LINE_COUNT_MAX["function"]:
                long.append(f"{path.relative_to(ROOT)}:{node.name}")
    assert not long


def test_no_file_names_a_registry_or_a_place_of_ours() -> None:
    hosts = "|".join(["pypi" + r"\.org", "python" + "hosted", "npm" + "js", r"deb\.deb" + "ian"])
    pattern = re.compile(rf"https?://[^ ]*({hosts})|/wo" + r"rk/|\.libra" + "ry")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    bad = []
    for name in listed:
        path = ROOT / name
        if path.is_file() and pattern.search(path.read_text(errors="replace")):
            bad.append(name)
    assert not bad


def test_a_host_and_a_port_are_put_together_in_one_place() -> None:
    """IPv6 stands in brackets there: cluster/addresses.py."""
    pattern = re.compile(r"\{([a-z_]+\.)*(host|bind)\}:\{([a-z_]+\.)*([a-z_]*_)?port\}")
    # As a URL has it already, or for a reader.
    known = {
        *("cli/founding.py", "cli/issuing.py", "cli/joining.py", "cli/up.py", "cli/findings/machine.py"),
        *("gateway/__main__.py", "process/metrics.py", "topology/echo.py"),
    }
    paths = [path for root in SOURCE_ROOTS[1:] for path in root.rglob("*.py") if pattern.search(path.read_text())]
    assert {path.relative_to(path.parents[-1]).as_posix().rpartition("thunderline/")[2] for path in paths} <= known
