"""The arguments of a channel on the wire, checked against its signature on arrival.

They travel as `[[positional, ...], {keyword: ...}]`, so that the handler is called as the caller called; what
the caller left out stays out, and the handler's own default applies.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, Final, NoReturn

import msgspec
from msgspec import UNSET

from rolecall.core.errors import WrongArgument, WrongType
from rolecall.core.signatures import Signature
from rolecall.wire.codec import are_plain, decoder_for, pack, pack_plain, unpack_raw
from rolecall.wire.extensions import Segment
from rolecall.wire.limits import DEFAULT_LIMITS, Limits
from rolecall.wire.mismatch import Mismatch, mismatch_of
from rolecall.wire.offender import FAILURES, not_encodable

__all__ = ("ArgsCodec",)

_POSITIONAL = re.compile(r"\[0\]\[(\d+)\]")
_KEYWORD = re.compile(r"\[1\]\.(\w+)")
_astuple: Final = msgspec.structs.astuple


class ArgsCodec:
    """Encode and decode the arguments of one channel.

    `channel` is how errors name it, such as `Trainer.train`; `parameters` has the name, the resolved
    annotation and whether there is a default, for each parameter in order, without `self`. Raises
    `DeclarationError` for an annotation that cannot be told apart on the wire, such as `Tensors | str`.
    """

    __slots__ = ("_decoder", "_hints", "_names", "_required", "channel", "limits")

    def __init__(
        self,
        channel: str,
        parameters: Sequence[tuple[str, Any, bool]],
        *,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.channel, self.limits = channel, limits
        self._names = [name for name, _, _ in parameters]
        self._hints = {name: hint for name, hint, _ in parameters}
        self._required = [name for name, _, has_default in parameters if not has_default]
        for name, hint, _ in parameters:
            decoder_for(hint, self._where(name))  # so that the error names the parameter
        self._decoder = decoder_for(_call_struct(parameters), channel)

    @staticmethod
    @lru_cache(maxsize=4096)
    def of(signature: Signature) -> ArgsCodec:
        """Return the codec of a channel's signature, which all roles of a class share."""
        parameters = [(p.name, p.hint, p.optional) for p in signature.parameters]
        return ArgsCodec(signature.channel, parameters)

    def encode(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Segment]:
        """Return the arguments as segments, the bytes of arrays uncopied; see `rolecall.wire.encode`.

        Raises `WrongArgument` where they do not fit the signature in number or name, and `NotEncodable`,
        which names the parameter, for one that cannot travel. An argument that has a method `__portable__` may
        replace itself by what can, of the same type.
        """
        self._check_names(len(args), kwargs)
        try:
            if not kwargs and are_plain(args):
                return pack_plain((args,))
            return pack((args, kwargs) if kwargs else (args,))
        except FAILURES:
            args = tuple(_portable(value) for value in args)
            kwargs = {name: _portable(value) for name, value in kwargs.items()}
        try:
            return pack((args, kwargs) if kwargs else (args,))
        except FAILURES:
            self._raise_not_encodable(args, kwargs)

    def decode(self, segments: Sequence[Segment]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return positional and keyword arguments, as the caller gave them.

        Raises `WrongType` (`Trainer.train: argument 'params': expected Tensors, found str`), `WrongArgument`
        where they do not fit the signature in number or name, and `Malformed` or `LimitExceeded` as
        `rolecall.wire.decode`.
        """
        try:
            call = unpack_raw(self._decoder, segments, self.limits)
        except msgspec.ValidationError as error:
            self._raise_mismatch(mismatch_of(error))
        positional, keywords = _astuple(call)
        args = _given(_astuple(positional))
        kwargs = {} if keywords is UNSET else self._named(keywords)
        self._check_names(len(args), kwargs)
        return args, kwargs

    def _named(self, keywords: msgspec.Struct) -> dict[str, Any]:
        values = zip(self._names, _astuple(keywords), strict=True)
        return {name: value for name, value in values if value is not UNSET}

    def _where(self, name: str, path: str = "") -> str:
        inside = f" at {path.removeprefix('.')}" if path.startswith((".", "[")) else path
        return f"{self.channel}: argument {name!r}{inside}"

    # ------------------------------------------------------------------------------------------ what is wrong

    def _check_names(self, positional: int, kwargs: dict[str, Any]) -> None:
        if not kwargs and len(self._required) <= positional <= len(self._names):
            return
        if positional > len(self._names):
            self._raise_wrong(f"{positional} arguments given, where it takes {len(self._names)}")
        given = set(self._names[:positional])
        for name in kwargs:
            if name not in self._hints:
                self._raise_wrong(f"there is no argument {name!r}")
            if name in given:
                self._raise_wrong(f"argument {name!r} is given twice")
        for name in self._required:
            if name not in given and name not in kwargs:
                self._raise_wrong(f"argument {name!r} is missing")

    def _raise_wrong(self, problem: str) -> NoReturn:
        shown = [name if name in self._required else f"{name}=..." for name in self._names]
        raise WrongArgument(self.channel, problem, f"({', '.join(shown)})")

    def _raise_not_encodable(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NoReturn:
        for name, value in [*zip(self._names, args, strict=False), *kwargs.items()]:
            try:
                pack(value)
            except FAILURES:
                raise not_encodable(value, partial(self._where, name), pack) from None
        raise not_encodable((args, kwargs), f"{self.channel}: arguments".__add__, pack) from None

    def _raise_mismatch(self, wrong: Mismatch) -> NoReturn:
        positional = _POSITIONAL.match(wrong.path)
        match = positional or _KEYWORD.match(wrong.path)
        if match is None:
            self._raise_wrong(f"expected {wrong.expected}, found {wrong.found}")
        name = self._names[int(match[1])] if positional else match[1]
        wrong = wrong.under(match[0], self._hints[name])
        raise WrongType(self._where(name, wrong.path), wrong.expected, wrong.found)


def _portable(value: Any) -> Any:
    replaced = getattr(type(value), "__portable__", None)
    return value if replaced is None else replaced(value)


def _given(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the values up to the first that the caller left out."""
    if not values or values[-1] is not UNSET:
        return values
    return values[: next(i for i, value in enumerate(values) if value is UNSET)]


def _call_struct(parameters: Sequence[tuple[str, Any, bool]]) -> type[msgspec.Struct]:
    # Fields have names of our own, since a parameter may be called anything; UNSET marks what did not come.
    fields = [(f"p{i}", hint, UNSET) for i, (_, hint, _) in enumerate(parameters)]
    names = {f"p{i}": name for i, (name, _, _) in enumerate(parameters)}
    options: dict[str, Any] = {"forbid_unknown_fields": True, "gc": False}
    positional = msgspec.defstruct("Positional", fields, array_like=True, **options)
    keyword = msgspec.defstruct("Keyword", fields, rename=names, **options)
    return msgspec.defstruct(
        "Arguments", [("args", positional), ("kwargs", keyword, UNSET)], array_like=True, **options
    )
