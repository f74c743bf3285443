from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rolecall as rc

names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,99}", fullmatch=True)


@given(names, names)
def test_an_id_is_its_home_and_its_name(home: str, name: str) -> None:
    role = rc.RoleId.of(home, name)
    assert (role.home, role.name) == (home, name) and role == f"{home}/{name}"


def test_an_id_is_text() -> None:
    role = rc.RoleId("client3/trainer")
    assert role == "client3/trainer" and {"client3/trainer": 1}[role] == 1
    assert repr(role) == "RoleId('client3/trainer')" and f"{role}" == "client3/trainer"
    assert type(copy.deepcopy(role)) is rc.RoleId
    assert sorted([rc.RoleId("b/x"), rc.RoleId("a/x")]) == ["a/x", "b/x"]
    with pytest.raises(AttributeError):
        role.node = "b"  # type: ignore[attr-defined]


@pytest.mark.parametrize("part", ["", "a/b", "a b", "-a", ".a", "ä", "a\n", "client[1-3]", "a*", "x" * 101])
def test_unusable_names_are_refused(part: str) -> None:
    for parts in ((part, "ok"), ("ok", part)):
        with pytest.raises(ValueError, match="cannot name a node or a role: use up to 100 letters"):
            rc.RoleId.of(*parts)


def test_text_that_is_no_id_has_no_name() -> None:
    assert (rc.RoleId("alone").home, rc.RoleId("alone").name) == ("alone", "")
