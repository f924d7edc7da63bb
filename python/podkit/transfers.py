"""Bytes piece by piece, and changes of files as they happen."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from contextlib import nullcontext

from . import _check
from ._calls import finish, only
from .errors import InvalidInputError, NotFoundError, PermissionDeniedError, PodkitError
from .results import FileChange

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from typing import Any

    from ._calls import Steps
    from ._native import Sink
    from ._native import Source as NativeSource
    from ._native import Watch as NativeWatch

    #: What holds while something is used.
    Use = Callable[[], AbstractContextManager[object]]

__all__ = ["AsyncByteStream", "AsyncFileWatch", "ByteStream", "FileWatch"]

#: Bytes that are read from a source at once.
_PIECE = 256 * 1024


def _failed(name: str, error: OSError, done: str = "read") -> PodkitError:
    """What this machine's files refuse, as podkit's own exception."""
    kinds: list[tuple[type[OSError], type[PodkitError]]] = [
        (FileNotFoundError, NotFoundError),
        (PermissionError, PermissionDeniedError),
        (IsADirectoryError, InvalidInputError),
    ]
    made = next((mine for theirs, mine in kinds if isinstance(error, theirs)), PodkitError)
    return made(f"`{name}` cannot be {done}: {error}")


def pieces(source: Any, name: str) -> Iterator[bytes]:
    """The bytes of a source: bytes, a path, an open file, or an iterable of bytes."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        whole = memoryview(source).cast("B")
        for start in range(0, len(whole), _PIECE):
            yield bytes(whole[start : start + _PIECE])
        return
    try:
        if isinstance(source, (str, os.PathLike)):
            with open(_check.text(source, name), "rb") as file:
                while piece := file.read(_PIECE):
                    yield piece
        elif hasattr(source, "read"):
            while piece := _piece(source.read(_PIECE), name):
                yield piece
        elif isinstance(source, Iterable) and not isinstance(source, Mapping):
            for piece in source:
                yield _piece(piece, name)
        else:
            text = (
                f"must be bytes, a path, an open file or an iterable of bytes, not {_check.kind_of(source)}"
            )
            raise _check.bad(name, text)
    except OSError as error:
        raise _failed(name, error) from error


def _piece(value: Any, name: str) -> bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise _check.bad(name, f"must give bytes, not {_check.kind_of(value)}", "open the file with mode 'rb'")


#: How archives begin that are compressed.
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ": "lzma", b"\x28\xb5\x2f\xfd": "a zstd library"}


def _unpacked(piece: bytes, name: str) -> None:
    """Refuses an archive that is compressed, by its first bytes."""
    for begin, how in _COMPRESSED.items():
        if piece.startswith(begin):
            raise _check.bad(name, "is compressed", f"give what {how} makes of it, as an open file")


async def pieces_async(source: Any, name: str) -> AsyncIterator[bytes]:
    """As :func:`pieces`, also of asynchronous iterables and streams; files are read in a thread."""
    if isinstance(source, AsyncIterable) and not hasattr(source, "read"):
        async for piece in source:
            yield _piece(piece, name)
        return
    if hasattr(source, "read") and not isinstance(source, (str, os.PathLike)):
        import inspect

        if inspect.iscoroutinefunction(source.read):
            while piece := _piece(await source.read(_PIECE), name):
                yield piece
            return
    import asyncio

    found = pieces(source, name)
    loop = asyncio.get_running_loop()
    while (piece := await loop.run_in_executor(None, next, found, None)) is not None:
        yield piece


def feed(sink: Sink, source: Any, name: str, archive: bool = False) -> Steps[Any]:
    """Writes a source, which may have to be an archive, to what takes it, and gives what becomes of it."""
    try:
        for piece in pieces(source, name):
            if archive:
                _unpacked(piece, name)
                archive = False
            if not (yield sink.write(piece)):
                break
        return (yield sink.finish())
    except BaseException:
        sink.give_up()
        raise


async def feed_async(sink: Sink, source: Any, name: str, archive: bool = False) -> Any:
    """As :func:`feed`."""
    try:
        async for piece in pieces_async(source, name):
            if archive:
                _unpacked(piece, name)
                archive = False
            if not await finish(only(sink.write(piece))):
                break
        return await finish(only(sink.finish()))
    except BaseException:
        sink.give_up()
        raise


class ByteStream:
    """Bytes as they come: an iterator of pieces, and a file that is read from its beginning to its end.

    >>> import tarfile
    >>> from podkit import Sandbox
    >>> with Sandbox() as sandbox:
    ...     sandbox.files.write("a/b.txt", "hi")
    ...     with sandbox.files.archive("a") as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
    ...         print([member.name for member in tar])
    ['.', 'b.txt']
    """

    def __init__(self, native: NativeSource, use: Use = nullcontext) -> None:
        self._native: NativeSource | None = native
        self._use = use
        self._rest = b""

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._rest:
            piece, self._rest = self._rest, b""
            return piece
        with self._use():
            found = None if self._native is None else self._native.next().wait()
        if found is None:
            self._native = None
            raise StopIteration
        return found

    def read(self, size: int = -1) -> bytes:
        """So many bytes, or fewer at the end; all that are left without a number."""
        size = _check.integer(-1 if size is None else size, "size", -1, 2**63)
        found, count = [], 0
        while size < 0 or count < size:
            piece = next(self, None)
            if piece is None:
                break
            found.append(piece)
            count += len(piece)
        whole = found[0] if len(found) == 1 else b"".join(found)
        if 0 <= size < len(whole):
            whole, self._rest = whole[:size], whole[size:] + self._rest
        return whole

    def save(self, path: str | os.PathLike[str]) -> int:
        """Writes all that is left to a file of this machine's; gives the number of bytes."""
        count = 0
        try:
            with open(_check.text(path, "path"), "wb") as file:
                for piece in self:
                    count += file.write(piece)
        except OSError as error:
            raise _failed("path", error, "written") from error
        return count

    def close(self) -> None:
        """Ends it."""
        self._native, self._rest = None, b""

    def __enter__(self) -> ByteStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncByteStream:
    """Bytes as they come; as :class:`ByteStream`, for ``async for`` and ``async with``."""

    def __init__(self, native: NativeSource) -> None:
        self._native: NativeSource | None = native

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        found = None if self._native is None else await finish(only(self._native.next()))
        if found is None:
            self._native = None
            raise StopAsyncIteration
        return found

    async def read(self) -> bytes:
        """All that is left."""
        return b"".join([piece async for piece in self])

    async def save(self, path: str | os.PathLike[str]) -> int:
        """Writes all that is left to a file of this machine's; gives the number of bytes."""
        import asyncio

        loop, count = asyncio.get_running_loop(), 0
        try:
            with open(_check.text(path, "path"), "wb") as file:
                async for piece in self:
                    count += await loop.run_in_executor(None, file.write, piece)
        except OSError as error:
            raise _failed("path", error, "written") from error
        return count

    def close(self) -> None:
        """Ends it."""
        self._native = None

    async def __aenter__(self) -> AsyncByteStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


class FileWatch:
    """Changes below a directory, as they happen: an iterator of :class:`podkit.results.FileChange`.

    It ends when the directory is gone, or when it is closed. To be watched is no use of a sandbox: it stops
    by itself all the same.

    >>> from podkit import Sandbox
    >>> with Sandbox() as sandbox, sandbox.files.watch(".") as watch:
    ...     sandbox.files.make_dir("new")
    ...     change = next(watch)
    ...     print(change.kind, change.path)
    created new
    """

    def __init__(self, native: NativeWatch) -> None:
        self._native: NativeWatch | None = native

    def __iter__(self) -> Iterator[FileChange]:
        return self

    def __next__(self) -> FileChange:
        facts = None if self._native is None else self._native.next().wait()
        if facts is None:
            self._native = None
            raise StopIteration
        return FileChange(facts)

    def close(self) -> None:
        """Ends it."""
        self._native = None

    def __enter__(self) -> FileWatch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncFileWatch:
    """Changes below a directory; as :class:`FileWatch`, for ``async for`` and ``async with``."""

    def __init__(self, native: NativeWatch) -> None:
        self._native: NativeWatch | None = native

    def __aiter__(self) -> AsyncIterator[FileChange]:
        return self

    async def __anext__(self) -> FileChange:
        facts = None if self._native is None else await finish(only(self._native.next()))
        if facts is None:
            self._native = None
            raise StopAsyncIteration
        return FileChange(facts)

    def close(self) -> None:
        """Ends it."""
        self._native = None

    async def __aenter__(self) -> AsyncFileWatch:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
