"""Engines by name, connected to once in a process, and what the environment says of them."""

from __future__ import annotations

import os
import threading

from ._calls import wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._calls import Steps
    from ._native import Engine, Podkit

#: Engine of the new API when none is named: the embedded one on Linux.
AUTO = "auto"

_engines: dict[tuple[str, tuple[tuple[str, str], ...]], Engine] = {}
_podkits: dict[tuple[int, str], Podkit] = {}
_lock = threading.Lock()


def _forget() -> None:
    """A fork has no connections: what it needs it connects to itself."""
    global _lock
    _lock = threading.Lock()
    _left.append((dict(_engines), dict(_podkits)))
    _engines.clear()
    _podkits.clear()


#: What a fork has from its parent and must not drop.
_left: list[object] = []
os.register_at_fork(after_in_child=_forget)


def environment() -> dict[str, str]:
    """What the environment says about engines; the library reads none itself."""
    names = {
        "docker_host": "DOCKER_HOST",
        "docker_context": "DOCKER_CONTEXT",
        "docker_config": "DOCKER_CONFIG",
        "docker_cert_path": "DOCKER_CERT_PATH",
        "docker_tls_verify": "DOCKER_TLS_VERIFY",
        "container_host": "CONTAINER_HOST",
        "home": "HOME",
        "state_dir": "PODKIT_STATE_DIR",
        "run_dir": "PODKIT_RUN_DIR",
        "xdg_data_home": "XDG_DATA_HOME",
        "xdg_runtime_dir": "XDG_RUNTIME_DIR",
    }
    found = {key: os.environ.get(name, "") for key, name in names.items()}
    return {
        key: value
        for key, value in found.items()
        if value and (not key.startswith("xdg_") or value.startswith("/"))
    }


def backend_name(explicit: str | None, default: str = AUTO) -> str:
    """The engine's name: what was said, else ``PODKIT_BACKEND``, else the default."""
    return explicit or os.environ.get("PODKIT_BACKEND") or default


def image_name(explicit: str | None) -> str | None:
    """The image's name: what was said, else ``PODKIT_IMAGE``."""
    return explicit or os.environ.get("PODKIT_IMAGE") or None


def engine(name: str) -> Steps[Engine]:
    """The engine of a name."""
    from . import _native

    options = environment()
    key = (name, tuple(sorted(options.items())))
    with _lock:
        known = _engines.get(key)
    if known is None:
        made = yield _native.connect(name, options)
        with _lock:
            known = _engines.setdefault(key, made)
    return known


def podkit(name: str, prefix: str) -> Steps[Podkit]:
    """The sessions of a prefix on the engine of a name."""
    found = yield from engine(name)
    key = (id(found), prefix)
    with _lock:
        known = _podkits.get(key)
    if known is None:
        made = yield found.podkit(prefix)
        with _lock:
            known = _podkits.setdefault(key, made)
    return known


def connect_now(name: str) -> Engine:
    """As :func:`engine`, blocking."""
    return wait(engine(name))
