"""Locks that no fork finds taken: the threads that would give them back are its parent's."""

from __future__ import annotations

import os
import threading
from weakref import WeakSet

_locks: WeakSet[threading.RLock] = WeakSet()


def lock() -> threading.RLock:
    """A lock that one thread may take several times."""
    made = threading.RLock()
    _locks.add(made)
    return made


def _give_back() -> None:
    for one in _locks:
        # As the standard library does with its own. The one thread that there is keeps what it holds.
        if not one._is_owned():  # type: ignore[attr-defined]
            one._at_fork_reinit()  # type: ignore[attr-defined]


os.register_at_fork(after_in_child=_give_back)
