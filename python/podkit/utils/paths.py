"""Paths of the container's and of this machine's."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from .. import _check
from ..constants import CONTAINER_WORKSPACE_PATH, WORKSPACE_SUBDIRECTORY
from ..errors import InvalidInputError

__all__ = [
    "container_to_host_path",
    "get_workspace_path",
    "host_to_container_path",
    "normalize_container_path",
    "write_to_mounted_path",
]

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._@+=-")


def normalize_container_path(path: Path | str) -> Path:
    """A relative path is in ``/workspace``; an absolute one is as it is. Text only."""
    text = _check.text(path, "path")
    return Path(text) if text.startswith("/") else Path(CONTAINER_WORKSPACE_PATH) / text


def _below(path: Path | str, base: Path | str, name: str) -> PurePosixPath:
    """What of a path is below another one; `..` leads nowhere."""
    text, root = PurePosixPath(_check.text(path, name)), PurePosixPath(str(base))
    try:
        rest = text.relative_to(root)
    except ValueError:
        raise InvalidInputError(f"`{name}`: {str(path)!r} is not in {str(base)!r}") from None
    if ".." in rest.parts:
        raise InvalidInputError(f"`{name}`: {str(path)!r} leads out of {str(base)!r}")
    return rest


def container_to_host_path(
    container_path: Path | str,
    workspace_base: Path | str,
    container_workspace: Path | str = CONTAINER_WORKSPACE_PATH,
) -> Path:
    """Where this machine has what the container has in its workspace. Text only.

    Raises:
        InvalidInputError: the path is not in the workspace (a ``ValueError``).
    """
    normal = normalize_container_path(container_path)
    return Path(workspace_base) / _below(normal, container_workspace, "container_path")


def host_to_container_path(
    host_path: Path | str,
    workspace_base: Path | str,
    container_workspace: Path | str = CONTAINER_WORKSPACE_PATH,
) -> Path:
    """Where the container has what this machine has in a workspace. Text only.

    Raises:
        InvalidInputError: the path is not in the workspace (a ``ValueError``).
    """
    return Path(container_workspace) / _below(host_path, workspace_base, "host_path")


def encoded_id(value: str, name: str) -> str:
    """An id as the name of a directory: what is not plain is percent-encoded."""
    text = _check.text(value, name)
    if text in (".", ".."):
        raise _check.bad(name, f"is {text!r}, which is no id")
    return "".join(
        character if character in _PLAIN else "".join(f"%{byte:02X}" for byte in character.encode())
        for character in text
    )


def get_workspace_path(workspace_base: Path | str, user_id: str, session_id: str) -> Path:
    """The directory of a session in a workspace. Ids are encoded, so that none leads elsewhere."""
    user, session = encoded_id(user_id, "user_id"), encoded_id(session_id, "session_id")
    return Path(_check.text(workspace_base, "workspace_base")) / WORKSPACE_SUBDIRECTORY / user / session


def write_to_mounted_path(
    container_path: Path | str, content: str | bytes, to_host_path_fn: Callable[[Path], Path]
) -> Path:
    """Writes a file of a mounted workspace on this machine, and gives the container's path of it.

    Links are not followed: they are made by what runs in the container.
    """
    normal = normalize_container_path(container_path)
    target = Path(to_host_path_fn(normal))
    rest = _below(normal, CONTAINER_WORKSPACE_PATH, "container_path")
    if not rest.parts:
        raise InvalidInputError("`container_path` is the workspace itself, not a file in it")
    data = _check.content(content, "content")
    base = target
    for _ in rest.parts:
        base = base.parent
    if base.joinpath(*rest.parts) != target:
        raise InvalidInputError(f"`to_host_path_fn` gave {str(target)!r}, which does not end in {rest}")
    _write_below(base, rest.parts, data)
    return normal


def _write_below(base: Path, parts: tuple[str, ...], data: bytes) -> None:
    base.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    directory = os.open(base, flags)
    try:
        for part in parts[:-1]:
            try:
                os.mkdir(part, dir_fd=directory)
            except FileExistsError:
                pass
            inner = _open_plain(part, flags, directory)
            os.close(directory)
            directory = inner
        file = _open_plain(parts[-1], os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, directory)
        with os.fdopen(file, "wb") as stream:
            if not os.path.isfile(f"/proc/self/fd/{file}"):
                raise InvalidInputError(f"{parts[-1]!r} is not a file")
            stream.truncate(0)
            stream.write(data)
    finally:
        os.close(directory)


def _open_plain(name: str, flags: int, directory: int) -> int:
    import errno

    try:
        return os.open(name, flags | os.O_NOFOLLOW, 0o666, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise InvalidInputError(f"{name!r} is a link or not a directory, and is not followed") from None
        raise InvalidInputError(f"{name!r} cannot be written: {error.strerror}") from error
