"""Background processes of podkit's own engines, kept by the container's agent."""

from __future__ import annotations

import time

from .._calls import wait
from ..errors import (
    AlreadyExistsError,
    ContainerGoneError,
    InvalidInputError,
    NotFoundError,
    PodkitError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .._native import Session
    from ..backends.native import NativeBackend

__all__ = ["AgentProcesses"]

#: What is said when a process went with its container.
GONE = (NotFoundError, ContainerGoneError)


class AgentProcesses:
    """The processes of one container. What is told of one is a dictionary, or nothing when it is gone."""

    def __init__(self, backend: NativeBackend, container_id: str) -> None:
        self._backend = backend
        self._container_id = container_id

    def _session(self) -> Session:
        return wait(self._backend.native_session(self._container_id))

    def begin(
        self, text: str, name: str | None, directory: str, variables: list[tuple[str, str]], logs: str
    ) -> dict[str, Any]:
        """Begins a text of the shell's."""
        from .. import _native

        argv = [b"/bin/sh", b"-c", text.encode()]
        request = _native.Request(argv, env=variables, cwd=directory)
        session = self._session()
        try:
            process = session.spawn(request, name=name, log_directory=logs).wait()
        except (AlreadyExistsError, InvalidInputError):
            if name is None:
                raise
            # The agent finds processes by their names, which are labels to the callers: some are alike or odd.
            process = session.spawn(request, log_directory=logs).wait()
        return process.info().wait()

    def all(self, logs: str) -> list[dict[str, Any]]:
        """Those whose logs are in a directory of the caller's."""
        found = self._session().processes().wait()
        return [facts for facts in found if facts["log_directory"] is not None]

    def look(self, process_id: str, logs: str) -> dict[str, Any] | None:
        """What is known of one."""
        try:
            return self._session().process(process_id).info().wait()
        except GONE:
            return None

    def ports(self, process_id: str, pid: int, others: set[int]) -> list[int]:
        """What it listens on. Whose a port is may be a child of its, which the agent does not tell."""
        try:
            listening = self._session().listening_ports().wait()
        except PodkitError:
            return []
        found = {port["port"] for port in listening if port["pid"] == pid}
        if not found and not others:
            found = {port["port"] for port in listening}
        return sorted(found)

    def stop(self, process_id: str, logs: str, seconds: float, force: bool) -> dict[str, Any] | None:
        """Ends one with all that it started, by TERM and, with ``force``, by KILL after so long."""
        try:
            native = self._session().process(process_id)
            if force:
                return native.stop(seconds).wait()
            native.signal(15).wait()
            until = time.monotonic() + seconds
            while True:
                facts = native.info().wait()
                if facts["state"] == "ended" or time.monotonic() >= until:
                    return facts
                time.sleep(0.02)
        except GONE:
            return None

    def logs(self, process_id: str, logs: str, lines: int) -> dict[str, str]:
        """The last lines of both streams."""
        found = {"stdout": "", "stderr": ""}
        try:
            native = self._session().process(process_id)
            for stream in found:
                chunks = native.logs(tail=lines, only=stream).wait()
                found[stream] = b"".join(piece for _, piece in chunks).decode("utf-8", "replace")
        except GONE:
            pass  # It went with its container.
        return found
