"""What runs on this machine: a small file for each run and each node, which only its owner can read."""

from __future__ import annotations

import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import msgspec

from rolecall.core.errors import ConfigError
from rolecall.core.whole_files import write_whole

__all__ = ("STATE", "Record", "found", "own_directory", "publish", "state_directory")

STATE: Final = "ROLECALL_STATE"
"""The environment variable that says where the files are."""
_BYTES_MAX: Final = 1 << 20
_SAFE = re.compile(r"[^A-Za-z0-9_.-]+")


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A run or a node that can be looked after from this machine.

    `address` and `secret` are those of its administrative service on loopback; `born` tells its process from a later
    one with the same `pid`; `began_s` is in seconds since 1970. A node has no `engine` and no `run_dir`.
    """

    kind: Literal["run", "node"]
    name: str
    pid: int
    born: str
    began_s: float
    address: str
    secret: bytes
    nodes: tuple[str, ...] = ()
    engine: str | None = None
    run_dir: str | None = None
    listen: str | None = None

    @property
    def id(self) -> str:
        """What it is called by: a node's own name, a run's with the number of its process."""
        return self.name if self.kind == "node" else f"{self.name}-{self.pid}"

    @property
    def is_alive(self) -> bool:
        """Whether its process is still there."""
        return _birth(self.pid) == self.born

    @property
    def is_published(self) -> bool:
        """Whether others find it; of several nodes in one process, those that have not ended are found."""
        return self.is_alive and _path(self).exists()

    @classmethod
    def of_this_process(
        cls,
        kind: Literal["run", "node"],
        name: str,
        address: str,
        secret: bytes,
        *,
        nodes: tuple[str, ...] = (),
        engine: str | None = None,
        run_dir: str | None = None,
        listen: str | None = None,
    ) -> Record:
        """Return the record of what runs here from now on."""
        return cls(
            kind=kind, name=name, pid=os.getpid(), born=_birth(os.getpid()) or "", began_s=time.time(),
            address=address, secret=secret, nodes=nodes, engine=engine, run_dir=run_dir, listen=listen,
        )  # fmt: skip


def state_directory(environment: Mapping[str, str] | None = None) -> Path:
    """Return where this user's files are: $ROLECALL_STATE, or a directory that does not outlive the machine's life."""
    environment = os.environ if environment is None else environment
    if given := environment.get(STATE):
        return Path(given)
    runtime = environment.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime).is_dir():
        return Path(runtime) / "rolecall"
    return Path(tempfile.gettempdir()) / f"rolecall-{os.getuid()}"


@contextmanager
def publish(record: Record) -> Iterator[Path]:
    """Have others find a record while the body runs.

    Raises:
        ConfigError: the directory cannot be written to, or others could.
    """
    own_directory(state_directory())
    path = _path(record)
    try:
        write_whole(path, [msgspec.json.encode(record)], mode=0o600)
    except OSError as error:
        raise ConfigError(str(path), f"it cannot be written ({error.strerror})", hint=f"Set {STATE}") from None
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def found() -> list[Record]:
    """Return the records of what is alive, the oldest first; the files of what is not are removed.

    Raises:
        ConfigError: others could write to the directory.
    """
    directory = state_directory()
    if not directory.is_dir():
        return []
    own_directory(directory)
    records = []
    for path in sorted(directory.glob("*.json")):
        record = _read(path)
        if record is not None and record.is_alive:
            records.append(record)
        else:
            path.unlink(missing_ok=True)
    return sorted(records, key=lambda record: record.began_s)


def own_directory(directory: Path) -> Path:
    """Return a directory, made if need be, that nobody else can write to or read; raise `ConfigError` otherwise."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.lstat()
    except OSError as error:
        raise ConfigError(str(directory), f"it cannot be used ({error.strerror})", hint=f"Set {STATE}") from None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise ConfigError(str(directory), "it belongs to somebody else", hint=f"Set {STATE} to a directory of yours")
    if status.st_mode & 0o077:
        raise ConfigError(str(directory), "other users may look into it, or write to it", hint=f"chmod 700 {directory}")
    return directory


def _path(record: Record) -> Path:
    return state_directory() / f"{_SAFE.sub('-', record.name)[:80]}-{record.pid}.json"


def _read(path: Path) -> Record | None:
    """Return the record in a file, None for what is none (any more)."""
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(_BYTES_MAX), type=Record)
    except (OSError, msgspec.MsgspecError):
        return None


def _birth(pid: int) -> str | None:
    """Return when a process began, as far as the system tells; None where there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return _birth_unknown(pid) if not Path("/proc/self/stat").exists() else None
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _birth_unknown(pid: int) -> str | None:
    try:
        os.kill(pid, 0)
    except OSError:
        return None
    return "?"
