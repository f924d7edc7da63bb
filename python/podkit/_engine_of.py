"""What blocking and asynchronous engines share."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from . import _check, _connect, _spec, _throw_away
from ._options import make_spec
from .results import GcReport, ImageInfo, Parent, PullProgress, SandboxInfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._calls import Steps
    from ._native import Images as NativeImages
    from ._native import Podkit as NativePodkit

__all__ = ["Health"]


class Health:
    """How sessions are watched over.

    Args:
        interval: seconds between two looks at a session.
        probe_timeout: seconds that an agent may take to answer.
        log_lines: lines of a container's own program that events carry.
        all_sessions: whether sessions of the prefix are watched that this ``Podkit`` has not opened.
        warn_before: seconds before a session expires at which that is told.
        clean_orphans: seconds without use after which containers of the prefix are removed, whoever
            made them; never without.

    >>> Health(interval=10, clean_orphans=3600).interval
    10.0
    """

    def __init__(
        self,
        *,
        interval: float = 30.0,
        probe_timeout: float = 5.0,
        log_lines: int = 50,
        all_sessions: bool = False,
        warn_before: float = 60.0,
        clean_orphans: float | None = None,
    ) -> None:
        self.interval = _check.seconds(interval, "interval")
        if self.interval < 0.01:
            raise _check.bad("interval", f"must be at least 0.01 seconds, not {interval}")
        self.probe_timeout = _check.seconds(probe_timeout, "probe_timeout")
        self.log_lines = _check.integer(log_lines, "log_lines", 0, 100_000)
        self.all_sessions = bool(all_sessions)
        self.warn_before = _check.seconds(warn_before, "warn_before", zero=True)
        self.clean_orphans = _check.maybe_seconds(clean_orphans, "clean_orphans")

    def _native(self) -> tuple[float, float, int, bool, float, float | None]:
        return (
            self.interval,
            self.probe_timeout,
            self.log_lines,
            self.all_sessions,
            self.warn_before,
            self.clean_orphans,
        )


class _EngineOf:
    """An engine, a prefix, and what is done with all of its sessions, as steps."""

    def __init__(
        self,
        backend: str | None,
        prefix: str | None,
        defaults: Mapping[str, Any] | None,
        health: Health | bool,
        audit: Any,
        audit_arguments: bool,
        on_pull: Callable[[PullProgress], object] | None,
        max_connections: int | None,
    ) -> None:
        self._backend = _connect.backend_name(_check.maybe_text(backend, "backend"))
        #: Whose sessions these are.
        self.prefix: str = _connect.prefix_name(_check.maybe_text(prefix, "prefix"))
        self._defaults: dict[str, Any] = {}
        if defaults is not None:
            from .sandbox import spec_names

            if not isinstance(defaults, Mapping):
                raise _check.bad("defaults", f"must be a mapping, not {_check.kind_of(defaults)}")
            for name in defaults:
                if name not in spec_names():
                    raise _check.bad(f"defaults[{name!r}]", "is no keyword of a sandbox's configuration")
            named = {"user" if name == "user_name" else name: one for name, one in defaults.items()}
            self._defaults = make_spec(named)
        if not isinstance(health, (Health, bool)):
            raise _check.bad("health", f"must be a Health, True or False, not {_check.kind_of(health)}")
        self._health = Health() if health is True else health or None
        self._audit = _check.maybe_text(audit, "audit")
        self._audit_arguments = bool(audit_arguments)
        if on_pull is not None and not callable(on_pull):
            raise _check.bad("on_pull", f"must be a function, not {_check.kind_of(on_pull)}")
        self._on_pull = on_pull
        self._most = _check.maybe_integer(max_connections, "max_connections", 1, 2**31)
        self._start_over()

    def _start_over(self) -> None:
        from . import _native

        self._made: NativePodkit | None = None
        self._shared = _native.Shared()
        self._pid = os.getpid()

    def _native_podkit(self) -> Steps[NativePodkit]:
        if self._pid != os.getpid():
            # What a fork has of its parent is not dropped either.
            _connect._left.append((self._made, self._shared))
            self._start_over()
        if self._made is None:
            found = yield from _connect.engine(self._backend)
            spec = _connect.defaults_on(found)
            env = {**spec.get("env", {}), **self._defaults.get("env", {})}
            spec.update(self._defaults)
            if env:
                spec["env"] = env
            audit = self._audit or _connect.settings().audit
            told = self._on_pull
            made: NativePodkit = yield found.podkit(
                self.prefix,
                defaults=_spec.dumps(spec),
                health=None if self._health is None else self._health._native(),
                audit=audit,
                audit_arguments=self._audit_arguments,
                on_pull=None if told is None else lambda facts: told(PullProgress(facts)),
                max_connections=self._most,
                shared=self._shared,
            )
            # Others may have waited for the same.
            if self._made is None:
                self._made = made
                if audit is not None:
                    _connect.tell_of_the_end(made)
        return self._made

    def _images(self) -> Steps[NativeImages]:
        return (yield from self._native_podkit()).images()

    def _list(self, user: Any) -> Steps[list[SandboxInfo]]:
        podkit = yield from self._native_podkit()
        found = yield podkit.list(_check.maybe_text(user, "user"))
        return [SandboxInfo(facts) for facts in found]

    def _inspect(self, user: Any, session: Any) -> Steps[SandboxInfo]:
        ids = _check.text(user, "user"), _check.text(session, "session")
        podkit = yield from self._native_podkit()
        return SandboxInfo((yield podkit.inspect(*ids)))

    def _remove(self, user: Any, session: Any) -> Steps[bool]:
        from ._opened import _closed

        ids = _check.text(user, "user"), _check.text(session, "session")
        podkit = yield from self._native_podkit()
        return _closed((yield podkit.close(*ids)))

    def _gc(self, idle: Any, dry_run: Any) -> Steps[GcReport]:
        limit = _check.maybe_seconds(idle, "idle")
        podkit = yield from self._native_podkit()
        return GcReport((yield podkit.gc(idle=limit, dry_run=bool(dry_run))))

    def _parent(self) -> Steps[Parent | None]:
        podkit = yield from self._native_podkit()
        facts = yield podkit.parent()
        return None if facts is None else Parent(facts)

    def _capabilities(self) -> Steps[dict[str, Any]]:
        return (yield from _connect.engine(self._backend)).capabilities()

    def _ping(self) -> Steps[None]:
        yield (yield from _connect.engine(self._backend)).ping()

    def _pull(self, image: Any, platform: Any) -> Steps[ImageInfo]:
        named = _check.text(image, "image"), _check.maybe_text(platform, "platform")
        images = yield from self._images()
        return ImageInfo((yield images.pull(*named)))

    def _image(self, image: Any) -> Steps[ImageInfo]:
        name = _check.text(image, "image")
        images = yield from self._images()
        return ImageInfo((yield images.inspect(name)))

    def _all_images(self) -> Steps[list[ImageInfo]]:
        images = yield from self._images()
        return [ImageInfo(facts) for facts in (yield images.list())]

    def _remove_image(self, image: Any) -> Steps[None]:
        name = _check.text(image, "image")
        images = yield from self._images()
        yield images.remove(name)

    def _shutdown(self) -> Steps[None]:
        made = self._made
        if made is None or self._pid != os.getpid():
            return
        failed = yield from _throw_away.close_all(made)
        yield made.shutdown()
        if failed:
            raise failed[0]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.prefix} on {self._backend}>"
