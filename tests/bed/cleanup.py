"""Undoing what the bed made, whatever ends the process: newest first, each step at most once.

Fixtures and context managers undo their own things in good time; this is for the ends that they do not see. SIGTERM and
SIGHUP are turned into KeyboardInterrupt, which pytest and the demo take for the order to stop and clean up. What a
SIGKILL leaves behind, the next run finds: each directory of the bed says which process owns it.
"""

import atexit
import os
import shutil
import signal
import sys
import tempfile
import threading

PREFIX = "qfc-bed-"
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_steps = []
_owner = os.getpid()


def later(step, *args):
    """Registers a function to be called at the end; returns a handle for `now` and `never`."""
    handle = (step, args)
    _steps.append(handle)
    return handle


def now(handle):
    """Does a registered step at once."""
    if handle in _steps:
        _steps.remove(handle)
        handle[0](*handle[1])


def never(handle):
    """Forgets a registered step."""
    if handle in _steps:
        _steps.remove(handle)


def everything():
    """Does all that is registered; neither one step's failure nor an impatient Ctrl-C keeps the others from being
    done."""
    if os.getpid() != _owner:
        return
    before = _ignore_stops()
    while _steps:
        step, args = _steps.pop()
        try:
            step(*args)
        except Exception as error:  # noqa: BLE001 (said, and the rest must still be done)
            print(f"bed: cleaning up: {step.__qualname__}: {error}", file=sys.stderr)
    for number, handler in before.items():
        signal.signal(number, handler)


def _ignore_stops():
    """Ignores the signals that ask for an end; returns what was done about them before."""
    if threading.current_thread() is not threading.main_thread():
        return {}  # only the main thread may set handlers, and only it gets KeyboardInterrupt
    return {number: signal.signal(number, signal.SIG_IGN) for number in STOPS}


def _interrupt(number, _frame):
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def on_signals():
    """For the main program of a run: SIGTERM and SIGHUP end it like Ctrl-C."""
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)


atexit.register(everything)


def directory(name):
    """Makes a directory of the bed, which goes at the end."""
    path = tempfile.mkdtemp(prefix=f"{PREFIX}{name}-")
    with open(os.path.join(path, ".owner"), "w", encoding="ascii") as file:
        file.write(f"{os.getpid()} {start_time(os.getpid())}\n")
    return path, later(shutil.rmtree, path, True)


def abandoned():
    """The bed's directories whose process is gone."""
    found = []
    for name in os.listdir(tempfile.gettempdir()):
        path = os.path.join(tempfile.gettempdir(), name)
        if name.startswith(PREFIX) and _is_abandoned(path):
            found.append(path)
    return found


def sweep():
    """Removes abandoned directories, once servers and engines in them have been seen to."""
    for path in abandoned():
        shutil.rmtree(path, ignore_errors=True)


def _is_abandoned(path):
    try:
        with open(os.path.join(path, ".owner"), encoding="ascii") as file:
            pid, started = file.read().split()
    except (OSError, ValueError):
        return False
    return start_time(int(pid)) != started


def start_time(pid):
    """When a process began, in the kernel's ticks; "" when there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[19]
    except OSError:
        return ""
