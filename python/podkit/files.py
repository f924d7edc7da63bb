"""Files of a sandbox."""

from __future__ import annotations

import os
from contextlib import nullcontext

from . import _check, _spec
from ._calls import finish, only, wait
from ._options import _path
from .errors import PodkitError
from .results import DiskUsage, FileInfo
from .transfers import AsyncByteStream, AsyncFileWatch, ByteStream, FileWatch, feed, feed_async

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterable
    from typing import IO, Any, TypeVar

    from ._calls import Steps
    from ._native import Files as NativeFiles
    from ._native import Sink
    from .transfers import Use

    Source = bytes | bytearray | memoryview | str | os.PathLike[str] | IO[bytes] | Iterable[bytes]

    Content = str | bytes | bytearray | memoryview
    T = TypeVar("T")

__all__ = ["AsyncFiles", "Files"]


def _transferred(report: dict[str, Any]) -> int:
    failed: list[PodkitError] = report["failed"]
    if failed:
        count, first = len(failed) + report["failed_more"], failed[0]
        text = f"{count} entries were not transferred; the first of them: {first.text}"
        raise type(first)(text, kind=first.kind, hint=first.hint, operation=first.operation)
    return int(report["bytes"])


class _FileCalls:
    def __init__(self, native: NativeFiles) -> None:
        self._native = native

    def _read(self, path: Any, offset: Any, limit: Any) -> Steps[bytes]:
        return only(
            self._native.read(
                _path(path),
                offset=_check.integer(offset, "offset", 0, _spec.NO_LIMIT),
                limit=_check.maybe_integer(limit, "limit", 0, _spec.NO_LIMIT),
            )
        )

    def _write(self, path: Any, content: Any, mode: Any, parents: Any, append: bool) -> Steps[None]:
        return only(
            self._native.write(
                _path(path),
                _check.content(content, "content"),
                mode=_check.maybe_integer(mode, "mode", 0, 0o7777),
                parents=bool(parents),
                append=append,
            )
        )

    def _list(self, path: Any) -> Steps[list[FileInfo]]:
        found = yield self._native.list(_path(path))
        return [FileInfo(facts) for facts in found]

    def _stat(self, path: Any) -> Steps[FileInfo]:
        return FileInfo((yield self._native.stat(_path(path))))

    def _upload(self, source: Any, target: Any) -> Steps[int]:
        return _transferred((yield self._native.upload(_path(source, "source"), _path(target, "target"))))

    def _read_stream(self, path: Any, offset: Any, limit: Any) -> Steps[Any]:
        offset = _check.integer(offset, "offset", 0, _spec.NO_LIMIT)
        limit = _check.maybe_integer(limit, "limit", 0, _spec.NO_LIMIT)
        return only(self._native.read_stream(_path(path), offset=offset, limit=limit))

    def _write_stream(self, path: Any, mode: Any, parents: Any, append: Any) -> Sink:
        mode = _check.maybe_integer(mode, "mode", 0, 0o7777)
        return self._native.write_stream(_path(path), mode=mode, parents=bool(parents), append=bool(append))

    def _usage(self, path: Any) -> Steps[DiskUsage]:
        return DiskUsage((yield self._native.disk_usage(_path(path))))

    def _watch(self, path: Any, recursive: Any) -> Steps[Any]:
        return only(self._native.watch(_path(path), bool(recursive)))

    def _download(self, source: Any, target: Any) -> Steps[int]:
        return _transferred((yield self._native.download(_path(source, "source"), _path(target, "target"))))


class Files(_FileCalls):
    """The files of a container. Relative paths are in ``/workspace``."""

    def __init__(self, native: NativeFiles, use: Use = nullcontext) -> None:
        super().__init__(native)
        self._use = use

    def _wait(self, steps: Steps[T]) -> T:
        with self._use():
            return wait(steps)

    def read(self, path: str | os.PathLike[str], *, offset: int = 0, limit: int | None = None) -> bytes:
        """The bytes of a file, or a part of them."""
        return self._wait(self._read(path, offset, limit))

    def read_text(self, path: str | os.PathLike[str]) -> str:
        """The text of a file, which is UTF-8."""
        return self.read(path).decode()

    def write(
        self,
        path: str | os.PathLike[str],
        content: Content,
        *,
        mode: int | None = None,
        parents: bool = True,
    ) -> None:
        """Replaces a file at once; missing directories above it are made."""
        self._wait(self._write(path, content, mode, parents, False))

    def append(self, path: str | os.PathLike[str], content: Content) -> None:
        """Adds to the end of a file, which is made if it is missing."""
        self._wait(self._write(path, content, None, True, True))

    def list(self, path: str | os.PathLike[str] = ".") -> list[FileInfo]:
        """What is in a directory, by name."""
        return self._wait(self._list(path))

    def stat(self, path: str | os.PathLike[str]) -> FileInfo:
        """Facts about a file; a link is not followed."""
        return self._wait(self._stat(path))

    def exists(self, path: str | os.PathLike[str]) -> bool:
        """Whether there is something at a path."""
        return self._wait(only(self._native.exists(_path(path))))

    def make_dir(self, path: str | os.PathLike[str], *, parents: bool = True) -> None:
        """Makes a directory; with ``parents``, one that exists is fine."""
        self._wait(only(self._native.make_dir(_path(path), bool(parents))))

    def rename(self, source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
        """Renames a file or directory; a file at the target is replaced."""
        self._wait(only(self._native.rename(_path(source, "source"), _path(target, "target"))))

    def remove(self, path: str | os.PathLike[str], *, recursive: bool = False) -> None:
        """Removes a file or an empty directory, or all that is in one."""
        self._wait(only(self._native.remove(_path(path), bool(recursive))))

    def upload(self, source: str | os.PathLike[str], target: str | os.PathLike[str]) -> int:
        """Copies a file or a tree of this machine's into the container; gives the number of bytes."""
        return self._wait(self._upload(source, target))

    def download(self, source: str | os.PathLike[str], target: str | os.PathLike[str]) -> int:
        """Copies a file or a tree of the container's to this machine; gives the number of bytes."""
        return self._wait(self._download(source, target))

    def read_stream(
        self, path: str | os.PathLike[str], *, offset: int = 0, limit: int | None = None
    ) -> ByteStream:
        """A file of any size, or a part of it, as it is read from."""
        return ByteStream(self._wait(self._read_stream(path, offset, limit)), self._use)

    def write_stream(
        self,
        path: str | os.PathLike[str],
        source: Source,
        *,
        mode: int | None = None,
        parents: bool = True,
        append: bool = False,
    ) -> int:
        """Replaces a file by what a source gives, of any size; gives the number of bytes.

        A source is the path of a file of this machine's, an open file, bytes, or an iterable of them. The file
        is as it was when the source fails.
        """
        return int(self._wait(feed(self._write_stream(path, mode, parents, append), source, "source")))

    def archive(self, path: str | os.PathLike[str] = ".") -> ByteStream:
        """A file, or a directory with all below it, as a tar archive, as it is read from."""
        return ByteStream(self._wait(only(self._native.archive(_path(path)))), self._use)

    def extract(self, target: str | os.PathLike[str], source: Source) -> int:
        """Makes in a directory what a tar archive holds, which is not compressed; gives its size in bytes.

        A source is the path of a file of this machine's, an open file, bytes, or an iterable of them.
        """
        return _transferred(
            self._wait(feed(self._native.extract(_path(target, "target")), source, "source", True))
        )

    def disk_usage(self, path: str | os.PathLike[str] = ".") -> DiskUsage:
        """What a file, or a directory with all below it, takes."""
        return self._wait(self._usage(path))

    def watch(self, path: str | os.PathLike[str] = ".", *, recursive: bool = False) -> FileWatch:
        """Watches a directory from now on, with ``recursive`` also all below it."""
        return FileWatch(wait(self._watch(path, recursive)))


class AsyncFiles(_FileCalls):
    """The files of a container; as :class:`Files`, with coroutines."""

    async def read(self, path: str | os.PathLike[str], *, offset: int = 0, limit: int | None = None) -> bytes:
        """The bytes of a file, or a part of them."""
        return await finish(self._read(path, offset, limit))

    async def read_text(self, path: str | os.PathLike[str]) -> str:
        """The text of a file, which is UTF-8."""
        return (await self.read(path)).decode()

    async def write(
        self,
        path: str | os.PathLike[str],
        content: Content,
        *,
        mode: int | None = None,
        parents: bool = True,
    ) -> None:
        """Replaces a file at once; missing directories above it are made."""
        await finish(self._write(path, content, mode, parents, False))

    async def append(self, path: str | os.PathLike[str], content: Content) -> None:
        """Adds to the end of a file, which is made if it is missing."""
        await finish(self._write(path, content, None, True, True))

    async def list(self, path: str | os.PathLike[str] = ".") -> list[FileInfo]:
        """What is in a directory, by name."""
        return await finish(self._list(path))

    async def stat(self, path: str | os.PathLike[str]) -> FileInfo:
        """Facts about a file; a link is not followed."""
        return await finish(self._stat(path))

    async def exists(self, path: str | os.PathLike[str]) -> bool:
        """Whether there is something at a path."""
        return await finish(only(self._native.exists(_path(path))))

    async def make_dir(self, path: str | os.PathLike[str], *, parents: bool = True) -> None:
        """Makes a directory; with ``parents``, one that exists is fine."""
        await finish(only(self._native.make_dir(_path(path), bool(parents))))

    async def rename(self, source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
        """Renames a file or directory; a file at the target is replaced."""
        await finish(only(self._native.rename(_path(source, "source"), _path(target, "target"))))

    async def remove(self, path: str | os.PathLike[str], *, recursive: bool = False) -> None:
        """Removes a file or an empty directory, or all that is in one."""
        await finish(only(self._native.remove(_path(path), bool(recursive))))

    async def upload(self, source: str | os.PathLike[str], target: str | os.PathLike[str]) -> int:
        """Copies a file or a tree of this machine's into the container; gives the number of bytes."""
        return await finish(self._upload(source, target))

    async def download(self, source: str | os.PathLike[str], target: str | os.PathLike[str]) -> int:
        """Copies a file or a tree of the container's to this machine; gives the number of bytes."""
        return await finish(self._download(source, target))

    async def read_stream(
        self, path: str | os.PathLike[str], *, offset: int = 0, limit: int | None = None
    ) -> AsyncByteStream:
        """A file of any size, or a part of it, as it is read from."""
        return AsyncByteStream(await finish(self._read_stream(path, offset, limit)))

    async def write_stream(
        self,
        path: str | os.PathLike[str],
        source: Source | AsyncIterable[bytes],
        *,
        mode: int | None = None,
        parents: bool = True,
        append: bool = False,
    ) -> int:
        """Replaces a file by what a source gives, of any size; gives the number of bytes.

        A source is the path of a file of this machine's, an open file, bytes, or an iterable of them, asynchronous or not. The file
        is as it was when the source fails.
        """
        return int(await feed_async(self._write_stream(path, mode, parents, append), source, "source"))

    async def archive(self, path: str | os.PathLike[str] = ".") -> AsyncByteStream:
        """A file, or a directory with all below it, as a tar archive, as it is read from."""
        return AsyncByteStream(await finish(only(self._native.archive(_path(path)))))

    async def extract(self, target: str | os.PathLike[str], source: Source | AsyncIterable[bytes]) -> int:
        """Makes in a directory what a tar archive holds, which is not compressed; gives its size in bytes.

        A source is the path of a file of this machine's, an open file, bytes, or an iterable of them, asynchronous or not.
        """
        return _transferred(
            await feed_async(self._native.extract(_path(target, "target")), source, "source", True)
        )

    async def disk_usage(self, path: str | os.PathLike[str] = ".") -> DiskUsage:
        """What a file, or a directory with all below it, takes."""
        return await finish(self._usage(path))

    async def watch(self, path: str | os.PathLike[str] = ".", *, recursive: bool = False) -> AsyncFileWatch:
        """Watches a directory from now on, with ``recursive`` also all below it."""
        return AsyncFileWatch(await finish(self._watch(path, recursive)))
