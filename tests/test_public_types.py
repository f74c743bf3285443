"""A type checker knows the type of everything that users import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

VERIFY = ("-m", "pyright", "--verifytypes", "rolecall", "--ignoreexternal", "--outputjson")


@pytest.mark.timeout(120)
def test_no_public_name_is_of_unknown_type(tmp_path: Path) -> None:
    python = Path(sys.executable)
    path = os.pathsep.join([str(python.parent), os.environ["PATH"]])  # pyright asks the first python it finds
    environment = {**os.environ, "PATH": path, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    done = subprocess.run([python, *VERIFY], cwd=tmp_path, env=environment, capture_output=True, check=False)
    found = json.loads(done.stdout)["typeCompleteness"]
    counts = found["exportedSymbolCounts"]
    assert counts["withKnownType"] > 0, done.stdout[:2000]
    untyped = [symbol["name"] for symbol in found["symbols"] if not symbol["isTypeKnown"]]
    assert counts["withUnknownType"] == 0, f"some of {untyped}"
