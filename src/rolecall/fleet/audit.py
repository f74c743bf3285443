"""The audit log of a node: one line of JSON for everything that others have had done to it, or were refused.

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
from pathlib import Path
from typing import Any

from rolecall.core.errors import ConfigError
from rolecall.wire.peers import printable

__all__ = ("Audit",)

logger = logging.getLogger(__name__)

TEXT_CHARS = 2_000
LIST_ITEMS = 100
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
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        given = {name: _plain(value) for name, value in what.items() if value not in (None, (), "")}
        try:
            self._lines.put_nowait(json.dumps({"time": now, "node": self._node, "event": event, **given}) + "\n")
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


def _write_all(file: int, content: bytes) -> None:
    while content:
        content = content[os.write(file, content) :]


def _plain(value: Any) -> Any:
    """Return a value as it may stand in a line: bounded, and nothing that a terminal would act on."""
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict):
        return {str(_plain(key)): _plain(item) for key, item in list(value.items())[:LIST_ITEMS]}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value[:LIST_ITEMS]]
    return printable(str(value))[:TEXT_CHARS]
