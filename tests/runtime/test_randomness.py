from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

import rolecall as rc
from rolecall.core.randomness import generator, seed_for


class Drawer(rc.Role):
    peers: rc.Group[Drawer] = rc.many()


@asynccontextmanager
async def drawers(world: Any, count: int = 2, seed: int = 0) -> AsyncIterator[list[Drawer]]:
    """Open a world with so many drawers, `a/d0` and so on."""
    async with world("a", options={"seed": seed}, peers="*/d*") as w:
        yield [await w.role(f"a/d{number}", Drawer) for number in range(count)]


async def numbers(world: Any, seed: int) -> list[float]:
    async with drawers(world, 2, seed) as roles:
        return [float(role.rng(purpose, step).random()) for role in roles for purpose in "xy" for step in (0, 1)]


async def test_a_draw_depends_on_seed_role_purpose_and_step_alone(world) -> None:
    first, again, other = [await numbers(world, seed) for seed in (1, 1, 2)]
    assert first == again
    assert len({*first, *other}) == 16, "each of them is another"


async def test_draws_do_not_disturb_each_other(world) -> None:
    async with drawers(world) as (one, _):
        expected = one.rng("noise", 3).random(4)
        for purpose in ("noise", "other"):
            one.rng(purpose, 4).random(100)
        np.testing.assert_array_equal(one.rng("noise", 3).random(4), expected)
        assert one.rng("noise").random() == one.rng("noise", 0).random()


async def test_a_seed_for_other_libraries_is_the_generators(world) -> None:
    async with drawers(world) as (one, _):
        seed = one.seed("fit", 3)
        assert 0 <= seed < 2**63
        assert np.random.Generator(np.random.PCG64(seed)).random() == one.rng("fit", 3).random()


async def test_choices_are_sequences_of_their_own(world) -> None:
    async with drawers(world, 6) as (one, two, *_):
        keyed = [one.peers.choice(step).id for step in range(10)]
        mixed = []
        for _ in range(10):
            mixed.append(one.peers.choice().id)
            one.peers.sample(0.5)
        assert one.id not in mixed
        assert keyed == [one.peers.choice(step).id for step in range(10)]
        assert [two.peers.choice().id for _ in range(10)] != mixed
    async with drawers(world, 6) as (one, *_):
        assert [one.peers.choice().id for _ in range(10)] == mixed, "samples in between change nothing"


async def test_a_role_draws_the_same_wherever_it_is(world) -> None:
    async with drawers(world) as (one, _):
        assert one.rng("x").random() == generator(0, "a/d0", "x", 0).random()


def test_seeds_are_equal_in_every_process() -> None:
    code = "from rolecall.core.randomness import seed_for; print(seed_for(7, 'a/b', 'fit', 3))"
    found = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True, text=True, check=True,
        ).stdout.strip()
        for seed in ("0", "1")
    }  # fmt: skip
    assert found == {str(seed_for(7, "a/b", "fit", 3))}


@pytest.mark.parametrize(
    "other", [(8, "a/b", "fit", 3), (7, "a/c", "fit", 3), (7, "a/b", "fi", 3), (7, "a/b", "fit", 4)]
)
def test_every_part_of_a_key_counts(other: tuple[Any, ...]) -> None:
    assert seed_for(*other) != seed_for(7, "a/b", "fit", 3)


def test_parts_of_a_key_do_not_run_together() -> None:
    assert len({seed_for(1, "ab", "c"), seed_for(1, "a", "bc"), seed_for(1, "abc"), seed_for(11, "a")}) == 4
