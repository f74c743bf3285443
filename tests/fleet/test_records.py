from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec import structs

from rolecall.core.errors import ConfigError
from rolecall.fleet.records import Record, found, publish, state_directory


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a state directory of this test's own, which is not there yet."""
    monkeypatch.setenv("ROLECALL_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


def record(name: str = "fedavg") -> Record:
    return Record.of_this_process(
        "run", name, "127.0.0.1:1", b"\0secret" * 3, nodes=("server", "client1"), engine="local", run_dir="runs/x"
    )


def test_what_runs_is_found_until_it_ends(state: Path) -> None:
    assert found() == []
    mine = record()
    assert mine.id == f"fedavg-{os.getpid()}"
    with publish(mine) as path:
        assert found() == [mine]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(state.stat().st_mode) == 0o700
        assert path.parent == state
    assert found() == []
    assert list(state.iterdir()) == []


def test_a_node_is_called_by_its_name() -> None:
    assert structs.replace(record("edge1"), kind="node").id == "edge1"


def test_names_are_no_paths(state: Path) -> None:
    with publish(record("../../a b/ü")) as path:
        assert path.parent == state
        assert [found.name for found in found()] == ["../../a b/ü"]


def test_the_files_of_what_is_gone_are_removed(state: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    recycled = structs.replace(record("recycled"), born="long ago")
    with publish(structs.replace(record("killed"), pid=child.pid)) as one, publish(recycled) as two:
        (state / "torn.json").write_bytes(b'{"kind": "run", "na')
        assert found() == []
        assert not one.exists()
        assert not two.exists()
        assert not (state / "torn.json").exists()


def test_the_oldest_comes_first() -> None:
    old, new = structs.replace(record("z"), began_s=1.0), structs.replace(record("a"), began_s=2.0)
    with publish(new), publish(old):
        assert found() == [old, new]


@pytest.mark.parametrize("mode", [0o755, 0o770])
def test_a_directory_that_others_see_is_refused(state: Path, mode: int) -> None:
    state.mkdir()
    state.chmod(mode)
    with pytest.raises(ConfigError, match=r"other users may look into it.*chmod 700"):
        found()
    with pytest.raises(ConfigError, match="other users"), publish(record()):
        pass


def test_a_link_in_place_of_the_directory_is_refused(state: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    state.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="Set ROLECALL_STATE to a directory of yours"):
        found()


def test_a_directory_that_cannot_be_made_is_named(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state.write_text("a file")
    monkeypatch.setenv("ROLECALL_STATE", str(state / "below"))
    with pytest.raises(ConfigError, match=r"state/below: it cannot be used"), publish(record()):
        pass


def test_where_the_files_are(tmp_path: Path) -> None:
    assert state_directory({"ROLECALL_STATE": "/x"}) == Path("/x")
    assert state_directory({"XDG_RUNTIME_DIR": str(tmp_path)}) == tmp_path / "rolecall"
    own = state_directory({"XDG_RUNTIME_DIR": str(tmp_path / "nowhere")})
    assert own.name == f"rolecall-{os.getuid()}"
