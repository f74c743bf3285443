from __future__ import annotations

import inspect
from typing import Any

import msgspec
import pytest

import rolecall as rc
from rolecall.core import errors
from rolecall.core.errors import RolecallError, nearest

EXAMPLES: list[RolecallError] = [
    rc.DeclarationError("Trainer.train", "it cannot work", hint="Do something else"),
    rc.ConfigError("app.yaml:3: roles", "there is no such thing", hint="Did you mean that?"),
    rc.DataError("/data/x.gz", "is truncated", "Fetch it again"),
    rc.MissingDependency("torch", needed_for="this model", extra="torch"),
    rc.ElementError("a/b", "model", "is missing", hint="Add it"),
    rc.RelationshipError("a/b", "peers", "leads nowhere"),
    rc.LifecycleError("It is too late."),
    rc.NotAChannel("a/b (Trainer)", "trian", ["train", "stop"]),
    rc.UnknownRole("a/bb", ["a/b", "a/c"]),
    rc.WrongArgument("Trainer.train", "argument 'x' is str, not int", "(x: int) -> None"),
    rc.WrongType("a/b.train: result", "int", "str"),
    rc.NotEncodable("value", "object"),
    rc.NotAllowed("a/b", "c/d.stop", "manager"),
    rc.ValueChanged("a/b.train", "an argument", "a/c"),
    rc.Refused("busy"),
    rc.DeadlineExceeded("a/b.train", 1.5),
    rc.Overloaded("a/b.train", 3, 4096),
    rc.Superseded("a/b.train", "latest"),
    rc.CallCycle(["a/b.x", "a/c.y", "a/b.x"]),
    rc.RoleLost("a/b", "it has stopped", "none"),
    rc.NodeLost("a/b", "node a is gone", "unknown"),
    rc.RemoteError("torch.OutOfMemory", "too big", "a/b.train", "Traceback ..."),
    rc.QuorumMissed("a/b: peers.train", 3, 1, {"a/c": ValueError("no")}),
    rc.ApplicationFailed("a/b", "setup", ValueError("no")),
    errors.RolecallError("Something."),
    errors.CallerError("Your fault."),
]


def test_every_error_has_an_example_here() -> None:
    public = {cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, RolecallError)}
    assert {type(error) for error in EXAMPLES} >= {cls for cls in public if cls.__module__ == errors.__name__}


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_is_the_same_after_a_journey(error: RolecallError) -> None:
    error.add_note("seen here")
    name = f"{type(error).__module__}:{type(error).__qualname__}"
    message, facts = msgspec.msgpack.decode(msgspec.msgpack.encode((str(error), error.facts)))
    again = RolecallError.portable[name].rebuilt(message, facts)
    assert type(again) is type(error) and str(again) == str(error) and again.facts == error.facts
    copy = error.copied()
    assert copy is not error and str(copy) == str(error) and copy.__traceback__ is None


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_a_message_is_made_of_whole_sentences(error: RolecallError) -> None:
    text = str(error).replace("...", "")
    assert text and text == text.strip() and "  " not in text
    assert not any(mark in text for mark in ("?.", "..", ". .", ",."))


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (EXAMPLES[0], "Trainer.train: it cannot work. Do something else."),
        (EXAMPLES[1], "app.yaml:3: roles: there is no such thing. Did you mean that?"),
        (EXAMPLES[3], "this model needs torch, which is not installed. Install it with: pip install 'rolecall[torch]'"),
        (rc.DeclarationError("X", "no. Did you mean 'y'?"), "X: no. Did you mean 'y'?"),
        (rc.DeclarationError("X", "no. Did you mean 'y'?", hint="Or z"), "X: no. Did you mean 'y'? Or z."),
        (EXAMPLES[7], "'trian' is not a channel of a/b (Trainer). Did you mean 'train'? Its channels: stop, train."),
        (EXAMPLES[8], "There is no role 'a/bb'. Did you mean 'a/b'?"),
        (
            EXAMPLES[22],
            "a/b: peers.train: 1 of the 3 replies needed came in. a/c: ValueError: no. "
            "Say how many suffice with `group.within(quorum=...)`.",
        ),
    ],
)
def test_messages(error: RolecallError, text: str) -> None:
    assert str(error) == text


def test_many_failures_are_named_in_part() -> None:
    error = rc.QuorumMissed("x", 9, 0, {f"a/{number}": rc.Refused("no.") for number in range(8)})
    assert "a/4: Refused: no; and 3 more. Say" in str(error) and "a/5" not in str(error)
    assert len(error.failures) == 8
    assert error.copied().failures == {}, "they stay where they happened"


def test_errors_are_also_what_python_would_raise() -> None:
    kinds: list[tuple[type[Exception], type[Exception]]] = [
        (rc.DeclarationError, TypeError),
        (rc.WrongArgument, TypeError),
        (rc.NotAChannel, AttributeError),
        (rc.DeadlineExceeded, TimeoutError),
        (rc.MissingDependency, ImportError),
        (rc.NodeLost, rc.RoleLost),
    ]
    assert all(issubclass(error, builtin) for error, builtin in kinds)
    faults = [rc.DeclarationError, rc.WrongArgument, rc.CallCycle, rc.NotEncodable, rc.LifecycleError]
    assert all(issubclass(error, rc.CallerError) for error in faults)
    assert not issubclass(rc.Refused, rc.CallerError) and not issubclass(rc.RoleLost, rc.CallerError)


def test_errors_of_users_travel_too() -> None:
    class Busy(rc.Refused):
        def __init__(self, until: int) -> None:
            super().__init__(f"busy until {until}")
            self.until = until
            self._private = object()

    error: Any = Busy(3)
    again: Any = RolecallError.portable[f"{__name__}:{Busy.__qualname__}"].rebuilt(str(error), error.facts)
    assert type(again) is Busy and (str(again), again.until) == ("busy until 3", 3)
    assert "_private" not in error.facts


@pytest.mark.parametrize(
    ("name", "candidates", "sentence"),
    [
        ("trian", ["train", "stop"], " Did you mean 'train'?"),
        ("x", ["train"], ""),
        ("train", [], ""),
        ("clint1", ["client1", "client2"], " Did you mean 'client1'?"),
    ],
)
def test_the_nearest_name(name: str, candidates: list[str], sentence: str) -> None:
    assert nearest(name, candidates) == sentence
