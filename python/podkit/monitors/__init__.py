"""Threads that watch over containers."""

from .base import BaseThreadMonitor
from .health import ContainerHealthMonitor

__all__ = ["BaseThreadMonitor", "ContainerHealthMonitor"]
