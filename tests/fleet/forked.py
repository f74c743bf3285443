"""What forked processes do in the tests of the fork server."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np


def say(config: bytes) -> int:
    """Write to both outputs."""
    print(config.decode())  # noqa: T201
    sys.stderr.write("no newline at the end")
    return 7


def leave(config: bytes) -> int:
    """Exit in another way."""
    sys.exit(int(config))


def fail(config: bytes) -> int:
    """Raise."""
    raise ValueError(config.decode())


def sleep(config: bytes) -> int:
    """Go on until it is ended, with a process that it has started."""
    child = subprocess.Popen(["sleep", "1000"])
    print(child.pid, flush=True)  # noqa: T201
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(1)


def tell(config: bytes) -> int:
    """Say what kind of process this is."""
    descriptors = len(os.listdir("/proc/self/fd"))
    facts = [os.getsid(0) == os.getpid(), len(sys.argv), "json.tool" in sys.modules, descriptors]
    print(*facts, random.random(), np.random.random())  # noqa: T201
    return 0
