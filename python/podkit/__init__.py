"""Isolated, lasting containers for untrusted code: create or reconnect, execute, expire, recover.

>>> from podkit import Sandbox
>>> with Sandbox() as sandbox:
...     print(sandbox.shell("echo $((6 * 7))").stdout)
42
<BLANKLINE>

``Sandbox`` and ``AsyncSandbox`` are the API to begin with. ``get_docker_session`` and the modules
``podkit.core``, ``podkit.backends``, ``podkit.monitors``, ``podkit.processes`` and ``podkit.utils`` are
those of podkit 0.7, on the same core.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .async_podkit import AsyncPodkit
    from .async_sandbox import AsyncSandbox
    from .core.events import PodkitEventHandler
    from .errors import (
        AgentUnreachableError,
        AlreadyExistsError,
        CommandError,
        ConflictError,
        ContainerGoneError,
        ImageNotFoundError,
        InvalidInputError,
        LimitExceededError,
        NotFoundError,
        PermissionDeniedError,
        PodkitError,
        TimedOutError,
        UnavailableError,
        UnsupportedError,
        ValidationError,
    )
    from .podkit import Health, Podkit
    from .results import (
        DiskUsage,
        Event,
        FileChange,
        FileInfo,
        GcReport,
        ImageInfo,
        ProcessInfo,
        Result,
        SandboxInfo,
        Stats,
        Usage,
    )
    from .sandbox import Sandbox
    from .utils.lifecycle import (
        SessionProxy,
        get_docker_session,
        reset_lifecycle_cache,
        run_in_docker,
    )
    from .utils.ports import PortPool

__version__ = "0.8.0"

# Names and where they are; read on first use, so that importing podkit costs nearly nothing.
_PLACES = {
    "PodkitEventHandler": "core.events",
    "PortPool": "utils.ports",
    "SessionProxy": "utils.lifecycle",
    "get_docker_session": "utils.lifecycle",
    "reset_lifecycle_cache": "utils.lifecycle",
    "run_in_docker": "utils.lifecycle",
    "AsyncPodkit": "async_podkit",
    "Podkit": "podkit",
    "Health": "podkit",
    "DiskUsage": "results",
    "FileChange": "results",
    "GcReport": "results",
    "ImageInfo": "results",
    "AsyncSandbox": "async_sandbox",
    "Sandbox": "sandbox",
    "Event": "results",
    "FileInfo": "results",
    "ProcessInfo": "results",
    "Result": "results",
    "SandboxInfo": "results",
    "Stats": "results",
    "Usage": "results",
    "AgentUnreachableError": "errors",
    "AlreadyExistsError": "errors",
    "CommandError": "errors",
    "ConflictError": "errors",
    "ContainerGoneError": "errors",
    "ImageNotFoundError": "errors",
    "InvalidInputError": "errors",
    "LimitExceededError": "errors",
    "NotFoundError": "errors",
    "PermissionDeniedError": "errors",
    "PodkitError": "errors",
    "TimedOutError": "errors",
    "UnavailableError": "errors",
    "UnsupportedError": "errors",
    "ValidationError": "errors",
}

__all__ = [
    "AgentUnreachableError",
    "AlreadyExistsError",
    "AsyncPodkit",
    "AsyncSandbox",
    "CommandError",
    "ConflictError",
    "ContainerGoneError",
    "DiskUsage",
    "Event",
    "FileChange",
    "FileInfo",
    "GcReport",
    "Health",
    "ImageInfo",
    "ImageNotFoundError",
    "InvalidInputError",
    "LimitExceededError",
    "NotFoundError",
    "PermissionDeniedError",
    "Podkit",
    "PodkitError",
    "PodkitEventHandler",
    "PortPool",
    "ProcessInfo",
    "Result",
    "Sandbox",
    "SandboxInfo",
    "SessionProxy",
    "Stats",
    "TimedOutError",
    "UnavailableError",
    "UnsupportedError",
    "Usage",
    "ValidationError",
    "get_docker_session",
    "reset_lifecycle_cache",
    "run_in_docker",
]


def __getattr__(name: str) -> object:
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module 'podkit' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"podkit.{place}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_PLACES))
