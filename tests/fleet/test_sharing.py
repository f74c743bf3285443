"""Processes of one machine share memory for what is large, unless they are told not to."""

from __future__ import annotations

from pathlib import Path

import pytest

import rolecall as rc

READERS = ("r1", "r2")


def sharing() -> rc.App:
    return rc.App(
        name="sharing",
        nodes={name: rc.Node() for name in ("s", *READERS)},
        roles={
            "s": {"sender": rc.RoleSpec("sharing_roles:Sender")},
            **{name: {"reader": rc.RoleSpec("sharing_roles:Reader")} for name in READERS},
        },
        relationships={"s": {"readers": "r*/reader"}},
        start={"call": "s/sender.run", "with": {"rounds": 5}},
        import_from=[str(Path(__file__).parent)],
    )


@pytest.mark.parametrize("switch", ["0", "1"])
def test_what_processes_send_one_another_is_seen_without_a_copy(switch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLECALL_SHARED_MEMORY", switch)
    (answers,) = rc.run_sync(sharing(), engine="processes").returned.values()
    (digest, _, sender), *seen = answers
    assert [found for found, _, _ in seen] == [digest] * len(READERS)
    assert [shared for _, shared, _ in seen] == [switch == "1"] * len(READERS)
    assert len({sender, *(pid for _, _, pid in seen)}) == 1 + len(READERS)
