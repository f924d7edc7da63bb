"""What the managers need of an engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..core.models import (
        ContainerConfig,
        ContainerStatus,
        ProcessResult,
        StartupVerificationConfig,
    )

__all__ = ["BackendInterface"]


class BackendInterface(ABC):
    """An engine. One that is written in Python works under the managers, too."""

    @abstractmethod
    def connect(self) -> None:
        """Connects; raises ``RuntimeError`` when the engine is not there."""

    @abstractmethod
    def create_workload(
        self, name: str, config: ContainerConfig, mounts: list[dict[str, Any]], **kwargs: Any
    ) -> str:
        """Makes a container that is not started, and gives its id.

        ``kwargs["labels"]`` say whose it is: ``podkit.user_id``, ``podkit.session_id``,
        ``podkit.manager``, ``podkit.image``.
        """

    @abstractmethod
    def start_workload(
        self, workload_id: str, verification_config: StartupVerificationConfig | None = None
    ) -> None:
        """Starts a container, and looks whether it stays up."""

    @abstractmethod
    def stop_workload(self, workload_id: str, timeout: int = 10) -> None:
        """Stops a container; one that is not there is fine."""

    @abstractmethod
    def execute_command(
        self,
        workload_id: str,
        command: str | list[str],
        working_dir: Path | None = None,
        environment: dict[str, str] | None = None,
        timeout: int | None = None,
    ) -> ProcessResult:
        """Runs a command in a container, which is started when it does not run."""

    @abstractmethod
    def remove_workload(self, workload_id: str, force: bool = True) -> None:
        """Removes a container; one that is not there is fine."""

    @abstractmethod
    def get_workload_status(self, workload_id: str) -> ContainerStatus:
        """How a container is; ``ERROR`` when it is not there."""

    @abstractmethod
    def list_workloads(self, filters: dict[str, str] | None = None) -> list[dict[str, Any]]:
        """The containers: dictionaries with ``id``, ``name``, ``status`` and ``created``."""

    @abstractmethod
    def get_workload_labels(self, workload_id: str) -> dict[str, str]:
        """The labels of a container."""

    @abstractmethod
    def reload_workload(self, workload_id: str) -> None:
        """Looks at a container anew, where what is known of it is kept."""

    @abstractmethod
    def get_workload_logs(self, workload_id: str, tail: int = 100) -> str:
        """The last lines of the container's own program."""

    @abstractmethod
    def get_workload_exit_code(self, workload_id: str) -> int | None:
        """Exit code of the container's own program, when it has ended."""

    @abstractmethod
    def get_accessible_ports(self, workload_id: str) -> dict[int, int]:
        """Ports of the container's and those of this machine that lead to them."""

    @abstractmethod
    def detect_current_image(self) -> str | None:
        """Image of the container that this program runs in."""
