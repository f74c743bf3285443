"""Errors as they travel between nodes: types both sides know are rebuilt, others arrive as `RemoteError`."""

from __future__ import annotations

import builtins
import traceback

from rolecall.core.errors import Refused, RemoteError, RolecallError
from rolecall.wire.frame_codec import fitting_error
from rolecall.wire.frames import WireError

__all__ = ("from_wire", "to_wire")


def to_wire(error: BaseException, where: str) -> WireError:
    """Return what travels of an error that `portable` has passed."""
    kind = type(error)
    facts = error.facts if isinstance(error, RolecallError) else {}
    trace = "" if isinstance(error, Refused) else "".join(traceback.format_exception(error))
    return fitting_error(f"{kind.__module__}:{kind.__qualname__}", str(error), facts, trace, where)


def from_wire(error: WireError) -> Exception:
    """Return the error to raise at the caller, with the traceback of the other node as a note.

    Only types that are known here already are rebuilt: nothing is imported because a peer says so.
    """
    rebuilt = _rebuilt(error)
    if error.traceback and not isinstance(rebuilt, RemoteError):
        rebuilt.add_note(f"raised by {error.where}; traceback there:\n{error.traceback}")
    return rebuilt


def _rebuilt(error: WireError) -> Exception:
    module, _, name = error.type.partition(":")
    known = RolecallError.portable.get(error.type)
    if known is not None:
        return known.rebuilt(error.message, error.facts)
    plain = getattr(builtins, name, None) if module == "builtins" else None
    if isinstance(plain, type) and issubclass(plain, Exception) and not issubclass(plain, BaseExceptionGroup):
        try:
            return plain(error.message)
        except TypeError:  # such as UnicodeDecodeError, made of more than a text
            pass
    return RemoteError(error.type.replace(":", "."), error.message, error.where, error.traceback)
