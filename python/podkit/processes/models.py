"""What is known of a background process."""

from __future__ import annotations

from datetime import datetime, timezone
from enum import Enum
from pathlib import Path

from .._model import (
    Field,
    Model,
    choice,
    filled,
    instance,
    listed,
    optional,
    path,
    string,
    variables,
    whole,
)

TYPE_CHECKING = False

__all__ = ["Process", "ProcessStatus"]


class ProcessStatus(str, Enum):
    """How a process is."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


class Process(Model):
    """A background process. A manager changes it in place."""

    _hidden = ("environment",)

    id: str = Field(filled)  # type: ignore[assignment]
    name: str | None = Field(optional(string), None)  # type: ignore[assignment]
    container_id: str = Field(string)  # type: ignore[assignment]
    command: str = Field(string)  # type: ignore[assignment]
    working_dir: Path = Field(path)  # type: ignore[assignment]
    status: ProcessStatus = Field(  # type: ignore[assignment]
        choice(ProcessStatus), ProcessStatus.STARTING
    )
    pid: int | None = Field(optional(whole(0)), None)  # type: ignore[assignment]
    start_time: datetime = Field(  # type: ignore[assignment]
        instance(datetime), make=lambda: datetime.now(timezone.utc)
    )
    stop_time: datetime | None = Field(optional(instance(datetime)), None)  # type: ignore[assignment]
    exit_code: int | None = Field(optional(whole(-(2**31))), None)  # type: ignore[assignment]
    ports: list[int] = Field(listed(whole(1, 65535)), make=list)  # type: ignore[assignment]
    environment: dict[str, str] = Field(variables, make=dict)  # type: ignore[assignment]
    log_dir: Path = Field(path)  # type: ignore[assignment]

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            id: str,
            container_id: str,
            command: str,
            working_dir: Path,
            log_dir: Path,
            name: str | None = ...,
            status: ProcessStatus = ...,
            pid: int | None = ...,
            start_time: datetime = ...,
            stop_time: datetime | None = ...,
            exit_code: int | None = ...,
            ports: list[int] = ...,
            environment: dict[str, str] = ...,
        ) -> None: ...

    @property
    def display_name(self) -> str:
        """The name and the beginning of the id."""
        return f"{self.name} ({self.id[:8]})" if self.name else self.id[:8]

    @property
    def stdout_log(self) -> Path:
        """Where its standard output is kept in the container."""
        return self.log_dir / f"{self.id}.out.log"

    @property
    def stderr_log(self) -> Path:
        """Where its standard error is kept in the container."""
        return self.log_dir / f"{self.id}.err.log"

    @property
    def pid_file(self) -> Path:
        """Name that podkit 0.7 kept the pid under. The agent knows it; there is no such file."""
        return self.log_dir / f"{self.id}.pid"

    @property
    def exit_code_file(self) -> Path:
        """Name that podkit 0.7 kept the exit code under. The agent knows it; there is no such file."""
        return self.log_dir / f"{self.id}.exit"
