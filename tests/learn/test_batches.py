from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecall.core.errors import CallerError
from rolecall.learn.batches import batches_of_epoch, epochs_of_batches, nth_batch

sizes = st.integers(1, 40)


@given(sizes, sizes, st.integers(0, 2**64), st.booleans())
def test_an_epoch_reads_every_sample_once(samples: int, batch_size: int, seed: int, join: bool) -> None:
    batches = batches_of_epoch(samples, batch_size=batch_size, seed=seed, epoch=0, join_lone=join)
    assert sorted(np.concatenate(batches).tolist()) == list(range(samples))
    assert all(len(batch) == batch_size for batch in batches[:-2])
    assert not (join and samples > 1 and batch_size > 1 and len(batches[-1]) == 1)


@given(sizes, sizes, st.integers(0, 60))
def test_the_nth_batch_is_that_of_the_endless_sequence(samples: int, batch_size: int, step: int) -> None:
    stream = epochs_of_batches(samples, epochs=1, steps=step + 1, batch_size=batch_size, seed=5)
    *_, (_, last) = stream
    assert nth_batch(samples, step=step, batch_size=batch_size, seed=5).tolist() == last.tolist()


def test_epochs_differ_and_seeds_differ() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return list(batches_of_epoch(50, batch_size=50, seed=seed, epoch=epoch)[0])

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_counts_epochs_or_steps() -> None:
    def epochs(**options: int | None) -> list[int]:
        found = epochs_of_batches(10, **{"epochs": 1, "steps": None, "batch_size": 4, "seed": 0} | options)  # type: ignore[arg-type]
        return [epoch for epoch, _ in found]

    assert epochs(epochs=2) == [0, 0, 0, 1, 1, 1]
    assert epochs(steps=2) == [0, 0]
    assert epochs(steps=4) == [0, 0, 0, 1]


@pytest.mark.parametrize("options", [{"epochs": 0}, {"steps": 0}, {"batch_size": 0}])
def test_counts_that_cannot_be(options: dict[str, int]) -> None:
    name = next(iter(options))
    with pytest.raises(CallerError, match=f"{name} is 0. It must be at least 1"):
        epochs_of_batches(10, **{"epochs": 1, "steps": None, "batch_size": 4, "seed": 0} | options)  # type: ignore[arg-type]
