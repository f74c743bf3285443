"""Compiles the modules that every message passes through, where that is asked for: `ROLECALL_COMPILE=1 pip install .`

The sources are what is compiled, by mypyc, which needs a C compiler and a few minutes: types that are checked anyway
become C structures and direct calls. Without the variable, and always in an editable installation, the package is
plain Python; it does the same, at about half the speed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import chdir
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

VARIABLE: Final = "ROLECALL_COMPILE"

MODULES: Final = (
    "core/signatures",
    "runtime/buffers", "runtime/calls", "runtime/deadlines", "runtime/dispatcher", "runtime/inbound", "runtime/items",
    "runtime/lines", "runtime/network", "runtime/remote", "runtime/remote_inboxes", "runtime/remote_topics",
    "runtime/requests", "runtime/topics",
    "sim/agenda", "sim/courier", "sim/log", "sim/order", "sim/pair", "sim/queueing", "sim/seam", "sim/timers",
    "wire/arguments", "wire/bulk_lane", "wire/chunk", "wire/codec", "wire/frame_codec", "wire/head_codec",
    "wire/inbox", "wire/lanes", "wire/link", "wire/message", "wire/nesting", "wire/outbox", "wire/session",
    "wire/sizes", "wire/turns",
)  # fmt: skip
"""What is compiled, by path. A module must not define msgspec structs, whose class arguments mypyc drops, nor have
attributes that are made on use; its classes cannot be subclassed by what is not compiled."""

CHECKER: Final = ("mypy>=1.15", "setuptools", "types-networkx", "types-PyYAML")
ARGUMENTS: Final = ("--config-file=../pyproject.toml", "--follow-imports=silent", "--ignore-missing-imports")


class CompileHook(BuildHookInterface[Any]):
    """Puts compiled modules into a wheel, beside their sources."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Return what has to be there to compile: the checker, and what the sources import."""
        if not is_asked_for():
            return []
        return [*CHECKER, *self.metadata.core.dependencies]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the wheel is put together."""
        if version == "editable" or not is_asked_for():
            return
        self._built = Path(tempfile.mkdtemp(prefix="rolecall-compiled-"))
        compile_modules(Path(self.root) / "src", self._built)
        build_data["pure_python"], build_data["infer_tag"] = False, True
        for module in sorted((self._built / "lib").rglob("*.so")):
            build_data["force_include"][str(module)] = str(module.relative_to(self._built / "lib"))

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what has gone into the wheel."""
        if built := getattr(self, "_built", None):
            shutil.rmtree(built)


def is_asked_for() -> bool:
    """Return whether modules are to be compiled."""
    return os.environ.get(VARIABLE, "") not in ("", "0")


def compile_modules(source: Path, built: Path) -> None:
    """Compile the modules under `source` into `built/lib`."""
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    with chdir(source):
        paths = [f"rolecall/{module}.py" for module in MODULES]
        extensions = mypycify([*ARGUMENTS, *paths], opt_level="2", debug_level="0", target_dir=str(built / "c"))
        command = build_ext(Distribution({"name": "rolecall", "ext_modules": extensions}))
        command.build_lib, command.build_temp = str(built / "lib"), str(built / "temp")
        command.parallel = os.cpu_count()
        command.ensure_finalized()
        command.run()
