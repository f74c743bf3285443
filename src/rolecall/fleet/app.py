"""An application as a value: nodes, the roles on them, how these relate, what to start and when it ends.

The structs below are what an application file holds, key by key (`RoleSpec.class_` is the key `class`), so
that `App` and the file are two forms of one thing. Any text in them may refer to parameters (`${rounds}`),
and options may hold values that differ from node to node (`$ordinal`, `{$random: ...}`); see
`rolecall.fleet.values`. `App.expanded()` replaces all of that.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from msgspec import UNSET, Struct, UnsetType, field

if TYPE_CHECKING:
    from rolecall.fleet.marks import Marks

    ClassRef: TypeAlias = str | type[Any]
    FactoryRef: TypeAlias = str | Callable[..., Any]
    Target: TypeAlias = "str | list[str] | Topology | Alias | Later"
    Start: TypeAlias = "str | Call | list[str | Call] | None"
    Until: TypeAlias = "Literal['all-returned', 'stopped'] | After"
    Number: TypeAlias = float
    Whole: TypeAlias = int
else:  # what a file may hold before `${...}` is replaced
    ClassRef = FactoryRef = Target = Start = Until = Number = Whole = Any

__all__ = (
    "After",
    "Alias",
    "App",
    "Between",
    "Call",
    "ElementSpec",
    "Later",
    "Limits",
    "Node",
    "Preset",
    "RoleSpec",
    "Topology",
)

OnFailure = Literal["fail", "continue"]


class Node(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A node: what hosts roles.

    Profiles matter to the engine `sim`; address and host to the engines that use more than this process. With `join`
    "later" the application starts without it, and it gets its roles when it comes.
    """

    device: str | None = None
    network: str | None = None
    address: str | None = None
    host: str | None = None
    join: Literal["start", "later"] = "start"


class ElementSpec(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What fills an element of a role: a class, a factory or a live object, exactly one of them.

    - `class_`: a class, or its name `module:QualName`; constructed with `options`.
    - `factory`: a callable, its name `module:callable`, or a registered name; called with `options`.
    - `value`: the object itself. Legal in Python only, unless it is plain data: it cannot be written to a
      file.
    - `initialize`: a callable that gets the new object, or its name.
    - `share`: "role" for an object of its own, "node" for one that all roles of the node with equal specs
      share.
    - `save`, `restore`: paths the element is written to when the role ends, and read from when it starts.
    """

    class_: ClassRef | None = field(default=None, name="class")
    factory: FactoryRef | None = None
    value: Any | UnsetType = UNSET
    options: Mapping[str, Any] = field(default_factory=dict)
    initialize: FactoryRef | None = None
    share: Literal["role", "node"] = "role"
    save: str | None = None
    restore: str | None = None


class RoleSpec(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A role: its class, the options of its constructor, what fills its elements, and what extends it.

    `on_failure` says what the failure of this role means to the application; `None` leaves that to
    `App.on_failure`.
    """

    class_: ClassRef = field(name="class")
    options: Mapping[str, Any] = field(default_factory=dict)
    elements: Mapping[str, ElementSpec] = field(default_factory=dict)
    extensions: Sequence[ClassRef] = field(default_factory=list)
    on_failure: OnFailure | None = None

    def __portable__(self) -> RoleSpec:
        """Return the same with classes and functions by their names, as other processes can take it."""
        from rolecall.fleet.portable import portable_role

        return portable_role(self)


class Preset(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What every role of a class gets, unless the role says otherwise."""

    options: Mapping[str, Any] = field(default_factory=dict)
    elements: Mapping[str, ElementSpec] = field(default_factory=dict)
    extensions: Sequence[ClassRef] = field(default_factory=list)
    on_failure: OnFailure | None = None


class Topology(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The neighbours of a role in a graph over the roles matching `of`; see `core.topologies`."""

    topology: str
    of: str


class Alias(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The same roles as another relationship of the same holder."""

    alias: str


class Later(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The roles that match a pattern, of which there need not be any when the application starts."""

    later: str


class Call(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A call that starts the application: `role.channel`, and the arguments."""

    call: str
    with_: Mapping[str, Any] = field(default_factory=dict, name="with")

    @property
    def role(self) -> str:
        """The id of the called role."""
        return self.call.rpartition(".")[0]

    @property
    def channel(self) -> str:
        """The name of the called channel."""
        return self.call.rpartition(".")[2]


class After(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The application ends after so many seconds."""

    seconds: Number


class Between(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What lies between two nodes, or the nodes of two patterns, in the models of a network.

    It comes in addition to the lines of the nodes (`Node.network`). `network` names a profile; the numbers, which are
    seconds one way, bits a second and a share of the packets, are stronger than what that says.
    """

    between: Sequence[str]
    network: str | None = None
    latency_s: Number | None = None
    jitter_s: Number | None = None
    bandwidth_bps: Number | None = None
    loss: Number | None = None


class Limits(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Limits for all roles of the application; `None` leaves the default of the runtime."""

    mailbox_messages: Whole | None = None
    mailbox_bytes: Whole | None = None
    compute_threads: Whole | None = None


class App(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, dict=True):
    """An application.

    - `parameters`: what `--set` overrides; a tree of values, referred to as `${a.b}`.
    - `nodes`: by name or range, `client[1-10]`.
    - `roles`: node name, range or pattern, then the name of the role.
    - `relationships`: pattern of nodes or roles that hold them, then the name of the relationship.
    - `presets`: by class, what all its roles get.
    - `start`: the calls that set it going: `role.channel`, `Call`, or a list; none where roles have a main
      routine.
    - `until`: what ends it: "all-returned" (the started calls and main routines), "stopped" (a call for it),
      `After`.
    - `paths`: what lies between nodes in the models of the network; the first that fits two nodes counts.
    - `shape`: whether engines with real links slow these down to what the network profiles say.
    - `import_from`: directories in which the modules of the roles are looked up, beside the file's own.
    - `is_expanded`: set by `expanded()`: the values are final, and `$` has no meaning in them any more.
    """

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    nodes: Mapping[str, Node] = field(default_factory=dict)
    roles: Mapping[str, Mapping[str, RoleSpec]] = field(default_factory=dict)
    relationships: Mapping[str, Mapping[str, Target]] = field(default_factory=dict)
    presets: Mapping[str, Preset] = field(default_factory=dict)
    start: Start = None
    until: Until = "all-returned"
    on_failure: OnFailure = "fail"
    seed: Whole | None = None
    limits: Limits = field(default_factory=Limits)
    paths: Sequence[Between] = field(default_factory=list)
    shape: bool = False
    import_from: Sequence[str] = field(default_factory=list)
    is_expanded: bool = field(default=False, name="expanded")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> App:
        """Read an application from a YAML file, or from the variable `app` of a Python file.

        Raises `ConfigError`, which names file, line and key, when it is not an application. Nothing is
        imported or checked beyond the shape; `check()` does that.
        """
        from rolecall.fleet import app_file

        return app_file.load(Path(path))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the application as a YAML file, whole or not at all.

        Live Python objects cannot be written; a marker such as `{$live: "list of ArrayDataset"}` takes their
        place, and a run from the file says that the object must be given from Python.
        """
        from rolecall.fleet import app_file

        app_file.save(self, Path(path))

    def expanded(self, sets: Iterable[str] = (), *, seed: int | None = None) -> App:
        """Return the application that runs: one node, one role, one value for each that is meant.

        `sets` are overrides of parameters, such as `"rounds=3"`; `seed` overrides the application's, and when
        there is none a new one is drawn. Relationships keep their patterns, which stay live. What is expanded
        already stays as it is, but for the seed. Raises `ConfigError`.
        """
        from rolecall.fleet import expand

        return expand.expanded(self, tuple(sets), seed)

    def check(self) -> None:
        """Import what the application names, and raise `ConfigError` unless it fits together.

        Found are unknown classes, options that no constructor takes, missing or unknown elements, unknown
        relationships, and calls to what is no channel.
        """
        from rolecall.fleet.check import check as check_fit

        check_fit(self)

    @property
    def marks(self) -> Marks:
        """Where the parts of the application were written, for messages."""
        from rolecall.fleet.marks import Marks

        marks = self.__dict__.get("marks")
        return marks if isinstance(marks, Marks) else Marks(f"app {self.name!r}")
