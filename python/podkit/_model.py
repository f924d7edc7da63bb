"""Models with checked fields.

An own light one instead of pydantic: importing that takes longer than everything else here together,
and what its users rely on is small: keywords, coercion of obvious values, changes in place,
``model_dump``, ``model_copy``, ``model_validate``, ``model_fields_set``. Unlike there, an unknown field is an
error and a change is checked as well; each error names the field.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .errors import ValidationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    M = TypeVar("M", bound="Model")
    Check = Callable[[Any, str], Any]

REQUIRED: Any = object()


def wrong(where: str, text: str) -> ValidationError:
    """The error for a field."""
    return ValidationError(f"`{where}` {text}", field=where)


def _kind(value: object) -> str:
    return "None" if value is None else type(value).__name__


class Field:
    """A field of a model: how its value is checked, and what it is without one."""

    def __init__(self, check: Check, default: Any = REQUIRED, make: Any = None) -> None:
        self.check = check
        self.default = default
        self.make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name
        # A class of its own has the fields of those above it, too.
        if "_fields" not in owner.__dict__:
            owner._fields = dict(getattr(owner, "_fields", {}))  # type: ignore[attr-defined]
        owner._fields[name] = self  # type: ignore[attr-defined]

    @property
    def required(self) -> bool:
        return self.default is REQUIRED and self.make is None

    def value(self) -> Any:
        return self.make() if self.make is not None else self.default


class Model:
    """Named values that are checked when they are set."""

    _fields: dict[str, Field]
    #: Fields whose values no representation shows.
    _hidden: tuple[str, ...] = ()

    def __init__(self, **values: Any) -> None:
        kind = type(self).__name__
        for name in values:
            if name not in self._fields:
                import difflib

                near = difflib.get_close_matches(name, self._fields, 1)
                error = wrong(name, f"is not a field of {kind}")
                error.hint = f"did you mean `{near[0]}`?" if near else None
                raise error
        self.__dict__["_set"] = set(values)
        for name, field in self._fields.items():
            if name in values:
                self.__dict__[name] = field.check(values[name], name)
            elif field.required:
                raise wrong(name, f"is missing in {kind}")
            else:
                self.__dict__[name] = field.value()

    def __setattr__(self, name: str, value: Any) -> None:
        field = self._fields.get(name)
        if field is None:
            if isinstance(getattr(type(self), name, None), property) or name.startswith("_"):
                object.__setattr__(self, name, value)
                return
            raise wrong(name, f"is not a field of {type(self).__name__}")
        self.__dict__[name] = field.check(value, name)
        self.__dict__["_set"].add(name)

    @property
    def model_fields_set(self) -> set[str]:
        """Names of the fields that were given or changed."""
        return set(self.__dict__["_set"])

    def model_dump(self, *, exclude_unset: bool = False, exclude_none: bool = False) -> dict[str, Any]:
        """The fields as a dictionary of their own, models in it as dictionaries, too."""
        found = {}
        for name in self._fields:
            value = self.__dict__[name]
            if exclude_unset and name not in self.__dict__["_set"]:
                continue
            if exclude_none and value is None:
                continue
            found[name] = _dumped(value)
        return found

    def model_dump_json(self) -> str:
        """The fields as JSON."""
        import json

        return json.dumps(self.model_dump(), default=str)

    def model_copy(self: M, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> M:
        """A copy, with some fields otherwise."""
        import copy

        made = type(self).__new__(type(self))
        made.__dict__.update(copy.deepcopy(self.__dict__) if deep else self.__dict__)
        made.__dict__["_set"] = set(self.__dict__["_set"])
        for name, value in (update or {}).items():
            setattr(made, name, value)
        return made

    @classmethod
    def model_validate(cls: type[M], value: Any) -> M:
        """A model from a dictionary; a model is given back as it is."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            raise ValidationError(f"{cls.__name__} is made from a mapping, not {_kind(value)}")
        return cls(**value)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(self.__dict__[name] == other.__dict__[name] for name in self._fields)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        parts = []
        for name in self._fields:
            value = self.__dict__[name]
            if name in self._hidden and isinstance(value, dict):
                shown = "{" + ", ".join(f"{key!r}: ..." for key in value) + "}"
            else:
                shown = repr(value)
            parts.append(f"{name}={shown}")
        return f"{type(self).__name__}({', '.join(parts)})"

    __str__ = __repr__


def _dumped(value: Any) -> Any:
    if isinstance(value, Model):
        return value.model_dump()
    if isinstance(value, list):
        return [_dumped(item) for item in value]
    if isinstance(value, dict):
        return {key: _dumped(item) for key, item in value.items()}
    return value


# Checks: each takes a value and the name of its place, and gives the value to keep.


def string(value: Any, where: str) -> str:
    """Text without a NUL character."""
    if not isinstance(value, str):
        raise wrong(where, f"must be a string, not {_kind(value)}")
    if "\0" in value:
        raise wrong(where, "contains a NUL character")
    return value


def filled(value: Any, where: str) -> str:
    """Text that is not empty."""
    if not string(value, where).strip():
        raise wrong(where, "is empty")
    return value


def boolean(value: Any, where: str) -> bool:
    """Yes or no."""
    if isinstance(value, bool):
        return value
    if value in (0, 1) and isinstance(value, int):
        return bool(value)
    raise wrong(where, f"must be True or False, not {value!r}")


def number(least: float, most: float = 1e15) -> Check:
    """A number in a range."""

    def check(value: Any, where: str) -> float:
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                raise wrong(where, f"must be a number, not {value!r}") from None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise wrong(where, f"must be a number, not {_kind(value)}")
        if not least <= value <= most:
            raise wrong(where, f"must be from {least:g} to {most:g}, not {value!r}")
        return float(value)

    return check


def whole(least: int, most: int = 2**63 - 1) -> Check:
    """A whole number in a range."""

    def check(value: Any, where: str) -> int:
        if isinstance(value, str) and value.lstrip("-").isdecimal() and len(value) < 20:
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong(where, f"must be a whole number, not {value!r}")
        if not least <= value <= most:
            raise wrong(where, f"must be from {least} to {most}, not {value}")
        return value

    return check


def optional(check: Check) -> Check:
    """What `check` takes, or nothing."""
    return lambda value, where: None if value is None else check(value, where)


def listed(check: Check) -> Check:
    """A list of what `check` takes."""

    def all_of(value: Any, where: str) -> list[Any]:
        if isinstance(value, (str, bytes, Mapping)):
            raise wrong(where, f"must be a list, not {_kind(value)}")
        try:
            items = list(value)
        except TypeError:
            raise wrong(where, f"must be a list, not {_kind(value)}") from None
        return [check(item, f"{where}.{place}") for place, item in enumerate(items)]

    return all_of


def variables(value: Any, where: str) -> dict[str, str]:
    """Environment variables. Numbers are taken for their text, as a shell would."""
    if not isinstance(value, Mapping):
        raise wrong(where, f"must be a dictionary, not {_kind(value)}")
    found = {}
    for name, item in value.items():
        name = string(name, where)
        if not name or "=" in name:
            raise wrong(where, f"has {name!r}, which is not the name of a variable")
        found[name] = string(item, f"{where}.{name}")
    return found


def path(value: Any, where: str) -> Path:
    """A path."""
    if isinstance(value, Path):
        value = str(value)
    return Path(filled(value, where))


def model(kind: type[Model]) -> Check:
    """A model, or the dictionary of one."""

    def check(value: Any, where: str) -> Any:
        if isinstance(value, kind):
            return value
        if not isinstance(value, Mapping):
            raise wrong(where, f"must be a {kind.__name__}, not {_kind(value)}")
        try:
            return kind(**value)
        except ValidationError as error:
            inner = wrong(f"{where}.{error.field}", error.text.split("` ", 1)[-1])
            inner.hint = error.hint
            raise inner from None
        except TypeError:
            raise wrong(where, "has names that are not strings") from None

    return check


def choice(kind: Any) -> Check:
    """A member of an enumeration, or the value of one."""

    def check(value: Any, where: str) -> Any:
        try:
            return kind(value)
        except ValueError:
            names = ", ".join(repr(member.value) for member in kind)
            raise wrong(where, f"must be one of {names}, not {value!r}") from None

    return check


def instance(kind: type) -> Check:
    """An object of a class."""

    def check(value: Any, where: str) -> Any:
        if not isinstance(value, kind):
            raise wrong(where, f"must be a {kind.__name__}, not {_kind(value)}")
        return value

    return check


def anything(value: Any, where: str) -> Any:
    """Any value."""
    del where
    return value
