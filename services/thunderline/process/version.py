"""Which thunderline this is: the version of the installation, and the commit of its sources where that can be told."""

import functools
import json
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from urllib.parse import unquote, urlsplit

VERSION = version("thunderline")
COMMIT_DIGITS = 12


@functools.cache
def commit() -> str:
    """Twelve digits, or "". Of a checkout the commit that it was at when this was asked first."""
    try:
        origin = json.loads(distribution("thunderline").read_text("direct_url.json") or "{}")
        if told := origin.get("vcs_info", {}).get("commit_id"):
            return str(told)[:COMMIT_DIGITS]
        address = urlsplit(origin.get("url", ""))
        return commit_of(Path(unquote(address.path))) if address.scheme == "file" else ""
    except (PackageNotFoundError, OSError, ValueError, AttributeError):
        return ""


def commit_of(checkout: Path) -> str:
    """What HEAD means there. Raises OSError where there is no git, ValueError where it cannot be read."""
    folder = checkout / ".git"
    if folder.is_file():
        # A second working tree: the file says where its own part lies.
        folder = checkout / folder.read_text().removeprefix("gitdir:").strip()
    head = (folder / "HEAD").read_text().strip()
    if not head.startswith("ref: "):
        return head[:COMMIT_DIGITS]
    name = head.removeprefix("ref: ")
    shared = folder / "commondir"
    common = folder / shared.read_text().strip() if shared.is_file() else folder
    if (common / name).is_file():
        return (common / name).read_text().strip()[:COMMIT_DIGITS]
    packed = (common / "packed-refs").read_text().splitlines()
    return next((line[:COMMIT_DIGITS] for line in packed if line.endswith(f" {name}")), "")


@functools.cache
def full_version() -> str:
    """As cards tell it: "0.1.0+0557149aabbc"."""
    return f"{VERSION}+{commit()}" if commit() else VERSION


def version_of(package: str) -> str:
    """Of an installed package, without importing it; "" where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
