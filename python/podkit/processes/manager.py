"""Background processes in one container."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from .. import _check, _fork
from .._log import logger_or, tell
from ..backends.native import NativeBackend
from ..constants import CONTAINER_WORKSPACE_PATH
from ..errors import NotFoundError
from ..utils.paths import normalize_container_path
from .agent import AgentProcesses
from .models import Process, ProcessStatus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from logging import Logger
    from typing import Any

    from ..core.events import PodkitEventHandler
    from ..core.manager import BaseContainerManager
    from .shell import ShellProcesses

__all__ = ["ProcessManager"]


class ProcessManager:
    """Background processes in a container.

    They outlive this object: another one for the same container has them, too. On the engines of podkit's own
    core the image needs no tools for them; on a backend that is written in Python they are kept by the
    container's shell (see :mod:`podkit.processes.shell`).
    """

    def __init__(
        self,
        container_manager: BaseContainerManager,
        container_id: str,
        user_id: str,
        session_id: str,
        default_log_dir: Path | str = Path("/workspace/logs"),
        event_handler: PodkitEventHandler | None = None,
        logger: Logger | None = None,
    ) -> None:
        self.container_manager = container_manager
        self.container_id = _check.text(container_id, "container_id")
        self.user_id = _check.text(user_id, "user_id")
        self.session_id = _check.text(session_id, "session_id")
        self.default_log_dir = Path(_check.text(default_log_dir, "default_log_dir"))
        self.event_handler = event_handler
        self.logger = logger_or(logger, "podkit.processes")
        #: Processes that are known: id to process.
        self.processes: dict[str, Process] = {}
        self.lock = _fork.lock()
        self._told: set[str] = set()
        self._stopped: set[str] = set()
        #: Those that had ended before they were found.
        self._over: set[str] = set()

    def _kept(self) -> AgentProcesses | ShellProcesses:
        backend = self.container_manager.backend
        if isinstance(backend, NativeBackend):
            return AgentProcesses(backend, self.container_id)
        from .shell import ShellProcesses

        return ShellProcesses(backend, self.container_id)

    def _tell(self, event: str, *arguments: Any) -> None:
        tell(self.event_handler, self.logger, event, *arguments)

    def start_process(
        self,
        command: str,
        name: str | None = None,
        working_dir: Path | str | None = None,
        environment: dict[str, str] | None = None,
        log_dir: Path | str | None = None,
    ) -> Process:
        """Begins a text of the shell's in the background.

        Raises:
            PodkitError: it cannot be begun (a ``RuntimeError``, ``Failed to start process: ...``).
        """
        text = _check.text(command, "command")
        directory = normalize_container_path(
            _check.text(working_dir or CONTAINER_WORKSPACE_PATH, "working_dir")
        )
        logs = normalize_container_path(_check.text(log_dir or self.default_log_dir, "log_dir"))
        variables = _check.variables(environment, "environment")
        name = _check.maybe_text(name, "name")
        try:
            facts = self._kept().begin(text, name, str(directory), variables, str(logs))
        except Exception as error:
            self._tell(
                "on_process_failed",
                "",
                self.container_id,
                self.user_id,
                self.session_id,
                str(error),
            )
            from ..core.session import _prefixed

            raise _prefixed("Failed to start process", error) from error
        process = Process(
            id=facts["id"],
            name=name,
            container_id=self.container_id,
            command=text,
            working_dir=directory,
            status=ProcessStatus.RUNNING,
            pid=facts["pid"],
            environment=dict(variables),
            log_dir=Path(facts["log_directory"] or logs),
        )
        with self.lock:
            self.processes[process.id] = process
        self._tell(
            "on_process_started",
            process.id,
            self.container_id,
            self.user_id,
            self.session_id,
            text,
            process.pid,
        )
        return process

    def _known(self, process_id: str) -> Process:
        process_id = _check.text(process_id, "process_id")
        process = self.processes.get(process_id)
        if process is None:
            self._find()
            process = self.processes.get(process_id)
        if process is None:
            raise NotFoundError(f"Process not found: {process_id}")
        return process

    def _find(self) -> None:
        """Takes up what another manager, or an earlier run of this program, has begun."""
        for facts in self._kept().all(str(normalize_container_path(self.default_log_dir))):
            if facts["id"] in self.processes:
                continue
            argv = facts["argv"]
            text = argv[2] if argv[:2] == ["/bin/sh", "-c"] and len(argv) > 2 else " ".join(argv)
            process = Process(
                id=facts["id"],
                name=facts["name"],
                container_id=self.container_id,
                command=text,
                working_dir=Path(CONTAINER_WORKSPACE_PATH),
                start_time=datetime.fromtimestamp(facts["started_at"], timezone.utc),
                log_dir=Path(facts["log_directory"]),
            )
            with self.lock:
                self.processes.setdefault(process.id, process)
            self._take(process, facts, told=False)

    def _look(self, process: Process) -> None:
        """Brings what is known of a process up to date."""
        if process.status in (ProcessStatus.STOPPED, ProcessStatus.FAILED):
            return
        kept = self._kept()
        facts = kept.look(process.id, str(process.log_dir))
        if facts is None:
            # Its container was started anew, which no process outlives.
            self._end(process, ProcessStatus.STOPPED, None, None)
            return
        self._take(process, facts, told=True)
        if process.status is ProcessStatus.RUNNING and process.pid is not None:
            others = {p.pid for p in list(self.processes.values()) if p.id != process.id and p.pid}
            process.ports = kept.ports(process.id, process.pid, others) or process.ports

    def _take(self, process: Process, facts: dict[str, Any], *, told: bool) -> None:
        if facts["state"] != "ended":
            process.status = ProcessStatus.RUNNING
            process.pid = facts["pid"]
            return
        code = facts["exit_code"]
        stopped = process.id in self._stopped
        good = code in (0, None) or stopped
        status = ProcessStatus.STOPPED if good else ProcessStatus.FAILED
        ended = facts["ended_at"]
        if not told:
            self._told.add(process.id)
            self._over.add(process.id)
        self._end(process, status, code, ended)

    def _end(self, process: Process, status: ProcessStatus, code: int | None, ended: float | None) -> None:
        process.status = status
        process.exit_code = code
        process.stop_time = (
            datetime.now(timezone.utc) if ended is None else datetime.fromtimestamp(ended, timezone.utc)
        )
        with self.lock:
            if process.id in self._told:
                return
            self._told.add(process.id)
        who = (process.id, self.container_id, self.user_id, self.session_id)
        if status is ProcessStatus.FAILED:
            self._tell("on_process_failed", *who, f"Process exited with code {code}")
        else:
            self._tell("on_process_stopped", *who, code)

    def is_running(self, process_id: str) -> bool:
        """Whether it runs."""
        return self.get_status(process_id) is ProcessStatus.RUNNING

    def get_status(self, process_id: str) -> ProcessStatus:
        """How it is; the process itself is brought up to date, its ports among it.

        Raises:
            NotFoundError: there is no such process (a ``RuntimeError``).
        """
        process = self._known(process_id)
        self._look(process)
        return process.status

    def list_processes(self) -> list[Process]:
        """The processes, those that another manager has begun among them."""
        self._find()
        with self.lock:
            return list(self.processes.values())

    def stop_process(self, process_id: str, timeout: float = 2, force: bool = True) -> bool:
        """Ends a process with all that it started, by TERM and, with ``force``, by KILL after ``timeout``.

        Gives whether it has ended.
        """
        process = self._known(process_id)
        grace = _check.seconds(timeout, "timeout", zero=True)
        if process.status in (ProcessStatus.STOPPED, ProcessStatus.FAILED):
            return True
        self._stopped.add(process.id)
        facts = self._kept().stop(process.id, str(process.log_dir), grace, bool(force))
        if facts is None:
            self._end(process, ProcessStatus.STOPPED, None, None)
            return True
        if facts["state"] != "ended":
            self._stopped.discard(process.id)
            return False
        self._take(process, facts, told=True)
        return True

    def get_logs(self, process_id: str, tail: int = 100) -> dict[str, str]:
        """The last lines that it wrote: ``stdout`` and ``stderr``."""
        process = self._known(process_id)
        lines = _check.integer(tail, "tail", 0, 2**31)
        return self._kept().logs(process.id, str(process.log_dir), lines)
