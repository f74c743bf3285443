from __future__ import annotations

from rolecall.fleet.marks import Mark, Marks, dotted

PLACES = {
    ("roles",): Mark("a.yaml", 3, ("roles",)),
    ("roles", "c*"): Mark("a.yaml", 4, ("roles", "c*")),
    ("roles", "c*", "t"): Mark("a.yaml", 5, ("roles", "c*", "t")),
    ("roles", "c*", "t", "options"): Mark("a.yaml", 6, ("roles", "c*", "t", "options")),
}


def test_a_part_is_named_by_the_nearest_line_around_it() -> None:
    marks = Marks("a.yaml", PLACES)
    assert marks.where(("roles", "c*", "t", "options", "lr")) == "a.yaml:6: roles.c*.t.options.lr"
    assert marks.where(("nodes",)) == "a.yaml: nodes"
    assert marks.where(()) == "a.yaml"


def test_a_part_that_moved_is_named_where_it_was_written() -> None:
    marks = Marks("a.yaml", PLACES).moved({("roles", "c1", "t"): ("roles", "c*", "t")})
    assert marks.where(("roles", "c1", "t", "options", "lr")) == "a.yaml:6: roles.c*.t.options.lr"
    assert marks.where(("roles", "c1", "t", "class")) == "a.yaml:5: roles.c*.t.class"


def test_keys_of_any_form_can_be_told_apart() -> None:
    assert dotted(("start", 2, "a b", "client[1-3]")) == "start[2].'a b'.client[1-3]"
