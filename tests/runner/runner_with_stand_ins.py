"""`thunderline runner` as it is, except that its ranks are stand-ins: a process for tests to signal and kill.

Behaviour "real": its ranks are real ones.
"""

import functools
import sys

from runner.little_runner import stand_in
from thunderline.process.entry import run_role
from thunderline.runner import rank_process
from thunderline.runner.__main__ import serve

if __name__ == "__main__":
    behave, *flags = sys.argv[1:]
    command = rank_process.command if behave == "real" else stand_in(behave)
    sys.exit(run_role("runner", "", flags, functools.partial(serve, command=command)))
