"""A loop in a thread of its own."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod

from .. import _check
from .._log import logger_or

TYPE_CHECKING = False
if TYPE_CHECKING:
    from logging import Logger

__all__ = ["BaseThreadMonitor"]


class BaseThreadMonitor(ABC):
    """A monitor in a daemon thread. It is stopped at once: its loop waits with :meth:`_pause`."""

    _logger_name = "podkit.health"

    def __init__(self, logger: Logger | None = None) -> None:
        self.logger = logger_or(logger, self._logger_name)
        self.running = False
        self.thread: threading.Thread | None = None
        self._ended = threading.Event()

    def start(self) -> None:
        """Begins; does nothing but warn when it runs."""
        if self.running:
            self.logger.warning("%s runs already", type(self).__name__)
            return
        self.running = True
        self._ended = threading.Event()
        self.thread = threading.Thread(target=self._monitor_loop, name=type(self).__name__, daemon=True)
        self.thread.start()

    def stop(self, timeout: float = 5) -> None:
        """Ends the loop, and waits for it so many seconds; does nothing when it does not run."""
        limit = _check.seconds(timeout, "timeout", zero=True)
        if not self.running:
            return
        self.running = False
        self._ended.set()
        thread = self.thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(limit)

    def _pause(self, seconds: float) -> bool:
        """Waits so long; whether the loop goes on."""
        ended = self._ended
        if ended.wait(seconds) or not self.running:
            return False
        # One that was stopped, and had not ended when the next was begun, is not to go on beside it.
        return self.thread is None or self.thread is threading.current_thread()

    @abstractmethod
    def _monitor_loop(self) -> None:
        """The loop: works and waits while :attr:`running` is set."""
