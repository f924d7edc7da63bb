"""Filters of listed containers, as Docker has them: ``name``, ``label`` and ``status``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from .. import _check
from ..core.models import ContainerStatus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: States of the library, and what they are here.
STATES = {
    "created": ContainerStatus.CREATING,
    "running": ContainerStatus.RUNNING,
    "paused": ContainerStatus.PAUSED,
    "exited": ContainerStatus.EXITED,
    "removing": ContainerStatus.REMOVING,
    "dead": ContainerStatus.DEAD,
}

#: Words for states that may be asked for: Docker's and podkit's.
_WORDS = {*STATES, *(status.value for status in ContainerStatus)}


class Filters:
    """What a container has to be like: one of the names, one of the states, and all of the labels."""

    def __init__(self, filters: Any) -> None:
        given = {} if filters is None else filters
        if not isinstance(given, Mapping):
            raise _check.bad("filters", f"must be a mapping, not {_check.kind_of(given)}")
        for key in given:
            if key not in ("name", "label", "status"):
                raise _check.bad("filters", f"may have `name`, `label` and `status`, not {key!r}")
        self._names = [_pattern(text) for text in _texts(given, "name")]
        self._labels = [text.partition("=") for text in _texts(given, "label")]
        self._states = _texts(given, "status")
        for state in self._states:
            if state not in _WORDS:
                raise _check.bad("filters['status']", f"is no state of a container: {state!r}")

    def prefixes(self, known: set[str]) -> set[str]:
        """Prefixes whose containers may match: the known ones, unless each name says one."""
        said = [re.fullmatch(r"\^([a-z0-9-]+)-", name.pattern) for name in self._names]
        found = {prefix[1] for prefix in said if prefix is not None}
        return found if found and all(said) else known | found

    def match(self, name: str, state: str, labels: Mapping[str, str]) -> bool:
        """Whether a container is meant."""
        return (
            (not self._names or any(pattern.search(name) for pattern in self._names))
            and (not self._states or state in self._states or STATES.get(state) in self._states)
            and all(
                key in labels and (not equal or labels[key] == value) for key, equal, value in self._labels
            )
        )


def _texts(filters: Mapping[str, Any], key: str) -> list[str]:
    """One value of a filter, or several."""
    value, where = filters.get(key, []), f"filters[{key!r}]"
    if isinstance(value, str) or not isinstance(value, Iterable):
        return [_check.text(value, where)]
    return [_check.text(one, where) for one in value]


def _pattern(name: str) -> re.Pattern[str]:
    try:
        return re.compile(name)
    except re.error as error:
        raise _check.bad("filters['name']", f"is no regular expression: {error}") from None
