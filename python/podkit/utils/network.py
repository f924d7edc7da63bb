"""The container that this program runs in itself."""

from __future__ import annotations

from .._calls import wait
from .._connect import podkit
from .._log import LazyLogger
from ..constants import DEFAULT_CONTAINER_PREFIX
from ..errors import PodkitError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["DOCKER_AVAILABLE", "get_parent_container_networks", "is_running_in_docker_container"]

#: Docker's client is part of podkit.
DOCKER_AVAILABLE = True

_log = LazyLogger("podkit.utils.network")


def _parent() -> dict[str, Any] | None:
    try:
        return wait(podkit("docker", DEFAULT_CONTAINER_PREFIX)).parent().wait()
    except PodkitError as error:
        _log.debug("Docker does not say what this program runs in: %s", error)
        return None


def is_running_in_docker_container() -> bool:
    """Whether this program runs in one of Docker's containers, as the kernel says. Not in doubt."""
    return _parent() is not None


def get_parent_container_networks() -> list[str]:
    """Networks of the container that this program runs in; none when it runs in none."""
    parent = _parent()
    return [] if parent is None else list(parent["networks"])
