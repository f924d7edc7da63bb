"""Commands under way, and ports that are connected to this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from . import _check
from ._calls import finish, only
from .errors import InvalidInputError
from .results import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._native import Running

    Content = str | bytes | bytearray | memoryview

__all__ = ["AsyncStream", "Forwarding", "Stream"]


class Stream:
    """A command that runs: an iterator of ``("stdout", bytes)`` and ``("stderr", bytes)``.

    It is a context manager, which ends the command when it is left. Output that is not taken
    holds the command back.
    """

    def __init__(self, native: Running) -> None:
        self._native: Running | None = native
        self._result: Exit | None = None
        #: The command's pid in the container.
        self.pid = native.pid

    def _alive(self) -> Running:
        if self._native is None:
            raise InvalidInputError("the stream was closed")
        return self._native

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        return self

    def __next__(self) -> tuple[str, bytes]:
        found = _piece(self, None if self._native is None else self._native.next().wait())
        while found is None:
            found = _piece(self, self._alive().next().wait())
        return found

    def write(self, content: Content) -> None:
        """Sends bytes to standard input, as fast as the command reads them."""
        self._alive().write_stdin(_check.content(content, "content")).wait()

    def close_stdin(self) -> None:
        """Ends standard input."""
        self._alive().close_stdin().wait()

    def signal(self, number: int) -> None:
        """Sends a signal to the command's process group."""
        self._alive().signal(_check.integer(number, "number", 1, 64)).wait()

    def kill(self) -> None:
        """Kills the command with all that it started."""
        self._alive().kill().wait()

    def resize(self, rows: int, columns: int) -> None:
        """Changes the size of the command's terminal."""
        size = _check.integer(rows, "rows", 1, 65535), _check.integer(columns, "columns", 1, 65535)
        self._alive().resize(*size).wait()

    def wait(self) -> Exit:
        """Waits for the end, dropping what output is left."""
        if self._native is not None:
            self.close_stdin()
        for _ in self:
            pass
        if self._result is None:
            raise InvalidInputError("the stream was closed before the command had ended")
        return self._result

    @property
    def result(self) -> Exit | None:
        """How it ended, once it has."""
        return self._result

    def close(self) -> None:
        """Ends the command, unless it is detached."""
        self._native = None

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _piece(stream: Stream | AsyncStream, event: tuple[str, Any] | None) -> tuple[str, bytes] | None:
    """Output, or nothing for what is not; notes the end."""
    if event is None:
        raise StopIteration
    name, value = event
    if name in ("stdout", "stderr"):
        return name, value
    if name == "exited":
        stream._result = Exit(value)
        raise StopIteration
    return None


class Forwarding:
    """A port of this machine that leads into a container, until it is closed."""

    def __init__(self, native: Any) -> None:
        self._native = native
        #: Address and number here.
        self.address: tuple[str, int] = native.address

    @property
    def port(self) -> int:
        """The number here."""
        return self.address[1]

    def close(self) -> None:
        """Ends it."""
        self._native.close()

    def __enter__(self) -> Forwarding:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncStream:
    """A command that runs; as :class:`Stream`, for ``async for`` and ``async with``."""

    def __init__(self, native: Running) -> None:
        self._native: Running | None = native
        self._result: Exit | None = None
        #: The command's pid in the container.
        self.pid = native.pid

    def _alive(self) -> Running:
        if self._native is None:
            raise InvalidInputError("the stream was closed")
        return self._native

    def __aiter__(self) -> AsyncIterator[tuple[str, bytes]]:
        return self

    async def __anext__(self) -> tuple[str, bytes]:
        try:
            found = None
            while found is None:
                event = None
                if self._native is not None and self._result is None:
                    event = await finish(only(self._native.next()))
                found = _piece(self, event)
            return found
        except StopIteration:
            pass
        raise StopAsyncIteration

    async def write(self, content: Content) -> None:
        """Sends bytes to standard input, as fast as the command reads them."""
        await finish(only(self._alive().write_stdin(_check.content(content, "content"))))

    async def close_stdin(self) -> None:
        """Ends standard input."""
        await finish(only(self._alive().close_stdin()))

    async def signal(self, number: int) -> None:
        """Sends a signal to the command's process group."""
        await finish(only(self._alive().signal(_check.integer(number, "number", 1, 64))))

    async def kill(self) -> None:
        """Kills the command with all that it started."""
        await finish(only(self._alive().kill()))

    async def resize(self, rows: int, columns: int) -> None:
        """Changes the size of the command's terminal."""
        size = _check.integer(rows, "rows", 1, 65535), _check.integer(columns, "columns", 1, 65535)
        await finish(only(self._alive().resize(*size)))

    async def wait(self) -> Exit:
        """Waits for the end, dropping what output is left."""
        if self._native is not None:
            await self.close_stdin()
        async for _ in self:
            pass
        if self._result is None:
            raise InvalidInputError("the stream was closed before the command had ended")
        return self._result

    @property
    def result(self) -> Exit | None:
        """How it ended, once it has."""
        return self._result

    def close(self) -> None:
        """Ends the command, unless it is detached."""
        self._native = None

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
