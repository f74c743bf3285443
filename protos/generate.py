"""Generate `src/rolecall/wire/proto` from the `.proto` files beside this script: `python protos/generate.py`.

Needs `grpcio-tools` and `betterproto[compiler]`, which the extra `dev` installs. The result is checked in, and a test
generates it again to compare.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
TARGET = HERE.parent / "src" / "rolecall" / "wire" / "proto"


def generate(target: Path) -> None:
    """Write the generated packages below `target`, which must exist; raise `CalledProcessError` if that fails."""
    plugin = Path(sys.executable).with_name("protoc-gen-python_betterproto")
    command = [
        *(sys.executable, "-m", "grpc_tools.protoc", f"-I{HERE}"),
        *(f"--plugin=protoc-gen-python_betterproto={plugin}", f"--python_betterproto_out={target}"),
        *sorted(str(path) for path in HERE.rglob("*.proto")),
    ]
    subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    generate(TARGET)
