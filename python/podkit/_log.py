"""Loggers, which are made when they are first used: importing logging takes longer than podkit."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from logging import Logger
    from typing import Any


class LazyLogger:
    """A logger of the standard library by its name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        import logging

        return getattr(logging.getLogger(self._name), name)


def logger_or(logger: Logger | None, name: str) -> Any:
    """The logger that was given, or the one of a name."""
    return LazyLogger(name) if logger is None else logger


def tell(handler: Any, logger: Any, event: str, *arguments: Any) -> None:
    """Tells a handler of an event. What it raises is logged, and changes nothing."""
    if handler is None:
        return
    try:
        getattr(handler, event)(*arguments)
    except Exception:
        logger.exception("the event handler failed in %s", event)
