"""Sandboxes: one user's isolated, lasting container, and all that can be done with it."""

from __future__ import annotations

import builtins
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence

from . import _check, _connect, _spec
from ._calls import finish, only, wait
from .errors import InvalidInputError, PodkitError
from .results import Event, Exit, FileInfo, Port, ProcessInfo, Result, SandboxInfo, Stats

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import timedelta
    from typing import Any

    from ._calls import Steps
    from ._native import Files as NativeFiles
    from ._native import Podkit as NativePodkit
    from ._native import Process as NativeProcess
    from ._native import Request, Running
    from ._native import Session as NativeSession

    Command = Sequence[str | bytes | os.PathLike[str]]
    Content = str | bytes | bytearray | memoryview
    Seconds = float | timedelta

__all__ = [
    "AsyncFiles",
    "AsyncProcess",
    "AsyncSandbox",
    "AsyncStream",
    "Files",
    "Process",
    "Sandbox",
    "Stream",
]


def _path(value: Any, name: str = "path") -> str:
    return _check.text(value, name)


def _request(argv: list[bytes], options: Mapping[str, Any]) -> Request:
    from . import _native

    checked: dict[str, Any] = {}
    stdin = options.get("stdin")
    if stdin is True:
        checked["stdin_stream"] = True
    elif stdin is not None:
        checked["stdin"] = _check.content(stdin, "stdin")
    terminal = options.get("terminal")
    if terminal is not None:
        try:
            rows, columns = terminal
        except (TypeError, ValueError):
            raise _check.bad("terminal", "must be a pair of rows and columns") from None
        checked["terminal"] = (
            _check.integer(rows, "terminal[0]", 1, 65535),
            _check.integer(columns, "terminal[1]", 1, 65535),
        )
    return _native.Request(
        argv,
        env=_check.variables(options.get("env")),
        cwd=_check.maybe_text(options.get("cwd"), "cwd"),
        user=_check.maybe_text(options.get("user"), "user"),
        timeout=_check.maybe_seconds(options.get("timeout"), "timeout"),
        output_limit=_check.maybe_integer(options.get("output_limit"), "output_limit", 0, _spec.NO_LIMIT),
        merge_output=bool(options.get("merge_output", False)),
        detached=bool(options.get("detached", False)),
        **checked,
    )


def _mount(value: Any, where: str) -> dict[str, Any]:
    from .core.models import Mount

    if isinstance(value, Mount):
        source: Any = {value.type: str(value.source)}
        if value.type == "tmpfs":
            source = {"tmpfs": {"size_bytes": None}}
        return {"source": source, "target": str(value.target), "read_only": value.read_only}
    return _spec.mount_of(value, where)


def make_spec(options: Mapping[str, Any]) -> dict[str, Any]:
    """The library's form of the keywords of a sandbox."""
    spec: dict[str, Any] = {}

    def put(name: str, check: Any) -> None:
        if options.get(name) is not None:
            spec[name] = check(options[name], name)

    def number(value: Any, name: str) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _check.bad(name, f"must be a number, not {_check.kind_of(value)}")
        return float(value)

    def amount(value: Any, name: str) -> str:
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return _check.text(value, name)

    def words(value: Any, name: str) -> list[str]:
        return [word.decode() for word in _check.argv(value, name)] if value else []

    def clock(value: Any, name: str) -> Any:
        return _spec.limit(None if value is False else _check.seconds(value, name))

    def yes(value: Any, name: str) -> bool:
        if not isinstance(value, bool):
            raise _check.bad(name, f"must be True or False, not {_check.kind_of(value)}")
        return value

    put("image", _check.text)
    put("cpus", number)
    put("memory", amount)
    put("swap", amount)
    put("shm", amount)
    put("pids_max", lambda value, name: _check.integer(value, name, 1, 2**32 - 1))
    put("env", lambda value, name: dict(_check.variables(value, name)))
    put("cwd", _check.text)
    put("user", _check.text)
    put("entrypoint", words)
    put("command", words)
    put("hostname", _check.text)
    put("runtime", _check.text)
    put("read_only_root", yes)
    put("auto_stop", clock)
    put("idle_timeout", clock)
    put("max_lifetime", clock)
    put("exec_timeout", clock)
    if options.get("network") is not None:
        network = options["network"]
        if isinstance(network, str):
            known = network in ("default", "outbound", "none", "host")
            spec["network"] = network if known else {"named": [_check.text(network, "network")]}
        else:
            spec["network"] = {"named": [_check.text(name, "network") for name in _items(network, "network")]}
    if options.get("mounts"):
        mounts = _items(options["mounts"], "mounts")
        spec["mounts"] = [_mount(mount, f"mounts[{place}]") for place, mount in enumerate(mounts)]
    if options.get("ports"):
        ports = options["ports"]
        if isinstance(ports, Mapping):
            spec["ports"] = [
                _spec.port(
                    _check.port(inside, "ports"),
                    None if outside is None else _check.integer(outside, f"ports[{inside}]", 0, 65535),
                )
                for inside, outside in ports.items()
            ]
        else:
            spec["ports"] = [_spec.port(_check.port(port, "ports")) for port in _items(ports, "ports")]
    if options.get("labels"):
        labels = options["labels"]
        if not isinstance(labels, Mapping):
            raise _check.bad("labels", f"must be a mapping, not {_check.kind_of(labels)}")
        spec["labels"] = {
            _check.text(key, "a name in labels"): _check.text(value, f"labels[{key!r}]", empty=True)
            for key, value in labels.items()
        }
    if options.get("workspace") is not None:
        base = os.path.abspath(_check.text(options["workspace"], "workspace"))
        host = options.get("workspace_host")
        spec["workspace"] = {
            "base": base,
            "host_base": None if host is None else _check.text(host, "workspace_host"),
        }
    return spec


def _items(value: Any, name: str) -> list[Any]:
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise _check.bad(name, f"must be a list, not {_check.kind_of(value)}")
    return list(value)


def _closed(report: tuple[bool, list[PodkitError]]) -> bool:
    existed, failed = report
    if failed:
        raise failed[0]
    return existed


class _Shared:
    """What blocking and asynchronous sandboxes do, as steps."""

    def _session(self) -> Steps[NativeSession]:
        raise NotImplementedError

    def _podkit(self) -> Steps[NativePodkit]:
        raise NotImplementedError

    def _ids(self) -> tuple[str, str]:
        raise NotImplementedError

    def _run(self, argv: list[bytes], options: Mapping[str, Any]) -> Steps[Result]:
        request = _request(argv, options)
        session = yield from self._session()
        result = Result((yield session.exec(request)))
        return result.check() if options.get("check") else result

    def _begin(self, argv: list[bytes], options: Mapping[str, Any]) -> Steps[Running]:
        request = _request(argv, options)
        session = yield from self._session()
        return (yield session.stream(request))

    def _spawn(self, command: Any, options: Mapping[str, Any]) -> Steps[NativeProcess]:
        argv = _check.shell_argv(command, "command") if isinstance(command, str) else _check.argv(command)
        request = _request(argv, options)
        restart = options.get("restart")
        if restart is not None and not isinstance(restart, tuple):
            restart = (_check.text(restart, "restart"), None)
        session = yield from self._session()
        return (
            yield session.spawn(
                request,
                name=_check.maybe_text(options.get("name"), "name"),
                keep_alive=bool(options.get("keep_alive", False)),
                restart=restart,
                log_directory=_check.maybe_text(options.get("log_directory"), "log_directory"),
                log_limit=_check.maybe_integer(options.get("log_limit"), "log_limit", 1, _spec.NO_LIMIT),
            )
        )

    def _info(self) -> Steps[SandboxInfo]:
        podkit = yield from self._podkit()
        return SandboxInfo((yield podkit.inspect(*self._ids())))

    def _stats(self) -> Steps[Stats]:
        podkit = yield from self._podkit()
        return Stats((yield podkit.stats(*self._ids())))

    def _of_podkit(self, call: str, *arguments: Any, **named: Any) -> Steps[Any]:
        podkit = yield from self._podkit()
        return (yield getattr(podkit, call)(*self._ids(), *arguments, **named))

    def _of_session(self, call: str, *arguments: Any) -> Steps[Any]:
        session = yield from self._session()
        return (yield getattr(session, call)(*arguments))

    def _processes(self) -> Steps[list[ProcessInfo]]:
        found = yield from self._of_session("processes")
        return [ProcessInfo(facts) for facts in found]

    def _ports(self) -> Steps[list[Port]]:
        found = yield from self._of_session("ports")
        return [Port(facts) for facts in found]


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
        return Files(wait(self._session()).files())

    def files_as(self, user: str) -> Files:
        """The container's files, as another user sees them."""
        return Files(wait(self._session()).files(_check.text(user, "user")))

    def read_file(self, path: str | os.PathLike[str]) -> str:
        """The text of a file; what is not UTF-8 is replaced."""
        return self.files.read(path).decode("utf-8", "replace")

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


#: Throw-away sandboxes that are open: engine, prefix and ids, by the process that made them.
_throw_away: set[tuple[int, str, str, str, str]] = set()


def _remember(backend: str, prefix: str, user: str, session: str) -> None:
    if not _throw_away:
        import atexit

        atexit.register(_remove_thrown_away)
    _throw_away.add((os.getpid(), backend, prefix, user, session))


def _remove_thrown_away() -> None:
    """Removes what nobody closed, as far as it can be in the end; the rest stops by itself."""
    for pid, backend, prefix, user, session in list(_throw_away):
        if pid != os.getpid():
            continue
        try:
            wait(_remove(user, session, backend, prefix))
        except PodkitError:
            pass
    _throw_away.clear()


class _Opened(_Shared):
    """Whose session it is, and how it is opened."""

    def __init__(
        self,
        user: str | None,
        session: str | None,
        backend: str | None,
        prefix: str,
        on_conflict: str,
        create: bool,
        keep: bool | None,
        ready_port: int | None,
        ready_timeout: Any,
        options: Mapping[str, Any],
    ) -> None:
        if (user is None) != (session is None):
            missing = "session" if session is None else "user"
            raise _check.bad(missing, "is missing; name both ids, or none for a throw-away sandbox")
        self._random = user is None
        if user is None or session is None:
            import secrets

            user, session = "_sandbox", secrets.token_hex(10)
        #: Whose it is.
        self.user_id: str = _check.text(user, "user")
        #: Which of the user's it is.
        self.session_id: str = _check.text(session, "session")
        self._backend = _connect.backend_name(_check.maybe_text(backend, "backend"))
        self._prefix = _check.text(prefix, "prefix")
        if on_conflict not in ("fail", "reuse", "replace"):
            raise _check.bad("on_conflict", f"is `fail`, `reuse` or `replace`, not {on_conflict!r}")
        self._on_conflict = on_conflict
        self._create = bool(create)
        self._keep = not self._random if keep is None else bool(keep)
        self._ready = None
        if ready_port is not None:
            limit = _check.seconds(ready_timeout, "ready_timeout")
            self._ready = (_check.port(ready_port, "ready_port"), None, limit)
        spec = make_spec(options)
        image = _connect.image_name(spec.get("image"))
        if image is not None:
            spec["image"] = image
        self._spec = spec
        self._native_session: NativeSession | None = None
        self._pid = os.getpid()

    def _ids(self) -> tuple[str, str]:
        return self.user_id, self.session_id

    def _podkit(self) -> Steps[NativePodkit]:
        return (yield from _connect.podkit(self._backend, self._prefix))

    def _session(self) -> Steps[NativeSession]:
        if self._pid != os.getpid():
            # What a fork has of its parent is not dropped either.
            _connect._left.append(self._native_session)
            self._native_session, self._pid = None, os.getpid()
        if self._native_session is None:
            podkit = yield from self._podkit()
            self._native_session = yield podkit.open(
                self.user_id,
                self.session_id,
                _spec.dumps(self._spec),
                on_conflict=self._on_conflict,
                create=self._create,
                ready=self._ready,
            )
            if self._random and not self._keep:
                _remember(self._backend, self._prefix, *self._ids())
        return self._native_session

    def _close(self) -> Steps[bool]:
        podkit = yield from self._podkit()
        existed = _closed((yield podkit.close(*self._ids())))
        _throw_away.discard((os.getpid(), self._backend, self._prefix, *self._ids()))
        return existed

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.user_id}/{self.session_id} on {self._backend}>"


class Sandbox(_Opened, SandboxMethods):
    """One user's container, blocking.

    With ``user`` and ``session`` it is made on first use and found again ever after, by any process;
    leaving the ``with`` block lets it be. Without ids it is a throw-away one: leaving the block removes it,
    and so does the end of the program.

    >>> with Sandbox() as sandbox:
    ...     sandbox.files.write("hello.txt", "hi")
    ...     sandbox.exec(["cat", "hello.txt"]).stdout
    'hi'

    Args:
        user: whose it is.
        session: which of the user's.
        backend: ``auto``, ``embedded``, ``docker``, ``podman`` or a URL; else ``PODKIT_BACKEND``.
        image: ``host``, ``dir:/path``, ``tar:/path`` or a name; else ``PODKIT_IMAGE``, else the engine's.
        prefix: whose sessions these are; other prefixes' are never touched.
        cpus, memory, swap, shm, pids_max: limits; one core, 512m and 512 processes without.
        env, cwd, user_name, hostname, entrypoint, command: as their names say.
        mounts: :class:`podkit.core.models.Mount`, or dictionaries as Docker's API has them.
        ports: numbers, or a mapping of the container's to this machine's (0 for any free one).
        network: ``default``, ``outbound``, ``none``, ``host``, or names of networks.
        workspace: a directory of this machine; ``workspaces/USER/SESSION`` in it is ``/workspace``.
        auto_stop: seconds without use after which it stops (60); ``False`` for never.
        idle_timeout, max_lifetime, exec_timeout: further clocks, in seconds.
        on_conflict: what happens to one that was made otherwise: ``fail``, ``reuse`` or ``replace``.
        create: whether a missing one is made.
        keep: whether leaving the ``with`` block lets it be.
        ready_port: a port of the container's that has to answer before it is opened.
    """

    def __init__(
        self,
        user: str | None = None,
        session: str | None = None,
        *,
        backend: str | None = None,
        image: str | None = None,
        prefix: str = "podkit",
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
        mounts: Iterable[Any] | None = None,
        ports: Iterable[int] | Mapping[int, int | None] | None = None,
        network: str | Iterable[str] | None = None,
        labels: Mapping[str, str] | None = None,
        read_only_root: bool | None = None,
        runtime: str | None = None,
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
        ready_timeout: Seconds = 30.0,
    ) -> None:
        super().__init__(
            user,
            session,
            backend,
            prefix,
            on_conflict,
            create,
            keep,
            ready_port,
            ready_timeout,
            {
                "image": image,
                "cpus": cpus,
                "memory": memory,
                "swap": swap,
                "shm": shm,
                "pids_max": pids_max,
                "env": env,
                "cwd": cwd,
                "user": user_name,
                "hostname": hostname,
                "entrypoint": entrypoint,
                "command": command,
                "mounts": mounts,
                "ports": ports,
                "network": network,
                "labels": labels,
                "read_only_root": read_only_root,
                "runtime": runtime,
                "workspace": workspace,
                "workspace_host": workspace_host,
                "auto_stop": auto_stop,
                "idle_timeout": idle_timeout,
                "max_lifetime": max_lifetime,
                "exec_timeout": exec_timeout,
            },
        )
        wait(self._session())

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
        cls, *, user: str | None = None, backend: str | None = None, prefix: str = "podkit"
    ) -> list[SandboxInfo]:
        """The sessions of a prefix, or one user's."""
        return wait(_list(user, backend, prefix))

    @classmethod
    def remove(cls, user: str, session: str, *, backend: str | None = None, prefix: str = "podkit") -> bool:
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


def _list(user: str | None, backend: str | None, prefix: str) -> Steps[list[SandboxInfo]]:
    podkit = yield from _connect.podkit(_connect.backend_name(backend), _check.text(prefix, "prefix"))
    found = yield podkit.list(_check.maybe_text(user, "user"))
    return [SandboxInfo(facts) for facts in found]


def _remove(user: str, session: str, backend: str | None, prefix: str) -> Steps[bool]:
    podkit = yield from _connect.podkit(_connect.backend_name(backend), _check.text(prefix, "prefix"))
    report = yield podkit.close(_check.text(user, "user"), _check.text(session, "session"))
    return _closed(report)


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
        image: str | None = None,
        prefix: str = "podkit",
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
        mounts: Iterable[Any] | None = None,
        ports: Iterable[int] | Mapping[int, int | None] | None = None,
        network: str | Iterable[str] | None = None,
        labels: Mapping[str, str] | None = None,
        read_only_root: bool | None = None,
        runtime: str | None = None,
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
        ready_timeout: Seconds = 30.0,
    ) -> None:
        super().__init__(
            user,
            session,
            backend,
            prefix,
            on_conflict,
            create,
            keep,
            ready_port,
            ready_timeout,
            {
                "image": image,
                "cpus": cpus,
                "memory": memory,
                "swap": swap,
                "shm": shm,
                "pids_max": pids_max,
                "env": env,
                "cwd": cwd,
                "user": user_name,
                "hostname": hostname,
                "entrypoint": entrypoint,
                "command": command,
                "mounts": mounts,
                "ports": ports,
                "network": network,
                "labels": labels,
                "read_only_root": read_only_root,
                "runtime": runtime,
                "workspace": workspace,
                "workspace_host": workspace_host,
                "auto_stop": auto_stop,
                "idle_timeout": idle_timeout,
                "max_lifetime": max_lifetime,
                "exec_timeout": exec_timeout,
            },
        )

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
        cls, *, user: str | None = None, backend: str | None = None, prefix: str = "podkit"
    ) -> list[SandboxInfo]:
        """The sessions of a prefix, or one user's."""
        return await finish(_list(user, backend, prefix))

    @classmethod
    async def remove(
        cls, user: str, session: str, *, backend: str | None = None, prefix: str = "podkit"
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

    async def url(self, port: int) -> str:
        """Where a published port of the container is found."""
        return await finish(self._of_session("url", _check.port(port)))

    async def ports(self) -> builtins.list[Port]:
        """The published ports."""
        return await finish(self._ports())

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

    async def events(self) -> AsyncIterator[Event]:
        """What happens to this session from now on, as far as this process does it or sees it."""
        stream = (await finish(self._podkit())).events()
        while (facts := await finish(only(stream.next()))) is not None:
            if facts["kind"] == "missed" or (facts["user_id"], facts["session_id"]) == self._ids():
                yield Event(facts)

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

    async def close(self) -> bool:
        """Removes the container and leaves its workspace; gives whether there was one."""
        return await finish(self._close())

    async def __aenter__(self) -> AsyncSandbox:
        await self.open()
        return self

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        if self._keep:
            return
        try:
            await self.close()
        except PodkitError:
            if error is None:
                raise
