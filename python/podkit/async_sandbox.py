"""Sandboxes for asyncio."""

from __future__ import annotations

import builtins
import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path

from . import _check
from ._calls import finish, only
from ._opened import _list, _Opened, _remove, _split
from .errors import PodkitError
from .files import AsyncFiles
from .handles import AsyncProcess
from .results import Event, Port, ProcessInfo, Result, SandboxInfo, Stats
from .sandbox import _limits
from .streams import AsyncStream, Forwarding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import timedelta
    from typing import Any

    from ._calls import Steps
    from ._native import Call
    from ._native import Events as NativeEvents
    from ._native import Podkit as NativePodkit
    from .async_podkit import AsyncPodkit

    Command = Sequence[str | bytes | os.PathLike[str]]
    Content = str | bytes | bytearray | memoryview
    Seconds = float | timedelta

__all__ = ["AsyncSandbox"]


class AsyncSandbox(_Opened):
    """One user's container, for asyncio. It is opened by its first use, or by ``async with``.

    Its arguments are those of :class:`Sandbox`; cancelling a call gives it up, and kills its command.
    """

    def __init__(
        self,
        user: str | None = None,
        session: str | None = None,
        *,
        backend: str | None = None,
        prefix: str | None = None,
        podkit: AsyncPodkit | None = None,
        image: str | None = None,
        cpus: float | None = None,
        memory: str | int | None = None,
        swap: str | int | None = None,
        shm: str | int | None = None,
        pids_max: int | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user_name: str | None = None,
        hostname: str | None = None,
        entrypoint: Sequence[str] | None = None,
        command: Sequence[str] | None = None,
        image_defaults: bool | None = None,
        mounts: Iterable[Any] | None = None,
        host_paths: Iterable[str | os.PathLike[str]] | None = None,
        ports: Iterable[int | str] | Mapping[int, int | None] | None = None,
        network: str | Iterable[str] | None = None,
        aliases: Iterable[str] | None = None,
        dns: Iterable[str] | None = None,
        hosts: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        read_only_root: bool | None = None,
        ulimits: Mapping[str, int | tuple[int, int]] | None = None,
        devices: Iterable[str] | None = None,
        gpus: int | str | Iterable[str] | None = None,
        runtime: str | None = None,
        platform: str | None = None,
        pull: str | None = None,
        auto_remove: bool | None = None,
        inherit_image: bool | None = None,
        inherit_networks: bool | None = None,
        add_capabilities: Iterable[str] | None = None,
        drop_capabilities: Iterable[str] | None = None,
        seccomp_unconfined: bool | None = None,
        allow_new_privileges: bool | None = None,
        isolation: str | None = None,
        workspace: str | os.PathLike[str] | None = None,
        workspace_host: str | os.PathLike[str] | None = None,
        auto_stop: Seconds | bool | None = None,
        idle_timeout: Seconds | bool | None = None,
        max_lifetime: Seconds | bool | None = None,
        exec_timeout: Seconds | bool | None = None,
        on_conflict: str = "fail",
        create: bool = True,
        keep: bool | None = None,
        ready_port: int | None = None,
        ready_path: str | None = None,
        ready_command: Sequence[str] | None = None,
        ready_timeout: Seconds = 30.0,
        startup_checks: int | None = None,
        startup_interval: Seconds = 1.0,
    ) -> None:
        super().__init__(user, session, *_split(locals()))

    @classmethod
    async def get_or_create(cls, user: str, session: str, **options: Any) -> AsyncSandbox:
        """The session's sandbox, made if it is missing."""
        made = cls(user, session, **options)
        await made.open()
        return made

    @classmethod
    async def connect(cls, user: str, session: str, **options: Any) -> AsyncSandbox:
        """The session's sandbox, which must exist."""
        return await cls.get_or_create(user, session, create=False, **options)

    @classmethod
    async def list(
        cls, *, user: str | None = None, backend: str | None = None, prefix: str | None = None
    ) -> list[SandboxInfo]:
        """The sessions of a prefix, or one user's."""
        return await finish(_list(user, backend, prefix))

    @classmethod
    async def remove(
        cls, user: str, session: str, *, backend: str | None = None, prefix: str | None = None
    ) -> bool:
        """Removes a session's container without opening it; gives whether there was one."""
        return await finish(_remove(user, session, backend, prefix))

    async def open(self) -> str:
        """Opens it now; gives how it came to be: ``created``, ``reconnected`` and so on."""
        return (await finish(self._session())).opened

    async def exec(
        self,
        command: Command,
        *,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        stdin: Content | None = None,
        timeout: Seconds | None = None,
        output_limit: int | None = None,
        merge_output: bool = False,
        check: bool = False,
    ) -> Result:
        """Runs a program, without a shell, to its end; see :meth:`Sandbox.exec`."""
        options = {
            "cwd": cwd,
            "env": env,
            "user": user,
            "stdin": stdin,
            "timeout": timeout,
            "output_limit": output_limit,
            "merge_output": merge_output,
            "check": check,
        }
        return await finish(self._run(_check.argv(command), options))

    async def shell(
        self,
        text: str,
        *,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        stdin: Content | None = None,
        timeout: Seconds | None = None,
        output_limit: int | None = None,
        merge_output: bool = False,
        check: bool = False,
    ) -> Result:
        """Runs a text with ``/bin/sh -c``; otherwise as :meth:`exec`."""
        options = {
            "cwd": cwd,
            "env": env,
            "user": user,
            "stdin": stdin,
            "timeout": timeout,
            "output_limit": output_limit,
            "merge_output": merge_output,
            "check": check,
        }
        return await finish(self._run(_check.shell_argv(text), options))

    async def stream(
        self,
        command: Command | str,
        *,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        stdin: Content | bool | None = None,
        timeout: Seconds | None = None,
        merge_output: bool = False,
        detached: bool = False,
        terminal: tuple[int, int] | None = None,
    ) -> AsyncStream:
        """Begins a command and gives its output while it runs; see :meth:`Sandbox.stream`."""
        options = {
            "cwd": cwd,
            "env": env,
            "user": user,
            "stdin": None if stdin is False else stdin,
            "timeout": timeout,
            "merge_output": merge_output,
            "detached": detached,
            "terminal": terminal,
        }
        argv = _check.shell_argv(command) if isinstance(command, str) else _check.argv(command)
        return AsyncStream(await finish(self._begin(argv, options)))

    async def spawn(
        self,
        command: Command | str,
        *,
        name: str | None = None,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        timeout: Seconds | None = None,
        merge_output: bool = False,
        keep_alive: bool = False,
        restart: str | tuple[str, int | None] | None = None,
        log_directory: str | None = None,
        log_limit: int | None = None,
        terminal: tuple[int, int] | None = None,
    ) -> AsyncProcess:
        """Begins a program in the background; see :meth:`Sandbox.spawn`."""
        options = {
            "name": name,
            "cwd": cwd,
            "env": env,
            "user": user,
            "timeout": timeout,
            "merge_output": merge_output,
            "keep_alive": keep_alive,
            "restart": restart,
            "log_directory": log_directory,
            "log_limit": log_limit,
            "terminal": terminal,
        }
        return AsyncProcess(await finish(self._spawn(command, options)))

    async def process(self, name: str) -> AsyncProcess:
        """The process of an id, or the newest of a name."""
        return AsyncProcess((await finish(self._session())).process(_check.text(name, "name")))

    async def processes(self) -> builtins.list[ProcessInfo]:
        """The background processes, those that have ended lately among them."""
        return await finish(self._processes())

    async def files(self, user: str | None = None) -> AsyncFiles:
        """The container's files, as its user or another one sees them."""
        session = await finish(self._session())
        return AsyncFiles(session.files(_check.maybe_text(user, "user")))

    async def read_file(self, path: str | os.PathLike[str]) -> bytes:
        """The bytes of a file."""
        return await (await self.files()).read(path)

    async def write_file(self, path: str | os.PathLike[str], content: Content) -> None:
        """Replaces a file at once; missing directories above it are made."""
        await (await self.files()).write(path, content)

    async def to_host_path(self, path: str | os.PathLike[str]) -> Path:
        """Where this program finds what the container has at a path in its workspace.

        Raises:
            InvalidInputError: the path is not in the workspace, or the sandbox has none on this machine.
        """
        return Path((await finish(self._session())).to_host_path(_check.text(path, "path")))

    async def to_container_path(self, path: str | os.PathLike[str]) -> Path:
        """Where the container has what this program has at a path in the workspace.

        Raises:
            InvalidInputError: the path is not in the workspace, or the sandbox has none on this machine.
        """
        return Path((await finish(self._session())).to_container_path(_check.text(path, "path")))

    async def url(self, port: int) -> str:
        """Where a published port of the container is found."""
        return await finish(self._of_session("url", _check.port(port)))

    async def ports(self) -> builtins.list[Port]:
        """The published ports."""
        return await finish(self._ports())

    async def listening_ports(self) -> builtins.list[dict[str, Any]]:
        """What listens in the container, published or not: port, address, pid, name."""
        return await finish(self._of_session("listening_ports"))

    async def wait_for_port(self, port: int, timeout: Seconds = 30.0) -> None:
        """Waits until something listens at a port of the container's."""
        limit = _check.seconds(timeout, "timeout")
        await finish(self._of_session("wait_for_port", _check.port(port), limit))

    async def forward(self, port: int, local: int = 0) -> Forwarding:
        """Has a port of this machine (any free one) lead to one of the container's."""
        local = _check.integer(local, "local", 0, 65535)
        return Forwarding(await finish(self._of_session("forward", _check.port(port), local)))

    async def info(self) -> SandboxInfo:
        """What is known of the container; nothing is started."""
        return await finish(self._info())

    async def stats(self) -> Stats:
        """What the container uses now."""
        return await finish(self._stats())

    async def watch_stats(self, interval: Seconds = 1.0) -> AsyncIterator[Stats]:
        """What the container uses, again and again."""
        every = _check.seconds(interval, "interval")
        stream = (await finish(self._podkit())).watch_stats(*self._ids(), every)
        while (facts := await finish(only(stream.next()))) is not None:
            yield Stats(facts)

    def events(self) -> AsyncEvents:
        """What happens to this session from now on, as far as this process does it or sees it."""
        return AsyncEvents(self._podkit(), self._ids())

    async def set_limits(
        self,
        *,
        cpus: float | None = None,
        memory: str | int | None = None,
        swap: str | int | None = None,
        pids_max: int | None = None,
    ) -> None:
        """Changes limits while the container runs."""
        await finish(self._of_podkit("set_limits", **_limits(cpus, memory, swap, pids_max)))

    async def touch(self) -> None:
        """Counts as a use, which puts off what happens when there is none."""
        await finish(self._of_session("touch"))

    async def pause(self) -> None:
        """Freezes the container; its next use lets it go on."""
        await finish(self._of_podkit("pause"))

    async def resume(self) -> None:
        """Lets a paused container go on."""
        await finish(self._of_podkit("resume"))

    async def stop(self, grace: Seconds = 1.0) -> None:
        """Stops the container. Its files stay, and its next use starts it again."""
        await finish(self._of_podkit("stop", _check.seconds(grace, "grace", zero=True)))

    @property
    def backend(self) -> str:
        """Name of the engine, as it was given."""
        return self._backend

    async def close(self) -> bool:
        """Removes the container and leaves its workspace; gives whether there was one."""
        return await finish(self._close())

    async def __aenter__(self) -> AsyncSandbox:
        try:
            await self.open()
        except BaseException as error:
            self._give_up(error)
            raise
        return self

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        if self._keep:
            return
        try:
            await self.close()
        except PodkitError:
            if error is None:
                raise


class AsyncEvents:
    """What happens to sessions: an asynchronous iterator of :class:`podkit.Event`.

    It begins when it is made, or, where nothing was connected yet, with the first that is asked for.
    """

    def __init__(self, connecting: Steps[NativePodkit], ids: tuple[str, str] | None) -> None:
        self._ids = ids
        self._stream: NativeEvents | None = None
        self._first: Call[Any] | None = None
        self._connecting = connecting
        try:
            self._first = next(connecting)
        except StopIteration as connected:
            self._stream = connected.value.events()

    def _connect(self) -> Steps[NativeEvents]:
        value = yield self._first  # type: ignore[misc]
        try:
            while True:
                value = yield self._connecting.send(value)
        except StopIteration as connected:
            return connected.value.events()

    def __aiter__(self) -> AsyncEvents:
        return self

    async def __anext__(self) -> Event:
        if self._stream is None:
            if self._first is None:
                raise StopAsyncIteration
            self._stream = await finish(self._connect())
        while (facts := await finish(only(self._stream.next()))) is not None:
            ids = facts["user_id"], facts["session_id"]
            if self._ids is None or facts["kind"] == "missed" or ids == self._ids:
                return Event(facts)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Ends it."""
        self._stream = self._first = None
