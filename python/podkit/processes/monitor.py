"""Watches over the processes of a manager."""

from __future__ import annotations

from .. import _check
from ..monitors.base import BaseThreadMonitor
from .models import ProcessStatus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from logging import Logger
    from typing import Any

    from .manager import ProcessManager

    FailureHandler = Callable[[str, dict[str, Any]], None]

__all__ = ["ProcessMonitor"]


class ProcessMonitor(BaseThreadMonitor):
    """Looks at a manager's processes again and again, and tells of those that have ended."""

    _logger_name = "podkit.processes.monitor"

    def __init__(
        self, process_manager: ProcessManager, check_interval: float = 30, logger: Logger | None = None
    ) -> None:
        super().__init__(logger)
        self.process_manager = process_manager
        self.check_interval = _check.seconds(check_interval, "check_interval")
        self.failure_handlers: list[FailureHandler] = []

    def register_failure_handler(self, handler: FailureHandler) -> None:
        """Has a function told of each process that failed, or ended without being asked to."""
        if not callable(handler):
            raise _check.bad("handler", f"must be a function, not {_check.kind_of(handler)}")
        self.failure_handlers.append(handler)

    def _monitor_loop(self) -> None:
        while self.running:
            try:
                self._check_all()
            except Exception:
                self.logger.exception("a look at the processes failed")
            if not self._pause(self.check_interval):
                return

    def _check_all(self) -> None:
        manager = self.process_manager
        for process in list(manager.processes.values()):
            old = process.status
            if old in (ProcessStatus.STOPPED, ProcessStatus.FAILED):
                continue
            try:
                new = manager.get_status(process.id)
            except Exception as error:
                self.logger.warning("%s cannot be looked at: %s", process.display_name, error)
                continue
            if new is old or new not in (ProcessStatus.STOPPED, ProcessStatus.FAILED):
                continue
            if process.id in manager._stopped:
                continue
            details: dict[str, Any] = {
                "old_status": old,
                "new_status": new,
                "exit_code": process.exit_code,
                "command": process.command,
                "logs": manager.get_logs(process.id),
            }
            if old is ProcessStatus.RUNNING and new is ProcessStatus.STOPPED:
                details["unexpected_stop"] = True
            for handler in self.failure_handlers:
                try:
                    handler(process.id, details)
                except Exception:
                    self.logger.exception("a handler of the process monitor failed")
