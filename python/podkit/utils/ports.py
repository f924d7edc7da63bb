"""Ports of this machine, given out once."""

from __future__ import annotations

from collections.abc import Iterable

from .. import _check, _fork
from ..errors import InvalidInputError, LimitExceededError

__all__ = ["PortPool"]


class PortPool:
    """Gives out ports from a range, both ends included, to one holder at a time.

    Only those are given out that nobody listens on at 127.0.0.1 now.
    """

    def __init__(self, start: int = 5000, end: int = 5999, ports_per_container: int = 5) -> None:
        self.start = _check.port(start, "start")
        self.end = _check.port(end, "end")
        if self.end < self.start:
            raise InvalidInputError(f"`end` is {end}, which is less than `start`, {start}")
        self.ports_per_container = _check.integer(ports_per_container, "ports_per_container", 1, 65535)
        self.available: set[int] = set(range(self.start, self.end + 1))
        self.allocated: set[int] = set()
        self._lock = _fork.lock()

    def allocate(self, count: int | None = None) -> list[int]:
        """The lowest free ports, all or none.

        Raises:
            LimitExceededError: there are not so many (a ``RuntimeError``).
        """
        wanted = self.ports_per_container if count is None else _check.integer(count, "count", 0, 65535)
        with self._lock:
            found: list[int] = []
            if wanted <= len(self.available):
                for port in sorted(self.available):
                    if len(found) == wanted:
                        break
                    if _free(port):
                        found.append(port)
            if len(found) < wanted:
                left = len(found) if wanted <= len(self.available) else len(self.available)
                raise LimitExceededError(f"Not enough ports available: requested {wanted}, available {left}")
            self.available.difference_update(found)
            self.allocated.update(found)
            return found

    def release(self, ports: Iterable[int]) -> None:
        """Takes ports back; those that were not given out are passed over."""
        if isinstance(ports, (str, bytes)) or not isinstance(ports, Iterable):
            raise _check.bad("ports", f"must be a list of ports, not {_check.kind_of(ports)}")
        with self._lock:
            for port in ports:
                if port in self.allocated:
                    self.allocated.discard(port)
                    self.available.add(port)

    @property
    def available_count(self) -> int:
        """How many are not given out."""
        return len(self.available)

    @property
    def allocated_count(self) -> int:
        """How many are given out."""
        return len(self.allocated)


def _free(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
