from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecall.core.errors import CallerError, ConfigError
from rolecall.learn import ArrayDataset, batches, label_histogram, mapped, sample
from rolecall.learn.views import Order

DATA = ArrayDataset(np.arange(10.0)[:, None], np.arange(10) % 3, users=np.arange(10) // 2)


@given(st.integers(1, 12), st.sampled_from(["shuffled", "sequential"]), st.integers(0, 9))
def test_an_epoch_reads_every_sample_once(size: int, order: Order, seed: int) -> None:
    read = [int(x) for batch in batches(DATA, size, order=order, seed=seed) for x in batch.x.ravel()]
    assert sorted(read) == list(range(10))
    assert order == "shuffled" or read == list(range(10))


def test_the_last_batch_may_be_dropped() -> None:
    assert [len(batch) for batch in batches(DATA, 4)] == [4, 4, 2]
    assert [len(batch) for batch in batches(DATA, 4, drop_last=True)] == [4, 4]


def test_epochs_differ_and_go_on_for_ever_where_that_is_wanted() -> None:
    endless = batches(DATA, 5, epochs=None, seed=3)
    first, second = (sorted(np.concatenate([b.x.ravel() for b in islice(endless, 2)]).tolist()) for _ in range(2))
    assert first == second == DATA.x.ravel().tolist()
    orders = [[x for b in batches(DATA, 10, epochs=2, seed=3) for x in b.x.ravel()][at : at + 10] for at in (0, 10)]
    assert orders[0] != orders[1]
    assert len(list(batches(DATA, 5, epochs=3))) == 6


def test_drawing_with_replacement_repeats_some() -> None:
    read = [int(x) for batch in batches(DATA, 4, order="replacement", epochs=5) for x in batch.x.ravel()]
    assert len(read) == 50 and len(set(read[:10])) < 10


def test_the_order_is_that_in_which_models_train() -> None:
    from rolecall.learn.batches import batches_of_epoch

    expected = batches_of_epoch(10, batch_size=4, seed=5, epoch=0)
    assert [b.x.ravel().tolist() for b in batches(DATA, 4, seed=5)] == [list(map(float, e)) for e in expected]


def test_samples() -> None:
    few = sample(DATA, 6, seed=1)
    assert len(set(few.x.ravel())) == 6 and few.users is not None and len(few.users) == 6
    assert len(sample(DATA, 30, replace=True)) == 30
    assert sample(DATA, 6, seed=1).x.tolist() == few.x.tolist() != sample(DATA, 6, seed=2).x.tolist()


def test_mapping() -> None:
    doubled = mapped(DATA, x=lambda x: x * 2, y=lambda y: y + 1)
    assert doubled.x.ravel().tolist() == [2 * x for x in range(10)] and doubled.y.min() == 1
    assert mapped(DATA).y.tolist() == DATA.y.tolist()


def test_histograms() -> None:
    assert label_histogram(DATA).tolist() == [4, 3, 3]
    assert label_histogram(DATA, 5).tolist() == [4, 3, 3, 0, 0]


def test_what_cannot_be() -> None:
    cases = [
        (lambda: batches(DATA, 0), "give no batch of 0"),
        (lambda: batches(DATA, 11, drop_last=True), "10 samples give no batch of 11"),
        (lambda: batches(DATA.subset([]), 2), "0 samples give no batch"),
        (lambda: sample(DATA, 11), "11 of 10 samples. Draw fewer"),
        (lambda: sample(DATA.subset([]), 1, replace=True), "1 of 0 samples"),
        (lambda: mapped(DATA, x=lambda x: x[1:]), "10 samples became 9"),
        (lambda: label_histogram(DATA, 2), "a label 2 among 2 classes"),
        (lambda: label_histogram(ArrayDataset(DATA.x, DATA.x.ravel())), "labels are whole numbers"),
    ]
    for call, message in cases:
        with pytest.raises(CallerError, match=message):
            call()
    with pytest.raises(ConfigError, match="Did you mean 'shuffled'"):
        batches(DATA, 2, order="shufled")  # type: ignore[arg-type]
