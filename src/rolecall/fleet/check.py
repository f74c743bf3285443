"""What can be said of an application once its classes are imported: that roles get what they declare.

All that is wrong is reported at once, each thing with the place where it was written; what is wrong in the
same way with many roles is reported once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from rolecall.core.annotations import type_name
from rolecall.core.declarations import Declarations, combined, declarations
from rolecall.core.elements import ElementDeclaration
from rolecall.core.errors import CallerError, ConfigError, nearest
from rolecall.core.patterns import select
from rolecall.core.relationships import RelationshipDeclaration
from rolecall.core.role import Role
from rolecall.core.signatures import accepted_classes
from rolecall.fleet import importing, structure
from rolecall.fleet.app import Alias, App, ElementSpec, Later, RoleSpec, Target, Topology
from rolecall.fleet.marks import KeyPath
from rolecall.fleet.node_role import NodeRole
from rolecall.fleet.relations import applies, relationships_of
from rolecall.runtime.directory import NATIVE

__all__ = ("check",)

SHOWN = 10  # problems in one message


class _Problem(msgspec.Struct, frozen=True):
    """Something wrong with the part at `path`, seen while looking at `role`."""

    path: KeyPath
    text: str
    hint: str = ""
    role: str = ""


def check(app: App) -> None:
    """Raise for everything that does not fit together; see `App.check`."""
    expanded = app.expanded()
    structure.check(expanded)
    problems = list(_Check(expanded).problems())
    if problems:
        raise _report(expanded, problems)


def _report(app: App, problems: list[_Problem]) -> ConfigError:
    """Return one error for all problems, like ones together."""
    alike: dict[tuple[str, str, str], list[str]] = {}
    for problem in problems:
        roles = alike.setdefault((app.marks.where(problem.path), problem.text, problem.hint), [])
        if problem.role:
            roles.append(problem.role)
    errors = [ConfigError(where, text + _of(roles), hint=hint) for (where, text, hint), roles in alike.items()]
    if len(errors) == 1:
        return errors[0]
    lines = [f"  {error}" for error in errors[:SHOWN]]
    if len(errors) > SHOWN:
        lines.append(f"  ... and {len(errors) - SHOWN} more")
    return ConfigError(app.marks.source, "\n".join((f"{len(errors)} things are wrong:", *lines)))


def _of(roles: list[str]) -> str:
    distinct = list(dict.fromkeys(roles))
    if not distinct:
        return ""
    return f" (role {distinct[0]}{f' and {len(distinct) - 1} like it' if len(distinct) > 1 else ''})"


class _Check:
    """The check of one expanded application."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.loaded: dict[tuple[Any, ...], type[Role] | list[_Problem]] = {}
        self.classes: dict[str, Declarations] = {}

    def problems(self) -> Iterator[_Problem]:
        """Yield what is wrong: first with the classes, then with what roles get, then with whom they know."""
        for node, roles in self.app.roles.items():
            for name, spec in roles.items():
                yield from self.role(spec, f"{node}/{name}", ("roles", node, name))
        if len(self.classes) == len(structure.role_ids(self.app)):
            self.classes |= {f"{node}/{NATIVE}": declarations(NodeRole) for node in self.app.nodes}
            yield from self.relationships()
            yield from self.calls()

    # ------------------------------------------------------------------------------------------------ roles

    def role(self, spec: RoleSpec, role: str, path: KeyPath) -> Iterator[_Problem]:
        """Yield what is wrong with a role in itself."""
        role_class, problems = self.role_class(spec, path)
        yield from (msgspec.structs.replace(problem, role=role) for problem in problems)
        if role_class is None:
            return
        try:
            declared = declarations(role_class)
        except CallerError as error:
            yield _Problem((*path, "class"), str(error), role=role)
            return
        self.classes[role] = declared
        for text, hint, key in _arguments(role_class, spec.options):
            yield _Problem((*path, "options", key) if key else path, text, hint, role)
        yield from self.elements(spec, declared, role, path)

    def role_class(self, spec: RoleSpec, path: KeyPath) -> tuple[type[Role] | None, list[_Problem]]:
        """Return the class of a role with its extensions, or what is wrong with them."""
        try:
            base = importing.find(spec.class_, self.app.import_from, form="module:ClassName")
        except importing.NotFound as error:
            return None, [_Problem((*path, "class"), error.problem, error.hint)]
        if not (isinstance(base, type) and issubclass(base, Role)):
            return None, [_Problem((*path, "class"), f"{spec.class_} is no role class", "Derive it from rc.Role")]
        extensions: list[Any] = []
        for index, extension in enumerate(spec.extensions):
            try:
                extensions.append(importing.find(extension, self.app.import_from, form="module:ClassName"))
            except importing.NotFound as error:
                return None, [_Problem((*path, "extensions", index), error.problem, error.hint)]
        try:
            whole = combined(base, tuple(extensions))
        except (CallerError, TypeError) as error:
            return None, [_Problem((*path, "extensions"), str(error))]
        if inspect.isabstract(whole):
            missing = ", ".join(sorted(whole.__abstractmethods__))
            text = f"{base.__qualname__} is abstract: it does not say what {missing} does"
            return None, [_Problem((*path, "class"), text, "Name a class that derives from it")]
        return whole, []

    # --------------------------------------------------------------------------------------------- elements

    def elements(self, spec: RoleSpec, declared: Declarations, role: str, path: KeyPath) -> Iterator[_Problem]:
        """Yield what is wrong with the elements of a role."""
        for name, element in spec.elements.items():
            place = (*path, "elements", name)
            if name not in declared.elements:
                hint = nearest(name, declared.elements) + structure.few("elements", list(declared.elements))
                yield _Problem(place, f"{type_name(declared.role_class)} has no element {name!r}", hint, role)
            else:
                yield from self.element(element, declared.elements[name], role, place)
        for name, wanted in declared.elements.items():
            if name not in spec.elements and not wanted.optional:
                text = f"the element {name!r} ({type_name(wanted.type)}) is missing"
                hint = f"Write `elements: {{{name}: {{class: module:ClassName}}}}`"
                yield _Problem(path, text, hint, role)

    def element(self, spec: ElementSpec, declared: ElementDeclaration, role: str, path: KeyPath) -> Iterator[_Problem]:
        """Yield what is wrong with what fills an element."""
        found: dict[str, Any] = {}
        for key, name in (("class", spec.class_), ("factory", spec.factory), ("initialize", spec.initialize)):
            if name is None:
                continue
            try:
                found[key] = importing.find(name, self.app.import_from)
            except importing.NotFound as error:
                yield _Problem((*path, key), error.problem, error.hint, role)
                return
            if not callable(found[key]):
                yield _Problem((*path, key), f"{name} cannot be called", "Name a class or a function", role)
                return
        maker = found.get("class", found.get("factory"))
        if maker is not None:
            fresh = declared.load == "fresh"
            for text, hint, key in _arguments(maker, spec.options, filled=("seed",), more_to_come=fresh):
                yield _Problem((*path, "options", key) if key else path, text, hint, role)
        made = maker if isinstance(maker, type) else type(spec.value) if maker is None else None
        if made is not None and not _may_be(made, declared):
            text = f"a {type_name(made)} is no {type_name(declared.type)}, as the role declares"
            yield _Problem(path, text, role=role)

    # ---------------------------------------------------------------------------------------- relationships

    def relationships(self) -> Iterator[_Problem]:
        """Yield what is wrong with whom roles know."""
        ids = tuple(self.classes)
        for role, declared in self.classes.items():
            configured = relationships_of(self.app, role)
            for wanted in declared.relationships.values():
                if wanted.name in configured:
                    yield from self.relationship(wanted, configured, role, ids)
                elif f"{role.partition('/')[0]}/{wanted.name}" not in self.classes:
                    yield self.unconfigured(wanted, role)
        yield from self.undeclared()

    def unconfigured(self, wanted: RelationshipDeclaration, role: str) -> _Problem:
        """Return the problem of a relationship that is declared and leads nowhere."""
        node = role.partition("/")[0]
        text = f"{type_name(self.classes[role].role_class)} works with {wanted.name!r}, which is not configured"
        example = f"{node}: {{{wanted.name}: node/role}}"
        hint = f"Write `relationships: {{{example}}}`; with `{wanted.name}: []` there is nobody"
        return _Problem(("roles", *role.split("/")), text, hint, role)

    def relationship(
        self,
        wanted: RelationshipDeclaration,
        configured: Mapping[str, tuple[str, Target]],
        role: str,
        ids: tuple[str, ...],
    ) -> Iterator[_Problem]:
        """Yield what is wrong with the roles in a relationship."""
        key, target = configured[wanted.name]
        path = ("relationships", key, wanted.name)
        while isinstance(target, Alias):
            target = configured.get(target.alias, ("", f"{role.partition('/')[0]}/{target.alias}"))[1]
        members = _members(target, ids)
        if not wanted.many and len(members) != 1 and not isinstance(target, (Later, Topology)) and target != []:
            shown = ", ".join(members[:3])
            yield _Problem(path, f"{wanted.name!r} is one role, and here are {len(members)} ({shown})", "", role)
        for member in members:
            other = self.classes[member].role_class
            if not _is_a(other, wanted.role_class):
                text = f"{type_name(other)} ({member}) is no {type_name(wanted.role_class)}, as {role} declares"
                yield _Problem(path, text)
                return

    def undeclared(self) -> Iterator[_Problem]:
        """Yield the relationships that are configured and that no role of theirs declares."""
        for key, targets in self.app.relationships.items():
            roles = [role for role in self.classes if applies(key, role)]
            known = {name for role in roles for name in _known(self.classes[role])}
            known |= {target.alias for target in targets.values() if isinstance(target, Alias)}
            for name in targets:
                if roles and name not in known:
                    hint = nearest(name, known) + structure.few("relationships", sorted(known))
                    text = f"no role of {key} has a relationship {name!r}"
                    yield _Problem(("relationships", key, name), text, hint)

    # ------------------------------------------------------------------------------------------------ calls

    def calls(self) -> Iterator[_Problem]:
        """Yield what is wrong with the calls that start the application."""
        for index, call in enumerate(structure.calls(self.app)):
            declared = self.classes.get(call.role)
            if declared is None:
                continue
            path = ("start", index)
            channel = declared.channels.get(call.channel)
            if channel is None:
                hint = nearest(call.channel, declared.channels) + structure.few("channels", list(declared.channels))
                what = f"{type_name(declared.role_class)} ({call.role})"
                yield _Problem(path, f"{call.channel!r} is not a channel of {what}", hint)
                continue
            try:
                channel.signature(declared.role_class).check((), dict(call.with_))
            except CallerError as error:
                yield _Problem((*path, "with"), str(error))


def _known(declared: Declarations) -> Iterator[str]:
    """Yield the names of relationships that mean something to a role."""
    for relationship in declared.relationships.values():
        yield relationship.name
    for channel in declared.channels.values():
        if channel.options.allow is not None:
            yield channel.options.allow


def _members(target: Target, ids: tuple[str, ...]) -> list[str]:
    patterns = [target] if isinstance(target, str) else target if isinstance(target, list) else []
    if isinstance(target, Later):
        patterns = [target.later]
    if isinstance(target, Topology):
        patterns = [target.of]
    found = [(pattern, member) for pattern in patterns for member in select(pattern, ids)]
    named = f"/{NATIVE}"  # a pattern means nodes' own roles only where it names them
    return [member for pattern, member in found if pattern.endswith(named) or not member.endswith(named)]


def _is_a(other: type, wanted: Any) -> bool:
    try:
        return issubclass(other, wanted)
    except TypeError:  # a protocol that cannot be asked, or no class at all
        return True


def _may_be(made: type, declared: ElementDeclaration) -> bool:
    """Say whether an object of a class may be what an element is declared to be."""
    makes_others = any(isinstance(vars(base).get("__new__"), staticmethod) for base in made.__mro__)
    return makes_others or issubclass(made, accepted_classes(declared.type))


def _arguments(
    function: Callable[..., Any],
    options: Mapping[str, Any],
    *,
    filled: tuple[str, ...] = (),
    more_to_come: bool = False,
) -> Iterator[tuple[str, str, str]]:
    """Yield what is wrong with the options of a function: text, hint, and the option if it is one."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # some builtins have no signature to look at
        return
    name = type_name(function) if isinstance(function, type) else getattr(function, "__qualname__", repr(function))
    named = {key: p for key, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for option in options:
        if option not in named and not anything:
            hint = nearest(option, named) + structure.few("options", list(named))
            yield f"{name} takes no option {option!r}", hint, option
    missing = [key for key, p in named.items() if p.default is p.empty and key not in (*options, *filled)]
    if missing and not more_to_come:
        yield f"{name} needs the option {missing[0]!r}", f"Write `options: {{{missing[0]}: ...}}`", ""
