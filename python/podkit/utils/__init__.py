"""The shortest ways in, and helpers."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .lifecycle import SessionProxy, get_docker_session, reset_lifecycle_cache
    from .network import get_parent_container_networks, is_running_in_docker_container
    from .paths import container_to_host_path, get_workspace_path, host_to_container_path

_PLACES = {
    "SessionProxy": "lifecycle",
    "get_docker_session": "lifecycle",
    "reset_lifecycle_cache": "lifecycle",
    "get_parent_container_networks": "network",
    "is_running_in_docker_container": "network",
    "container_to_host_path": "paths",
    "get_workspace_path": "paths",
    "host_to_container_path": "paths",
}

__all__ = [
    "SessionProxy",
    "container_to_host_path",
    "get_docker_session",
    "get_parent_container_networks",
    "get_workspace_path",
    "host_to_container_path",
    "is_running_in_docker_container",
    "reset_lifecycle_cache",
]


def __getattr__(name: str) -> object:
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module 'podkit.utils' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"podkit.utils.{place}"), name)
