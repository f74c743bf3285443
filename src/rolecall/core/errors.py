"""Every error that crosses the public API, in one flat place; messages are made here, from facts."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

__all__ = (
    "ApplicationFailed",
    "CallCycle",
    "CallerError",
    "ConfigError",
    "DataError",
    "DeadlineExceeded",
    "DeclarationError",
    "ElementError",
    "LifecycleError",
    "MissingDependency",
    "NodeLost",
    "NotAChannel",
    "NotAllowed",
    "NotEncodable",
    "Overloaded",
    "QuorumMissed",
    "Refused",
    "RelationshipError",
    "RemoteError",
    "RoleLost",
    "RolecallError",
    "Superseded",
    "UnknownRole",
    "ValueChanged",
    "WrongArgument",
    "WrongType",
    "nearest",
)


def nearest(name: str, candidates: Iterable[str]) -> str:
    """Return a sentence naming the candidate closest to `name`, or nothing when none is close."""
    close = difflib.get_close_matches(str(name), list(candidates), n=1, cutoff=0.6)
    return f" Did you mean {str(close[0])!r}?" if close else ""


class RolecallError(Exception):
    """Base of all errors that rolecall raises.

    Subclasses are portable: one raised by a handler is raised again, with its type, at the caller, on
    whatever node the caller is. Derive from it (or from `Refused`) for errors of your own that callers should
    be able to catch.
    """

    portable: ClassVar[dict[str, type[RolecallError]]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        RolecallError.portable[f"{cls.__module__}:{cls.__qualname__}"] = cls

    @property
    def facts(self) -> dict[str, Any]:
        """The attributes an error carries beside its message; they travel with it."""
        return {key: value for key, value in self.__dict__.items() if not key.startswith("_")}

    @classmethod
    def rebuilt(cls, message: str, facts: Mapping[str, Any]) -> Self:
        """Return an error of this class from what travelled, without running its constructor."""
        error = cls.__new__(cls, message)
        Exception.__init__(error, message)
        error.__dict__.update(facts)
        return error

    def copied(self) -> Self:
        """Return the same error without traceback and cause, to be raised in one more place."""
        return self.rebuilt(str(self), self.facts)

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


RolecallError.portable["rolecall.core.errors:RolecallError"] = RolecallError


class CallerError(RolecallError):
    """Base of the errors that are the caller's own fault: calling again in the same way cannot help."""


# ------------------------------------------------------------------------------------------- what users write


class DeclarationError(CallerError, TypeError):
    """Raised when a role class is declared in a way that cannot work."""

    def __init__(self, role_class: str, problem: str, *, hint: str = "") -> None:
        super().__init__(_sentence(f"{role_class}: {problem}", hint))


class ConfigError(CallerError):
    """Raised when an application, its file or its parameters are wrong."""

    def __init__(self, where: str, problem: str, *, hint: str = "") -> None:
        super().__init__(_sentence(f"{where}: {problem}", hint))
        self.where = where


class DataError(CallerError):
    """Raised when a data file is missing, unreadable, truncated or of another format."""

    def __init__(self, path: object, problem: str, hint: str = "") -> None:
        super().__init__(_sentence(f"{path}: {problem}", hint))
        self.path = str(path)


class MissingDependency(CallerError, ImportError):
    """Raised when something needs a package that is an optional extra."""

    def __init__(self, what: str, *, needed_for: str, extra: str) -> None:
        super().__init__(
            f"{needed_for} needs {what}, which is not installed. Install it with: pip install 'rolecall[{extra}]'"
        )
        self.what, self.extra = what, extra


class ElementError(CallerError):
    """Raised when an element of a role is missing, of the wrong type, or fails to load."""

    def __init__(self, role: str, element: str, problem: str, *, hint: str = "") -> None:
        super().__init__(_sentence(f"{role}: element {element!r}: {problem}", hint))
        self.role, self.element = str(role), element


class RelationshipError(CallerError):
    """Raised when a relationship is not configured, empty where a role is needed, or names no role."""

    def __init__(self, role: str, relationship: str, problem: str, *, hint: str = "") -> None:
        super().__init__(_sentence(f"{role}: relationship {relationship!r}: {problem}", hint))
        self.role, self.relationship = str(role), relationship


class LifecycleError(CallerError):
    """Raised when a role is asked for something that its status does not allow."""


# ---------------------------------------------------------------------------------------------- calling


class NotAChannel(CallerError, AttributeError):
    """Raised on reaching, through a relationship, for something that is no channel of the role there."""

    def __init__(self, role: str, name: str, channels: Iterable[str]) -> None:
        known = sorted(channels)
        listed = ", ".join(known) if known else "none"
        super().__init__(f"{name!r} is not a channel of {role}.{nearest(name, known)} Its channels: {listed}.")
        self.channel = name


class UnknownRole(CallerError):
    """Raised when a message names a role that does not exist."""

    def __init__(self, role: str, known: Iterable[str]) -> None:
        super().__init__(f"There is no role {str(role)!r}.{nearest(role, known)}")
        self.role = str(role)


class WrongArgument(CallerError, TypeError):
    """Raised when a channel is called with arguments that do not fit its signature."""

    def __init__(self, channel: str, problem: str, signature: str) -> None:
        super().__init__(f"{channel}: {problem}. Its signature is {signature}.")
        self.channel = channel


class WrongType(CallerError, TypeError):
    """Raised when a value that arrived is not of the declared type."""

    def __init__(self, where: str, expected: str, found: str) -> None:
        super().__init__(f"{where}: expected {expected}, found {found}.")


class NotEncodable(CallerError, TypeError):
    """Raised when a value that should travel is of a type that cannot."""

    def __init__(self, where: str, found: str, hint: str = "") -> None:
        advice = hint or (
            "Send numbers, text, bytes, lists, dicts, msgspec.Struct, dataclasses, numpy arrays or rc.Tensors"
        )
        super().__init__(_sentence(f"{where}: a value of type {found} cannot travel", advice))


class NotAllowed(CallerError):
    """Raised when the caller does not belong to the relationship a channel is restricted to."""

    def __init__(self, caller: str, channel: str, relationship: str) -> None:
        super().__init__(
            f"{caller} may not call {channel}: it is open only to the members of the relationship {relationship!r}."
        )


class ValueChanged(CallerError):
    """Raised when a value was changed after it was sent, returned or emitted (found by `checked` runs)."""

    def __init__(self, channel: str, what: str, owner: str) -> None:
        super().__init__(
            f"{channel}: {what} was changed after it was handed over by {owner}. A value is frozen from the "
            "moment it "
            "is passed, returned, yielded or emitted: send a copy, or build a new value instead of "
            "changing it."
        )


class Refused(RolecallError):
    """Raise it in a handler to say no: a normal answer, with no traceback and no dead letter."""

    def __init__(self, reason: str = "refused") -> None:
        super().__init__(reason)


class DeadlineExceeded(RolecallError, TimeoutError):
    """Raised when no answer came before the deadline; the handler has been cancelled."""

    def __init__(self, channel: str, deadline_s: float, detail: str = "") -> None:
        super().__init__(_sentence(f"{channel} did not answer within {deadline_s:g} s", detail))


class Overloaded(RolecallError):
    """Raised when the mailbox of a channel declared `overflow="fail"` is full."""

    def __init__(self, channel: str, waiting: int, waiting_bytes: int) -> None:
        super().__init__(
            f"The mailbox of {channel} is full ({waiting} messages, {waiting_bytes:,} bytes). Call more "
            "slowly, "
            'raise its `mailbox=`, or declare overflow="wait".'
        )


class Superseded(RolecallError):
    """Raised at a caller whose waiting call was displaced by a newer one (`latest`, `drop_oldest`)."""

    def __init__(self, channel: str, policy: str) -> None:
        super().__init__(f"{channel}: this call was displaced by a newer one (overflow={policy!r}).")


class CallCycle(CallerError):
    """Raised when a call would wait for a handler that is itself waiting for that call."""

    def __init__(self, chain: Iterable[str]) -> None:
        path = " -> ".join(chain)
        super().__init__(
            f"The call would never return: {path}. Declare the channel `concurrent=True`, or start a task "
            "instead of "
            "waiting for the answer."
        )


class RoleLost(RolecallError):
    """Raised when the called role ended before it answered; `effect` is "none" or "unknown"."""

    def __init__(self, role: str, why: str, effect: str) -> None:
        super().__init__(f"{role} was lost: {why} (effect of the call: {effect}).")
        self.role, self.why, self.effect = str(role), why, effect


class NodeLost(RoleLost):
    """Raised when the node of the called role is gone; `effect` is "none" or "unknown"."""


class RemoteError(RolecallError):
    """Raised for an error of a type the caller does not know; keeps its type, message and traceback."""

    def __init__(self, type_name: str, message: str, where: str, traceback: str = "") -> None:
        super().__init__(f"{type_name} in {where}: {message}")
        self.type_name, self.where, self.traceback = type_name, where, traceback


class QuorumMissed(RolecallError):
    """Raised when too few roles answered a group call; `failures` has the error of each other one."""

    def __init__(self, channel: str, needed: int, answered: int, failures: Mapping[Any, BaseException]) -> None:
        shown = [f"{who}: {type(e).__name__}: {e}".rstrip(".") for who, e in list(failures.items())[:5]]
        more = [f"and {len(failures) - 5} more"] if len(failures) > 5 else []
        reasons = "; ".join([*shown, *more]) or "The group has too few members"
        super().__init__(
            f"{channel}: {answered} of the {needed} replies needed came in. {reasons}. "
            "Say how many suffice with `group.within(quorum=...)`."
        )
        self.needed, self.answered = needed, answered
        self._failures = dict(failures)

    @property
    def failures(self) -> dict[Any, BaseException]:
        """The error of each role that did not answer (empty when the error came from another node)."""
        found: dict[Any, BaseException] = self.__dict__.get("_failures", {})
        return found


class ApplicationFailed(RolecallError):
    """Raised when a role's failure ended the application; the role's error is its cause."""

    def __init__(self, role: str, phase: str, cause: BaseException) -> None:
        super().__init__(f"{role} failed in {phase}: {type(cause).__name__}: {cause}")
        self.role = str(role)


def _sentence(text: str, addition: str) -> str:
    """Join a statement and an optional piece of advice; each ends with a full stop, if not as a question."""
    parts = [part for part in (text.strip(), addition.strip()) if part]
    return " ".join(part if part.endswith("?") else f"{part.rstrip('.')}." for part in parts)
