"""One container's life: its mounts, its paths, and what is told of it."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path

from .. import _check, _fork
from .._log import logger_or, tell
from ..constants import CONTAINER_WORKSPACE_PATH, DEFAULT_CONTAINER_IMAGE
from ..errors import InvalidInputError, PodkitError
from ..utils.mounts import get_standard_workspace_mounts, get_volume_init_command
from ..utils.paths import (
    container_to_host_path,
    get_workspace_path,
    host_to_container_path,
    normalize_container_path,
    write_to_mounted_path,
)
from .models import ContainerConfig, ContainerStatus, ProcessResult

TYPE_CHECKING = False
if TYPE_CHECKING:
    from logging import Logger
    from typing import Any

    from ..backends.base import BackendInterface
    from .events import PodkitEventHandler

__all__ = ["BaseContainerManager", "SimpleContainerManager"]


#: Bytes that are written by one command.
_PART = 72 * 1024

_WRITE = r"""
fail() { rm -f "$2"; exit 1; }
if [ -d "$1" ]; then echo "it is a directory" >&2; exit 1; fi
if [ ! -f "$2" ]; then
    mkdir -p "$(dirname "$1")" || exit 1
    # It stays as it is but for what is in it.
    if [ -f "$1" ]; then cp -p "$1" "$2" && : >"$2" || fail "$@"; fi
fi
printf %s "$3" | base64 -d >>"$2" || fail "$@"
if [ "$4" = last ]; then mv -f "$2" "$1" || fail "$@"; fi
"""


class BaseContainerManager(ABC):
    """Containers on one engine, under one prefix. Subclasses say what is mounted and how files get in."""

    #: Whether the engine's own workspaces are used; see ``podkit.utils.lifecycle``.
    _workspace_of_engine = False

    def __init__(
        self,
        backend: BackendInterface,
        container_prefix: str,
        workspace_base: Path | str,
        workspace_base_host: Path | str | None = None,
        volume_name: str | None = None,
        event_handler: PodkitEventHandler | None = None,
        logger: Logger | None = None,
    ) -> None:
        self.backend = backend
        self.container_prefix = _check.text(container_prefix, "container_prefix")
        self.workspace_base = Path(_check.text(workspace_base, "workspace_base"))
        host = self.workspace_base if workspace_base_host is None else workspace_base_host
        self.workspace_base_host = Path(_check.text(host, "workspace_base_host"))
        self.volume_name = _check.maybe_text(volume_name, "volume_name")
        self.event_handler = event_handler
        self.logger = logger_or(logger, f"podkit.{self.container_prefix}")
        self.lock = _fork.lock()
        #: Containers that this manager knows: id to name.
        self.containers: dict[str, str] = {}
        self._owners: dict[str, tuple[str, str]] = {}
        self._default_image: str | None = None
        backend.connect()

    @abstractmethod
    def get_mounts(self, user_id: str, session_id: str, config: ContainerConfig) -> list[dict[str, Any]]:
        """The mounts of a container, as Docker's API writes them. May make directories."""

    @abstractmethod
    def write_file(self, container_id: str, container_path: Path | str, content: str) -> Path:
        """Writes a file of a container and gives its path there.

        A subclass may take ``user_id`` and ``session_id`` as well: they are given to those that do.
        """

    def get_tracked_containers(self) -> list[str]:
        """Ids of the containers that this manager knows."""
        with self.lock:
            return list(self.containers)

    def create_container(
        self,
        user_id: str,
        session_id: str,
        config: ContainerConfig,
        *,
        container_name: str | None = None,
    ) -> tuple[str, str]:
        """Makes a container that is not started; gives its id and name.

        On podkit's engines the name follows from prefix, user and session, and ``container_name`` counts
        only elsewhere; whatever the container is refused for is told when it is started.
        """
        user_id, session_id = _check.text(user_id, "user_id"), _check.text(session_id, "session_id")
        if not isinstance(config, ContainerConfig):
            raise _check.bad("config", f"must be a ContainerConfig, not {_check.kind_of(config)}")
        if self.event_handler is not None:
            changed = self.event_handler.on_container_creating(user_id, session_id, config)
            if isinstance(changed, ContainerConfig):
                config = changed
        used = config
        if config.image is None and not config.inherit_parent_image:
            image = self._default_image or DEFAULT_CONTAINER_IMAGE
            used = config.model_copy(update={"image": image})
        mounts = self.get_mounts(user_id, session_id, used)
        labels = {
            "podkit.user_id": user_id,
            "podkit.session_id": session_id,
            "podkit.manager": self.container_prefix,
            "podkit.image": used.image or "",
        }
        extra: dict[str, Any] = {"labels": labels}
        if self._workspace_of_engine:
            base, host = os.path.abspath(self.workspace_base), str(self.workspace_base_host)
            extra["workspace"] = (base, host)
        name = container_name or self._name(user_id, session_id)
        try:
            container_id = self.backend.create_workload(name, used, mounts, **extra)
        except Exception as error:
            tell(
                self.event_handler,
                self.logger,
                "on_container_creation_failed",
                user_id,
                session_id,
                config,
                error,
            )
            raise
        if hasattr(self.backend, "container_id"):
            name = container_id
        with self.lock:
            self.containers[container_id] = name
            self._owners[container_id] = (user_id, session_id)
        tell(
            self.event_handler,
            self.logger,
            "on_container_created",
            container_id,
            name,
            user_id,
            session_id,
            config,
        )
        return container_id, name

    def _name(self, user_id: str, session_id: str) -> str:
        import secrets

        def slug(text: str) -> str:
            return "".join(c for c in text.lower() if c in "abcdefghijklmnopqrstuvwxyz0123456789")

        return f"{self.container_prefix}-{slug(session_id)}-{slug(user_id)}-{secrets.token_hex(2)}"

    def start_container(self, container_id: str, config: ContainerConfig | None = None) -> None:
        """Starts a container; with a configuration, looks whether it stays up as that says."""
        verification = config.startup_verification if config is not None else None
        self.backend.start_workload(container_id, verification)

    def stop_container(self, container_id: str, timeout: int = 10) -> None:
        """Stops a container; what runs in it has so many seconds to end."""
        name = self.containers.get(container_id, container_id)
        try:
            self.backend.stop_workload(container_id, timeout)
        except Exception as error:
            tell(self.event_handler, self.logger, "on_container_stop_failed", container_id, error)
            raise
        tell(self.event_handler, self.logger, "on_container_stopped", container_id, name)

    def remove_container(self, container_id: str) -> None:
        """Removes a container; one that is not there is fine."""
        name = self.containers.get(container_id, container_id)
        try:
            self.backend.remove_workload(container_id)
        except Exception as error:
            tell(self.event_handler, self.logger, "on_container_removal_failed", container_id, error)
            raise
        with self.lock:
            self.containers.pop(container_id, None)
            self._owners.pop(container_id, None)
        tell(self.event_handler, self.logger, "on_container_removed", container_id, name)

    def execute_command(
        self,
        container_id: str,
        command: str | list[str],
        working_dir: Path | None = None,
        environment: dict[str, str] | None = None,
        timeout: int | None = None,
    ) -> ProcessResult:
        """Runs a command in a container, which is started when it does not run."""
        return self.backend.execute_command(container_id, command, working_dir, environment, timeout)

    def get_container_status(self, container_id: str, refresh: bool = True) -> ContainerStatus:
        """How a container is."""
        if refresh:
            self.backend.reload_workload(container_id)
        return self.backend.get_workload_status(container_id)

    def to_host_path(
        self,
        container_path: Path | str,
        user_id: str,
        session_id: str,
        real_host: bool = False,
    ) -> Path:
        """Where this machine has what a session has in its workspace; ``real_host``: as the engine sees it.

        Raises:
            InvalidInputError: the path is not in the workspace (a ``ValueError``).
        """
        base = self.workspace_base_host if real_host else self.workspace_base
        workspace = get_workspace_path(base, user_id, session_id)
        return container_to_host_path(container_path, workspace)

    def to_container_path(self, host_path: Path | str, user_id: str, session_id: str) -> Path:
        """Where a session has what this machine has in its workspace.

        Raises:
            InvalidInputError: the path is not in the workspace (a ``ValueError``).
        """
        workspace = get_workspace_path(self.workspace_base, user_id, session_id)
        return host_to_container_path(host_path, workspace)

    def discover_existing_containers(self) -> list[dict[str, Any]]:
        """The containers of this prefix on the engine, whoever made them; none when it cannot say."""
        prefix = self.container_prefix
        found = []
        try:
            for workload in self.backend.list_workloads(filters={"name": f"^{prefix}-"}):
                labels = None
                if "user_id" not in workload:
                    try:
                        labels = self.backend.get_workload_labels(workload["id"])
                    except Exception as error:
                        # It may have been removed meanwhile; the others are there all the same.
                        self.logger.warning("%s cannot be looked at: %s", workload["name"], error)
                        continue
                    if labels.get("podkit.manager", prefix) != prefix:
                        continue
                user_id = workload.get("user_id") or (labels or {}).get("podkit.user_id")
                session_id = workload.get("session_id") or (labels or {}).get("podkit.session_id")
                if not user_id or not session_id:
                    continue
                with self.lock:
                    self.containers[workload["id"]] = workload["name"]
                    self._owners[workload["id"]] = (user_id, session_id)
                found.append(
                    {
                        "container_id": workload["id"],
                        "container_name": workload["name"],
                        "user_id": user_id,
                        "session_id": session_id,
                        "image": (labels or {}).get("podkit.image", ""),
                        "workload": workload,
                    }
                )
        except Exception as error:
            self.logger.warning("what containers there are cannot be found out: %s", error)
        return found

    def _rests(self, container_id: str) -> bool:
        """Whether a container has stopped because nobody needs it now; its next use starts it."""
        rests = getattr(self.backend, "rests", None)
        return rests is not None and bool(rests(container_id))

    def cleanup_all(self) -> None:
        """Removes the containers that this manager made. Those that it found stay: they are others'."""
        for container_id in self.get_tracked_containers():
            made_here = getattr(self.backend, "made_here", None)
            if made_here is not None and not made_here(container_id):
                continue
            try:
                self.remove_container(container_id)
            except Exception as error:
                self.logger.warning("%s cannot be removed: %s", container_id, error)

    def _owner(self, container_id: str) -> tuple[str, str]:
        """User and session of a container."""
        owner = self._owners.get(container_id)
        if owner is not None:
            return owner
        labels = self.backend.get_workload_labels(container_id)
        try:
            return labels["podkit.user_id"], labels["podkit.session_id"]
        except KeyError:
            raise PodkitError(f"`{container_id}` has no labels that say whose it is") from None

    def _write(
        self, container_id: str, container_path: Path | str, content: str, user_id: str, session_id: str
    ) -> Path:
        """Calls `write_file` as it is written in the subclass: with the ids, or without."""
        arguments: dict[str, Any] = {
            "container_id": container_id,
            "container_path": container_path,
            "content": content,
        }
        code = getattr(getattr(self.write_file, "__func__", self.write_file), "__code__", None)
        if code is not None:
            names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            everything = bool(code.co_flags & 0x08)
            for name, value in (("user_id", user_id), ("session_id", session_id)):
                if everything or name in names:
                    arguments[name] = value
        return self.write_file(**arguments)

    def _write_inside(self, container_id: str, container_path: Path | str, content: str) -> Path:
        """Writes a file through the container: any path of it, and links lead nowhere else."""
        normal = normalize_container_path(container_path)
        data = _check.content(content, "content")
        writer = getattr(self.backend, "write_file", None)
        if writer is not None:
            writer(container_id, str(normal), data)
            return normal
        import base64
        import secrets

        # An engine that can only run commands, whose arguments have at most 128 KiB each. The file is replaced
        # when all of it is there.
        new = f"{normal}.podkit-{secrets.token_hex(8)}"
        for start in range(0, max(len(data), 1), _PART):
            coded = base64.b64encode(data[start : start + _PART]).decode()
            last = "last" if start + _PART >= len(data) else ""
            words = ["podkit", str(normal), new, coded, last]
            result = self.backend.execute_command(container_id, ["sh", "-c", _WRITE, *words])
            if result.exit_code != 0:
                raise PodkitError(f"Failed to write file {normal}: {result.stderr or result.stdout}")
        return normal


class SimpleContainerManager(BaseContainerManager):
    """A workspace for each session at ``/workspace``, and the mounts of the configuration."""

    def get_mounts(self, user_id: str, session_id: str, config: ContainerConfig) -> list[dict[str, Any]]:
        return get_standard_workspace_mounts(
            self.workspace_base, user_id, session_id, config, self.to_host_path, self.volume_name
        )

    def start_container(self, container_id: str, config: ContainerConfig | None = None) -> None:
        super().start_container(container_id, config)
        if self.volume_name:
            user_id, session_id = self._owner(container_id)
            command = get_volume_init_command(user_id, session_id)
            result = self.execute_command(container_id, command, working_dir=Path("/"))
            if result.exit_code != 0:
                raise PodkitError(
                    f"the workspace in the volume cannot be made: {result.stderr or result.stdout}"
                )

    def write_file(self, container_id: str, container_path: Path | str, content: str) -> Path:
        normal = normalize_container_path(container_path)
        user_id, session_id = self._owner(container_id)
        if self.volume_name:
            return self._write_inside(container_id, normal, content)
        if not str(normal).startswith(CONTAINER_WORKSPACE_PATH + "/"):
            raise InvalidInputError(
                f"`container_path`: {str(normal)!r} is not in {CONTAINER_WORKSPACE_PATH!r}"
            )
        return write_to_mounted_path(
            normal, content, lambda path: self.to_host_path(path, user_id, session_id)
        )
