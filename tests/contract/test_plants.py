"""The properties find bugs: with one planted in the runtime they fail, and the line that is printed has it again."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from .planting import PLANTS

ROOT = Path(__file__).parents[2]
HERE = "tests/contract"
FOUND_BY = {
    "acknowledged-then-dropped": ("test_mailboxes.py::test_a_full_mailbox_holds_up_nobody_else", 0),
    "order-of-arrival": ("test_groups.py::test_answers_come_in_the_order_of_the_members", 0),
    "lost-cancel": ("test_cancellation.py::test_leaving_a_call_stops_its_handler", 0),
    "unbounded-mailbox": ("test_mailboxes.py::test_a_mailbox_keeps_to_its_bounds", 0),
    "no-duplicate-detection": ("test_topics.py::test_who_stays_hears_all_events_once_and_in_order", 26),
}
"""Where each is found, and the first seed that finds it."""
IN_CI = 2


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in a process of its own."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--no-sim-check", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def replay_line(output: str) -> list[str]:
    """Return the arguments of the command that a failed run says has the failure again."""
    found = re.search(r"replay: (pytest .*)", output)
    assert found is not None, output
    return shlex.split(found[1])[1:]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("plant", FOUND_BY if os.environ.get("ROLECALL_SOAK") else list(FOUND_BY)[:IN_CI])
def test_a_planted_fault_is_found_and_replayed(plant: str) -> None:
    test, seed = FOUND_BY[plant]
    found = run(f"{HERE}/{test}", "--plant", plant, "--sim-seed", str(seed))
    assert found.returncode == 1, found.stdout
    arguments = replay_line(found.stdout)
    again = run(*arguments, "--plant", plant)
    assert again.returncode == 1 and replay_line(again.stdout)[:3] == arguments[:3], again.stdout
    assert run(*arguments).returncode == 0


def test_all_faults_are_looked_for() -> None:
    assert set(FOUND_BY) == set(PLANTS)
