from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecall.core.errors import CallerError, ConfigError
from rolecall.learn import ArrayDataset, shard
from rolecall.learn.partition import partition

LABELS = np.repeat(np.arange(10), 60)

schemes = st.one_of(
    st.just("iid"),
    st.integers(1, 4).map("shards({})".format),
    st.sampled_from([0.01, 0.1, 0.5, 1.0, 100.0]).map("dirichlet({})".format),
    st.tuples(st.sampled_from([0.05, 0.5]), st.integers(1, 5)).map(lambda pair: "dirichlet({}, {})".format(*pair)),
)


@given(schemes, st.lists(st.integers(0, 9), min_size=60, max_size=300), st.integers(1, 12), st.integers(0, 2**64))
def test_parts_are_disjoint_complete_and_not_empty(scheme: str, labels: list[int], parts: int, seed: int) -> None:
    found = partition(scheme, labels, parts, seed)
    assert len(found) == parts
    assert all(len(part) for part in found)
    assert sorted(np.concatenate(found).tolist()) == list(range(len(labels)))
    assert all((np.diff(part) > 0).all() for part in found)


@given(schemes, st.integers(0, 2**64))
def test_a_seed_decides(scheme: str, seed: int) -> None:
    once, again = (partition(scheme, LABELS, 5, seed) for _ in range(2))
    other = partition(scheme, LABELS, 5, seed + 1)
    assert [part.tolist() for part in once] == [part.tolist() for part in again]
    assert [part.tolist() for part in once] != [part.tolist() for part in other]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8))
def test_sizes(sizes: list[int]) -> None:
    found = partition(f"sizes({', '.join(map(str, sizes))})", LABELS, len(sizes))
    assert [len(part) for part in found] == sizes
    assert len(np.unique(np.concatenate(found))) == sum(sizes)


def test_iid_parts_are_of_equal_size() -> None:
    assert {len(part) for part in partition("iid", LABELS, 7)} == {85, 86}


def test_shards_bound_the_labels_of_a_client() -> None:
    for part in partition("shards(2)", LABELS, 10, seed=3):
        assert len(part) == 60
        assert len(np.unique(LABELS[part])) <= 4  # a shard of 30 of 60 sorted samples spans at most two labels


def test_small_alpha_means_few_labels() -> None:
    def mean_entropy(alpha: float) -> float:
        shares = [
            np.bincount(LABELS[part], minlength=10) / len(part) for part in partition(f"dirichlet({alpha})", LABELS, 5)
        ]
        return float(np.mean([-(share[share > 0] * np.log(share[share > 0])).sum() for share in shares]))

    assert mean_entropy(0.05) < mean_entropy(0.5) < mean_entropy(100)


def test_dirichlet_keeps_a_least_size() -> None:
    assert min(len(part) for part in partition("dirichlet(0.01, 20)", LABELS, 20)) >= 20


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        (
            "dirichlett(0.5)",
            r"partition 'dirichlett\(0.5\)': there is no such scheme.*Did you mean 'dirichlet'\?",
        ),
        ("", "there is no such scheme"),
        ("iid(2)", "1 arguments. Write it as 'iid'"),
        ("shards", r"0 arguments. Write it as 'shards\(2\)'"),
        ("shards(0)", "'0' is not a whole number of at least 1"),
        ("shards(two)", "'two' is not a whole number"),
        ("shards(1000)", "5 parts of 1000 shards are more than the 600 samples"),
        ("dirichlet()", "0 arguments"),
        ("dirichlet(-1)", "alpha is '-1'"),
        ("dirichlet(nan)", "alpha is 'nan'"),
        ("dirichlet(much)", "alpha is 'much'"),
        ("dirichlet(1, 121)", "5 parts of at least 121 are more than the 600 samples"),
        ("sizes(1, 2)", "2 sizes for 5 parts"),
        ("sizes(1, 2, 3, 4, 600)", "610 samples asked for, 600 there"),
    ],
)
def test_schemes_that_cannot_be(scheme: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        partition(scheme, LABELS, 5)


def test_too_few_samples() -> None:
    with pytest.raises(ConfigError, match="3 samples are too few for 4 parts"):
        partition("iid", [0, 1, 2], 4)
    with pytest.raises(ConfigError, match="into 0 parts"):
        partition("iid", LABELS, 0)


def test_targets_that_are_no_labels() -> None:
    with pytest.raises(ConfigError, match=r"one whole number a sample as label, found float64 \[600\]"):
        partition("dirichlet(0.5)", LABELS * 0.5, 5)
    assert len(partition("iid", LABELS * 0.5, 5)) == 5


class TestByUser:
    USERS = np.array(list("aabbbccddde")).repeat(3)
    LABELS = np.arange(33) % 4

    def test_users_stay_whole(self) -> None:
        found = partition("users", self.LABELS, 2, seed=1, users=self.USERS)
        held = [set(self.USERS[part]) for part in found]
        assert held[0] | held[1] == set("abcde") and not held[0] & held[1]
        assert sorted(map(len, held)) == [2, 3]
        assert sorted(np.concatenate(found).tolist()) == list(range(33))

    def test_a_client_for_each(self) -> None:
        found = partition("users", self.LABELS, 5, users=self.USERS)
        assert sorted("".join(set(self.USERS[part])) for part in found) == list("abcde")

    def test_users_of_a_data_set_find_their_way(self) -> None:
        whole = ArrayDataset(np.arange(33)[:, None], self.LABELS, users=self.USERS)
        parts = [shard(whole, "users", index, 3, seed=2) for index in range(3)]
        assert [part.users is not None for part in parts] == [True] * 3
        assert sum(len(set(part.users.tolist())) for part in parts if part.users is not None) == 5

    def test_what_cannot_be(self) -> None:
        with pytest.raises(ConfigError, match=r"does not say whose its samples are\. Give the data set `users`"):
            partition("users", self.LABELS, 2)
        with pytest.raises(ConfigError, match="5 users are too few for 6 parts"):
            partition("users", self.LABELS, 6, users=self.USERS)
        with pytest.raises(ConfigError, match=r"users are \[3\] for 33 samples"):
            partition("users", self.LABELS, 2, users=[1, 2, 3])
        with pytest.raises(CallerError, match=r"users are \[2\] for 3 samples"):
            ArrayDataset(np.zeros(3), [0, 1, 0], users=[1, 2])
