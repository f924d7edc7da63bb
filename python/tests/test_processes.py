"""ProcessManager and ProcessMonitor of podkit 0.7."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import SERVER
from test_managers import Told, wait_for

from podkit import SessionProxy, get_docker_session
from podkit.processes import ProcessManager, ProcessMonitor, ProcessStatus


def opened(user: str) -> SessionProxy:
    return get_docker_session(user_id=user, session_id="s", container_prefix="pytest")


def manager_of(session: SessionProxy, user: str, told: Told | None = None) -> ProcessManager:
    info = session.get_info()
    assert info is not None and info.container_id is not None
    containers = session._session_manager.container_manager
    return ProcessManager(containers, info.container_id, user, "s", event_handler=told)


def test_process_is_started_looked_at_and_stopped_with_all_it_started(user: str) -> None:
    session, told = opened(user), Told()
    manager = manager_of(session, user, told)
    begun = time.monotonic()
    process = manager.start_process(
        "echo $A; pwd; echo oops >&2; sleep 1000 & sleep 1001", name="web", environment={"A": "1"}
    )
    assert time.monotonic() - begun < 3
    assert process.status is ProcessStatus.RUNNING and process.pid
    assert manager.is_running(process.id)
    assert [known.name for known in manager.list_processes()] == ["web"]
    logs = wait_for(lambda: (found := manager.get_logs(process.id))["stderr"] and found)
    assert logs == {"stdout": "1\n/workspace\n", "stderr": "oops\n"}
    assert session.files.read_text(process.stdout_log) == "1\n/workspace\n"
    assert manager.stop_process(process.id)
    assert manager.get_status(process.id) is ProcessStatus.STOPPED
    assert process.stop_time is not None
    left = session.execute_command("cat /proc/[0-9]*/cmdline | tr '\\0' ' '").stdout
    assert "sleep 100" not in left
    assert told.names == ["on_process_started", "on_process_stopped"]


def test_all_commands_of_a_text_are_logged_and_codes_are_kept(user: str) -> None:
    session, told = opened(user), Told()
    manager = manager_of(session, user, told)
    process = manager.start_process("echo a; echo b; exit 7", working_dir=Path("/tmp"))
    wait_for(lambda: manager.get_status(process.id) is ProcessStatus.FAILED)
    assert (process.exit_code, manager.get_logs(process.id)["stdout"]) == (7, "a\nb\n")
    good = manager.start_process("true")
    wait_for(lambda: manager.get_status(good.id) is ProcessStatus.STOPPED)
    assert good.exit_code == 0
    assert told.names.count("on_process_failed") == told.names.count("on_process_stopped") == 1
    with pytest.raises(RuntimeError, match="Failed to start process"):
        manager.start_process("true", working_dir=Path("/no/such"))
    calls: list[Callable[[str], Any]] = [
        manager.get_status,
        manager.is_running,
        manager.stop_process,
        manager.get_logs,
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match="Process not found"):
            call("unknown")


def test_processes_are_found_by_another_manager(user: str) -> None:
    session = opened(user)
    process = manager_of(session, user).start_process("sleep 1000", name="web")
    other = manager_of(session, user)
    assert [(known.id, known.command) for known in other.list_processes()] == [(process.id, "sleep 1000")]
    assert other.stop_process(process.id, timeout=1)


def test_ports_of_a_process_are_found(user: str) -> None:
    session = opened(user)
    session.write_file("server.py", SERVER)
    manager = manager_of(session, user)
    process = manager.start_process("exec python3 server.py 8000 hi")
    session.wait_for_port(8000)
    wait_for(lambda: manager.get_status(process.id) is ProcessStatus.RUNNING and process.ports == [8000])


def test_monitor_tells_of_processes_that_fail(user: str) -> None:
    session = opened(user)
    manager = manager_of(session, user)
    monitor = ProcessMonitor(manager, check_interval=0.05)
    failed: list[tuple[str, dict[str, Any]]] = []
    monitor.register_failure_handler(lambda process_id, details: failed.append((process_id, details)))
    monitor.start()
    try:
        process = manager.start_process("echo last; exit 3")
        asked = manager.start_process("sleep 1000")
        manager.stop_process(asked.id)
        wait_for(lambda: failed)
    finally:
        monitor.stop()
    assert [known for known, _ in failed] == [process.id]
    details = failed[0][1]
    assert (details["exit_code"], details["command"]) == (3, "echo last; exit 3")
    assert details["logs"]["stdout"] == "last\n"
    assert (details["old_status"], details["new_status"]) == ("running", "failed")
