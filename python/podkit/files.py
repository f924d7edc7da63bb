"""Files of a sandbox."""

from __future__ import annotations

import os

from . import _check, _spec
from ._calls import finish, only, wait
from ._options import _path
from .results import FileInfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._calls import Steps
    from ._native import Files as NativeFiles

    Content = str | bytes | bytearray | memoryview

__all__ = ["AsyncFiles", "Files"]


def _transferred(report: dict[str, Any]) -> int:
    if report["failed"]:
        raise report["failed"][0]
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

    def _download(self, source: Any, target: Any) -> Steps[int]:
        return _transferred((yield self._native.download(_path(source, "source"), _path(target, "target"))))


class Files(_FileCalls):
    """The files of a container. Relative paths are in ``/workspace``."""

    def read(self, path: str | os.PathLike[str], *, offset: int = 0, limit: int | None = None) -> bytes:
        """The bytes of a file, or a part of them."""
        return wait(self._read(path, offset, limit))

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
        wait(self._write(path, content, mode, parents, False))

    def append(self, path: str | os.PathLike[str], content: Content) -> None:
        """Adds to the end of a file, which is made if it is missing."""
        wait(self._write(path, content, None, True, True))

    def list(self, path: str | os.PathLike[str] = ".") -> list[FileInfo]:
        """What is in a directory, by name."""
        return wait(self._list(path))

    def stat(self, path: str | os.PathLike[str]) -> FileInfo:
        """Facts about a file; a link is not followed."""
        return wait(self._stat(path))

    def exists(self, path: str | os.PathLike[str]) -> bool:
        """Whether there is something at a path."""
        return wait(only(self._native.exists(_path(path))))

    def make_dir(self, path: str | os.PathLike[str], *, parents: bool = True) -> None:
        """Makes a directory; with ``parents``, one that exists is fine."""
        wait(only(self._native.make_dir(_path(path), bool(parents))))

    def rename(self, source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
        """Renames a file or directory; a file at the target is replaced."""
        wait(only(self._native.rename(_path(source, "source"), _path(target, "target"))))

    def remove(self, path: str | os.PathLike[str], *, recursive: bool = False) -> None:
        """Removes a file or an empty directory, or all that is in one."""
        wait(only(self._native.remove(_path(path), bool(recursive))))

    def upload(self, source: str | os.PathLike[str], target: str | os.PathLike[str]) -> int:
        """Copies a file or a tree of this machine's into the container; gives the number of bytes."""
        return wait(self._upload(source, target))

    def download(self, source: str | os.PathLike[str], target: str | os.PathLike[str]) -> int:
        """Copies a file or a tree of the container's to this machine; gives the number of bytes."""
        return wait(self._download(source, target))


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
