"""What blocking and asynchronous sandboxes share."""

from __future__ import annotations

import os
from collections.abc import Mapping

from . import _check, _connect, _spec
from ._calls import wait
from ._options import _request, make_spec
from .errors import PodkitError
from .results import Port, ProcessInfo, Result, SandboxInfo, Stats

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._calls import Steps
    from ._native import Podkit as NativePodkit
    from ._native import Process as NativeProcess
    from ._native import Running
    from ._native import Session as NativeSession


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


def _list(user: str | None, backend: str | None, prefix: str) -> Steps[list[SandboxInfo]]:
    podkit = yield from _connect.podkit(_connect.backend_name(backend), _check.text(prefix, "prefix"))
    found = yield podkit.list(_check.maybe_text(user, "user"))
    return [SandboxInfo(facts) for facts in found]


def _remove(user: str, session: str, backend: str | None, prefix: str) -> Steps[bool]:
    podkit = yield from _connect.podkit(_connect.backend_name(backend), _check.text(prefix, "prefix"))
    report = yield podkit.close(_check.text(user, "user"), _check.text(session, "session"))
    return _closed(report)
