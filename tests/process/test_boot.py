"""Whether a pid is still the process that it was."""

import os
import subprocess
import sys

import psutil

from thunderline.process.boot import boot_id, is_living


def test_this_start_of_the_machine_has_one_name_that_fits_a_map() -> None:
    other = subprocess.run(
        [sys.executable, "-c", "from thunderline.process.boot import boot_id; print(boot_id())"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert other.stdout.strip() == boot_id()
    assert 0 < len(boot_id()) <= 36


def test_a_process_lives_until_it_ends_and_its_zombie_does_not() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    start_s = psutil.Process(child.pid).create_time()
    assert is_living(child.pid, start_s)
    assert not is_living(child.pid, start_s - 5), "an earlier process had this pid"
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not is_living(child.pid, start_s), "a zombie"
    child.communicate()
    assert not is_living(child.pid, start_s)
