"""Background processes of a sandbox."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from . import _check, _spec
from ._calls import finish, only, wait
from ._options import _terminal
from .results import ProcessInfo
from .streams import AsyncStream, Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import timedelta
    from typing import Any

    from ._calls import Steps
    from ._native import Process as NativeProcess

    Seconds = float | timedelta

__all__ = ["AsyncProcess", "Process"]


def _only(stream: Any) -> str | None:
    if stream not in (None, "stdout", "stderr"):
        raise _check.bad("stream", f"must be 'stdout' or 'stderr', not {stream!r}")
    return stream


class _ProcessCalls:
    def __init__(self, native: NativeProcess) -> None:
        self._native = native

    @property
    def id(self) -> str:
        """Its id, or the name by which it was looked up."""
        return self._native.id

    def _told(self, call: Any) -> Steps[ProcessInfo]:
        return ProcessInfo((yield call))

    def _text(self, tail: Any, stream: Any) -> Steps[str]:
        tail = _check.maybe_integer(tail, "tail", 0, _spec.NO_LIMIT)
        chunks = yield self._native.logs(tail=tail, only=_only(stream))
        return b"".join(piece for _, piece in chunks).decode("utf-8", "replace")

    def _attach(self, terminal: Any) -> Steps[Any]:
        return only(self._native.attach(_terminal(terminal)))

    def _follow(self, tail: Any, stream: Any) -> Steps[Any]:
        tail = _check.maybe_integer(tail, "tail", 0, _spec.NO_LIMIT)
        return only(self._native.follow(tail=tail, only=_only(stream)))


class Process(_ProcessCalls):
    """A program in the background of a container."""

    def info(self) -> ProcessInfo:
        """What is known of it."""
        return wait(self._told(self._native.info()))

    def wait(self) -> ProcessInfo:
        """Waits until it has ended, and is not begun again."""
        return wait(self._told(self._native.wait()))

    def stop(self, grace: Seconds = 2.0) -> ProcessInfo:
        """Ends it with all that it started: by TERM, and by KILL after ``grace`` seconds."""
        return wait(self._told(self._native.stop(_check.seconds(grace, "grace", zero=True))))

    def kill(self) -> None:
        """Kills it with all that it started."""
        wait(only(self._native.kill()))

    def signal(self, number: int) -> None:
        """Sends a signal to its process group."""
        wait(only(self._native.signal(_check.integer(number, "number", 1, 64))))

    def attach(self, terminal: tuple[int, int] | None = None) -> Stream:
        """Joins in with a process that has a terminal: what it showed last, then what it shows.

        What is written to the stream is typed. ``terminal`` is its rows and columns from now on. Leaving the
        stream leaves the process as it is.
        """
        return Stream(wait(self._attach(terminal)))

    def set_keep_alive(self, keep: bool) -> None:
        """Says whether the container does not stop by itself while it runs."""
        wait(only(self._native.set_keep_alive(bool(keep))))

    def forget(self) -> None:
        """Forgets it and its log, when it has ended."""
        wait(only(self._native.forget()))

    def logs(self, *, tail: int | None = None, stream: str | None = None) -> str:
        """What it has written so far."""
        return wait(self._text(tail, stream))

    def follow(self, *, tail: int | None = None, stream: str | None = None) -> Iterator[tuple[str, bytes]]:
        """What it writes, until it has ended."""
        logs = wait(self._follow(tail, stream))
        while (piece := logs.next().wait()) is not None:
            yield piece

    def wait_for_log(self, text: str, timeout: Seconds = 30.0) -> str:
        """Waits for a line with a text in it, and gives the line."""
        limit = _check.seconds(timeout, "timeout")
        return wait(only(self._native.wait_for_log(_check.text(text, "text"), limit)))


class AsyncProcess(_ProcessCalls):
    """A program in the background of a container; as :class:`Process`, with coroutines."""

    async def info(self) -> ProcessInfo:
        """What is known of it."""
        return await finish(self._told(self._native.info()))

    async def wait(self) -> ProcessInfo:
        """Waits until it has ended, and is not begun again."""
        return await finish(self._told(self._native.wait()))

    async def stop(self, grace: Seconds = 2.0) -> ProcessInfo:
        """Ends it with all that it started: by TERM, and by KILL after ``grace`` seconds."""
        return await finish(self._told(self._native.stop(_check.seconds(grace, "grace", zero=True))))

    async def kill(self) -> None:
        """Kills it with all that it started."""
        await finish(only(self._native.kill()))

    async def signal(self, number: int) -> None:
        """Sends a signal to its process group."""
        await finish(only(self._native.signal(_check.integer(number, "number", 1, 64))))

    async def attach(self, terminal: tuple[int, int] | None = None) -> AsyncStream:
        """Joins in with a process that has a terminal: what it showed last, then what it shows.

        What is written to the stream is typed. ``terminal`` is its rows and columns from now on. Leaving the
        stream leaves the process as it is.
        """
        return AsyncStream(await finish(self._attach(terminal)))

    async def set_keep_alive(self, keep: bool) -> None:
        """Says whether the container does not stop by itself while it runs."""
        await finish(only(self._native.set_keep_alive(bool(keep))))

    async def forget(self) -> None:
        """Forgets it and its log, when it has ended."""
        await finish(only(self._native.forget()))

    async def logs(self, *, tail: int | None = None, stream: str | None = None) -> str:
        """What it has written so far."""
        return await finish(self._text(tail, stream))

    async def follow(
        self, *, tail: int | None = None, stream: str | None = None
    ) -> AsyncIterator[tuple[str, bytes]]:
        """What it writes, until it has ended."""
        logs = await finish(self._follow(tail, stream))
        while (piece := await finish(only(logs.next()))) is not None:
            yield piece

    async def wait_for_log(self, text: str, timeout: Seconds = 30.0) -> str:
        """Waits for a line with a text in it, and gives the line."""
        limit = _check.seconds(timeout, "timeout")
        return await finish(only(self._native.wait_for_log(_check.text(text, "text"), limit)))
