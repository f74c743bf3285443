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
from rolecall.core.groups import Group
from rolecall.core.ids import RoleId
from rolecall.core.inboxes import Inbox
from rolecall.core.relationships import many, one
from rolecall.core.role import Extension, Role
from rolecall.core.state import State
from rolecall.core.status import Status
from rolecall.core.topics import Topic, on

