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
    from .models import Process

    FailureHandler = Callable[[str, dict[str, Any]], None]

__all__ = ["ProcessMonitor"]


_ENDED = (ProcessStatus.STOPPED, ProcessStatus.FAILED)


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
        #: Ended and told of, or ended before.
        self._done = {
            known.id for known in list(process_manager.processes.values()) if known.status in _ENDED
        }

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

    def _logs(self, process: Process) -> dict[str, str]:
        # That it has ended is told, whatever becomes of its last words.
        try:
            return self.process_manager.get_logs(process.id)
        except Exception as error:
            self.logger.warning("the logs of %s cannot be read: %s", process.display_name, error)
            return {"stdout": "", "stderr": ""}

    def _check_all(self) -> None:
        manager = self.process_manager
        for process in list(manager.processes.values()):
            if process.id in self._done:
                continue
            try:
                new = manager.get_status(process.id)
            except Exception as error:
                self.logger.warning("%s cannot be looked at: %s", process.display_name, error)
                continue
            if new not in _ENDED:
                continue
            # Whoever else has looked since: this monitor's handlers were not told.
            self._done.add(process.id)
            if process.id in manager._stopped or process.id in manager._over:
                continue
            details: dict[str, Any] = {
                "old_status": ProcessStatus.RUNNING,
                "new_status": new,
                "exit_code": process.exit_code,
                "command": process.command,
                "logs": self._logs(process),
            }
            if new is ProcessStatus.STOPPED:
                details["unexpected_stop"] = True
            for handler in self.failure_handlers:
                try:
                    handler(process.id, details)
                except Exception:
                    self.logger.exception("a handler of the process monitor failed")
