"""Throw-away sandboxes, which are removed in the end whatever becomes of their program."""

from __future__ import annotations

import atexit
import os

from ._calls import wait
from .errors import PodkitError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._calls import Steps
    from ._native import Podkit

    Ids = tuple[str, str]

#: Seconds without use after which ``gc`` removes one whose program was killed.
LEFT_BEHIND = 600.0

#: Those that are open or being opened: the process that made them, and what they are opened and closed by.
_open: dict[Ids, tuple[int, Podkit]] = {}


def remember(ids: Ids, podkit: Podkit) -> None:
    """Has one removed in the end by the process that made it, and not by a fork that uses it."""
    _open.setdefault(ids, (os.getpid(), podkit))


def forget(ids: Ids) -> None:
    """Says that there is none of these ids any more."""
    _open.pop(ids, None)


def give_up(ids: Ids, error: BaseException) -> None:
    """Removes what an opening leaves that ended with an error. One that was interrupted goes on meanwhile."""
    pid, podkit = _open.get(ids, (0, None))
    if podkit is None or pid != os.getpid():
        return

    def done(_failed: bool, report: object) -> None:
        if report == (True, []):
            forget(ids)

    if isinstance(error, PodkitError):
        forget(ids)
    podkit.close(*ids).begin(done)


def close_all(opened_by: Podkit | None = None) -> Steps[list[PodkitError]]:
    """Removes all that this process made, or what one ``Podkit`` opened; gives what could not be."""
    failed = []
    for ids, (pid, podkit) in list(_open.items()):
        if pid != os.getpid() or (opened_by is not None and podkit is not opened_by):
            continue
        try:
            _, left = yield podkit.close(*ids)
        except PodkitError as error:
            left = [error]
        if left:
            failed += left
        else:
            forget(ids)
    return failed


def close_at_exit() -> None:
    """Removes what nobody closed, as far as it can be in the end; the rest stops by itself."""
    wait(close_all())


atexit.register(close_at_exit)
