"""What blocking and asynchronous sandboxes share."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext

from . import _check, _connect, _spec, _throw_away
from ._options import _request, make_spec
from .errors import PodkitError
from .results import Port, ProcessInfo, Result, SandboxInfo, Stats

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Any

    from ._calls import Steps
    from ._native import Podkit as NativePodkit
    from ._native import Process as NativeProcess
    from ._native import Running
    from ._native import Session as NativeSession
    from .async_podkit import AsyncPodkit
    from .podkit import Podkit


# Arguments of a sandbox that say how it is opened; the others say what it is made with.
_OPENING = frozenset(
    (
        "backend",
        "prefix",
        "podkit",
        "on_conflict",
        "create",
        "keep",
        "ready_port",
        "ready_path",
        "ready_command",
        "ready_timeout",
        "startup_checks",
        "startup_interval",
    )
)


def _split(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The local variables of a sandbox's constructor, which are its arguments: how to open it, what to make."""
    rest = {
        "user" if name == "user_name" else name: value
        for name, value in arguments.items()
        if name not in ("self", "user", "session", "__class__")
    }
    opening = {name: rest.pop(name) for name in _OPENING}
    return opening, rest


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

    def _use(self) -> AbstractContextManager[object]:
        """Counts what goes on meanwhile as a use, for whoever does not ask the container itself."""
        return nullcontext()

    def _run(self, argv: list[bytes], options: Mapping[str, Any]) -> Steps[Result]:
        request = _request(argv, options)
        with self._use():
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


class _Opened(_Shared):
    """Whose session it is, and how it is opened."""

    def __init__(
        self,
        user: str | None,
        session: str | None,
        opening: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> None:
        if user is not None and session is None:
            raise _check.bad("session", "is missing; name it, or no user for a throw-away sandbox")
        self._random = session is None
        if session is None:
            import secrets

            user, session = "_sandbox", secrets.token_hex(10)
        elif user is None:
            user = _connect.settings().user
        #: Whose it is.
        self.user_id: str = _check.text(user, "user")
        #: Which of the user's it is.
        self.session_id: str = _check.text(session, "session")
        backend = _check.maybe_text(opening["backend"], "backend")
        prefix = _check.maybe_text(opening["prefix"], "prefix")
        self._of: Podkit | AsyncPodkit | None = opening["podkit"]
        if self._of is not None:
            if not hasattr(self._of, "_native_podkit"):
                raise _check.bad("podkit", f"must be a Podkit, not {_check.kind_of(self._of)}")
            if backend is not None or prefix is not None:
                given = "backend" if backend is not None else "prefix"
                raise _check.bad(given, "is that of `podkit`, and cannot be given beside it")
            backend, prefix = self._of._backend, self._of.prefix
        self._backend = _connect.backend_name(backend)
        self._prefix = _connect.prefix_name(prefix)
        on_conflict = opening["on_conflict"]
        if on_conflict not in ("fail", "reuse", "replace"):
            raise _check.bad("on_conflict", f"is `fail`, `reuse` or `replace`, not {on_conflict!r}")
        self._on_conflict: str = on_conflict
        self._create = bool(opening["create"])
        keep = opening["keep"]
        self._keep = not self._random if keep is None else bool(keep)
        self._thrown_away = self._random and not self._keep
        self._ready = _ready(opening)
        self._startup = _startup(opening)
        self._spec = make_spec(options)
        self._native_session: NativeSession | None = None
        self._pid = os.getpid()

    def _ids(self) -> tuple[str, str]:
        return self.user_id, self.session_id

    def _podkit(self) -> Steps[NativePodkit]:
        if self._of is not None:
            return (yield from self._of._native_podkit())
        return (yield from _connect.podkit(self._backend, self._prefix))

    def _wish(self) -> Steps[str]:
        """The configuration, as the library reads it."""
        spec = self._spec
        if self._thrown_away:
            of = {} if self._of is None else self._of._defaults
            clock = _spec.limit(_throw_away.LEFT_BEHIND)
            said = {"idle_timeout": clock, **_connect.usual(), **of, **spec}
            spec = {**spec, "idle_timeout": said["idle_timeout"]}
        if self._of is None and spec.get("image") is None and not spec.get("inherit_image"):
            refused = _connect.image_refused((yield from _connect.engine(self._backend)))
            if refused is not None:
                spec = {**spec, "image": refused}
        return _spec.dumps(spec)

    def _session(self) -> Steps[NativeSession]:
        if self._pid != os.getpid():
            # What a fork has of its parent is not dropped either.
            _connect._left.append(self._native_session)
            self._native_session, self._pid = None, os.getpid()
        if self._native_session is None:
            podkit = yield from self._podkit()
            wish = yield from self._wish()
            if self._thrown_away:
                _throw_away.remember(self._ids(), podkit)
            self._native_session = yield podkit.open(
                *self._ids(),
                wish,
                on_conflict=self._on_conflict,
                create=self._create,
                startup=self._startup,
                ready=self._ready,
            )
        return self._native_session

    def _give_up(self, error: BaseException) -> None:
        """Nobody has a sandbox that was not opened, and so nobody will close it."""
        if self._thrown_away:
            _throw_away.give_up(self._ids(), error)

    def _close(self) -> Steps[bool]:
        podkit = yield from self._podkit()
        existed = _closed((yield podkit.close(*self._ids())))
        _throw_away.forget(self._ids())
        return existed

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.user_id}/{self.session_id} on {self._backend}>"


def _ready(opening: Mapping[str, Any]) -> tuple[int | None, str | None, list[str] | None, float] | None:
    """When it is ready: a port, a page at it, or a command."""
    port, path, command = (opening[name] for name in ("ready_port", "ready_path", "ready_command"))
    if port is None and path is None and command is None:
        return None
    limit = _check.seconds(opening["ready_timeout"], "ready_timeout")
    if command is not None:
        if port is not None or path is not None:
            raise _check.bad("ready_command", "is another sign than a port; name one of them")
        try:
            return None, None, [word.decode() for word in _check.argv(command, "ready_command")], limit
        except UnicodeDecodeError:
            raise _check.bad("ready_command", "has characters that are not Unicode") from None
    if port is None:
        raise _check.bad("ready_path", "needs `ready_port`, where it is asked for")
    return _check.port(port, "ready_port"), _check.maybe_text(path, "ready_path"), None, limit


def _startup(opening: Mapping[str, Any]) -> tuple[int, float, int] | None:
    """Looks at a container that was started: how many, how far apart, lines of the log."""
    checks = opening["startup_checks"]
    if checks is None:
        return None
    interval = _check.seconds(opening["startup_interval"], "startup_interval")
    return _check.integer(checks, "startup_checks", 1, 1000), interval, 50


def _prefixed(backend: Any, prefix: Any) -> Steps[NativePodkit]:
    name = _connect.backend_name(_check.maybe_text(backend, "backend"))
    return (yield from _connect.podkit(name, _connect.prefix_name(_check.maybe_text(prefix, "prefix"))))


def _list(user: str | None, backend: str | None, prefix: str | None) -> Steps[list[SandboxInfo]]:
    podkit = yield from _prefixed(backend, prefix)
    found = yield podkit.list(_check.maybe_text(user, "user"))
    return [SandboxInfo(facts) for facts in found]


def _remove(user: str, session: str, backend: str | None, prefix: str | None) -> Steps[bool]:
    podkit = yield from _prefixed(backend, prefix)
    report = yield podkit.close(_check.text(user, "user"), _check.text(session, "session"))
    return _closed(report)
