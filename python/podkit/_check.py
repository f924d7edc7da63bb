"""Checks of arguments, which say the argument's name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from .errors import InvalidInputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def bad(name: str, text: str, hint: str | None = None) -> InvalidInputError:
    """The error for an argument."""
    return InvalidInputError(f"`{name}` {text}", hint=hint)


def kind_of(value: object) -> str:
    """A value's type, for people."""
    return "None" if value is None else type(value).__name__


def text(value: Any, name: str, *, empty: bool = False) -> str:
    """A string that C programs can have."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise bad(name, f"must be a string, not {kind_of(value)}")
    if not value and not empty:
        raise bad(name, "is empty")
    if "\0" in value:
        raise bad(name, "contains a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise bad(name, "has characters that are not Unicode") from None
    return value


def maybe_text(value: Any, name: str) -> str | None:
    """As :func:`text`, or nothing."""
    return None if value is None else text(value, name)


def seconds(value: Any, name: str, *, zero: bool = False) -> float:
    """A length of time."""
    total_seconds = getattr(value, "total_seconds", None)
    if callable(total_seconds):
        value = total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise bad(name, f"must be a number of seconds, not {kind_of(value)}")
    if not (0 <= value < 1e15) or (value == 0 and not zero):
        raise bad(name, f"must be more than 0 seconds, not {value}")
    return float(value)


def maybe_seconds(value: Any, name: str) -> float | None:
    """As :func:`seconds`, or nothing."""
    return None if value is None else seconds(value, name)


def integer(value: Any, name: str, least: int, most: int) -> int:
    """A whole number in a range."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise bad(name, f"must be a whole number, not {kind_of(value)}")
    if not least <= value <= most:
        raise bad(name, f"must be from {least} to {most}, not {value}")
    return value


def maybe_integer(value: Any, name: str, least: int, most: int) -> int | None:
    """As :func:`integer`, or nothing."""
    return None if value is None else integer(value, name, least, most)


def port(value: Any, name: str = "port") -> int:
    """The number of a port."""
    return integer(value, name, 1, 65535)


def content(value: Any, name: str) -> bytes:
    """Bytes; text as UTF-8."""
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError:
            raise bad(name, "has characters that are not Unicode") from None
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise bad(name, f"must be text or bytes, not {kind_of(value)}")


def argv(value: Any, name: str = "command") -> list[bytes]:
    """A program and its arguments."""
    if isinstance(value, (str, bytes)):
        raise bad(
            name,
            "must be a list of a program and its arguments, not text",
            "use `shell` for text, or write a list",
        )
    if not isinstance(value, Iterable) or isinstance(value, Mapping):
        raise bad(name, f"must be a list of strings, not {kind_of(value)}")
    words = []
    for place, word in enumerate(value):
        if isinstance(word, bytes):
            words.append(word)
            continue
        if isinstance(word, os.PathLike):
            word = os.fspath(word)
        if not isinstance(word, str):
            raise bad(f"{name}[{place}]", f"must be a string, not {kind_of(word)}")
        try:
            words.append(word.encode("utf-8", "surrogateescape"))
        except UnicodeEncodeError:
            raise bad(f"{name}[{place}]", "has characters that are not Unicode") from None
    if not words or not words[0]:
        raise bad(name, "is empty")
    if any(b"\0" in word for word in words):
        raise bad(name, "contains a NUL character")
    return words


def shell_argv(value: Any, name: str = "text") -> list[bytes]:
    """A text that the shell of the container runs."""
    return [b"/bin/sh", b"-c", text(value, name).encode()]


def variables(value: Any, name: str = "env") -> list[tuple[str, str]]:
    """Environment variables."""
    if value is None:
        return []
    if not isinstance(value, Mapping):
        raise bad(name, f"must be a mapping of names to values, not {kind_of(value)}")
    found = []
    for key, item in value.items():
        key = text(key, f"a name in {name}")
        if "=" in key:
            raise bad(name, f"has the name {key!r}, and no name has a `=`")
        found.append((key, text(item, f"{name}[{key!r}]", empty=True)))
    return found
