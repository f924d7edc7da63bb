"""The shortest way in: a user's session, made on first use and found again ever after."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from .. import _check, _connect, _fork, _spec
from .._calls import wait
from ..backends.docker import DockerBackend
from ..backends.native import NativeBackend
from ..constants import (
    DEFAULT_CONTAINER_IMAGE,
    DEFAULT_CONTAINER_LIFETIME_SECONDS,
    DEFAULT_CONTAINER_PREFIX,
    DEFAULT_CPU_LIMIT,
    DEFAULT_MEMORY_LIMIT,
    DUMMY_WORKSPACE_PATH,
)
from ..core.manager import BaseContainerManager
from ..core.models import ContainerConfig, ProcessResult, Session
from ..core.session import BaseSessionManager
from ..errors import InvalidInputError, UnsupportedError
from ..sandbox import SandboxMethods
from .mounts import config_volumes_to_mounts
from .paths import normalize_container_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from logging import Logger
    from typing import Any

    from .._calls import Steps
    from .._native import Podkit as NativePodkit
    from .._native import Session as NativeSession

__all__ = ["SessionProxy", "get_docker_session", "reset_lifecycle_cache", "run_in_docker"]


class _NoMountContainerManager(BaseContainerManager):
    """Containers with the mounts of their configuration and no more."""

    def get_mounts(self, user_id: str, session_id: str, config: ContainerConfig) -> list[dict[str, Any]]:
        return config_volumes_to_mounts(config.volumes)

    def write_file(self, container_id: str, container_path: Path | str, content: str) -> Path:
        return self._write_inside(container_id, container_path, content)


class _MountedContainerManager(_NoMountContainerManager):
    """Containers with a lasting workspace, which the engine's side of podkit makes and mounts.

    Files are written through the container: they land in the workspace, and no link that was made
    in there leads this program anywhere.
    """

    _workspace_of_engine = True

    def write_file(self, container_id: str, container_path: Path | str, content: str) -> Path:
        normal = normalize_container_path(container_path)
        self.to_host_path(normal, "user", "session")  # Only what is in the workspace lasts.
        return self._write_inside(container_id, normal, content)


_managers_cache: dict[tuple[str, ...], tuple[NativeBackend, BaseContainerManager, BaseSessionManager]] = {}
_cache_lock = _fork.lock()


def _after_fork() -> None:
    # A fork opens its own; what its parent has is left alone.
    _connect._left.append(dict(_managers_cache))
    _managers_cache.clear()


os.register_at_fork(after_in_child=_after_fork)


def _backend(name: str | None, logger: Logger | None) -> NativeBackend:
    chosen = _connect.backend_name(name, "docker")
    if chosen == "docker":
        return DockerBackend(logger=logger)
    return NativeBackend(chosen, logger=logger)


def _usual_prefix(prefix: str) -> str:
    """The usual prefix is only a default: the settings may have another one."""
    return _connect.prefix_name(None) if prefix == DEFAULT_CONTAINER_PREFIX else prefix


def _manager(
    workspace: str | None,
    workspace_host: str | None,
    prefix: str,
    image: str,
    backend: str | None,
    logger: Logger | None,
) -> BaseSessionManager:
    kind = "no-mounts" if workspace is None else f"mounted:{workspace}:{workspace_host}"
    key = (kind, prefix, _connect.backend_name(backend, "docker"))
    with _cache_lock:
        known = _managers_cache.get(key)
        if known is None:
            engine = _backend(backend, logger)
            base = DUMMY_WORKSPACE_PATH if workspace is None else workspace
            kept = _NoMountContainerManager if workspace is None else _MountedContainerManager
            containers = kept(
                backend=engine,
                container_prefix=prefix,
                workspace_base=Path(base),
                workspace_base_host=None if workspace_host is None else Path(workspace_host),
                logger=logger,
            )
            # The usual image is only a default: another one may be set, and not every engine has it.
            if image == DEFAULT_CONTAINER_IMAGE:
                image = engine.default_image()
            # Sessions are found when they are asked for, by one look-up each.
            sessions = BaseSessionManager(containers, default_image=image, logger=logger, _recover=False)
            known = _managers_cache[key] = (engine, containers, sessions)
    return known[2]


def get_docker_session(
    *,
    user_id: str,
    session_id: str,
    config: ContainerConfig | None = None,
    workspace: Path | str | None = None,
    workspace_host: Path | str | None = None,
    container_prefix: str = DEFAULT_CONTAINER_PREFIX,
    image_name: str = DEFAULT_CONTAINER_IMAGE,
    logger: Logger | None = None,
    backend: str | None = None,
) -> SessionProxy:
    """The session of a user: its container is made, started or found, whatever it takes.

    Args:
        user_id: whose it is.
        session_id: which of the user's.
        config: what its container is like, where it is made; one that was made otherwise is used as
            it is, with a warning.
        workspace: a directory; ``workspaces/USER/SESSION`` in it is made and is ``/workspace``, and stays.
        workspace_host: the same directory as the engine sees it.
        container_prefix: whose sessions these are; other prefixes' are never touched.
        image_name: image, where ``config`` has none.
        logger: takes the place of podkit's loggers.
        backend: ``docker``, ``embedded``, ``podman`` or a URL; else what ``PODKIT_BACKEND`` or the
            configuration file say, else Docker.

    Raises:
        InvalidInputError: an argument cannot be used (a ``ValueError``).
        PodkitError: the engine is not there, or cannot make it (a ``RuntimeError``).
    """
    user_id, session_id = _check.text(user_id, "user_id"), _check.text(session_id, "session_id")
    prefix = _usual_prefix(_check.text(container_prefix, "container_prefix"))
    image = _check.text(image_name, "image_name")
    base = host = None
    if workspace is not None:
        if workspace_host is None:
            raise InvalidInputError("workspace_host is required when workspace is provided")
        base = os.path.abspath(_check.text(workspace, "workspace"))
        host = os.path.abspath(_check.text(workspace_host, "workspace_host"))
    elif workspace_host is not None:
        raise InvalidInputError("`workspace_host` is given without `workspace`")
    if config is not None and not isinstance(config, ContainerConfig):
        raise _check.bad("config", f"must be a ContainerConfig, not {_check.kind_of(config)}")
    sessions = _manager(base, host, prefix, image, _check.maybe_text(backend, "backend"), logger)
    if config is None and sessions.get_session(user_id, session_id) is None:
        if image == DEFAULT_CONTAINER_IMAGE:
            image = sessions.default_image
        config = ContainerConfig(image=image, container_lifetime_seconds=DEFAULT_CONTAINER_LIFETIME_SECONDS)
    sessions.get_or_create_session(user_id, session_id, config)
    return SessionProxy(sessions, user_id, session_id)


def reset_lifecycle_cache() -> None:
    """Forgets what :func:`get_docker_session` remembers, and closes the sessions that this process made.

    Sessions that it found stay: they may be another process's.
    """
    with _cache_lock:
        known = list(_managers_cache.values())
        _managers_cache.clear()
    for _, _, sessions in known:
        sessions.cleanup_all()
        sessions.shutdown()


class SessionProxy(SandboxMethods):
    """One session of a manager's. It can all that :class:`podkit.Sandbox` can."""

    def __init__(self, session_manager: BaseSessionManager, user_id: str, session_id: str) -> None:
        self._session_manager = session_manager
        self._user_id = _check.text(user_id, "user_id")
        self._session_id = _check.text(session_id, "session_id")

    @property
    def user_id(self) -> str:
        """Whose it is."""
        return self._user_id

    @property
    def session_id(self) -> str:
        """Which of the user's it is."""
        return self._session_id

    def execute_command(
        self,
        command: str | list[str],
        working_dir: Path | None = None,
        environment: dict[str, str] | None = None,
        timeout: int | None = None,
    ) -> ProcessResult:
        """Runs a command; text is run by the shell. See ``BaseSessionManager.execute_command``."""
        return self._session_manager.execute_command(
            self._user_id, self._session_id, command, working_dir, environment, timeout
        )

    def write_file(self, container_path: Path | str, content: str) -> Path:
        """Writes a file and gives its path in the container; a relative one is in ``/workspace``."""
        normal = normalize_container_path(container_path)
        return self._session_manager.write_file(self._user_id, self._session_id, normal, content)

    def close(self) -> None:
        """Removes the container.

        Raises:
            NotFoundError: the session was closed already (a ``RuntimeError``).
        """
        self._session_manager.close_session(self._user_id, self._session_id)

    def get_info(self) -> Session | None:
        """What the manager knows of the session; nothing when it was closed."""
        return self._session_manager.get_session(self._user_id, self._session_id)

    def __enter__(self) -> SessionProxy:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            self.close()
        except Exception as failure:
            self._session_manager.logger.warning(
                "%s/%s cannot be closed: %s", self._user_id, self._session_id, failure
            )

    def __repr__(self) -> str:
        return f"<SessionProxy {self._user_id}/{self._session_id}>"

    # What it needs to be a sandbox.

    def _ids(self) -> tuple[str, str]:
        return self._user_id, self._session_id

    def _use(self) -> AbstractContextManager[object]:
        manager = self._session_manager
        return manager._in_use(manager._existing(self._user_id, self._session_id))

    def _place(self) -> tuple[NativeBackend, str]:
        manager = self._session_manager
        backend = manager.container_manager.backend
        if not isinstance(backend, NativeBackend):
            raise UnsupportedError(
                f"{type(backend).__name__} is not an engine of podkit's own core",
                hint="use execute_command and write_file, which work on every backend",
            )
        session = manager._existing(self._user_id, self._session_id)
        session.update_activity()
        return backend, manager._container(session)

    def _session(self) -> Steps[NativeSession]:
        backend, container_id = self._place()
        return (yield from backend.native_session(container_id))

    def _podkit(self) -> Steps[NativePodkit]:
        backend, container_id = self._place()
        return (yield from backend.native_podkit(container_id))


def run_in_docker(
    command: str | list[str],
    *,
    image: str = DEFAULT_CONTAINER_IMAGE,
    command_timeout: int | None = None,
    memory_limit: str = DEFAULT_MEMORY_LIMIT,
    cpu_limit: float = DEFAULT_CPU_LIMIT,
    files: Mapping[str, str | bytes] | None = None,
    environment: dict[str, str] | None = None,
    working_dir: Path | None = None,
    backend: str | None = None,
) -> ProcessResult:
    """Runs one command, with files of its own, in a container that is removed afterwards, come what may."""
    from .. import _native

    engine = _backend(_check.maybe_text(backend, "backend"), None)
    if image == DEFAULT_CONTAINER_IMAGE:
        image = engine.default_image()
    config = ContainerConfig(image=image, memory_limit=memory_limit, cpu_limit=cpu_limit, entrypoint=[])
    argv = _check.shell_argv(command, "command") if isinstance(command, str) else _check.argv(command)
    limit = _check.maybe_seconds(command_timeout, "command_timeout")
    request = _native.Request(
        argv,
        env=_check.variables(environment, "environment"),
        cwd=_check.maybe_text(working_dir, "working_dir"),
        timeout=limit,
        output_limit=_spec.NO_LIMIT,
    )
    if files is not None and not isinstance(files, Mapping):
        raise _check.bad("files", f"must be a mapping of paths to contents, not {_check.kind_of(files)}")
    contents = [
        (_check.text(path, "a path in files"), _check.content(content, f"files[{path!r}]"))
        for path, content in (files or {}).items()
    ]
    spec = _spec.of_config(config, [])

    def steps() -> Steps[ProcessResult]:
        podkit = yield from _connect.podkit(engine._name, _usual_prefix(DEFAULT_CONTAINER_PREFIX))
        output = yield podkit.run_once(_spec.dumps(spec), request, contents)
        return ProcessResult._of(output, limit)

    return wait(steps())
