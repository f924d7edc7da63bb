"""Everybody's sessions on one engine, under one prefix, for asyncio."""

from __future__ import annotations

import builtins
import os
from collections.abc import Callable, Mapping

from . import _check
from ._calls import finish
from ._engine_of import Health, _EngineOf
from .async_sandbox import AsyncEvents, AsyncSandbox
from .results import GcReport, ImageInfo, Parent, PullProgress, SandboxInfo
from .transfers import feed_async

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterable
    from datetime import timedelta
    from typing import Any

    from .files import Source

    Seconds = float | timedelta

__all__ = ["AsyncPodkit"]


class AsyncPodkit(_EngineOf):
    """Everybody's sessions on one engine, under one prefix, for asyncio.

    It is connected by its first use, or by ``async with``. Its arguments are those of
    :class:`podkit.Podkit`.
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

    def sandbox(self, user: str | None = None, session: str | None = None, **options: Any) -> AsyncSandbox:
        """A session's sandbox, opened by its first use; see :class:`AsyncSandbox`."""
        return AsyncSandbox(user, session, podkit=self, **options)

    async def list(self, user: str | None = None) -> list[SandboxInfo]:
        """The sessions, or one user's."""
        return await finish(self._list(user))

    async def inspect(self, user: str, session: str) -> SandboxInfo:
        """What is known of a session; nothing is started."""
        return await finish(self._inspect(user, session))

    async def remove(self, user: str, session: str) -> bool:
        """Removes a session's container without opening it; gives whether there was one."""
        return await finish(self._remove(user, session))

    async def gc(self, *, idle: Seconds | None = None, dry_run: bool = False) -> GcReport:
        """Removes sessions that have expired, and with ``idle`` those that were not used for so long."""
        return await finish(self._gc(idle, dry_run))

    def events(self) -> AsyncEvents:
        """What happens to sessions from now on, as far as this ``Podkit`` does it or sees it."""
        return AsyncEvents(self._native_podkit(), None)

    async def pull_image(self, image: str, *, platform: str | None = None) -> ImageInfo:
        """Fetches an image from its registry."""
        return await finish(self._pull(image, platform))

    async def images(self) -> builtins.list[ImageInfo]:
        """Every image that the engine keeps by name."""
        return await finish(self._all_images())

    async def image(self, image: str) -> ImageInfo:
        """One image of the engine's."""
        return await finish(self._image(image))

    async def remove_image(self, image: str) -> None:
        """Takes a name of an image away, and the image with its last one; fine when it is gone."""
        await finish(self._remove_image(image))

    async def import_image(self, image: str, source: Source | AsyncIterable[bytes]) -> ImageInfo:
        """Makes an image from a tar archive of a root file system.

        A source is the path of a file of this machine's, an open file, bytes, or an iterable of them, asynchronous or not.
        """
        name = _check.text(image, "image")
        sink = (await finish(self._images())).import_archive(name)
        return ImageInfo(await feed_async(sink, source, "source"))

    async def parent(self) -> Parent | None:
        """The container that this program itself runs in, where it runs in one of this engine's."""
        return await finish(self._parent())

    async def capabilities(self) -> dict[str, Any]:
        """What the engine can do."""
        return await finish(self._capabilities())

    async def ping(self) -> None:
        """Asks the engine whether it is there."""
        await finish(self._ping())

    async def shutdown(self) -> None:
        """Takes no more work and waits for what has begun. Sessions stay; throw-away ones are closed."""
        await finish(self._shutdown())

    async def __aenter__(self) -> AsyncPodkit:
        await finish(self._native_podkit())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.shutdown()
