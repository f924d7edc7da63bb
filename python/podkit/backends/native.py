"""The engines of podkit's own core: embedded, Docker, Podman.

A container here is a session's: its id is its name, which follows from prefix, user and session. So
several processes that make the same one have one, and each finds it by one look-up. It is made when
it is started.
"""

from __future__ import annotations

import os
import time
from datetime import datetime, timezone
from pathlib import Path

from .. import _check, _connect, _fork, _spec
from .._calls import wait
from .._log import logger_or
from ..constants import DEFAULT_CONTAINER_IMAGE, DEFAULT_CONTAINER_PREFIX
from ..core.models import ContainerConfig, ContainerStatus, ProcessResult
from ..errors import (
    ConflictError,
    ContainerGoneError,
    NotFoundError,
    PodkitError,
)
from ._filters import STATES, Filters
from .base import BackendInterface

TYPE_CHECKING = False
if TYPE_CHECKING:
    from logging import Logger
    from typing import Any

    from .._calls import Steps
    from .._native import Engine, Podkit, Session
    from ..core.models import StartupVerificationConfig

__all__ = ["EmbeddedBackend", "NativeBackend", "PodmanBackend"]

#: Characters that need the shell: a text without them is split where there is no shell.
_SYNTAX = frozenset("|&;<>()$`\\\"'*?[]#~=%!{}\n")


class _Workload:
    """A container that this process knows."""

    def __init__(self, prefix: str, user: str, session: str, spec: dict[str, Any] | None) -> None:
        self.prefix = prefix
        self.user = user
        self.session = session
        #: What it is made from; none for one that was found.
        self.spec = spec
        self.native: Session | None = None
        #: Whether this process made it.
        self.made = False
        #: Exit code and last lines of one that did not stay up, and is gone.
        self.failure: tuple[int | None, str] | None = None
        self.opening = _fork.lock()


class NativeBackend(BackendInterface):
    """An engine by its name: ``auto``, ``embedded``, ``docker``, ``podman``, or a URL."""

    #: Name of the engine when none is given.
    engine_name = _connect.AUTO

    def __init__(self, name: str | None = None, logger: Logger | None = None) -> None:
        self._name = _check.text(name, "name") if name is not None else self.engine_name
        self.logger = logger_or(logger, "podkit.docker")
        self._workloads: dict[str, _Workload] = {}
        self._prefixes: set[str] = set()
        self._pid = os.getpid()

    # The engine.

    def connect(self) -> None:
        """Connects; raises ``UnavailableError`` (a ``RuntimeError``) when the engine is not there."""
        self._engine()

    def _engine(self) -> Engine:
        self._after_fork()
        return wait(_connect.engine(self._name))

    def _podkit(self, prefix: str) -> Steps[Podkit]:
        self._after_fork()
        return (yield from _connect.podkit(self._name, prefix))

    def _after_fork(self) -> None:
        if self._pid == os.getpid():
            return
        self._pid = os.getpid()
        for known in self._workloads.values():
            # Connections are the parent's; what they belong to is opened anew, and not dropped here.
            _connect._left.append(known.native)
            known.native, known.made = None, False

    # Containers.

    def container_id(self, prefix: str, user_id: str, session_id: str) -> str:
        """Name, and so id, of a session's container. Refuses ids that cannot be."""
        from .. import _native

        return _native.container_name(prefix, user_id, session_id)

    def create_workload(
        self, name: str, config: ContainerConfig, mounts: list[dict[str, Any]], **kwargs: Any
    ) -> str:
        labels = dict(kwargs.get("labels") or {})
        prefix = labels.get("podkit.manager") or DEFAULT_CONTAINER_PREFIX
        user = labels.get("podkit.user_id") or "_workload"
        session = labels.get("podkit.session_id") or _check.text(name, "name")
        spec = _spec.of_config(config, mounts, workspace=kwargs.get("workspace"))
        _spec.startup(config.startup_verification)  # What cannot pass is refused before it is made.
        own = {
            key: _check.text(value, f"labels[{key!r}]", empty=True)
            for key, value in labels.items()
            if not key.startswith("podkit.")
        }
        if own:
            spec["labels"] = own
        workload = self.container_id(prefix, user, session)
        self._prefixes.add(prefix)
        self._workloads[workload] = _Workload(prefix, user, session, spec)
        return workload

    def default_image(self) -> str:
        """The image where none is named: ``PODKIT_IMAGE``, else podkit 0.7's, else, on an engine that
        fetches none, its own."""
        chosen = _connect.image_name(None)
        if chosen is not None:
            return chosen
        can = self._engine().capabilities()
        return DEFAULT_CONTAINER_IMAGE if can["image_references"] else str(can["default_image"])

    def _known(self, workload_id: str) -> _Workload:
        self._after_fork()
        known = self._workloads.get(workload_id)
        if known is None:
            self.list_workloads()
            known = self._workloads.get(workload_id)
        if known is None:
            raise NotFoundError(f"there is no container `{workload_id}`")
        return known

    def _open(
        self, known: _Workload, verification: StartupVerificationConfig | None = None
    ) -> Steps[Session]:
        podkit = yield from self._podkit(known.prefix)
        with known.opening:
            if known.native is not None and verification is None:
                return known.native
            startup = _spec.startup(verification)
            spec = _spec.dumps(known.spec or {})
            create = known.spec is not None
            try:
                native = yield podkit.open(known.user, known.session, spec, create=create, startup=startup)
            except ConflictError as error:
                # A port that is taken is one, too: opening again says so.
                self.logger.warning(
                    "session %s/%s is used as it was made: %s",
                    known.user,
                    known.session,
                    error.message,
                )
                native = yield podkit.open(
                    known.user,
                    known.session,
                    spec,
                    create=create,
                    startup=startup,
                    on_conflict="reuse",
                )
            known.native, known.failure = native, None
            known.made = known.made or native.opened in ("created", "recovered")
            return native

    def _reopen(self, known: _Workload) -> Steps[Session]:
        # What is there now may be somebody else's.
        known.native, known.made = None, False
        return (yield from self._open(known))

    def start_workload(
        self, workload_id: str, verification_config: StartupVerificationConfig | None = None
    ) -> None:
        known = self._known(workload_id)
        if known.native is not None:
            # What was open may have stopped since: a use brings it back.
            status = self.get_workload_status(workload_id)
            if status is not ContainerStatus.RUNNING:
                known.native = None
        begun, since = time.time(), time.monotonic()
        try:
            wait(self._open(known, verification_config))
        except PodkitError as error:
            if verification_config is not None and error.kind == "unexpected":
                known.failure = _describe(error, workload_id, time.monotonic() - since)
            # One that was made for this and does not stay up may be removed by whoever gives up.
            try:
                known.made = self._inspect(workload_id)["created_at"] >= begun
            except PodkitError:
                pass
            raise

    def stop_workload(self, workload_id: str, timeout: int = 10) -> None:
        grace = _check.seconds(timeout, "timeout", zero=True)
        try:
            known = self._known(workload_id)
            podkit = wait(self._podkit(known.prefix))
            podkit.stop(known.user, known.session, grace).wait()
        except (NotFoundError, ContainerGoneError):
            pass

    def remove_workload(self, workload_id: str, force: bool = True) -> None:
        try:
            known = self._known(workload_id)
        except NotFoundError:
            return
        podkit = wait(self._podkit(known.prefix))
        _, failed = podkit.close(known.user, known.session).wait()
        if failed:
            raise failed[0]
        self._workloads.pop(workload_id, None)

    def _execute(
        self,
        workload_id: str,
        command: Any,
        working_dir: Any = None,
        environment: Any = None,
        timeout: Any = None,
    ) -> Steps[ProcessResult]:
        from .. import _native

        known = self._known(workload_id)
        options: dict[str, Any] = {
            "cwd": _check.maybe_text(working_dir, "working_dir"),
            "env": _check.variables(environment, "environment"),
            "timeout": _check.maybe_seconds(timeout, "timeout"),
            "output_limit": _spec.NO_LIMIT,
        }
        text = isinstance(command, str)
        argv = _check.shell_argv(command, "command") if text else _check.argv(command)
        request = _native.Request(argv, **options)
        session = yield from self._open(known)
        try:
            output = yield session.exec(request)
        except ContainerGoneError:
            # It was closed before the command began, by other code of this process.
            session = yield from self._reopen(known)
            output = yield session.exec(request)
        if text and output.exit_code in (126, 127) and not set(command) & _SYNTAX:
            # An image may have no shell. A text that needs none is split, and only then.
            files = session.files()
            if not (yield files.exists("/bin/sh")):
                words = [word.encode() for word in command.split()]
                output = yield session.exec(_native.Request(words, **options))
        if options["timeout"] is None and known.spec is not None:
            clock = known.spec.get("exec_timeout")
            if isinstance(clock, dict):
                return ProcessResult._of(output, clock["after"]["secs"])
        return ProcessResult._of(output, options["timeout"])

    def execute_command(
        self,
        workload_id: str,
        command: str | list[str],
        working_dir: Path | None = None,
        environment: dict[str, str] | None = None,
        timeout: int | None = None,
    ) -> ProcessResult:
        return wait(self._execute(workload_id, command, working_dir, environment, timeout))

    def write_file(self, workload_id: str, path: str, content: str | bytes) -> None:
        """Replaces a file in a container, as its user; any path, any bytes."""
        known = self._known(workload_id)
        data = _check.content(content, "content")
        session = wait(self._open(known))
        try:
            session.files().write(path, data).wait()
        except ContainerGoneError:
            wait(self._reopen(known)).files().write(path, data).wait()

    def native_session(self, workload_id: str) -> Steps[Session]:
        """The core's session of a container."""
        return (yield from self._open(self._known(workload_id)))

    def native_podkit(self, workload_id: str) -> Steps[Podkit]:
        """The core's sessions of a container's prefix."""
        return (yield from self._podkit(self._known(workload_id).prefix))

    def made_here(self, workload_id: str) -> bool:
        """Whether this process made a container, instead of finding it."""
        self._after_fork()
        known = self._workloads.get(workload_id)
        return known is not None and known.made

    def _inspect(self, workload_id: str) -> dict[str, Any]:
        known = self._known(workload_id)
        podkit = wait(self._podkit(known.prefix))
        return podkit.inspect(known.user, known.session).wait()

    def get_workload_status(self, workload_id: str) -> ContainerStatus:
        try:
            return STATES.get(self._inspect(workload_id)["state"], ContainerStatus.ERROR)
        except NotFoundError:
            known = self._workloads.get(workload_id)
            waits = known is not None and known.native is None and known.spec is not None
            return ContainerStatus.CREATING if waits else ContainerStatus.ERROR
        except PodkitError:
            return ContainerStatus.ERROR

    def rests(self, workload_id: str) -> bool:
        """Whether a container has stopped by its own clock, or because somebody wished so."""
        try:
            facts = self._inspect(workload_id)
        except PodkitError:
            return False
        return facts["state"] == "exited" and facts["stop_cause"] in (
            "auto_stop",
            "max_lifetime",
            "requested",
        )

    def last_active(self, workload_id: str) -> datetime | None:
        """When a container was last used, by whatever process; now while a command runs. None when it is gone."""
        try:
            used = self._inspect(workload_id)["last_active_at"]
        except NotFoundError:
            return None
        return None if used is None else datetime.fromtimestamp(used, timezone.utc)

    def list_workloads(self, filters: dict[str, str] | None = None) -> list[dict[str, Any]]:
        """The containers of the prefixes that are known.

        ``filters`` are as Docker's: ``name`` is a regular expression, of which ``^PREFIX-`` says whose they are;
        ``label`` is ``KEY`` or ``KEY=VALUE``; ``status`` is a state. Several may be in a list.

        Raises:
            InvalidInputError: there is another filter (a ``ValueError``).
        """
        asked = Filters(filters)
        found = []
        for prefix in sorted(asked.prefixes(self._prefixes or {DEFAULT_CONTAINER_PREFIX})):
            podkit = wait(self._podkit(prefix))
            for facts in podkit.list().wait():
                workload = facts["container"]
                self._prefixes.add(prefix)
                if workload not in self._workloads:
                    self._workloads[workload] = _Workload(prefix, facts["user_id"], facts["session_id"], None)
                if not asked.match(workload, facts["state"], self._labels(workload, facts)):
                    continue
                found.append(
                    {
                        "id": workload,
                        "name": workload,
                        "status": STATES.get(facts["state"], ContainerStatus.ERROR).value,
                        "created": _iso(facts["created_at"]),
                        "last_active": _iso(facts["last_active_at"] or facts["created_at"]),
                        "user_id": facts["user_id"],
                        "session_id": facts["session_id"],
                        "spec": facts["spec"],
                    }
                )
        return found

    def get_workload_labels(self, workload_id: str) -> dict[str, str]:
        known = self._known(workload_id)
        return self._labels(workload_id, None if known.spec is not None else self._inspect(workload_id))

    def _labels(self, workload_id: str, facts: dict[str, Any] | None) -> dict[str, str]:
        """The labels of a container that is known: as it is to be made or, by what is known of it, was."""
        import json

        known = self._workloads[workload_id]
        spec = known.spec or {} if facts is None else json.loads(facts["spec"] or "{}")
        return {
            "podkit.user_id": known.user,
            "podkit.session_id": known.session,
            "podkit.manager": known.prefix,
            "podkit.image": spec.get("image") or "",
            **(spec.get("labels") or {}),
        }

    def reload_workload(self, workload_id: str) -> None:
        """Does nothing: each look is a new one."""

    def _logs(self, workload_id: str, size: int) -> tuple[bytes, int | None]:
        known = self._known(workload_id)
        podkit = wait(self._podkit(known.prefix))
        return podkit.logs(known.user, known.session, size).wait()

    def get_workload_logs(self, workload_id: str, tail: int = 100) -> str:
        lines = _check.integer(tail, "tail", 0, 2**31)
        try:
            text = self._logs(workload_id, 1 << 20)[0].decode("utf-8", "replace")
        except NotFoundError:
            text = self._failure(workload_id)[1]
        return "".join(text.splitlines(keepends=True)[-lines:]) if lines else ""

    def get_workload_exit_code(self, workload_id: str) -> int | None:
        try:
            return self._logs(workload_id, 0)[1]
        except NotFoundError:
            return self._failure(workload_id)[0]

    def _failure(self, workload_id: str) -> tuple[int | None, str]:
        """How one ended that did not stay up, and is gone."""
        known = self._workloads.get(workload_id)
        if known is None or known.failure is None:
            raise NotFoundError(f"there is no container `{workload_id}`")
        return known.failure

    def get_accessible_ports(self, workload_id: str) -> dict[int, int]:
        return {port["container"]: port["host"] for port in self._inspect(workload_id)["ports"]}

    def detect_current_image(self) -> str | None:
        try:
            parent = wait(self._podkit(DEFAULT_CONTAINER_PREFIX)).parent().wait()
        except PodkitError:
            return None
        return None if parent is None else parent["image"]


def _describe(error: PodkitError, workload_id: str, seconds: float) -> tuple[int | None, str]:
    """Has the error of a container that does not stay up say so as podkit 0.7 did; gives exit code and log."""
    import re

    first, _, logs = error.message.partition("\n")
    found = re.search(r"\(its program exits with (\d+)\)", first)
    code = int(found[1]) if found else None
    text = f"Container {workload_id[:12]} failed to start (status: exited)."
    if code is not None:
        text += f"\nExit code: {code}"
    if logs:
        text += f"\nLogs:\n{logs}"
    error.text = f"{text}\nFailed after: {seconds:.1f}s"
    error.args = (error.text,)
    return code, logs


def _iso(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, timezone.utc).isoformat()


class EmbeddedBackend(NativeBackend):
    """podkit's own engine: no daemon, no download (Linux)."""

    engine_name = "embedded"

    def __init__(self, logger: Logger | None = None) -> None:
        super().__init__(logger=logger)


class PodmanBackend(NativeBackend):
    """Podman."""

    engine_name = "podman"

    def __init__(self, logger: Logger | None = None) -> None:
        super().__init__(logger=logger)
