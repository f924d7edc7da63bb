"""A backend in Python, and managers and a handler that tell what happened."""

from __future__ import annotations

import itertools
from typing import Any

from podkit import PodkitEventHandler
from podkit.backends.base import BackendInterface
from podkit.core.manager import SimpleContainerManager
from podkit.core.models import (
    ContainerConfig,
    ContainerStatus,
    ProcessResult,
)


class FakeBackend(BackendInterface):
    """Containers that are entries of a dictionary."""

    def __init__(self) -> None:
        self.containers: dict[str, dict[str, Any]] = {}
        self.numbers = itertools.count()
        self.fail: set[str] = set()
        self.commands: list[Any] = []

    def connect(self) -> None:
        pass

    def create_workload(self, name: str, config: ContainerConfig, mounts: list[Any], **kwargs: Any) -> str:
        if "create" in self.fail:
            raise RuntimeError("no room")
        container_id = f"id{next(self.numbers)}"
        self.containers[container_id] = {
            "name": name,
            "config": config,
            "mounts": mounts,
            "labels": kwargs["labels"],
            "status": ContainerStatus.CREATING,
            "created": "2020-01-01T00:00:00.123456789Z",
        }
        return container_id

    def start_workload(self, workload_id: str, verification_config: Any = None) -> None:
        if "start" in self.fail:
            raise RuntimeError("does not start")
        self.containers[workload_id]["status"] = ContainerStatus.RUNNING

    def stop_workload(self, workload_id: str, timeout: int = 10) -> None:
        self.containers[workload_id]["status"] = ContainerStatus.EXITED

    def execute_command(
        self,
        workload_id: str,
        command: Any,
        working_dir: Any = None,
        environment: Any = None,
        timeout: Any = None,
    ) -> ProcessResult:
        if workload_id not in self.containers:
            raise RuntimeError("gone")
        self.commands.append(command)
        return ProcessResult(exit_code=0, stdout=str(command), stderr="")

    def remove_workload(self, workload_id: str, force: bool = True) -> None:
        if "remove" in self.fail:
            raise RuntimeError("stays")
        self.containers.pop(workload_id, None)

    def get_workload_status(self, workload_id: str) -> ContainerStatus:
        found = self.containers.get(workload_id)
        return ContainerStatus.ERROR if found is None else found["status"]

    def list_workloads(self, filters: Any = None) -> list[dict[str, Any]]:
        prefix = (filters or {}).get("name", "").lstrip("^")
        return [
            {"id": key, "name": value["name"], "status": value["status"].value, "created": value["created"]}
            for key, value in self.containers.items()
            if value["name"].startswith(prefix)
        ]

    def get_workload_labels(self, workload_id: str) -> dict[str, str]:
        return dict(self.containers[workload_id]["labels"])

    def reload_workload(self, workload_id: str) -> None:
        pass

    def get_workload_logs(self, workload_id: str, tail: int = 100) -> str:
        return "last words"

    def get_workload_exit_code(self, workload_id: str) -> int | None:
        return 9

    def get_accessible_ports(self, workload_id: str) -> dict[int, int]:
        return {}

    def detect_current_image(self) -> str | None:
        return None


class Told(PodkitEventHandler):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, tuple[Any, ...]]] = []

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("on_"):
            return super().__getattribute__(name)

        def note(*arguments: Any) -> Any:
            self.events.append((name, arguments))
            return arguments[2] if name == "on_container_creating" else None

        return note

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.events]


class Containers(SimpleContainerManager):
    pass
