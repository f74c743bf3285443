"""Measure small calls while a large tensor travels over the same link, and the memory that takes.

    python benchmarks/beside_a_tensor.py                  256 MiB, without shared memory

Prints the 99th percentile of the time of small calls on an idle link and while tensors travel, their ratio, and the
peak memory of the sender and the receiver as a multiple of one tensor (the sender's own copy included).
"""

from __future__ import annotations

import argparse
import os
from typing import Any

import numpy as np
from peers.remote.beside_roles import Receiver, Sender
from rich.console import Console

import rolecall as rc

MEBIBYTE = 1 << 20


def application(size_bytes: int, calls: int) -> rc.App:
    """Return the two nodes."""
    return rc.App(
        name="beside-a-tensor",
        nodes={"sender": rc.Node(), "receiver": rc.Node()},
        roles={"sender": {"sender": rc.RoleSpec(Sender)}, "receiver": {"receiver": rc.RoleSpec(Receiver)}},
        relationships={"sender": {"receiver": "receiver/receiver"}},
        start={"call": "sender/sender.measure", "with": {"size_bytes": size_bytes, "calls": calls}},
    )


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mebibytes", type=int, default=256)
    parser.add_argument("--calls", type=int, default=3_000)
    options = parser.parse_args()
    size_bytes = options.mebibytes * MEBIBYTE
    os.environ["ROLECALL_SHARED_MEMORY"] = "0"
    found: Any
    (found,) = rc.run_sync(application(size_bytes, options.calls), engine="processes").returned.values()
    idle, beside = (float(np.percentile(times, 99)) for times in (found.idle_s, found.beside_s))
    took_s = float(np.median(found.transfer_s))
    say = Console(highlight=False, soft_wrap=True).print
    say(f"p99 of small calls: idle {idle * 1e6:,.0f} us, beside {beside * 1e6:,.0f} us: {beside / idle:.1f} times")
    speed = size_bytes / took_s / 1e6
    say(f"{len(found.transfer_s)} tensors of {options.mebibytes} MiB, {speed:,.0f} MB/s in the median")
    sent, received = found.sender_bytes / size_bytes, found.receiver_bytes / size_bytes
    say(f"peak memory: sender {sent:.2f} tensors, receiver {received:.2f} tensors")


if __name__ == "__main__":
    main()
