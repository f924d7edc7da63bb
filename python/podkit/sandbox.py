"""Sandboxes: one user's isolated, lasting container, and all that can be done with it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from . import _check, _connect
from ._calls import wait
from ._opened import _list, _Opened, _remove, _Shared, _split
from ._options import make_spec
from .errors import InvalidInputError, PodkitError
from .files import Files
from .handles import Process
from .results import Event, Port, ProcessInfo, Result, SandboxInfo, Stats
from .streams import Forwarding, Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import timedelta
    from typing import Any

    from .podkit import Podkit

    Command = Sequence[str | bytes | os.PathLike[str]]
    Content = str | bytes | bytearray | memoryview
    Seconds = float | timedelta

__all__ = ["Sandbox", "SandboxMethods"]


class SandboxMethods(_Shared):
    """What a blocking sandbox can do."""

    def exec(
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
        """Runs a program, without a shell, and waits for its end.

        A command that fails or runs out of time is a result, unless ``check`` is set. At most
        ``output_limit`` bytes of each stream are kept (10 MiB). A timeout ends all that it started.
        """
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
        return wait(self._run(_check.argv(command), options))

    def shell(
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
        return wait(self._run(_check.shell_argv(text), options))

    def stream(
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
    ) -> Stream:
        """Begins a command and gives its output while it runs; text is run by the shell.

        With ``stdin=True`` it can be written to. Leaving the ``with`` block ends it, and all that it
        started, unless it is ``detached``.
        """
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
        return Stream(wait(self._begin(argv, options)))

    def spawn(
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
    ) -> Process:
        """Begins a program in the background; text is run by the shell.

        It outlives this program, and is found again by its name or id. ``restart`` is ``never``,
        ``on_failure`` or ``always``.
        """
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
        return Process(wait(self._spawn(command, options)))

    def process(self, name: str) -> Process:
        """The process of an id, or the newest of a name."""
        session = wait(self._session())
        return Process(session.process(_check.text(name, "name")))

    def processes(self) -> list[ProcessInfo]:
        """The background processes, those that have ended lately among them."""
        return wait(self._processes())

    @property
    def files(self) -> Files:
        """The container's files, as its user sees them."""
        return Files(wait(self._session()).files(), self._use)

    def files_as(self, user: str) -> Files:
        """The container's files, as another user sees them."""
        return Files(wait(self._session()).files(_check.text(user, "user")), self._use)

    def read_file(self, path: str | os.PathLike[str]) -> str:
        """The text of a file; what is not UTF-8 is replaced."""
        return self.files.read(path).decode("utf-8", "replace")

    def to_host_path(self, path: str | os.PathLike[str]) -> Path:
        """Where this program finds what the container has at a path in its workspace.

        Raises:
            InvalidInputError: the path is not in the workspace, or the sandbox has none on this machine.
        """
        return Path(wait(self._session()).to_host_path(_check.text(path, "path")))

    def to_container_path(self, path: str | os.PathLike[str]) -> Path:
        """Where the container has what this program has at a path in the workspace.

        Raises:
            InvalidInputError: the path is not in the workspace, or the sandbox has none on this machine.
        """
        return Path(wait(self._session()).to_container_path(_check.text(path, "path")))

    def url(self, port: int) -> str:
        """Where a published port of the container is found."""
        return wait(self._of_session("url", _check.port(port)))

    def ports(self) -> list[Port]:
        """The published ports."""
        return wait(self._ports())

    def listening_ports(self) -> list[dict[str, Any]]:
        """What listens in the container, published or not: port, address, pid, name."""
        return wait(self._of_session("listening_ports"))

    def wait_for_port(self, port: int, timeout: Seconds = 30.0) -> None:
        """Waits until something listens at a port of the container's."""
        limit = _check.seconds(timeout, "timeout")
        wait(self._of_session("wait_for_port", _check.port(port), limit))

    def forward(self, port: int, local: int = 0) -> Forwarding:
        """Has a port of this machine (any free one) lead to one of the container's."""
        local = _check.integer(local, "local", 0, 65535)
        return Forwarding(wait(self._of_session("forward", _check.port(port), local)))

    def info(self) -> SandboxInfo:
        """What is known of the container; nothing is started."""
        return wait(self._info())

    def stats(self) -> Stats:
        """What the container uses now."""
        return wait(self._stats())

    def watch_stats(self, interval: Seconds = 1.0) -> Iterator[Stats]:
        """What the container uses, again and again."""
        every = _check.seconds(interval, "interval")
        stream = wait(self._podkit()).watch_stats(*self._ids(), every)
        while (facts := stream.next().wait()) is not None:
            yield Stats(facts)

    def events(self) -> Iterator[Event]:
        """What happens to this session from now on, as far as this process does it or sees it."""
        return _events(wait(self._podkit()).events(), self._ids())

    def set_limits(
        self,
        *,
        cpus: float | None = None,
        memory: str | int | None = None,
        swap: str | int | None = None,
        pids_max: int | None = None,
    ) -> None:
        """Changes limits while the container runs."""
        wait(self._of_podkit("set_limits", **_limits(cpus, memory, swap, pids_max)))

    def touch(self) -> None:
        """Counts as a use, which puts off what happens when there is none."""
        wait(self._of_session("touch"))

    def pause(self) -> None:
        """Freezes the container; its next use lets it go on."""
        wait(self._of_podkit("pause"))

    def resume(self) -> None:
        """Lets a paused container go on."""
        wait(self._of_podkit("resume"))

    def stop(self, grace: Seconds = 1.0) -> None:
        """Stops the container. Its files stay, and its next use starts it again."""
        wait(self._of_podkit("stop", _check.seconds(grace, "grace", zero=True)))


def _limits(cpus: Any, memory: Any, swap: Any, pids_max: Any) -> dict[str, Any]:
    checked = make_spec({"cpus": cpus, "memory": memory, "swap": swap, "pids_max": pids_max})
    if not checked:
        raise InvalidInputError("no limit is changed; name one of cpus, memory, swap, pids_max")
    return checked


def _events(stream: Any, ids: tuple[str, str]) -> Iterator[Event]:
    while (facts := stream.next().wait()) is not None:
        if facts["kind"] == "missed" or (facts["user_id"], facts["session_id"]) == ids:
            yield Event(facts)


def spec_names() -> frozenset[str]:
    """The keywords that say what a container is like."""
    names = Sandbox.__init__.__code__.co_varnames
    count = Sandbox.__init__.__code__.co_argcount + Sandbox.__init__.__code__.co_kwonlyargcount
    return frozenset(names[:count]) - _OF_OPENING


#: Keywords that say whose a sandbox is, and how it is opened.
_OF_OPENING = frozenset(
    {
        "backend",
        "create",
        "keep",
        "on_conflict",
        "podkit",
        "prefix",
        "ready_command",
        "ready_path",
        "ready_port",
        "ready_timeout",
        "self",
        "session",
        "startup_checks",
        "startup_interval",
        "user",
    }
)


class Sandbox(_Opened, SandboxMethods):
    """One user's container, blocking.

    With ``user`` and ``session`` it is made on first use and found again ever after, by any process;
    leaving the ``with`` block lets it be. Without ids it is a throw-away one: leaving the block removes it,
    and so does the end of the program. Its ``idle_timeout`` is ten minutes unless another one is said: where
    the program was killed, :meth:`Podkit.gc` removes it after that. What is not said here is as the environment (``PODKIT_BACKEND``,
    ``PODKIT_IMAGE`` and so on) and the configuration file say, as on the command line.

    >>> with Sandbox() as sandbox:
    ...     sandbox.files.write("hello.txt", "hi")
    ...     sandbox.exec(["cat", "hello.txt"]).stdout
    'hi'

    Args:
        user: whose it is; the caller's own, as the settings say, for a ``session`` without it.
        session: which of the user's.
        backend: ``auto``, ``embedded``, ``docker``, ``podman`` or a URL.
        prefix: whose sessions these are; other prefixes' are never touched.
        podkit: what it belongs to, instead of ``backend`` and ``prefix``.
        image: ``host``, ``dir:/path``, ``tar:/path`` or a name.
        cpus, memory, swap, shm, pids_max: limits; one core, 512m and 512 processes without.
        env, cwd, user_name, hostname, entrypoint, command: as their names say.
        image_defaults: whether the image's own entrypoint and command run.
        mounts: ``SOURCE:TARGET[:ro]``, :class:`podkit.core.models.Mount`, or dictionaries as Docker's API
            has them.
        host_paths: further directories of this machine's in the image ``host``.
        ports: numbers, texts as ``127.0.0.1:8080:80``, or a mapping of the container's to this machine's
            (0 for any free one).
        network: ``default``, ``outbound``, ``none``, ``host``, or names of networks.
        aliases, dns, hosts: further names of the container's, name servers, lines of ``/etc/hosts``.
        ulimits: limits of each process, as ``{"nofile": 1024}`` or ``{"nofile": (1024, 4096)}``.
        devices, gpus: ``/dev/x[:/dev/y[:rwm]]``; ``all``, a number, or names.
        runtime, platform: the engine's runtime, the image's platform.
        pull: when the image is fetched: ``missing``, ``always`` or ``never``.
        auto_remove: whether the engine removes the container as soon as it stops.
        inherit_image, inherit_networks: those of the container that this program runs in.
        add_capabilities, drop_capabilities, seccomp_unconfined, allow_new_privileges: hardening
            otherwise than usual.
        isolation: ``own_range``, ``shared_range`` or ``caller_uid``: how user ids are kept apart.
        workspace: a directory of this machine; ``workspaces/USER/SESSION`` in it is ``/workspace``.
        workspace_host: the same directory as the engine sees it.
        auto_stop: seconds without use after which it stops (60); ``False`` for never.
        idle_timeout, max_lifetime, exec_timeout: further clocks, in seconds.
        on_conflict: what happens to one that was made otherwise: ``fail``, ``reuse`` or ``replace``.
        create: whether a missing one is made.
        keep: whether leaving the ``with`` block lets it be.
        ready_port, ready_path, ready_command: what has to answer before it is opened: a port of the
            container's, a page at it, or a command.
        startup_checks: how often it has to be seen to stay up after a start, ``startup_interval`` apart.

    Raises:
        InvalidInputError: an argument cannot be used (a ``ValueError``).
        ConflictError: there is one that was made otherwise.
        UnsupportedError: the engine cannot do it.
    """

    def __init__(
        self,
        user: str | None = None,
        session: str | None = None,
        *,
        backend: str | None = None,
        prefix: str | None = None,
        podkit: Podkit | None = None,
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
        try:
            wait(self._session())
        except BaseException as error:
            self._give_up(error)
            raise

    @classmethod
    def get_or_create(cls, user: str, session: str, **options: Any) -> Sandbox:
        """The session's sandbox, made if it is missing."""
        return cls(user, session, **options)

    @classmethod
    def connect(cls, user: str, session: str, **options: Any) -> Sandbox:
        """The session's sandbox, which must exist."""
        return cls(user, session, create=False, **options)

    @classmethod
    def list(
        cls, *, user: str | None = None, backend: str | None = None, prefix: str | None = None
    ) -> list[SandboxInfo]:
        """The sessions of a prefix, or one user's."""
        return wait(_list(user, backend, prefix))

    @classmethod
    def remove(
        cls, user: str, session: str, *, backend: str | None = None, prefix: str | None = None
    ) -> bool:
        """Removes a session's container without opening it; gives whether there was one."""
        return wait(_remove(user, session, backend, prefix))

    @property
    def container(self) -> str:
        """Name of the container."""
        return wait(self._session()).container

    @property
    def opened(self) -> str:
        """How it came to be: ``created``, ``started``, ``resumed``, ``reconnected``, ``recovered``."""
        return wait(self._session()).opened

    @property
    def backend(self) -> str:
        """The engine's name."""
        return wait(_connect.engine(self._backend)).name

    def capabilities(self) -> dict[str, Any]:
        """What the engine can do."""
        return wait(_connect.engine(self._backend)).capabilities()

    def close(self) -> bool:
        """Removes the container and leaves its workspace; gives whether there was one."""
        return wait(self._close())

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._keep:
            return
        try:
            self.close()
        except PodkitError:
            # The body's own exception says more; what is left stops by itself and is labelled.
            if error is None:
                raise
