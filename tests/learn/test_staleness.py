from __future__ import annotations

import pytest

from rolecall.core.errors import CallerError, ConfigError
from rolecall.learn import discount


def test_what_is_fresh_counts_whole_and_what_is_old_counts_less() -> None:
    for how in ("constant", "polynomial", "hinge"):
        assert discount(0, how) == 1.0
        factors = [discount(age, how) for age in range(20)]
        assert factors == sorted(factors, reverse=True)


def test_the_published_functions() -> None:
    assert discount(3, "polynomial", a=0.5) == pytest.approx(0.5)
    assert [discount(age, "hinge", a=10, b=4) for age in (4, 5, 6)] == pytest.approx([1, 1 / 11, 1 / 21])


def test_what_cannot_be() -> None:
    with pytest.raises(CallerError, match="staleness is -1"):
        discount(-1)
    with pytest.raises(ConfigError, match="Did you mean 'hinge'"):
        discount(1, "hing")
