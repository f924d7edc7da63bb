"""Whose container is whose, and for how long."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from .. import _check, _fork, _spec
from .._log import logger_or, tell
from ..constants import DEFAULT_CONTAINER_IMAGE, DEFAULT_SESSION_INACTIVITY_TIMEOUT_SECONDS
from ..errors import NotFoundError, PodkitError
from ..utils.paths import get_workspace_path
from .models import ContainerConfig, ContainerStatus, ProcessResult, Session, StartupVerificationConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from logging import Logger
    from typing import Any

    from ..monitors.health import ContainerHealthMonitor
    from .events import PodkitEventHandler
    from .manager import BaseContainerManager

__all__ = ["RECOVERABLE_STATES", "UNRECOVERABLE_STATES", "BaseSessionManager"]

#: States that a start brings back from.
RECOVERABLE_STATES = {ContainerStatus.CREATING, ContainerStatus.PAUSED, ContainerStatus.EXITED}
#: States that only a new container helps against.
UNRECOVERABLE_STATES = {
    ContainerStatus.RESTARTING,
    ContainerStatus.REMOVING,
    ContainerStatus.DEAD,
    ContainerStatus.ERROR,
}

_FAILURE = ("failure_reason", "failure_status", "failure_detected_at")


class BaseSessionManager:
    """Sessions of users: made on first use, found again, used, closed.

    Calls for one session run one after the other where they make or close it; commands run side by
    side, and no session waits for another one.
    """

    def __init__(
        self,
        container_manager: BaseContainerManager,
        default_image: str | None = None,
        logger: Logger | None = None,
        *,
        health_monitor: ContainerHealthMonitor | None = None,
        event_handler: PodkitEventHandler | None = None,
        session_inactivity_timeout_seconds: int | None = None,
        _recover: bool = True,
    ) -> None:
        self.container_manager = container_manager
        self.logger = logger_or(logger, "podkit.sessions")
        self.event_handler = event_handler
        self.health_monitor = health_monitor
        self.sessions: dict[str, Session] = {}
        self.lock = _fork.lock()
        self._gates: dict[str, threading.RLock] = {}
        self._running: dict[str, int] = {}
        self._closed = False
        timeout = session_inactivity_timeout_seconds
        if timeout is None:
            timeout = DEFAULT_SESSION_INACTIVITY_TIMEOUT_SECONDS
        self.session_inactivity_timeout_seconds = _check.integer(
            timeout, "session_inactivity_timeout_seconds", 0, 10**9
        )
        image = _check.maybe_text(default_image, "default_image")
        if image is None:
            # Only an answer is awaited; an engine that has none has a default.
            image = container_manager.backend.detect_current_image()
        if image is None:
            default = getattr(container_manager.backend, "default_image", None)
            image = DEFAULT_CONTAINER_IMAGE if default is None else default()
        self.default_image = image
        container_manager._default_image = self.default_image
        if health_monitor is not None:
            health_monitor.register_handler(self._handle_health)
            health_monitor.start()
        if _recover:
            self._recover_sessions()

    # Whose.

    @staticmethod
    def _key(user_id: str, session_id: str) -> str:
        # Ids may have colons in them; two users' keys are never one.
        if ":" in user_id or "%" in user_id:
            user_id = user_id.replace("%", "%25").replace(":", "%3A")
        return f"{user_id}:{session_id}"

    @contextmanager
    def _gate(self, key: str) -> Iterator[None]:
        with self.lock:
            gate = self._gates.setdefault(key, _fork.lock())
        with gate:
            yield

    def _recover_sessions(self) -> None:
        for found in self.container_manager.discover_existing_containers():
            workload = found.get("workload") or {}
            user_id, session_id = found["user_id"], found["session_id"]
            config = ContainerConfig(image=found["image"] or None)
            if workload.get("spec"):
                import json

                try:
                    config = _spec.to_config(json.loads(workload["spec"]))
                except ValueError as error:
                    self.logger.warning("%s/%s: %s", user_id, session_id, error)
            try:
                status = ContainerStatus(workload.get("status", "running"))
            except ValueError:
                status = ContainerStatus.RUNNING
            session = self._described(user_id, session_id, config)
            session.container_id = found["container_id"]
            session.container_name = found["container_name"]
            session.status = status
            for field, name in (("created_at", "created"), ("last_active_at", "last_active")):
                if isinstance(workload.get(name), str):
                    try:
                        setattr(session, field, datetime.fromisoformat(workload[name]))
                    except ValueError:
                        pass
            with self.lock:
                self.sessions.setdefault(self._key(user_id, session_id), session)

    def _described(self, user_id: str, session_id: str, config: ContainerConfig) -> Session:
        base = self.container_manager.workspace_base
        return Session(
            user_id=user_id,
            session_id=session_id,
            config=config,
            data_dir=str(get_workspace_path(base, user_id, session_id)),
            session_inactivity_timeout_seconds=self.session_inactivity_timeout_seconds,
        )

    def create_session(
        self, user_id: str, session_id: str | None = None, config: ContainerConfig | None = None
    ) -> Session:
        """The session, made unless it is known; its id is random without one.

        One that is known and was made with another configuration is given as it is, with a warning.

        Raises:
            PodkitError: it cannot be made (a ``RuntimeError``, ``Failed to create session: ...``).
        """
        user_id = _check.text(user_id, "user_id")
        if session_id is None:
            import uuid

            session_id = str(uuid.uuid4())
        session_id = _check.text(session_id, "session_id")
        if config is not None and not isinstance(config, ContainerConfig):
            raise _check.bad("config", f"must be a ContainerConfig, not {_check.kind_of(config)}")
        key = self._key(user_id, session_id)
        with self._gate(key):
            known = self.sessions.get(key)
            if known is not None:
                if config is not None:
                    self._compare(known, config)
                return known
            try:
                made_with = config or ContainerConfig(image=self.default_image)
                session = self._described(user_id, session_id, made_with)
                self._make_container(session)
            except Exception as error:
                tell(
                    self.event_handler,
                    self.logger,
                    "on_session_creation_failed",
                    user_id,
                    session_id,
                    error,
                )
                raise _prefixed("Failed to create session", error) from error
            with self.lock:
                self.sessions[key] = session
        tell(self.event_handler, self.logger, "on_session_created", session)
        return session

    def _compare(self, session: Session, config: ContainerConfig) -> None:
        """Warns when a session was made otherwise than somebody wishes now."""
        image = {"image": self.default_image}
        wish, have = ({**image, **one.model_dump(exclude_none=True)} for one in (config, session.config))
        other = [name for name in {**wish, **have} if wish.get(name) != have.get(name)]
        if other:
            self.logger.warning(
                "session %s/%s is used as it was made: another %s is wished now",
                session.user_id,
                session.session_id,
                ", ".join(other),
            )

    def _make_container(self, session: Session) -> None:
        """Makes and starts a session's container; nothing of it is left when that fails."""
        containers = self.container_manager
        container_id, name = containers.create_container(session.user_id, session.session_id, session.config)
        try:
            containers.start_container(container_id, session.config)
        except Exception as error:
            code, logs = None, str(error)
            try:
                code = containers.backend.get_workload_exit_code(container_id)
                logs = containers.backend.get_workload_logs(container_id) or logs
            except Exception:
                pass  # It is not there; the error says all.
            tell(
                containers.event_handler,
                self.logger,
                "on_container_startup_failed",
                container_id,
                name,
                session.user_id,
                session.session_id,
                code,
                logs,
            )
            made_here = getattr(containers.backend, "made_here", None)
            try:
                if made_here is None or made_here(container_id):
                    containers.remove_container(container_id)
                else:
                    with containers.lock:
                        containers.containers.pop(container_id, None)
            except Exception as failure:
                self.logger.warning("%s cannot be removed: %s", container_id, failure)
            raise
        session.container_id, session.container_name = container_id, name
        session.status = ContainerStatus.RUNNING

    def get_session(self, user_id: str, session_id: str) -> Session | None:
        """The session, if it is known."""
        user_id, session_id = _check.text(user_id, "user_id"), _check.text(session_id, "session_id")
        return self.sessions.get(self._key(user_id, session_id))

    def get_or_create_session(
        self, user_id: str, session_id: str, config: ContainerConfig | None = None
    ) -> Session:
        """The session, made if it is not known; see :meth:`create_session`."""
        return self.create_session(user_id, _check.text(session_id, "session_id"), config)

    def update_session_activity(self, user_id: str, session_id: str) -> None:
        """Notes that a session is used now."""
        self._existing(user_id, session_id).update_activity()

    def _existing(self, user_id: str, session_id: str) -> Session:
        session = self.get_session(user_id, session_id)
        if session is None:
            raise NotFoundError(f"Session not found: {user_id}:{session_id}")
        return session

    def _container(self, session: Session) -> str:
        """The session's container, made anew when it is lost."""
        key = self._key(session.user_id, session.session_id)
        with self._gate(key):
            if self.sessions.get(key) is not session:
                # It was closed while this call waited for its turn.
                raise NotFoundError(f"Session not found: {session.user_id}:{session.session_id}")
            if session.container_id is not None and session.status is not ContainerStatus.ERROR:
                return session.container_id
            try:
                self._make_container(session)
            except Exception as error:
                tell(
                    self.event_handler,
                    self.logger,
                    "on_container_recovery_failed",
                    session.user_id,
                    session.session_id,
                    "recreation_failed",
                    error,
                )
                raise
            for name in _FAILURE:
                session.metadata.pop(name, None)
            tell(
                self.event_handler,
                self.logger,
                "on_container_recovered",
                session.container_id,
                session.container_name,
                session.user_id,
                session.session_id,
            )
            return session.container_id or ""

    @contextmanager
    def _in_use(self, session: Session) -> Iterator[str]:
        """The session's container, for as long as it is used: that is activity from begin to end."""
        key = self._key(session.user_id, session.session_id)
        session.update_activity()
        with self.lock:
            self._running[key] = self._running.get(key, 0) + 1
        try:
            yield self._container(session)
        finally:
            with self.lock:
                self._running[key] -= 1
                if not self._running[key]:
                    del self._running[key]
            session.update_activity()

    def execute_command(
        self,
        user_id: str,
        session_id: str,
        command: str | list[str],
        working_dir: Path | None = None,
        environment: dict[str, str] | None = None,
        timeout: int | None = None,
    ) -> ProcessResult:
        """Runs a command in a session's container; text is run by its shell.

        Without ``timeout`` a command has ``container_lifetime_seconds``. One that runs too long has the exit
        code 124, what it wrote until then, and ``Command timed out after N seconds`` in ``stderr``.
        """
        session = self._existing(user_id, session_id)
        with self._in_use(session) as container_id:
            return self.container_manager.execute_command(
                container_id, command, working_dir, environment, timeout
            )

    def write_file(self, user_id: str, session_id: str, container_path: Path | str, content: str) -> Path:
        """Writes a file of a session's and gives its path in the container."""
        session = self._existing(user_id, session_id)
        _check.text(container_path, "container_path")
        _check.content(content, "content")
        with self._in_use(session) as container_id:
            return self.container_manager._write(
                container_id, container_path, content, session.user_id, session.session_id
            )

    def close_session(self, user_id: str, session_id: str) -> None:
        """Removes a session's container.

        Raises:
            NotFoundError: the session is not known (a ``RuntimeError``).
            PodkitError: the container could not be removed; the session stays known then.
        """
        session = self._existing(user_id, session_id)
        key = self._key(session.user_id, session.session_id)
        with self._gate(key):
            if self.sessions.get(key) is not session:
                raise NotFoundError(f"Session not found: {user_id}:{session_id}")
            tell(self.event_handler, self.logger, "on_session_closing", session)
            if session.container_id is not None:
                self.container_manager.remove_container(session.container_id)
            session.status = ContainerStatus.STOPPED
            with self.lock:
                self.sessions.pop(key, None)
        tell(self.event_handler, self.logger, "on_session_closed", session)

    def cleanup_all(self) -> None:
        """Closes all sessions but those whose container another process made; what cannot be is logged."""
        made_here = getattr(self.container_manager.backend, "made_here", None)
        self._close_those(
            [
                session
                for session in list(self.sessions.values())
                if made_here is None or session.container_id is None or made_here(session.container_id)
            ]
        )

    def _close_those(self, sessions: list[Session]) -> None:
        for session in sessions:
            try:
                self.close_session(session.user_id, session.session_id)
            except Exception as error:
                self.logger.warning("%s/%s cannot be closed: %s", session.user_id, session.session_id, error)

    def shutdown(self) -> None:
        """Stops the health monitor. Sessions stay as they are."""
        if self._closed:
            return
        self._closed = True
        if self.health_monitor is not None:
            self.health_monitor.stop()

    def __del__(self) -> None:
        try:
            self.shutdown()
        except Exception:
            pass  # The interpreter ends, or the constructor did not.

    # Health.

    def _handle_health(self, found: dict[str, dict[str, Any]]) -> None:
        for container_id, facts in found.items():
            try:
                status = ContainerStatus(facts["status"])
            except ValueError:
                status = ContainerStatus.ERROR
            sessions = [s for s in list(self.sessions.values()) if s.container_id == container_id]
            if status is ContainerStatus.RUNNING or status is ContainerStatus.STOPPED or not sessions:
                continue
            if self.container_manager._rests(container_id):
                continue
            if not self._monitor_tells(status):
                tell(
                    self.event_handler,
                    self.logger,
                    "on_container_health_check_failed",
                    container_id,
                    facts["container_name"],
                    status.value,
                    facts,
                )
            self._recover_container(container_id, status, sessions, facts["checked_at"])
        self._expire()

    def _monitor_tells(self, status: ContainerStatus) -> bool:
        """Whether the monitor has told this manager's handler: of all but what may be about to be started."""
        monitor = self.health_monitor
        same = monitor is not None and monitor.event_handler is self.event_handler
        return same and status is not ContainerStatus.CREATING

    def _recover_container(
        self, container_id: str, status: ContainerStatus, sessions: list[Session], detected_at: str
    ) -> None:
        reason = "unrecoverable_state"
        if status in RECOVERABLE_STATES:
            try:
                self.container_manager.backend.start_workload(container_id, StartupVerificationConfig())
            except Exception as error:
                self.logger.warning("%s cannot be started again: %s", container_id, error)
                reason = "restart_failed"
            else:
                for session in sessions:
                    tell(
                        self.event_handler,
                        self.logger,
                        "on_container_recovered",
                        container_id,
                        session.container_name,
                        session.user_id,
                        session.session_id,
                    )
                return
        for session in sessions:
            session.container_id = None
            session.status = ContainerStatus.ERROR
            session.metadata.update(
                failure_reason=reason,
                failure_status=status.value,
                failure_detected_at=detected_at,
            )
            tell(
                self.event_handler,
                self.logger,
                "on_container_recovery_failed",
                session.user_id,
                session.session_id,
                reason,
                None,
            )
        try:
            self.container_manager.remove_container(container_id)
        except Exception as error:
            self.logger.warning("%s cannot be removed: %s", container_id, error)

    def _expire(self) -> None:
        for key, session in list(self.sessions.items()):
            if key in self._running or not session.is_expired() or self._is_used_elsewhere(session):
                continue
            with self._gate(key):
                # It may have come into use since the engine was asked; whoever comes now waits.
                if key in self._running or not session.is_expired() or self.sessions.get(key) is not session:
                    continue
                tell(self.event_handler, self.logger, "on_session_expired", session)
                self._close_those([session])

    def _is_used_elsewhere(self, session: Session) -> bool:
        """Whether a session is in use as its container knows it: by other processes, and past this manager."""
        last_active = getattr(self.container_manager.backend, "last_active", None)
        if last_active is None or session.container_id is None:
            return False
        try:
            used = last_active(session.container_id)
        except PodkitError as error:
            who = session.user_id, session.session_id
            self.logger.warning("%s/%s stays, for nobody knows whether it is used: %s", *who, error)
            return True
        if used is None or session.model_copy(update={"last_active_at": used}).is_expired():
            return False
        session.last_active_at = used
        return True


def _prefixed(prefix: str, error: Exception) -> Exception:
    """The same error with more in its text."""
    if not isinstance(error, PodkitError):
        return PodkitError(f"{prefix}: {error}")
    import copy

    made = copy.copy(error)
    made.text = f"{prefix}: {error.text}"
    made.args = (made.text,)
    return made
