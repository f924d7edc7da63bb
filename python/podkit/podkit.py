"""Everybody's sessions on one engine, under one prefix, and the engine's images."""

from __future__ import annotations

import builtins
import os
from collections.abc import Callable, Iterator, Mapping

from . import _check
from ._calls import wait
from ._engine_of import Health, _EngineOf
from .results import Event, GcReport, ImageInfo, Parent, PullProgress, SandboxInfo
from .sandbox import Sandbox
from .transfers import feed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import timedelta
    from typing import Any

    from .files import Source

    Seconds = float | timedelta

__all__ = ["Health", "Podkit"]


class Podkit(_EngineOf):
    """Everybody's sessions on one engine, under one prefix, blocking.

    What is not said here is as the environment and the configuration file say, as on the command line.
    Leaving the ``with`` block takes no more work and waits for what has begun; sessions stay, and its
    throw-away ones are closed.

    >>> with Podkit() as podkit:
    ...     with podkit.sandbox() as sandbox:
    ...         print(sandbox.shell("echo hi").stdout)
    hi
    <BLANKLINE>

    Args:
        backend: ``auto``, ``embedded``, ``docker``, ``podman`` or a URL.
        prefix: whose sessions these are; other prefixes' are never touched.
        defaults: keywords of :class:`Sandbox` for those that say nothing themselves.
        health: has sessions watched over: what is not well is recovered, what is not used expires.
            :meth:`events` tells of it.
        audit: a file of this machine's that gets a line of JSON for each command, with how it ended.
        audit_arguments: whether the commands' arguments are written there, which may hold secrets.
        on_pull: is told how far the fetching of images is, in a thread of its own.
        max_connections: most connections to agents that are kept open.
    """

    def __init__(
        self,
        backend: str | None = None,
        *,
        prefix: str | None = None,
        defaults: Mapping[str, Any] | None = None,
        health: Health | bool = False,
        audit: str | os.PathLike[str] | None = None,
        audit_arguments: bool = True,
        on_pull: Callable[[PullProgress], object] | None = None,
        max_connections: int | None = None,
    ) -> None:
        super().__init__(backend, prefix, defaults, health, audit, audit_arguments, on_pull, max_connections)
        wait(self._native_podkit())

    def sandbox(self, user: str | None = None, session: str | None = None, **options: Any) -> Sandbox:
        """A session's sandbox, made if it is missing; see :class:`Sandbox`."""
        return Sandbox(user, session, podkit=self, **options)

    def list(self, user: str | None = None) -> list[SandboxInfo]:
        """The sessions, or one user's."""
        return wait(self._list(user))

    def inspect(self, user: str, session: str) -> SandboxInfo:
        """What is known of a session; nothing is started."""
        return wait(self._inspect(user, session))

    def remove(self, user: str, session: str) -> bool:
        """Removes a session's container without opening it; gives whether there was one."""
        return wait(self._remove(user, session))

    def gc(self, *, idle: Seconds | None = None, dry_run: bool = False) -> GcReport:
        """Removes sessions that have expired, and with ``idle`` those that were not used for so long."""
        return wait(self._gc(idle, dry_run))

    def events(self) -> Iterator[Event]:
        """What happens to sessions from now on, as far as this ``Podkit`` does it or sees it."""
        return _all_events(wait(self._native_podkit()).events())

    def pull_image(self, image: str, *, platform: str | None = None) -> ImageInfo:
        """Fetches an image from its registry."""
        return wait(self._pull(image, platform))

    def images(self) -> builtins.list[ImageInfo]:
        """Every image that the engine keeps by name."""
        return wait(self._all_images())

    def image(self, image: str) -> ImageInfo:
        """One image of the engine's."""
        return wait(self._image(image))

    def remove_image(self, image: str) -> None:
        """Takes a name of an image away, and the image with its last one; fine when it is gone."""
        wait(self._remove_image(image))

    def import_image(self, image: str, source: Source) -> ImageInfo:
        """Makes an image from a tar archive of a root file system.

        A source is the path of a file of this machine's, an open file, bytes, or an iterable of them.
        """
        name = _check.text(image, "image")
        sink = wait(self._images()).import_archive(name)
        return ImageInfo(wait(feed(sink, source, "source")))

    def parent(self) -> Parent | None:
        """The container that this program itself runs in, where it runs in one of this engine's."""
        return wait(self._parent())

    def capabilities(self) -> dict[str, Any]:
        """What the engine can do."""
        return wait(self._capabilities())

    def ping(self) -> None:
        """Asks the engine whether it is there."""
        wait(self._ping())

    def shutdown(self) -> None:
        """Takes no more work and waits for what has begun. Sessions stay; throw-away ones are closed."""
        wait(self._shutdown())

    def __enter__(self) -> Podkit:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()


def _all_events(stream: Any) -> Iterator[Event]:
    while (facts := stream.next().wait()) is not None:
        yield Event(facts)
