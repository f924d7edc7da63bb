"""Removes containers that nobody uses."""

from __future__ import annotations

from .. import _check
from .._log import tell
from ..core.models import ContainerStatus
from .base import BaseThreadMonitor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime
    from logging import Logger
    from typing import Any

    from ..backends.base import BackendInterface
    from ..core.events import PodkitEventHandler

__all__ = ["OrphanContainerCleaner"]


class OrphanContainerCleaner(BaseThreadMonitor):
    """Removes containers of a prefix that do not run and were not used for a while.

    The time counts from the last activity where the engine knows it, and from the creation elsewhere.
    """

    _logger_name = "podkit.orphans"

    def __init__(
        self,
        backend: BackendInterface,
        container_prefix: str,
        check_interval: float = 300,
        max_age_seconds: float = 3600,
        event_handler: PodkitEventHandler | None = None,
        logger: Logger | None = None,
    ) -> None:
        super().__init__(logger)
        self.backend = backend
        self.container_prefix = _check.text(container_prefix, "container_prefix")
        self.check_interval = _check.seconds(check_interval, "check_interval")
        self.max_age_seconds = _check.seconds(max_age_seconds, "max_age_seconds", zero=True)
        self.event_handler = event_handler

    def _monitor_loop(self) -> None:
        while self.running:
            try:
                self._cleanup_orphans()
            except Exception:
                self.logger.exception("a look for orphans failed")
            if not self._pause(self.check_interval):
                return

    def _cleanup_orphans(self) -> None:
        from datetime import datetime, timezone

        now = datetime.now(timezone.utc)
        listed = self.backend.list_workloads(filters={"name": f"^{self.container_prefix}-"})
        for workload in listed:
            if workload.get("status") == ContainerStatus.RUNNING.value:
                continue
            since = _time(workload.get("last_active") or workload.get("created"))
            age = 0.0 if since is None else (now - since).total_seconds()
            if since is None or age < self.max_age_seconds:
                continue
            container_id, name = workload["id"], workload["name"]
            try:
                if not self._is_ours(workload):
                    continue
                self.backend.remove_workload(container_id)
            except Exception as error:
                self.logger.warning("%s cannot be removed: %s", name, error)
                continue
            self.logger.info("removed %s, which nobody used for %d s", name, age)
            tell(
                self.event_handler,
                self.logger,
                "on_orphan_container_removed",
                container_id,
                name,
                age,
            )

    def _is_ours(self, workload: dict[str, Any]) -> bool:
        """Whether it is this prefix's, and not that of a longer one."""
        labels = self.backend.get_workload_labels(workload["id"])
        return labels.get("podkit.manager") == self.container_prefix


def _time(value: Any) -> datetime | None:
    from datetime import datetime, timezone

    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=timezone.utc)
    try:
        # Docker has more digits than Python reads.
        text = str(value).replace("Z", "+00:00")
        whole, dot, rest = text.partition(".")
        if dot:
            digits = len(rest) - len(rest.lstrip("0123456789"))
            text = f"{whole}.{rest[:digits][:6]:0<6}{rest[digits:]}"
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=timezone.utc)
