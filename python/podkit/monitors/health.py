"""Looks after the containers of a manager."""

from __future__ import annotations

from .. import _check
from .._log import tell
from ..constants import DEFAULT_HEALTH_CHECK_INTERVAL, DEFAULT_HEALTH_CHECK_LOG_LINES
from ..core.models import ContainerStatus
from .base import BaseThreadMonitor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from logging import Logger
    from typing import Any

    from ..core.events import PodkitEventHandler
    from ..core.manager import BaseContainerManager

    Handler = Callable[[dict[str, dict[str, Any]]], None]

__all__ = ["ContainerHealthMonitor"]

#: States in which nothing is wrong: it runs, is about to, or was stopped on purpose.
_WELL = (ContainerStatus.RUNNING, ContainerStatus.CREATING, ContainerStatus.STOPPED)


class ContainerHealthMonitor(BaseThreadMonitor):
    """Looks at a manager's containers again and again, and tells its handlers what it finds.

    Given to a session manager, it has what died recovered, and sessions that are not used expire. What
    stopped by its own clock is left alone: its next use starts it. An event handler is told at each look what
    is not well (``on_container_health_check_failed``), once where the session manager has the same one.
    """

    def __init__(
        self,
        container_manager: BaseContainerManager,
        check_interval: float = DEFAULT_HEALTH_CHECK_INTERVAL,
        log_lines: int | None = DEFAULT_HEALTH_CHECK_LOG_LINES,
        event_handler: PodkitEventHandler | None = None,
        logger: Logger | None = None,
    ) -> None:
        super().__init__(logger)
        self.container_manager = container_manager
        self.check_interval = _check.seconds(check_interval, "check_interval")
        self.log_lines = _check.maybe_integer(log_lines, "log_lines", 0, 100_000)
        self.event_handler = event_handler
        self.handlers: list[Handler] = []

    def register_handler(self, handler: Handler) -> None:
        """Has a function told of each look: container id to what was found."""
        if not callable(handler):
            raise _check.bad("handler", f"must be a function, not {_check.kind_of(handler)}")
        self.handlers.append(handler)

    def _monitor_loop(self) -> None:
        while self.running:
            try:
                self._check_all()
            except Exception:
                self.logger.exception("a look at the containers failed")
            if not self._pause(self.check_interval):
                return

    def _check_all(self) -> None:
        from datetime import datetime, timezone

        containers = self.container_manager
        found: dict[str, dict[str, Any]] = {}
        for container_id in containers.get_tracked_containers():
            facts: dict[str, Any] = {
                "container_id": container_id,
                "container_name": containers.containers.get(container_id, container_id),
                "status": ContainerStatus.ERROR.value,
                "logs": None,
                "checked_at": datetime.now(timezone.utc).isoformat(),
            }
            try:
                status = containers.get_container_status(container_id)
                facts["status"] = status.value
                if status not in _WELL and self.log_lines and status is not ContainerStatus.ERROR:
                    logs = containers.backend.get_workload_logs(container_id, self.log_lines)
                    facts["logs"] = logs
            except Exception as error:
                facts["check_error"] = str(error)
            found[container_id] = facts
            if not self.running and self.thread is not None:
                return
        for facts in found.values():
            self._tell(facts)
        for handler in self.handlers:
            try:
                handler(found)
            except Exception:
                self.logger.exception("a handler of the health monitor failed")

    def _tell(self, facts: dict[str, Any]) -> None:
        """Tells the event handler of a container that is not well."""
        container_id, status = facts["container_id"], facts["status"]
        if self.event_handler is None or status in _WELL or self.container_manager._rests(container_id):
            return
        event = "on_container_health_check_failed"
        tell(self.event_handler, self.logger, event, container_id, facts["container_name"], status, facts)
