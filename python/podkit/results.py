"""What calls give back: plain values."""

from __future__ import annotations

from datetime import datetime, timezone

from .errors import CommandError, PodkitError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._native import Output

__all__ = [
    "DiskUsage",
    "Event",
    "FileChange",
    "FileInfo",
    "GcReport",
    "ImageInfo",
    "Parent",
    "Port",
    "ProcessInfo",
    "PullProgress",
    "Result",
    "SandboxInfo",
    "Stats",
    "Usage",
]


def _time(value: float | None) -> datetime | None:
    return None if value is None else datetime.fromtimestamp(value, timezone.utc)


class _Facts:
    """A value that shows its attributes."""

    __slots__ = ()

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name}={getattr(self, name)!r}"
            for kind in type(self).__mro__
            for name in getattr(kind, "__slots__", ())
            if not name.startswith("_")
        )
        return f"{type(self).__name__}({shown})"


class Usage(_Facts):
    """What a command used."""

    __slots__ = ("cpu_system", "cpu_user", "peak_memory_bytes", "peak_memory_source", "wall")

    #: Seconds from start to end.
    wall: float
    #: Seconds of processor time in user mode.
    cpu_user: float
    #: Seconds of processor time in the kernel.
    cpu_system: float
    #: Most memory in bytes.
    peak_memory_bytes: int
    #: ``cgroup`` (the whole tree at once) or ``largest_process``.
    peak_memory_source: str

    def __init__(self, facts: dict[str, Any]) -> None:
        self.wall = facts["wall"]
        self.cpu_user = facts["cpu_user"]
        self.cpu_system = facts["cpu_system"]
        self.peak_memory_bytes = facts["peak_memory_bytes"]
        self.peak_memory_source = facts["peak_memory_source"]


class Exit(_Facts):
    """How a command ended, without its output."""

    __slots__ = (
        "container_restarted",
        "exit_code",
        "outcome",
        "stderr_truncated",
        "stdout_truncated",
        "usage",
    )

    #: ``exited``, ``signaled``, ``timed_out``, ``out_of_memory`` or ``session_closed``.
    outcome: str
    #: The command's own code; 128 + signal, 124 for time, 137 for memory, 143 for a closed session.
    exit_code: int
    #: Whether standard output was cut at its limit.
    stdout_truncated: bool
    #: Whether standard error was cut at its limit.
    stderr_truncated: bool
    #: Whether processes resisted being killed, so that the container was started anew.
    container_restarted: bool
    #: What it used.
    usage: Usage

    def __init__(self, facts: dict[str, Any]) -> None:
        self.outcome = facts["outcome"]
        self.exit_code = facts["exit_code"]
        self.stdout_truncated = facts["stdout_truncated"]
        self.stderr_truncated = facts["stderr_truncated"]
        self.container_restarted = facts["container_restarted"]
        self.usage = Usage(facts["usage"])

    @property
    def ok(self) -> bool:
        """Whether the command exited with 0."""
        return self.outcome == "exited" and self.exit_code == 0

    @property
    def timed_out(self) -> bool:
        """Whether its time was over."""
        return self.outcome == "timed_out"


class Result(Exit):
    """A command's whole result. A command that fails is a result, too; see :meth:`check`."""

    __slots__ = ("_output",)

    _output: Output | _Copied

    def __init__(self, output: Output) -> None:
        super().__init__(output.result())
        self._output = output

    @property
    def stdout(self) -> str:
        """Standard output as text; what is not UTF-8 is replaced."""
        return self._output.stdout_text()

    @property
    def stderr(self) -> str:
        """Standard error as text; what is not UTF-8 is replaced."""
        return self._output.stderr_text()

    @property
    def output(self) -> str:
        """Both streams as text, in the order of their arrival."""
        return self._output.output_text()

    @property
    def stdout_bytes(self) -> bytes:
        """Standard output."""
        return self._output.stdout_bytes()

    @property
    def stderr_bytes(self) -> bytes:
        """Standard error."""
        return self._output.stderr_bytes()

    @property
    def output_bytes(self) -> bytes:
        """Both streams in the order of their arrival."""
        return self._output.output_bytes()

    def check(self) -> Result:
        """Gives the result itself when the command exited with 0.

        Raises:
            CommandError: it did not; the result is in it, the end of standard error in its text.
        """
        if self.ok:
            return self
        how = {
            "exited": f"exited with {self.exit_code}",
            "signaled": f"was killed by signal {self.exit_code - 128}",
            "timed_out": "ran out of time",
            "out_of_memory": "ran out of memory",
        }.get(self.outcome, "ended with its session")
        tail = "\n".join(self.stderr.splitlines()[-5:])
        raise CommandError(f"the command {how}: {tail}" if tail else f"the command {how}", result=self)


class _Copied:
    """What a command wrote, in a copy of its result."""

    __slots__ = ("_output", "_stderr", "_stdout")

    def __init__(self, stdout: bytes, stderr: bytes, output: bytes) -> None:
        self._stdout, self._stderr, self._output = stdout, stderr, output

    def stdout_bytes(self) -> bytes:
        return self._stdout

    def stderr_bytes(self) -> bytes:
        return self._stderr

    def output_bytes(self) -> bytes:
        return self._output

    def stdout_text(self) -> str:
        return self._stdout.decode("utf-8", "replace")

    def stderr_text(self) -> str:
        return self._stderr.decode("utf-8", "replace")

    def output_text(self) -> str:
        return self._output.decode("utf-8", "replace")


class Event(_Facts):
    """Something that happened to a session."""

    __slots__ = ("at", "container", "details", "kind", "session_id", "user_id")

    at: datetime
    #: Stable lower-case name: ``container_created``.
    kind: str
    user_id: str | None
    session_id: str | None
    container: str | None
    #: What else is told, by the kind.
    details: dict[str, Any]

    def __init__(self, facts: dict[str, Any]) -> None:
        self.at = datetime.fromtimestamp(facts["at"], timezone.utc)
        self.kind = facts["kind"]
        self.user_id = facts["user_id"]
        self.session_id = facts["session_id"]
        self.container = facts["container"]
        self.details = facts["details"]


class FileInfo(_Facts):
    """Facts about a file in a container."""

    __slots__ = ("gid", "kind", "link_target", "mode", "modified", "name", "size", "uid")

    name: str
    #: ``file``, ``directory``, ``symlink`` or ``other``.
    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    modified: datetime
    link_target: str | None

    def __init__(self, facts: dict[str, Any]) -> None:
        self.name = facts["name"]
        self.kind = facts["kind"]
        self.mode = facts["mode"]
        self.uid = facts["uid"]
        self.gid = facts["gid"]
        self.size = facts["size"]
        self.modified = datetime.fromtimestamp(facts["modified"], timezone.utc)
        self.link_target = facts["link_target"]

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return self.kind == "directory"


class FileChange(_Facts):
    """Something that happened to a file below a directory that is watched."""

    __slots__ = ("is_dir", "kind", "path")

    #: ``created``, ``modified``, ``attributes``, ``removed``, ``moved_from``, ``moved_to``, or ``missed``:
    #: more happened than could be told.
    kind: str
    #: Whether it is a directory.
    is_dir: bool
    #: Where it is below the directory that is watched.
    path: str

    def __init__(self, facts: dict[str, Any]) -> None:
        self.kind = facts["kind"]
        self.is_dir = facts["directory"]
        self.path = facts["path"]


class DiskUsage(_Facts):
    """What a file or a tree takes."""

    __slots__ = ("directories", "disk_bytes", "files", "size_bytes", "unread")

    #: Bytes on the disk.
    disk_bytes: int
    #: Bytes of contents.
    size_bytes: int
    files: int
    directories: int
    #: Directories that could not be looked into.
    unread: int

    def __init__(self, facts: dict[str, Any]) -> None:
        self.disk_bytes = facts["disk_bytes"]
        self.size_bytes = facts["size_bytes"]
        self.files = facts["files"]
        self.directories = facts["directories"]
        self.unread = facts["unread"]


class ImageInfo(_Facts):
    """An image of an engine's."""

    __slots__ = (
        "command",
        "created_at",
        "digests",
        "entrypoint",
        "id",
        "names",
        "platform",
        "size_bytes",
        "user",
    )

    id: str
    names: list[str]
    digests: list[str]
    size_bytes: int
    created_at: datetime | None
    platform: str | None
    entrypoint: list[str]
    command: list[str]
    user: str | None

    def __init__(self, facts: dict[str, Any]) -> None:
        self.id = facts["id"]
        self.names = facts["names"]
        self.digests = facts["digests"]
        self.size_bytes = facts["size_bytes"]
        self.created_at = _time(facts["created_at"])
        self.platform = facts["platform"]
        self.entrypoint = facts["entrypoint"]
        self.command = facts["command"]
        self.user = facts["user"]


class PullProgress(_Facts):
    """How far the fetching of an image is."""

    __slots__ = ("current", "image", "layer", "status", "total")

    image: str
    layer: str | None
    #: What is being done, in the engine's words.
    status: str
    current: int
    total: int | None

    def __init__(self, facts: dict[str, Any]) -> None:
        self.image = facts["image"]
        self.layer = facts["layer"]
        self.status = facts["status"]
        self.current = facts["current"]
        self.total = facts["total"]


class GcReport(_Facts):
    """What was removed because nobody used it."""

    __slots__ = ("failed", "kept", "removed")

    #: User and session of what was removed, or would be.
    removed: list[tuple[str, str]]
    #: How many were left.
    kept: int
    #: What could not be removed.
    failed: list[PodkitError]

    def __init__(self, facts: dict[str, Any]) -> None:
        self.removed = facts["removed"]
        self.kept = facts["kept"]
        self.failed = facts["failed"]


class Parent(_Facts):
    """The container that this program itself runs in."""

    __slots__ = ("container", "image", "networks")

    container: str
    image: str
    networks: list[str]

    def __init__(self, facts: dict[str, Any]) -> None:
        self.container = facts["container"]
        self.image = facts["image"]
        self.networks = facts["networks"]


class Port(_Facts):
    """A port of the container's, as the engine offers it."""

    __slots__ = ("address", "container", "host", "protocol")

    container: int
    host: int
    address: str
    protocol: str

    def __init__(self, facts: dict[str, Any]) -> None:
        self.container = facts["container"]
        self.host = facts["host"]
        self.address = facts["address"]
        self.protocol = facts["protocol"]


class SandboxInfo(_Facts):
    """What is known of a session and its container."""

    __slots__ = (
        "config_lost",
        "container",
        "created_at",
        "ends_at",
        "idle_at",
        "isolation",
        "last_active_at",
        "ports",
        "session_id",
        "spec",
        "started_at",
        "state",
        "stop_cause",
        "stops_at",
        "user_id",
        "workspace",
    )

    user_id: str
    session_id: str
    container: str
    #: ``created``, ``running``, ``paused``, ``exited``, ``removing`` or ``dead``.
    state: str
    #: Why it stopped: ``requested``, ``auto_stop``, ``max_lifetime``, ``main_exited``, ``killed``.
    stop_cause: str | None
    created_at: datetime
    started_at: datetime | None
    last_active_at: datetime | None
    #: When it stops by itself, unless it is used.
    stops_at: datetime | None
    #: When it expires, unless it is used.
    idle_at: datetime | None
    #: When everything ends.
    ends_at: datetime | None
    workspace: str | None
    isolation: str | None
    ports: list[Port]
    config_lost: bool
    #: The configuration that the container was made with.
    spec: dict[str, Any]

    def __init__(self, facts: dict[str, Any]) -> None:
        import json
        import os

        self.user_id = facts["user_id"]
        self.session_id = facts["session_id"]
        self.container = facts["container"]
        self.state = facts["state"]
        self.stop_cause = facts["stop_cause"]
        self.created_at = datetime.fromtimestamp(facts["created_at"], timezone.utc)
        self.started_at = _time(facts["started_at"])
        self.last_active_at = _time(facts["last_active_at"])
        self.stops_at = _time(facts["stops_at"])
        self.idle_at = _time(facts["idle_at"])
        self.ends_at = _time(facts["ends_at"])
        workspace = facts["workspace"]
        self.workspace = None if workspace is None else os.fspath(workspace)
        self.isolation = facts["isolation"]
        self.ports = [Port(port) for port in facts["ports"]]
        self.config_lost = facts["config_lost"]
        self.spec = json.loads(facts["spec"]) if facts["spec"] else {}

    def __repr__(self) -> str:
        # The spec has values of the environment, which are shown nowhere.
        return (
            f"SandboxInfo(user_id={self.user_id!r}, session_id={self.session_id!r}, "
            f"container={self.container!r}, state={self.state!r})"
        )


class ProcessInfo(_Facts):
    """What is known of a background process."""

    __slots__ = (
        "argv",
        "ended_at",
        "exit_code",
        "id",
        "keep_alive",
        "log_directory",
        "name",
        "outcome",
        "pid",
        "restarts",
        "started_at",
        "state",
        "terminal",
        "usage",
    )

    id: str
    name: str | None
    argv: list[str]
    log_directory: str | None
    pid: int | None
    #: ``running``, ``restarting`` or ``ended``.
    state: str
    #: How it ended; see :attr:`podkit.Result.outcome`.
    outcome: str | None
    exit_code: int | None
    restarts: int
    started_at: datetime
    ended_at: datetime | None
    terminal: bool
    keep_alive: bool
    usage: Usage

    def __init__(self, facts: dict[str, Any]) -> None:
        self.id = facts["id"]
        self.name = facts["name"]
        self.argv = facts["argv"]
        self.log_directory = facts["log_directory"]
        self.pid = facts["pid"]
        self.state = facts["state"]
        self.outcome = facts["outcome"]
        self.exit_code = facts["exit_code"]
        self.restarts = facts["restarts"]
        self.started_at = datetime.fromtimestamp(facts["started_at"], timezone.utc)
        self.ended_at = _time(facts["ended_at"])
        self.terminal = facts["terminal"]
        self.keep_alive = facts["keep_alive"]
        self.usage = Usage(facts["usage"])


class Stats(_Facts):
    """What a container uses now. What the engine does not tell is ``None``."""

    __slots__ = (
        "at",
        "cpu_time",
        "disk_read_bytes",
        "disk_written_bytes",
        "memory_bytes",
        "memory_limit_bytes",
        "network_rx_bytes",
        "network_tx_bytes",
        "pids",
        "pids_limit",
    )

    at: datetime
    #: Seconds of processor time since it was started.
    cpu_time: float | None
    memory_bytes: int | None
    memory_limit_bytes: int | None
    pids: int | None
    pids_limit: int | None
    network_rx_bytes: int | None
    network_tx_bytes: int | None
    disk_read_bytes: int | None
    disk_written_bytes: int | None

    def __init__(self, facts: dict[str, Any]) -> None:
        self.at = datetime.fromtimestamp(facts["at"], timezone.utc)
        self.cpu_time = facts["cpu_time"]
        self.memory_bytes = facts["memory_bytes"]
        self.memory_limit_bytes = facts["memory_limit_bytes"]
        self.pids = facts["pids"]
        self.pids_limit = facts["pids_limit"]
        self.network_rx_bytes = facts["network_rx_bytes"]
        self.network_tx_bytes = facts["network_tx_bytes"]
        self.disk_read_bytes = facts["disk_read_bytes"]
        self.disk_written_bytes = facts["disk_written_bytes"]
