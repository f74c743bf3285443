"""`examples/channels` runs as its page says, as a program and as an application."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
APP = "examples/channels/app.py"
COMMAND = "import sys; from rolecall.cli import main; sys.exit(main())"
PAGE = (ROOT / "examples/channels/README.md").read_text()


def output_of(*command: str) -> str:
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=25)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_as_a_program_it_prints_what_its_page_shows() -> None:
    shown = re.search(rf"^\$ python {APP}\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL)
    assert shown is not None
    assert output_of(APP) == shown[1]


@pytest.mark.parametrize("check", [[], ["--check"]])
def test_as_an_application_it_logs_the_same(tmp_path: Path, check: list[str]) -> None:
    output = output_of("-c", COMMAND, "run", APP, "--format", "jsonl", "--runs-dir", str(tmp_path), *check)
    events = [json.loads(line) for line in output.splitlines()]
    metrics = [e for e in events if e["event"] == "metric"]
    logged = [f"{e['role']} { ({k: v for k, v in e.items() if k not in OWN}) }" for e in metrics]
    assert "\n".join(logged) in PAGE
    assert events[-1]["status"] == "ok"


OWN = {"event", "role", "time_s"}


def test_it_is_under_eighty_lines() -> None:
    assert len((ROOT / APP).read_text().splitlines()) < 80
