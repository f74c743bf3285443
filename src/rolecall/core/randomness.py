"""Keyed randomness: a draw depends on who draws, what for and at which step, not on earlier draws."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

__all__ = ("generator", "seed_for")


def seed_for(application_seed: int, *key: object) -> int:
    """Return a 63-bit seed derived from the application's seed and a key; equal on every machine."""
    text = "\x1f".join(str(part) for part in (application_seed, *key))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(application_seed: int, *key: object) -> np.random.Generator:
    """Return a generator of its own for a key."""
    import numpy as np  # not needed to write a role, and half of what importing rolecall would cost

    return np.random.Generator(np.random.PCG64(seed_for(application_seed, *key)))
