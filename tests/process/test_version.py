"""Which commit runs."""

import subprocess
from pathlib import Path

import pytest

from thunderline.process.version import VERSION, commit, commit_of, full_version, version_of


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"]
    done = subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_commit_of_a_checkout_is_found_on_a_branch_detached_packed_and_in_a_second_tree(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    git(first, "init", "-q")
    git(first, "commit", "-q", "--allow-empty", "-m", "one")
    head = git(first, "rev-parse", "HEAD")[:12]
    assert commit_of(first) == head
    git(first, "worktree", "add", "-q", str(second))
    assert commit_of(second) == head
    git(first, "pack-refs", "--all")
    assert commit_of(first) == head
    assert commit_of(second) == head
    git(first, "checkout", "-q", "--detach")
    assert commit_of(first) == head


def test_where_there_is_no_git_there_is_no_commit(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="HEAD"):
        commit_of(tmp_path)


def test_the_version_names_the_commit_where_it_is_known() -> None:
    assert full_version() == (f"{VERSION}+{commit()}" if commit() else VERSION)
    assert (len(commit()) in (0, 12)) and full_version().startswith(VERSION)


def test_a_package_that_is_not_there_has_no_version() -> None:
    assert version_of("no-such-package-of-ours") == ""
    assert version_of("grpcio")
