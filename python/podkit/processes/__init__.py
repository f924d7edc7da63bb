"""Background processes in a container."""

from .manager import ProcessManager
from .models import Process, ProcessStatus
from .monitor import ProcessMonitor

__all__ = ["Process", "ProcessManager", "ProcessMonitor", "ProcessStatus"]
