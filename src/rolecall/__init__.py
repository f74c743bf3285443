"""rolecall: write a distributed machine learning architecture as a few small roles.

`import rolecall as rc` gives everything a role needs. What needs torch, scikit-learn or matplotlib is imported when it
is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rolecall.core.channels import Bound, service, stream, task
from rolecall.core.conditions import attribute
from rolecall.core.context import caller, progress
from rolecall.core.costs import Flops
from rolecall.core.deadlines import deadline
from rolecall.core.elements import Fresh, Lazy, element
from rolecall.core.ends import (
    Endpoint,
    GroupCall,
    InboxEnd,
    ItemStream,
    Outcome,
    Replies,
    StreamEndpoint,
    Subscription,
    TaskEndpoint,
    TaskHandle,
    TopicEnd,
)
from rolecall.core.errors import (
    ApplicationFailed,
    CallCycle,
    CallerError,
    ConfigError,
    DataError,
    DeadlineExceeded,
    DeclarationError,
    ElementError,
    LifecycleError,
    MissingDependency,
    NodeLost,
    NotAChannel,
    NotAllowed,
    NotEncodable,
    Overloaded,
    QuorumMissed,
    Refused,
    RelationshipError,
    RemoteError,
    RolecallError,
    RoleLost,
    Superseded,
    UnknownRole,
    ValueChanged,
    WrongArgument,
    WrongType,
)
from rolecall.core.factories import factory
from rolecall.core.groups import Group
from rolecall.core.ids import RoleId
from rolecall.core.inboxes import Inbox
from rolecall.core.relationships import many, one
from rolecall.core.role import Extension, Role
from rolecall.core.state import State
from rolecall.core.status import Status
from rolecall.core.topics import Topic, on

if TYPE_CHECKING:
    from rolecall.core.tensors import Tensors
    from rolecall.fleet.app import (
        After,
        Alias,
        App,
        Between,
        Call,
        ElementSpec,
        Later,
        Limits,
        Node,
        Preset,
        RoleSpec,
        Topology,
    )
    from rolecall.fleet.management import Management
    from rolecall.fleet.node_role import NodeRole, NodeStatus
    from rolecall.fleet.run import History, run, run_sync
    from rolecall.fleet.simulation import Simulation, simulation
    from rolecall.runtime.native import Native, RoleStatus
    from rolecall.sim.simulate import simulate

__version__ = "0.1.0"

# What writing a role does not need is imported at its first use, so that `import rolecall` stays quick.
_LATER = {
    "rolecall.core.tensors": ("Tensors",),
    "rolecall.fleet.app": (
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
    ),
    "rolecall.runtime.native": ("Native", "RoleStatus"),
    "rolecall.fleet.management": ("Management",),
    "rolecall.fleet.node_role": ("NodeRole", "NodeStatus"),
    "rolecall.fleet.run": ("History", "run", "run_sync"),
    "rolecall.fleet.simulation": ("Simulation", "simulation"),
    "rolecall.sim.simulate": ("simulate",),
}
_HOME = {name: module for module, names in _LATER.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rolecall' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOME[name]), name)
    return value


__all__ = (
    "After",
    "Alias",
    "App",
    "ApplicationFailed",
    "Between",
    "Bound",
    "Call",
    "CallCycle",
    "CallerError",
    "ConfigError",
    "DataError",
    "DeadlineExceeded",
    "DeclarationError",
    "ElementError",
    "ElementSpec",
    "Endpoint",
    "Extension",
    "Flops",
    "Fresh",
    "Group",
    "GroupCall",
    "History",
    "Inbox",
    "InboxEnd",
    "ItemStream",
    "Later",
    "Lazy",
    "LifecycleError",
    "Limits",
    "Management",
    "MissingDependency",
    "Native",
    "Node",
    "NodeLost",
    "NodeRole",
    "NodeStatus",
    "NotAChannel",
    "NotAllowed",
    "NotEncodable",
    "Outcome",
    "Overloaded",
    "Preset",
    "QuorumMissed",
    "Refused",
    "RelationshipError",
    "RemoteError",
    "Replies",
    "Role",
    "RoleId",
    "RoleLost",
    "RoleSpec",
    "RoleStatus",
    "RolecallError",
    "Simulation",
    "State",
    "Status",
    "StreamEndpoint",
    "Subscription",
    "Superseded",
    "TaskEndpoint",
    "TaskHandle",
    "Tensors",
    "Topic",
    "TopicEnd",
    "Topology",
    "UnknownRole",
    "ValueChanged",
    "WrongArgument",
    "WrongType",
    "attribute",
    "caller",
    "deadline",
    "element",
    "factory",
    "many",
    "on",
    "one",
    "progress",
    "run",
    "run_sync",
    "service",
    "simulate",
    "simulation",
    "stream",
    "task",
)
