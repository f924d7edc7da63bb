"""What happens to containers, sessions and processes, told to a handler."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .models import ContainerConfig, Session

__all__ = ["PodkitEventHandler"]


class PodkitEventHandler:
    """Told what happens; every method does nothing until it is overridden.

    A handler that raises changes nothing: it is logged, and the operation goes on. The one exception
    is :meth:`on_container_creating`, which may refuse: what it raises is what the creation fails with.
    """

    def on_container_creating(
        self, user_id: str, session_id: str, config: ContainerConfig
    ) -> ContainerConfig:
        """A container is about to be made; what is returned is made."""
        return config

    def on_container_created(
        self,
        container_id: str,
        container_name: str,
        user_id: str,
        session_id: str,
        config: ContainerConfig,
    ) -> None:
        """A container was made."""

    def on_container_creation_failed(
        self, user_id: str, session_id: str, config: ContainerConfig, error: Exception
    ) -> None:
        """A container could not be made."""

    def on_container_startup_failed(
        self,
        container_id: str,
        container_name: str,
        user_id: str,
        session_id: str,
        exit_code: int | None,
        logs: str,
    ) -> None:
        """A container could not be started, or did not stay up."""

    def on_container_stopped(self, container_id: str, container_name: str) -> None:
        """A container was stopped."""

    def on_container_stop_failed(self, container_id: str, error: Exception) -> None:
        """A container could not be stopped."""

    def on_container_removed(self, container_id: str, container_name: str) -> None:
        """A container was removed."""

    def on_container_removal_failed(self, container_id: str, error: Exception) -> None:
        """A container could not be removed."""

    def on_session_created(self, session: Session) -> None:
        """A session is open."""

    def on_session_creation_failed(self, user_id: str, session_id: str, error: Exception) -> None:
        """A session could not be opened."""

    def on_session_closing(self, session: Session) -> None:
        """A session is about to be closed."""

    def on_session_closed(self, session: Session) -> None:
        """A session was closed."""

    def on_session_expired(self, session: Session) -> None:
        """A session was not used for too long, and is about to be closed."""

    def on_container_health_check_failed(
        self,
        container_id: str,
        container_name: str,
        reason: str,
        details: dict[str, Any] | None = None,
    ) -> None:
        """A container is not well."""

    def on_container_recovered(
        self, container_id: str, container_name: str, user_id: str, session_id: str
    ) -> None:
        """A container is well again, or was made anew."""

    def on_container_recovery_failed(
        self, user_id: str, session_id: str, reason: str, error: Exception | None = None
    ) -> None:
        """A container could not be recovered."""

    def on_orphan_container_removed(self, container_id: str, container_name: str, age_seconds: float) -> None:
        """A container that nobody used was removed."""

    def on_process_started(
        self,
        process_id: str,
        container_id: str,
        user_id: str,
        session_id: str,
        command: str,
        pid: int | None,
    ) -> None:
        """A background process was begun."""

    def on_process_stopped(
        self,
        process_id: str,
        container_id: str,
        user_id: str,
        session_id: str,
        exit_code: int | None,
    ) -> None:
        """A background process has ended."""

    def on_process_failed(
        self, process_id: str, container_id: str, user_id: str, session_id: str, error: str
    ) -> None:
        """A background process failed."""
