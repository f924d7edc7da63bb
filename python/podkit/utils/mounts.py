"""Mounts as Docker's API writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from ..constants import CONTAINER_WORKSPACE_PATH, WORKSPACE_SUBDIRECTORY
from .paths import encoded_id, get_workspace_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..core.models import ContainerConfig, Mount

__all__ = [
    "NAMED_VOLUME_MOUNT_PATH",
    "config_volumes_to_mounts",
    "get_standard_workspace_mounts",
    "get_volume_init_command",
    "get_volume_workspace_subpath",
]

NAMED_VOLUME_MOUNT_PATH = "/mnt/podkit-workspace"


def config_volumes_to_mounts(volumes: Iterable[Mount]) -> list[dict[str, Any]]:
    """The mounts of a configuration."""
    mounts = []
    for volume in volumes:
        mount: dict[str, Any] = {"Type": volume.type, "Target": str(volume.target)}
        if volume.type != "tmpfs":
            mount["Source"] = str(volume.source)
        if volume.read_only:
            mount["ReadOnly"] = True
        mounts.append(mount)
    return mounts


def get_volume_workspace_subpath(user_id: str, session_id: str) -> str:
    """Where in a named volume a session's files are."""
    user, session = encoded_id(user_id, "user_id"), encoded_id(session_id, "session_id")
    return f"{WORKSPACE_SUBDIRECTORY}/{user}/{session}"


def get_volume_init_command(user_id: str, session_id: str) -> list[str]:
    """Makes a session's directory in a named volume, and ``/workspace`` a link to it."""
    import shlex

    directory = f"{NAMED_VOLUME_MOUNT_PATH}/{get_volume_workspace_subpath(user_id, session_id)}"
    made, workspace = shlex.quote(directory), shlex.quote(CONTAINER_WORKSPACE_PATH)
    text = f"mkdir -p {made} && rm -rf {workspace} && ln -s {made} {workspace}"
    return ["sh", "-c", text]


def get_standard_workspace_mounts(
    workspace_base: Path,
    user_id: str,
    session_id: str,
    config: ContainerConfig,
    to_host_path_fn: Callable[..., Path],
    volume_name: str | None = None,
) -> list[dict[str, Any]]:
    """The session's workspace, which is made, and the mounts of the configuration."""
    if volume_name:
        first = {"Type": "volume", "Source": volume_name, "Target": NAMED_VOLUME_MOUNT_PATH}
    else:
        workspace = get_workspace_path(workspace_base, user_id, session_id)
        workspace.mkdir(parents=True, exist_ok=True)
        source = to_host_path_fn(Path(CONTAINER_WORKSPACE_PATH), user_id, session_id, real_host=True)
        first = {"Type": "bind", "Source": str(source), "Target": CONTAINER_WORKSPACE_PATH}
    return [first, *config_volumes_to_mounts(config.volumes)]
