from __future__ import annotations

from rolecall.fleet.marks import Mark, Marks, dotted

PLACES = {
    ("roles",): Mark("a.yaml", 3),
    ("roles", "c*"): Mark("a.yaml", 4),
    ("roles", "c*", "t"): Mark("a.yaml", 5),
    ("roles", "c*", "t", "options"): Mark("b.yaml", 6),
}


def test_a_part_is_named_by_the_nearest_line_around_it() -> None:
    marks = Marks("a.yaml", PLACES)
    assert marks.where(("roles", "c*", "t", "options", "lr")) == "b.yaml:6: roles.c*.t.options.lr"
    assert marks.where(("nodes",)) == "a.yaml: nodes"
    assert marks.where(()) == "a.yaml"


def test_a_part_that_moved_is_named_where_it_was_written() -> None:
    marks = Marks("a.yaml", PLACES).moved({("roles", "c1", "t"): ("roles", "c*", "t")})
    assert marks.where(("roles", "c1", "t", "options", "lr")) == "b.yaml:6: roles.c*.t.options.lr"
    assert marks.where(("roles", "c1", "t", "class")) == "a.yaml:5: roles.c*.t.class"
    again = marks.moved({("x",): ("roles", "c1", "t", "options")})
    assert again.where(("x", "lr")) == "b.yaml:6: roles.c*.t.options.lr"


def test_without_a_file_the_written_key_is_named_too() -> None:
    marks = Marks("app 'x'").moved({("start", 0): ("start",)})
    assert marks.where(("start", 0, "with")) == "app 'x': start.with"


def test_keys_of_any_form_can_be_told_apart() -> None:
    assert dotted(("start", 2, "a b", "client[1-3]")) == "start[2].'a b'.client[1-3]"
