"""Writes the stubs of protos/thunderline into a folder: `python protos/generate.py [FOLDER]`, by default protos/gen."""

import shutil
import subprocess
import sys
from pathlib import Path

PROTOS = Path(__file__).parent


def generate(folder: Path) -> None:
    """Makes the folder anew. Raises subprocess.CalledProcessError when protoc refuses a file."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    sources = sorted(str(path.relative_to(PROTOS)) for path in (PROTOS / "thunderline").rglob("*.proto"))
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", "."]
    command += [f"--{kind}={folder.resolve()}" for kind in ("python_out", "grpc_python_out")]
    command += [f"--{kind}=quiet:{folder.resolve()}" for kind in ("mypy_out", "mypy_grpc_out")]
    bin_folder = str(Path(sys.executable).parent)
    subprocess.run(command + sources, check=True, cwd=PROTOS, env={"PATH": f"{bin_folder}:/usr/bin:/bin"})


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else PROTOS / "gen")
