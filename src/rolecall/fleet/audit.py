"""The audit log of a node or a run: one line of JSON for everything that others have had done, or were refused.

Each line has `time` (UTC), `node` and `event`, and who, what and why under names of their own. Events are `begin` and
`end` (of a life of the node), `join` and `leave` (of another node), `deny`, `deploy`, `finish`, `assign`, `start`,
`pause`, `resume`, `stop`, `relate`, `meet`, `call` and `move`. Arguments, secrets and keys are in no line.
"""

from __future__ import annotations

import datetime
import json
import logging
import os
import queue
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rolecall.core.errors import ConfigError
from rolecall.runtime.auditing import facts_of

__all__ = ("Audit", "audit_line")

logger = logging.getLogger(__name__)

WAITING_LINES = 100_000


class Audit:
    """Appends to a file that its owner alone may read; made where it may block, and written from anywhere.

    Raises:
        ConfigError: the file cannot be opened.
    """

    def __init__(self, path: Path, node: str) -> None:
        self.path, self._node = path, node
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(str(path), f"the audit log cannot be written ({error.strerror})") from None
        self._lines: queue.Queue[str | None] = queue.Queue(WAITING_LINES)
        self._lost = 0
        self._thread = threading.Thread(target=self._keep, name=f"audit of {node}", daemon=True)
        self._thread.start()

    def write(self, event: str, **what: Any) -> None:
        """Have a line written soon; never waits."""
        try:
            self._lines.put_nowait(audit_line(self._node, event, facts_of(what)))
        except queue.Full:
            self._lost += 1

    def close(self) -> None:
        """Write what waits, and close the file; blocks."""
        self._lines.put(None)
        self._thread.join()
        os.close(self._file)

    def _keep(self) -> None:
        said = False
        while (line := self._lines.get()) is not None:
            lost, self._lost = self._lost, 0
            if lost:
                line += json.dumps({"node": self._node, "event": "lines lost", "count": lost}) + "\n"
            try:
                _write_all(self._file, line.encode())
            except OSError as error:
                if not said:
                    said = True
                    logger.error("%s: the audit log cannot be written: %s", self.path, error.strerror)


def audit_line(node: str, event: str, facts: Mapping[str, Any]) -> str:
    """Return the line for what has happened now; `facts` are what `facts_of` returns."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    return json.dumps({"time": now, "node": node, "event": event, **facts}) + "\n"


def _write_all(file: int, content: bytes) -> None:
    while content:
        content = content[os.write(file, content) :]
