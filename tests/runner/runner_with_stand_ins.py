"""`thunderline runner` as it is, except that its ranks are stand-ins: a process for tests to signal and kill.

Behaviour "real": its ranks are real ones; "ends": real ones with a hook, rank_that_ends.py.
"""

import functools
import sys

from runner.little_runner import ends, stand_in
from thunderline.process.entry import run_role
from thunderline.runner import rank_process
from thunderline.runner.__main__ import serve

if __name__ == "__main__":
    behave, *flags = sys.argv[1:]
    command = {"real": rank_process.command, "ends": ends}.get(behave) or stand_in(behave)
    sys.exit(run_role("runner", "", flags, functools.partial(serve, command=command)))
