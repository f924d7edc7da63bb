"""What containers, sessions and results are described by."""

from __future__ import annotations

import math
import re
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path

from .._model import (
    Field,
    Model,
    boolean,
    choice,
    filled,
    instance,
    listed,
    model,
    number,
    optional,
    path,
    string,
    variables,
    whole,
    wrong,
)
from ..constants import (
    DEFAULT_CONTAINER_LIFETIME_SECONDS,
    DEFAULT_CPU_LIMIT,
    DEFAULT_MEMORY_LIMIT,
    DEFAULT_SESSION_INACTIVITY_TIMEOUT_SECONDS,
    DEFAULT_USER,
    DEFAULT_WORKING_DIR,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .._model import Check
    from .._native import Output
    from ..results import _Copied

__all__ = [
    "ContainerConfig",
    "ContainerStatus",
    "Mount",
    "ProcessResult",
    "Session",
    "StartupVerificationConfig",
]


class ContainerStatus(str, Enum):
    """How a container, or the one of a session, is."""

    CREATING = "creating"
    RUNNING = "running"
    PAUSED = "paused"
    EXITED = "exited"
    #: Closed on purpose.
    STOPPED = "stopped"
    RESTARTING = "restarting"
    REMOVING = "removing"
    DEAD = "dead"
    #: Not found, or it could not be looked at.
    ERROR = "error"


_MEMORY = re.compile(r"[0-9]+(\.[0-9]+)?\s*([bkmgt](i?b)?)?", re.IGNORECASE)


def _memory(value: Any, where: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return str(value)
    text = filled(value, where).strip()
    if not _MEMORY.fullmatch(text) or not text.strip("0.bBkKmMgGtTiI "):
        raise wrong(where, f"must be an amount of memory such as '512m' or '4g', not {value!r}")
    return text


def _absolute(value: Any, where: str) -> str:
    if isinstance(value, Path):
        value = str(value)
    return filled(value, where)


def _mount_type(value: Any, where: str) -> str:
    if value not in ("bind", "volume", "tmpfs"):
        raise wrong(where, f"must be 'bind', 'volume' or 'tmpfs', not {value!r}")
    return value


class Mount(Model):
    """A directory or volume that a container has.

    ``type`` is ``bind``, ``volume`` or ``tmpfs``; a tmpfs needs no ``source``.
    """

    type: str = Field(_mount_type, "bind")  # type: ignore[assignment]
    source: Path = Field(path)  # type: ignore[assignment]
    target: Path = Field(path)  # type: ignore[assignment]
    read_only: bool = Field(boolean, False)  # type: ignore[assignment]

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            source: Path | str = ...,
            target: Path | str,
            type: str = ...,
            read_only: bool = ...,
        ) -> None: ...
    else:

        def __init__(self, **values: Any) -> None:
            if values.get("type") == "tmpfs":
                values.setdefault("source", "tmpfs")
            super().__init__(**values)
            if not self.target.is_absolute():
                raise wrong("target", f"must be an absolute path, not {str(self.target)!r}")


class StartupVerificationConfig(Model):
    """That a container is looked at for a while after its start.

    It has to be seen running ``required_consecutive_checks`` times, ``check_interval_seconds`` apart, for which
    ``max_wait_seconds`` has to have room. The error of one that does not stay up has its exit code and, with
    ``capture_logs_on_failure``, the last ``log_tail_lines`` lines that its own program wrote.
    """

    required_consecutive_checks: int = Field(whole(1, 1000), 3)  # type: ignore[assignment]
    check_interval_seconds: float = Field(number(0.01, 3600), 1.0)  # type: ignore[assignment]
    max_wait_seconds: float = Field(number(0.01, 86400), 5.0)  # type: ignore[assignment]
    capture_logs_on_failure: bool = Field(boolean, True)  # type: ignore[assignment]
    log_tail_lines: int = Field(whole(0, 100_000), 100)  # type: ignore[assignment]

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            required_consecutive_checks: int = ...,
            check_interval_seconds: float = ...,
            max_wait_seconds: float = ...,
            capture_logs_on_failure: bool = ...,
            log_tail_lines: int = ...,
        ) -> None: ...


def _lifetime() -> Check:
    return whole(1, 10**9)


class ContainerConfig(Model):
    """What a container should be like. All fields are keywords, and optional."""

    _hidden = ("environment",)

    image: str | None = Field(optional(filled), None)  # type: ignore[assignment]
    inherit_parent_image: bool = Field(boolean, False)  # type: ignore[assignment]
    #: Processor cores.
    cpu_limit: float = Field(number(0.01, 100_000), DEFAULT_CPU_LIMIT)  # type: ignore[assignment]
    #: Memory, as ``512m`` or ``4g``.
    memory_limit: str = Field(_memory, DEFAULT_MEMORY_LIMIT)  # type: ignore[assignment]
    #: The container stops so long after its last use; ignored with an entrypoint or a command.
    container_lifetime_seconds: int = Field(  # type: ignore[assignment]
        _lifetime(), DEFAULT_CONTAINER_LIFETIME_SECONDS
    )
    environment: dict[str, str] = Field(variables, make=dict)  # type: ignore[assignment]
    working_dir: str = Field(_absolute, DEFAULT_WORKING_DIR)  # type: ignore[assignment]
    user: str = Field(filled, DEFAULT_USER)  # type: ignore[assignment]
    #: Runs the image's own entrypoint and command.
    use_image_defaults: bool = Field(boolean, False)  # type: ignore[assignment]
    #: ``[]``: the container runs until it is closed.
    entrypoint: list[str] | None = Field(optional(listed(string)), None)  # type: ignore[assignment]
    command: list[str] | None = Field(optional(listed(string)), None)  # type: ignore[assignment]
    volumes: list[Mount] = Field(listed(model(Mount)), make=list)  # type: ignore[assignment]
    #: Ports that this machine offers at 127.0.0.1, under the same numbers.
    ports: list[int] = Field(listed(whole(1, 65535)), make=list)  # type: ignore[assignment]
    networks: list[str] = Field(listed(filled), make=list)  # type: ignore[assignment]
    inherit_parent_networks: bool = Field(boolean, False)  # type: ignore[assignment]
    #: Taken and without effect: the container's own program needs no terminal here.
    tty: bool = Field(boolean, False)  # type: ignore[assignment]
    #: Taken and without effect.
    stdin_open: bool = Field(boolean, False)  # type: ignore[assignment]
    auto_remove: bool = Field(boolean, False)  # type: ignore[assignment]
    startup_verification: StartupVerificationConfig | None = Field(  # type: ignore[assignment]
        optional(model(StartupVerificationConfig)), None
    )

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            image: str | None = ...,
            inherit_parent_image: bool = ...,
            cpu_limit: float = ...,
            memory_limit: str = ...,
            container_lifetime_seconds: int = ...,
            environment: dict[str, str] = ...,
            working_dir: str = ...,
            user: str = ...,
            use_image_defaults: bool = ...,
            entrypoint: list[str] | None = ...,
            command: list[str] | None = ...,
            volumes: list[Mount] = ...,
            ports: list[int] = ...,
            networks: list[str] = ...,
            inherit_parent_networks: bool = ...,
            tty: bool = ...,
            stdin_open: bool = ...,
            auto_remove: bool = ...,
            startup_verification: StartupVerificationConfig | None = ...,
        ) -> None: ...


class ProcessResult(Model):
    """How a command ended, and what it wrote."""

    exit_code: int = Field(whole(-(2**31), 2**31))  # type: ignore[assignment]
    stdout: str = Field(instance(str))  # type: ignore[assignment]
    stderr: str = Field(instance(str))  # type: ignore[assignment]

    if TYPE_CHECKING:

        def __init__(self, *, exit_code: int, stdout: str, stderr: str) -> None: ...

    @property
    def output(self) -> str:
        """Both streams; in the order of their arrival, where podkit ran the command."""
        output: Output | _Copied | None = self.__dict__.get("_output")
        return self.stdout + self.stderr if output is None else output.output_text()

    @property
    def timed_out(self) -> bool:
        """Whether the command's time was over."""
        return bool(self.__dict__.get("_timed_out", False))

    @classmethod
    def _of(cls, output: Output, timeout: float | None) -> ProcessResult:
        made = cls.__new__(cls)
        stderr = output.stderr_text()
        late = output.outcome == "timed_out"
        # What both streams said in turn is kept only where there are two.
        kept = None if output.stderr_empty else output
        if late:
            limit = "its" if timeout is None else f"{timeout:g}"
            note = f"Command timed out after {limit} seconds"
            stderr = f"{stderr}{'' if not stderr or stderr.endswith(chr(10)) else chr(10)}{note}"
        made.__dict__.update(
            _set={"exit_code", "stdout", "stderr"},
            _output=kept,
            _timed_out=late,
            exit_code=output.exit_code,
            stdout=output.stdout_text(),
            stderr=stderr,
        )
        return made


def _now() -> datetime:
    return datetime.now(timezone.utc)


class Session(Model):
    """What a session manager knows of a session."""

    user_id: str = Field(filled)  # type: ignore[assignment]
    session_id: str = Field(filled)  # type: ignore[assignment]
    container_id: str | None = Field(optional(filled), None)  # type: ignore[assignment]
    container_name: str | None = Field(optional(filled), None)  # type: ignore[assignment]
    status: ContainerStatus = Field(  # type: ignore[assignment]
        choice(ContainerStatus), ContainerStatus.CREATING
    )
    created_at: datetime = Field(instance(datetime), make=_now)  # type: ignore[assignment]
    last_active_at: datetime = Field(instance(datetime), make=_now)  # type: ignore[assignment]
    config: ContainerConfig = Field(model(ContainerConfig))  # type: ignore[assignment]
    data_dir: str = Field(string)  # type: ignore[assignment]
    session_inactivity_timeout_seconds: int = Field(  # type: ignore[assignment]
        whole(0), DEFAULT_SESSION_INACTIVITY_TIMEOUT_SECONDS
    )
    metadata: dict[str, Any] = Field(instance(dict), make=dict)  # type: ignore[assignment]

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            user_id: str,
            session_id: str,
            config: ContainerConfig,
            data_dir: str,
            container_id: str | None = ...,
            container_name: str | None = ...,
            status: ContainerStatus = ...,
            created_at: datetime = ...,
            last_active_at: datetime = ...,
            session_inactivity_timeout_seconds: int = ...,
            metadata: dict[str, Any] = ...,
        ) -> None: ...

    def is_expired(self, timeout_seconds: int | None = None) -> bool:
        """Whether the last activity is longer ago than that, or than the session's own time."""
        limit = self.session_inactivity_timeout_seconds if timeout_seconds is None else timeout_seconds
        if isinstance(limit, bool) or not isinstance(limit, (int, float)) or math.isnan(limit):
            raise wrong("timeout_seconds", f"must be a number of seconds, not {limit!r}")
        last = self.last_active_at
        if last.tzinfo is None:
            last = last.replace(tzinfo=timezone.utc)
        return (_now() - last).total_seconds() > limit

    def update_activity(self) -> None:
        """Notes that the session is used now."""
        self.last_active_at = _now()
