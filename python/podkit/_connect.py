"""What the environment and the configuration file say, and engines connected to once in a process.

Nothing else here reads the environment. What it says means what it means to the command line.
"""

from __future__ import annotations

import os

from . import _fork

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._calls import Steps
    from ._native import Engine, Podkit, Settings

#: Engine of the new API when none is named: the embedded one on Linux.
AUTO = "auto"

#: Variables that say how an engine is connected to.
_OF_ENGINES = (
    "CONTAINER_HOST",
    "DOCKER_CERT_PATH",
    "DOCKER_CONFIG",
    "DOCKER_CONTEXT",
    "DOCKER_HOST",
    "DOCKER_TLS_VERIFY",
    "HOME",
    "PODKIT_RUN_DIR",
    "PODKIT_STATE_DIR",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
)

#: Variables that say what holds where a program says nothing.
_OF_DEFAULTS = (
    "PODKIT_AUDIT",
    "PODKIT_BACKEND",
    "PODKIT_IMAGE",
    "PODKIT_INHERIT_IMAGE",
    "PODKIT_INHERIT_NETWORKS",
    "PODKIT_PREFIX",
    "PODKIT_USER",
    "PODKIT_WORKSPACE",
    "PODKIT_WORKSPACE_HOST",
    "USER",
)

_settings: dict[tuple[tuple[str, str], ...], Settings] = {}
_engines: dict[tuple[str, tuple[tuple[str, str], ...]], Engine] = {}
_podkits: dict[tuple[int, str, tuple[tuple[str, str], ...]], Podkit] = {}
#: Those that write commands down, which have to be told of the end.
_audited: list[Podkit] = []
_lock = _fork.lock()


def _forget() -> None:
    """A fork has no connections: what it needs it connects to itself."""
    _left.append((dict(_engines), dict(_podkits), list(_audited)))
    _engines.clear()
    _podkits.clear()
    _audited.clear()


#: What a fork has from its parent and must not drop.
_left: list[object] = []
os.register_at_fork(after_in_child=_forget)


def _said(names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    found = os.environ
    return tuple((name, found[name]) for name in names if found.get(name))


def settings() -> Settings:
    """What environment and configuration file say; the file is read once.

    Raises:
        InvalidInputError: one of them cannot be understood.
    """
    said = _said(_OF_ENGINES) + _said(_OF_DEFAULTS)
    known = _settings.get(said)
    if known is None:
        from . import _native

        known = _settings[said] = _native.Settings(dict(said))
    return known


def backend_name(explicit: str | None, default: str = AUTO) -> str:
    """The engine's name: what was said, else what the settings say, else the default."""
    return explicit or settings().backend or default


def prefix_name(explicit: str | None) -> str:
    """Whose sessions they are: what was said, else what the settings say."""
    return explicit or settings().prefix


def usual() -> dict[str, Any]:
    """What new containers are like where nothing else is said, in the library's form."""
    import json

    found: dict[str, Any] = json.loads(settings().spec)
    return {name: value for name, value in found.items() if value not in (None, [], {}, False)}


def image_name(explicit: str | None) -> str | None:
    """The image's name: what was said, else what the settings say."""
    return explicit or usual().get("image")


def engine(name: str) -> Steps[Engine]:
    """The engine of a name."""
    from . import _native

    key = (name, _said(_OF_ENGINES))
    with _lock:
        known = _engines.get(key)
    if known is None:
        made = yield _native.connect(name, settings())
        with _lock:
            known = _engines.setdefault(key, made)
    return known


def _can_have(found: Engine, image: str) -> bool:
    local = image == "host" or image.startswith(("dir:", "tar:"))
    return bool(found.capabilities()["local_images" if local else "image_references"])


def image_refused(found: Engine) -> str | None:
    """The usual image, if this engine cannot have it: who names no other one has to be told."""
    image = usual().get("image")
    return image if image is not None and not _can_have(found, image) else None


def defaults_on(found: Engine) -> dict[str, Any]:
    """What new containers of an engine are like where nothing else is said.

    One engine's usual image stands in no other's way as long as nobody wants it there.
    """
    spec = usual()
    if image_refused(found) is not None:
        del spec["image"]
    return spec


def podkit(name: str, prefix: str) -> Steps[Podkit]:
    """The sessions of a prefix on the engine of a name."""
    found = yield from engine(name)
    key = (id(found), prefix, _said(_OF_DEFAULTS))
    with _lock:
        known = _podkits.get(key)
    if known is None:
        import json

        audit = settings().audit
        made = yield found.podkit(prefix, defaults=json.dumps(defaults_on(found)), audit=audit)
        with _lock:
            known = _podkits.setdefault(key, made)
            if known is made and audit is not None:
                tell_of_the_end(made)
    return known


def tell_of_the_end(made: Podkit) -> None:
    """Has what is under way written down before the program ends."""
    if not _audited:
        import atexit

        atexit.register(_end)
    _audited.append(made)


def _end() -> None:
    from ._throw_away import close_at_exit
    from .errors import PodkitError

    close_at_exit()  # Nothing is closed by what has ended.
    for made in _audited:
        try:
            made.shutdown().wait()
        except PodkitError:
            pass  # It is late; the library has logged what is missing.
