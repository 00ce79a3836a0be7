"""The timer by which a rank that nobody watches ends itself, also one that stands in C++ with the interpreter's lock.

No Python runs there, so SIGALRM's default action has to do it. But the timer goes on while the process is frozen (by
SIGSTOP, or with its container): it would end one that could go on. So the first alarm only sets the second, and that
one ends. No code of ours runs for that either: the first handler is libc's `alarm` itself, which is called with the
signal's number, 14, and takes it for seconds; SA_RESETHAND makes the default action follow it. `alarm` may be called in
a handler (POSIX). What was frozen has 14 s to end its step, and each step arms anew.
"""

import ctypes
import signal
import sys

AGAIN_S = float(signal.SIGALRM)


class _LinuxAction(ctypes.Structure):
    """struct sigaction of glibc and musl, 64 bits."""

    _fields_ = [
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_uint64 * 16),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    ]


class _MacAction(ctypes.Structure):
    """struct sigaction of macOS."""

    _fields_ = [("handler", ctypes.c_void_p), ("mask", ctypes.c_uint32), ("flags", ctypes.c_int)]


# By platform: the structure, and SA_RESTART | SA_RESETHAND.
_ACTIONS = {"linux": (_LinuxAction, 0x10000000 | 0x80000000), "darwin": (_MacAction, 0x0002 | 0x0004)}
# PyDLL keeps the interpreter's lock through a call: the engine arms before each step and would wait to have it again.
_LIBC = ctypes.PyDLL(None)


def arm(allowed_s: float) -> None:
    """Ends the process AGAIN_S after `allowed_s` unless it is armed anew before; 0 disarms."""
    if not allowed_s:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        return
    warns = _warn_once()
    signal.setitimer(signal.ITIMER_REAL, allowed_s if warns else allowed_s + AGAIN_S)


def _warn_once() -> bool:
    """Lets the next alarm only set another one; whether this system can do that."""
    if sys.platform not in _ACTIONS:
        return False
    make, flags = _ACTIONS[sys.platform]
    action = make(handler=ctypes.cast(_LIBC.alarm, ctypes.c_void_p).value)
    action.flags = ctypes.c_int(flags).value
    return bool(_LIBC.sigaction(int(signal.SIGALRM), ctypes.byref(action), None) == 0)
