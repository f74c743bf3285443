from __future__ import annotations

import pytest

from rolecall.core.errors import DeclarationError
from rolecall.core.factories import factories, factory


def make() -> int:
    return 1


def test_a_registered_factory_is_found_by_its_name() -> None:
    assert factory("test-make")(make) is make
    assert factories()["test-make"] is make


def test_registering_again_is_fine_and_another_is_not() -> None:
    factory("test-twice")(make)
    factory("test-twice")(make)
    with pytest.raises(DeclarationError, match="the name is taken by"):
        factory("test-twice")(lambda: 2)


@pytest.mark.parametrize("name", ["", "module:name"])
def test_a_name_must_not_look_like_a_module(name: str) -> None:
    with pytest.raises(DeclarationError, match="without a colon"):
        factory(name)(make)
