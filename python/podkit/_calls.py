"""How the steps of an operation are waited for.

What an operation does is written once, as a generator that yields the native calls it needs. Blocking
functions run it by :func:`wait`, coroutines by :func:`finish`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any, TypeVar

    from ._native import Call

    T = TypeVar("T")
    Steps = Generator[Call[Any], Any, T]


def wait(steps: Steps[T]) -> T:
    """Runs an operation to its end. Ctrl-C ends it at once."""
    try:
        call = next(steps)
        while True:
            try:
                value = call.wait()
            except BaseException as error:
                call = steps.throw(error)
            else:
                call = steps.send(value)
    except StopIteration as end:
        result: T = end.value
        return result


async def finish(steps: Steps[T]) -> T:
    """Runs an operation to its end. Cancelling it gives the step up that is under way."""
    try:
        call = next(steps)
        while True:
            try:
                value = await _told(call)
            except BaseException as error:
                call = steps.throw(error)
            else:
                call = steps.send(value)
    except StopIteration as end:
        result: T = end.value
        return result


async def _told(call: Call[Any]) -> Any:
    import asyncio

    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(failed: bool, value: Any) -> None:
        if future.done():
            return
        if failed:
            future.set_exception(value)
        else:
            future.set_result(value)

    def done(failed: bool, value: Any) -> None:
        try:
            loop.call_soon_threadsafe(settle, failed, value)
        except RuntimeError:
            pass  # The loop was closed, and nobody waits any more.

    begun = call.begin(done)
    try:
        return await future
    finally:
        if not future.done() or future.cancelled():
            begun.cancel()


def only(call: Call[Any]) -> Steps[Any]:
    """An operation of one step."""
    return (yield call)
