"""Managers over a backend that is written in Python."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from conftest import wait_for
from managing import Containers, FakeBackend, Told

from podkit import NotFoundError, PodkitEventHandler, PortPool, SessionProxy, UnsupportedError
from podkit.backends.base import BackendInterface
from podkit.core.manager import BaseContainerManager, SimpleContainerManager
from podkit.core.models import (
    ContainerConfig,
    ContainerStatus,
    ProcessResult,
)
from podkit.core.session import RECOVERABLE_STATES, UNRECOVERABLE_STATES, BaseSessionManager
from podkit.monitors import BaseThreadMonitor, ContainerHealthMonitor
from podkit.monitors.orphans import OrphanContainerCleaner
from podkit.processes import ProcessManager


@pytest.fixture
def fake() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def sessions(fake: FakeBackend, told: Told, tmp_path: Path) -> BaseSessionManager:
    containers = Containers(fake, "pytest", tmp_path, event_handler=told)
    return BaseSessionManager(containers, default_image="img", event_handler=told)


def test_backend_in_python_works_under_the_session_manager(
    sessions: BaseSessionManager, fake: FakeBackend, told: Told, tmp_path: Path
) -> None:
    session = sessions.create_session("u", "s")
    assert session.container_id == "id0" and session.status is ContainerStatus.RUNNING
    made = fake.containers["id0"]
    assert made["labels"] == {
        "podkit.user_id": "u",
        "podkit.session_id": "s",
        "podkit.manager": "pytest",
        "podkit.image": "img",
    }
    assert made["name"].startswith("pytest-s-u-")
    directory = tmp_path / "workspaces" / "u" / "s"
    assert made["mounts"] == [{"Type": "bind", "Source": str(directory), "Target": "/workspace"}]
    assert sessions.create_session("u", "s") is session is sessions.get_or_create_session("u", "s")
    assert sessions.execute_command("u", "s", ["echo"]).stdout == "['echo']"
    assert sessions.write_file("u", "s", "a/b.txt", "hi") == Path("/workspace/a/b.txt")
    assert (directory / "a" / "b.txt").read_text() == "hi"
    proxy = SessionProxy(sessions, "u", "s")
    assert proxy.execute_command("x").stdout == "x"
    with pytest.raises(UnsupportedError, match="FakeBackend"):
        proxy.exec(["x"])
    sessions.close_session("u", "s")
    assert fake.containers == {} and session.status is ContainerStatus.STOPPED
    assert told.names == [
        "on_container_creating",
        "on_container_created",
        "on_session_created",
        "on_session_closing",
        "on_container_removed",
        "on_session_closed",
    ]
    random = sessions.create_session("u")
    assert len(random.session_id) == 36
    sessions.cleanup_all()
    assert sessions.sessions == {} and fake.containers == {}


def test_config_without_an_image_has_the_managers(sessions: BaseSessionManager, fake: FakeBackend) -> None:
    config = ContainerConfig(memory_limit="1g")
    session = sessions.create_session("u", "s", config)
    assert session.config is config
    assert fake.containers["id0"]["config"].image == "img"


def test_handler_changes_what_is_made_and_the_session_sees_it(fake: FakeBackend, tmp_path: Path) -> None:
    class Policy(PodkitEventHandler):
        def on_container_creating(
            self, user_id: str, session_id: str, config: ContainerConfig
        ) -> ContainerConfig:
            config.environment["MADE_BY"] = "policy"
            return config

        def on_session_created(self, session: Any) -> None:
            raise RuntimeError("handlers may fail")

        on_container_created = on_session_closing = on_container_removed = on_session_created  # type: ignore[assignment]

    policy = Policy()
    sessions = BaseSessionManager(
        Containers(fake, "pytest", tmp_path, event_handler=policy), "img", event_handler=policy
    )
    session = sessions.create_session("u", "s", ContainerConfig())
    assert session.config.environment == {"MADE_BY": "policy"}
    assert fake.containers["id0"]["config"].environment == {"MADE_BY": "policy"}
    sessions.close_session("u", "s")
    assert fake.containers == {}


def test_handler_may_refuse(fake: FakeBackend, tmp_path: Path) -> None:
    class Refusing(PodkitEventHandler):
        def on_container_creating(self, *_: Any) -> ContainerConfig:
            raise ValueError("not you")

    sessions = BaseSessionManager(Containers(fake, "pytest", tmp_path, event_handler=Refusing()), "img")
    with pytest.raises(RuntimeError, match="Failed to create session: not you"):
        sessions.create_session("u", "s")
    assert fake.containers == {}


@pytest.mark.parametrize("step", ["create", "start"])
def test_failed_creation_leaves_nothing_and_is_told(
    step: str, sessions: BaseSessionManager, fake: FakeBackend, told: Told
) -> None:
    fake.fail = {step}
    with pytest.raises(RuntimeError, match="Failed to create session"):
        sessions.create_session("u", "s")
    assert fake.containers == {} and sessions.get_session("u", "s") is None
    expected = {
        "create": ["on_container_creating", "on_container_creation_failed", "on_session_creation_failed"],
        "start": [
            "on_container_creating",
            "on_container_created",
            "on_container_startup_failed",
            "on_container_removed",
            "on_session_creation_failed",
        ],
    }
    assert told.names == expected[step]
    fake.fail = set()
    assert sessions.create_session("u", "s").container_id is not None


def test_session_that_cannot_be_removed_stays_known(
    sessions: BaseSessionManager, fake: FakeBackend, told: Told
) -> None:
    sessions.create_session("u", "s")
    fake.fail = {"remove"}
    with pytest.raises(RuntimeError, match="stays"):
        sessions.close_session("u", "s")
    assert "on_container_removal_failed" in told.names
    fake.fail = set()
    sessions.close_session("u", "s")
    with pytest.raises(NotFoundError, match="Session not found: u:s"):
        sessions.close_session("u", "s")
    for call in (
        lambda: sessions.execute_command("u", "s", "x"),
        lambda: sessions.write_file("u", "s", "a", "b"),
        lambda: sessions.update_session_activity("u", "s"),
    ):
        with pytest.raises(RuntimeError, match="Session not found: u:s"):
            call()


def test_keys_with_colons_are_apart(sessions: BaseSessionManager) -> None:
    one, two = sessions.create_session("a:b", "c"), sessions.create_session("a", "b:c")
    assert one is not two and one.container_id != two.container_id


@pytest.mark.parametrize("wide", [True, False])
def test_both_signatures_of_write_file_work(wide: bool, fake: FakeBackend, tmp_path: Path) -> None:
    calls: list[Any] = []

    class Wide(SimpleContainerManager):
        def write_file(self, container_id, container_path, content, user_id, session_id):  # type: ignore[no-untyped-def, override]
            calls.append((container_id, container_path, content, user_id, session_id))
            return container_path

    class Narrow(SimpleContainerManager):
        def write_file(self, container_id, container_path, content):  # type: ignore[no-untyped-def]
            calls.append((container_id, container_path, content))
            return container_path

    sessions = BaseSessionManager((Wide if wide else Narrow)(fake, "pytest", tmp_path), "img")
    sessions.create_session("u", "s")
    sessions.write_file("u", "s", Path("/workspace/a"), "b")
    rest = ("u", "s") if wide else ()
    assert calls == [("id0", Path("/workspace/a"), "b", *rest)]


def test_abstract_classes_need_their_methods(fake: FakeBackend, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="abstract"):
        BaseContainerManager(fake, "p", tmp_path)  # type: ignore[abstract]
    with pytest.raises(TypeError, match="abstract"):
        BackendInterface()  # type: ignore[abstract]
    with pytest.raises(TypeError, match="abstract"):
        BaseThreadMonitor()  # type: ignore[abstract]


def test_sessions_of_another_manager_are_recovered(
    sessions: BaseSessionManager, fake: FakeBackend, tmp_path: Path
) -> None:
    sessions.create_session("u", "s")
    other = Containers(fake, "pytest-longer", tmp_path)
    BaseSessionManager(other, "img").create_session("u", "t")
    again = BaseSessionManager(Containers(fake, "pytest", tmp_path), "img")
    assert list(again.sessions) == ["u:s"]
    session = again.sessions["u:s"]
    assert (session.container_id, session.config.image) == ("id0", "img")


def test_paths_are_translated_and_refused_outside(fake: FakeBackend, tmp_path: Path) -> None:
    containers = Containers(fake, "p", tmp_path, workspace_base_host="/real")
    inside = tmp_path / "workspaces" / "u" / "s" / "a"
    assert containers.to_host_path("a", "u", "s") == inside
    assert containers.to_host_path("/workspace/a", "u", "s", real_host=True) == Path("/real/workspaces/u/s/a")
    assert containers.to_container_path(inside, "u", "s") == Path("/workspace/a")
    for bad in ("/etc", "/workspace/../x", "../x"):
        with pytest.raises(ValueError):
            containers.to_host_path(bad, "u", "s")
    with pytest.raises(ValueError):
        containers.to_container_path("/etc", "u", "s")


def test_health_monitor_restarts_and_recreates(fake: FakeBackend, told: Told, tmp_path: Path) -> None:
    containers = Containers(fake, "pytest", tmp_path)
    monitor = ContainerHealthMonitor(containers, check_interval=0.02, log_lines=3)
    looks: list[Any] = []
    monitor.register_handler(looks.append)
    sessions = BaseSessionManager(containers, "img", health_monitor=monitor, event_handler=told)
    try:
        assert monitor.running and len(monitor.handlers) == 2
        session = sessions.create_session("u", "s")
        container = str(session.container_id)
        fake.containers[container]["status"] = ContainerStatus.EXITED
        wait_for(lambda: "on_container_recovered" in told.names)
        assert fake.containers[container]["status"] is ContainerStatus.RUNNING
        ill = wait_for(lambda: [look for look in looks if look.get(container, {}).get("status") == "exited"])
        assert ill[0][container]["logs"] == "last words"
        assert "on_container_health_check_failed" in told.names
        fake.containers[container]["status"] = ContainerStatus.DEAD
        wait_for(lambda: session.status is ContainerStatus.ERROR)
        assert session.metadata["failure_reason"] == "unrecoverable_state"
        wait_for(lambda: container not in fake.containers)
        assert sessions.execute_command("u", "s", "x").exit_code == 0
        assert session.container_id != container and session.metadata == {}
        session.session_inactivity_timeout_seconds = 0
        wait_for(lambda: sessions.get_session("u", "s") is None)
        assert "on_session_expired" in told.names and fake.containers == {}
    finally:
        sessions.shutdown()
    assert not monitor.running


@pytest.mark.parametrize("shared", [True, False])
def test_handler_of_a_monitor_is_told_of_each_illness(
    shared: bool, fake: FakeBackend, told: Told, tmp_path: Path
) -> None:
    containers = Containers(fake, "pytest", tmp_path)
    handler = told if shared else Told()
    monitor = ContainerHealthMonitor(containers, event_handler=handler)
    sessions = BaseSessionManager(containers, "img", event_handler=told)
    sessions.health_monitor = monitor
    monitor.register_handler(sessions._handle_health)
    session = sessions.create_session("u", "s")
    session.last_active_at -= timedelta(minutes=5)
    lone, _ = containers.create_container("u", "lone", ContainerConfig(image="img"))
    monitor._check_all()
    assert handler.names.count("on_container_health_check_failed") == 0
    fake.containers[str(session.container_id)]["status"] = ContainerStatus.DEAD
    fake.containers[lone]["status"] = ContainerStatus.EXITED
    begun = datetime.now(timezone.utc)
    monitor._check_all()

    def ill(handler: Told) -> list[tuple[str, str]]:
        found = [told for name, told in handler.events if name == "on_container_health_check_failed"]
        return [(container, reason) for container, _, reason, _ in found]

    assert ill(handler) == [("id0", "dead"), (lone, "exited")]
    assert shared or ill(told) == [("id0", "dead")]
    assert datetime.fromisoformat(session.metadata["failure_detected_at"]) >= begun


def test_session_in_use_does_not_expire(fake: FakeBackend, tmp_path: Path) -> None:
    release = threading.Event()

    class Slow(FakeBackend):
        def execute_command(self, *arguments: Any, **rest: Any) -> ProcessResult:
            release.wait(10)
            return super().execute_command(*arguments, **rest)

    containers = Containers(Slow(), "pytest", tmp_path)
    sessions = BaseSessionManager(containers, "img", session_inactivity_timeout_seconds=0)
    sessions.create_session("u", "s")
    results: list[ProcessResult] = []
    thread = threading.Thread(target=lambda: results.append(sessions.execute_command("u", "s", "x")))
    thread.start()
    wait_for(lambda: sessions._running)
    time.sleep(0.02)
    sessions._handle_health({})
    assert sessions.get_session("u", "s") is not None
    release.set()
    thread.join()
    assert results[0].exit_code == 0


def test_session_that_comes_into_use_while_it_expires_stays(fake: FakeBackend, tmp_path: Path) -> None:
    containers = Containers(fake, "pytest", tmp_path)
    sessions = BaseSessionManager(containers, "img", session_inactivity_timeout_seconds=1)
    session = sessions.create_session("u", "s")
    session.last_active_at -= timedelta(seconds=9)

    def used_meanwhile(_: str) -> None:
        sessions.update_session_activity("u", "s")

    fake.last_active = used_meanwhile  # type: ignore[attr-defined]
    sessions._expire()
    assert sessions.get_session("u", "s") is session and fake.containers


def test_call_that_waits_for_a_close_is_told_that_the_session_is_gone(
    fake: FakeBackend, tmp_path: Path
) -> None:
    sessions = BaseSessionManager(Containers(fake, "pytest", tmp_path), "img")
    sessions.create_session("u", "s")
    said: list[str] = []

    def call() -> None:
        with pytest.raises(NotFoundError, match="Session not found: u:s") as error:
            sessions.execute_command("u", "s", "x")
        said.append(str(error.value))

    with sessions._gate("u:s"):
        thread = threading.Thread(target=call)
        thread.start()
        wait_for(lambda: sessions._running)
        sessions.close_session("u", "s")
    thread.join()
    assert said and fake.containers == {} and fake.commands == []


def test_containers_that_vanish_are_left_out(fake: FakeBackend, told: Told, tmp_path: Path) -> None:
    containers = Containers(fake, "pytest", tmp_path)
    ids = [containers.create_container("u", name, ContainerConfig(image="i"))[0] for name in "abc"]

    class Vanishing(FakeBackend):
        def get_workload_labels(self, workload_id: str) -> dict[str, str]:
            if workload_id == ids[1]:
                raise RuntimeError("gone")
            return super().get_workload_labels(workload_id)

    other = Vanishing()
    other.containers = fake.containers
    found = Containers(other, "pytest", tmp_path).discover_existing_containers()
    assert [one["container_id"] for one in found] == [ids[0], ids[2]]
    OrphanContainerCleaner(other, "pytest", max_age_seconds=5)._cleanup_orphans()
    assert list(fake.containers) == [ids[1]]


def test_monitor_that_is_begun_again_goes_on_alone(fake: FakeBackend, tmp_path: Path) -> None:
    looks, release = [], threading.Event()

    class Slow(ContainerHealthMonitor):
        def _check_all(self) -> None:
            looks.append(threading.current_thread())
            release.wait(30)

    monitor = Slow(Containers(fake, "p", tmp_path), check_interval=0.001)
    monitor.start()
    first = wait_for(lambda: looks)[0]
    monitor.stop(timeout=0)
    monitor.start()
    release.set()
    first.join(30)
    assert not first.is_alive() and monitor.thread is not first
    wait_for(lambda: looks[-1] is monitor.thread)
    monitor.stop()


def test_fork_waits_for_no_thread_of_its_parent(sessions: BaseSessionManager, fake: FakeBackend) -> None:
    containers, pool = sessions.container_manager, PortPool()
    container = str(sessions.create_session("u", "s").container_id)
    processes = ProcessManager(containers, container, "u", "s")
    taken, release = threading.Event(), threading.Event()

    def hold() -> None:
        with sessions.lock, sessions._gate("u:s"), containers.lock, pool._lock, processes.lock:
            taken.set()
            release.wait(30)

    holder = threading.Thread(target=hold)
    read, write = os.pipe()
    # What the forking thread itself holds is still its own.
    with sessions._gate("u:mine"):
        holder.start()
        assert taken.wait(30)
        pid = os.fork()
    if pid == 0:
        try:
            sessions.create_session("u", "t")
            said = f"{len(pool.allocate(1))} {processes.list_processes()}"
            sessions.close_session("u", "s")
            os.write(write, said.encode())
        except BaseException as error:
            os.write(write, repr(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    try:
        assert select.select([read], [], [], 30)[0], "the fork hangs"
        assert os.read(read, 1000) == b"1 []"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(read)
        release.set()
        holder.join()


def test_monitor_stops_at_once_and_warns_when_begun_twice(
    caplog: pytest.LogCaptureFixture, fake: FakeBackend, tmp_path: Path
) -> None:
    monitor = ContainerHealthMonitor(Containers(fake, "p", tmp_path), check_interval=30)
    monitor.stop()
    monitor.start()
    monitor.start()
    assert "runs already" in caplog.text
    begun = time.monotonic()
    monitor.stop()
    assert time.monotonic() - begun < 1
    assert monitor.thread is not None and not monitor.thread.is_alive() and monitor.thread.daemon
    with pytest.raises(ValueError, match="check_interval"):
        ContainerHealthMonitor(Containers(fake, "p", tmp_path), check_interval=0)


def test_orphans_are_removed_by_age_and_prefix(fake: FakeBackend, told: Told, tmp_path: Path) -> None:
    made = {}
    for prefix in ("pytest", "pytest-longer"):
        containers = Containers(fake, prefix, tmp_path)
        for name in ("old", "runs"):
            made[prefix, name] = containers.create_container("u", name, ContainerConfig(image="i"))[0]
    fake.start_workload(made["pytest", "runs"])
    young = Containers(fake, "pytest", tmp_path).create_container("u", "young", ContainerConfig(image="i"))[0]
    fake.containers[young]["created"] = "2999-01-01T00:00:00Z"
    cleaner = OrphanContainerCleaner(fake, "pytest", max_age_seconds=5, event_handler=told)
    cleaner._cleanup_orphans()
    assert made["pytest", "old"] not in fake.containers
    assert len(fake.containers) == 4
    assert told.names == ["on_orphan_container_removed"] and told.events[0][1][2] > 5


def test_states_are_recoverable_or_not() -> None:
    assert {ContainerStatus.CREATING, ContainerStatus.PAUSED, ContainerStatus.EXITED} == RECOVERABLE_STATES
    assert ContainerStatus.DEAD in UNRECOVERABLE_STATES
    assert not RECOVERABLE_STATES & UNRECOVERABLE_STATES
