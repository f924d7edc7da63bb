"""ProcessManager and ProcessMonitor of podkit 0.7."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import IMAGES, SERVER, wait_for
from managing import Containers, FakeBackend, Told

from podkit import PodkitError, SessionProxy, get_docker_session
from podkit.core.models import ContainerConfig, ProcessResult
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


def test_names_of_processes_are_labels_which_may_be_alike_or_odd(user: str) -> None:
    session = opened(user)
    manager = manager_of(session, user)
    names = ["web", "web", "a/b #1", "x" * 200]
    started = [manager.start_process("sleep 1000", name=name) for name in names]
    assert [process.name for process in started] == names
    assert all(manager.is_running(process.id) for process in started)
    assert {process.id: process.name for process in manager.list_processes()} == {
        process.id: process.name for process in started
    }
    # Another manager knows those that the agent could take.
    found = {known.id: known.name for known in manager_of(session, user).list_processes()}
    assert [found[process.id] for process in started] == ["web", None, None, None]


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


def test_monitor_tells_of_what_somebody_else_saw_end_and_of_nothing_old(user: str) -> None:
    session = opened(user)
    manager = manager_of(session, user)
    old = manager.start_process("exit 1")
    wait_for(lambda: manager.get_status(old.id) is ProcessStatus.FAILED)
    another = manager_of(session, user)
    failed: dict[str, dict[str, Any]] = {}
    monitors = [ProcessMonitor(manager), ProcessMonitor(another)]
    for monitor in monitors:
        monitor.register_failure_handler(failed.__setitem__)
    another.list_processes()
    process = manager.start_process("exit 3")
    wait_for(lambda: manager.get_status(process.id) is ProcessStatus.FAILED)
    for _ in range(2):
        monitors[1]._check_all()
    assert failed == {}
    manager.get_logs = None  # type: ignore[assignment]
    for _ in range(2):
        monitors[0]._check_all()
        assert list(failed) == [process.id]
        assert failed[process.id]["logs"] == {"stdout": "", "stderr": ""}


def test_relative_directories_of_a_process_are_in_the_workspace(user: str) -> None:
    session = opened(user)
    manager = manager_of(session, user)
    session.files.make_dir("deep/er")
    process = manager.start_process("pwd", working_dir="deep/er", log_dir="my/logs")
    assert (process.working_dir, process.log_dir.parts[:4]) == (
        Path("/workspace/deep/er"),
        ("/", "workspace", "my", "logs"),
    )
    logs = wait_for(lambda: (found := manager.get_logs(process.id))["stdout"] and found)
    assert logs["stdout"] == "/workspace/deep/er\n"


class LocalBackend(FakeBackend):
    """Containers that are directories of this machine's: real commands, and nothing of podkit's core."""

    def execute_command(
        self,
        workload_id: str,
        command: Any,
        working_dir: Any = None,
        environment: Any = None,
        timeout: Any = None,
    ) -> ProcessResult:
        argv = ["/bin/sh", "-c", command] if isinstance(command, str) else command
        env = {"PATH": os.environ["PATH"], **(environment or {})}
        ran = subprocess.run(
            argv, cwd=working_dir or "/", env=env, capture_output=True, text=True, timeout=timeout
        )
        return ProcessResult(exit_code=ran.returncode, stdout=ran.stdout, stderr=ran.stderr)


class SdkBackend(FakeBackend):
    """Docker by its SDK, as somebody else would write it."""

    def __init__(self) -> None:
        super().__init__()
        import docker

        self.client = docker.from_env()

    def create_workload(self, name: str, config: Any, mounts: Any, **kwargs: Any) -> str:
        container = self.client.containers.create(
            config.image, ["sleep", "600"], name=name, labels=kwargs["labels"], init=True
        )
        return str(container.id)

    def start_workload(self, workload_id: str, verification_config: Any = None) -> None:
        self.client.containers.get(workload_id).start()

    def stop_workload(self, workload_id: str, timeout: int = 10) -> None:
        self.client.containers.get(workload_id).stop(timeout=timeout)

    def execute_command(
        self,
        workload_id: str,
        command: Any,
        working_dir: Any = None,
        environment: Any = None,
        timeout: Any = None,
    ) -> ProcessResult:
        argv = ["/bin/sh", "-c", command] if isinstance(command, str) else command
        code, (out, err) = self.client.containers.get(workload_id).exec_run(
            argv, workdir=working_dir and str(working_dir), environment=environment, demux=True
        )
        return ProcessResult(exit_code=code, stdout=(out or b"").decode(), stderr=(err or b"").decode())

    def remove_workload(self, workload_id: str, force: bool = True) -> None:
        self.client.containers.get(workload_id).remove(force=True)


@pytest.fixture
def foreign(engine: str, tmp_path: Path) -> Iterator[tuple[Containers, str, Path]]:
    """Containers of a backend that is written in Python, one of them, and a directory in it."""
    backend: FakeBackend = LocalBackend() if engine == "embedded" else SdkBackend()
    place = tmp_path / "place" if engine == "embedded" else Path("/tmp/place")
    containers = Containers(backend, "pytest", tmp_path)
    container, _ = containers.create_container("u", "s", ContainerConfig(image=IMAGES["docker"]))
    containers.start_container(container)
    backend.execute_command(container, ["mkdir", "-p", str(place)])
    yield containers, container, place
    containers.remove_container(container)


def over(
    foreign: tuple[Containers, str, Path], told: Told | None = None, logs: str = "logs"
) -> ProcessManager:
    containers, container, place = foreign
    return ProcessManager(containers, container, "u", "s", default_log_dir=place / logs, event_handler=told)


def running(foreign: tuple[Containers, str, Path]) -> str:
    """The command lines of all that runs in a container."""
    containers, container, _ = foreign
    text = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '; true"
    return containers.execute_command(container, ["sh", "-c", text]).stdout


def unique() -> str:
    """A number of seconds to sleep that nobody else sleeps."""
    return str(uuid.uuid4().int % 10**8 + 10**8)


@pytest.mark.engine("embedded")
@pytest.mark.engine("docker")
def test_processes_of_a_backend_in_python_are_started_looked_at_and_stopped(
    foreign: tuple[Containers, str, Path],
) -> None:
    told, place = Told(), foreign[2]
    manager = over(foreign, told)
    one, two, three = unique(), unique(), unique()
    process = manager.start_process(
        f"echo $A 'b  c'; pwd; echo oops >&2; sleep {one} & (sleep {two} &); env -i sleep {three}",
        name="a 'name'",
        working_dir=place,
        environment={"A": "$HOME; x"},
    )
    assert process.status is ProcessStatus.RUNNING and process.pid
    assert manager.is_running(process.id)
    logs = wait_for(lambda: (found := manager.get_logs(process.id))["stderr"] and found)
    assert logs == {"stdout": f"$HOME; x b  c\n{place}\n", "stderr": "oops\n"}
    assert manager.get_logs(process.id, tail=1)["stdout"] == f"{place}\n"
    wait_for(lambda: all(f"sleep {number}" in running(foreign) for number in (one, two, three)))
    assert manager.stop_process(process.id, timeout=1)
    assert manager.get_status(process.id) is ProcessStatus.STOPPED
    left = running(foreign)
    assert not any(number in left for number in (one, two, three)), left
    assert told.names == ["on_process_started", "on_process_stopped"]


@pytest.mark.engine("embedded")
@pytest.mark.engine("docker")
def test_codes_failures_and_logs_of_a_backend_in_python_are_told(
    foreign: tuple[Containers, str, Path],
) -> None:
    told, place = Told(), foreign[2]
    manager = over(foreign, told)
    process = manager.start_process("echo a; echo b; exit 7", working_dir=place)
    wait_for(lambda: manager.get_status(process.id) is ProcessStatus.FAILED)
    assert (process.exit_code, manager.get_logs(process.id)["stdout"]) == (7, "a\nb\n")
    good = manager.start_process("true", working_dir=place)
    wait_for(lambda: manager.get_status(good.id) is ProcessStatus.STOPPED)
    assert good.exit_code == 0
    assert manager.stop_process(good.id)
    assert told.names.count("on_process_failed") == told.names.count("on_process_stopped") == 1
    with pytest.raises(RuntimeError, match="Failed to start process: the working directory"):
        manager.start_process("true", working_dir=Path("/no/such"))
    with pytest.raises(RuntimeError, match="Failed to start process: the log directory"):
        manager.start_process("true", working_dir=place, log_dir=Path("/dev/null/logs"))
    for call in (manager.get_status, manager.is_running, manager.stop_process, manager.get_logs):
        with pytest.raises(RuntimeError, match="Process not found"):
            call("unknown")


@pytest.mark.engine("embedded")
@pytest.mark.engine("docker")
def test_processes_of_a_backend_in_python_resist_and_are_killed(
    foreign: tuple[Containers, str, Path],
) -> None:
    manager, number = over(foreign), unique()
    process = manager.start_process(
        f"trap '' TERM; echo ready; while :; do sleep {number}; done", working_dir=foreign[2]
    )
    wait_for(lambda: manager.get_logs(process.id)["stdout"] == "ready\n")
    assert manager.stop_process(process.id, timeout=0.2, force=False) is False
    assert manager.is_running(process.id)
    assert manager.stop_process(process.id, timeout=0.2)
    assert manager.get_status(process.id) is ProcessStatus.STOPPED
    assert process.exit_code == 137
    assert number not in running(foreign)


@pytest.mark.engine("embedded")
@pytest.mark.engine("docker")
def test_processes_of_a_backend_in_python_are_found_by_another_manager(
    foreign: tuple[Containers, str, Path],
) -> None:
    text, number = "echo 'it is'\nexec sleep {}", unique()
    text = text.format(number)
    process = over(foreign).start_process(text, name="web\n--", working_dir=foreign[2])
    nameless = over(foreign).start_process("exit 3", working_dir=foreign[2])
    other = over(foreign)
    wait_for(lambda: other.get_status(nameless.id) is ProcessStatus.FAILED)
    found = {known.id: known for known in other.list_processes()}
    assert set(found) == {process.id, nameless.id}
    assert (found[process.id].name, found[process.id].command) == ("web\n--", text)
    assert found[process.id].pid == process.pid
    assert abs((found[process.id].start_time - process.start_time).total_seconds()) < 60
    assert (found[nameless.id].name, found[nameless.id].exit_code) == (None, 3)
    assert over(foreign, logs="other").list_processes() == []
    assert other.stop_process(process.id, timeout=5)
    assert number not in running(foreign)


@pytest.mark.engine("embedded")
def test_ports_of_processes_of_a_backend_in_python_are_found(foreign: tuple[Containers, str, Path]) -> None:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    manager = over(foreign)
    (foreign[2] / "server.py").write_text(SERVER)
    # The one that listens is not the process itself, but what it has started.
    text = f"{sys.executable} server.py {port} hi & wait"
    process = manager.start_process(text, working_dir=foreign[2])
    wait_for(lambda: manager.get_status(process.id) is ProcessStatus.RUNNING and process.ports == [port])
    assert manager.stop_process(process.id, timeout=0.2)


@pytest.mark.engine("embedded")
@pytest.mark.engine("docker")
def test_files_are_written_by_a_backend_in_python_that_only_runs_commands(
    foreign: tuple[Containers, str, Path],
) -> None:
    containers, container, place = foreign
    target = place / "a dir" / "a 'file'"
    for content in ("", "short", "line é\n" * 100_000, "x" * (72 * 1024)):
        assert containers._write_inside(container, target, content) == target
        said = containers.execute_command(container, ["cat", str(target)])
        assert (said.exit_code, said.stdout) == (0, content)
        containers.execute_command(container, ["chmod", "750", str(target)])
    mode = containers.execute_command(container, ["stat", "-c", "%a", str(target)])
    with pytest.raises(PodkitError, match="it is a directory"):
        containers._write_inside(container, target.parent, "x")
    with pytest.raises(PodkitError, match=r"Failed to write file .*below"):
        containers._write_inside(container, target / "below", "x" * 100_000)
    names = containers.execute_command(container, ["ls", "-A", str(target.parent)])
    assert (mode.stdout, names.stdout) == ("750\n", "a 'file'\n")


@pytest.mark.engine("docker")
def test_processes_of_a_backend_in_python_end_with_their_container(
    foreign: tuple[Containers, str, Path],
) -> None:
    told, (containers, container, place) = Told(), foreign
    manager = over(foreign, told)
    process = manager.start_process("sleep 1000", working_dir=place)
    containers.stop_container(container, timeout=1)
    containers.start_container(container)
    assert manager.get_status(process.id) is ProcessStatus.STOPPED
    assert process.exit_code is None
    assert told.names == ["on_process_started", "on_process_stopped"]
