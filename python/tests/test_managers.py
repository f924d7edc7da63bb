"""Managers over a backend that is written in Python, and over podkit's own."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from podkit import NotFoundError, PodkitError, PodkitEventHandler, Sandbox, SessionProxy, UnsupportedError
from podkit.backends.base import BackendInterface
from podkit.backends.docker import DockerBackend
from podkit.backends.native import NativeBackend
from podkit.core.manager import BaseContainerManager, SimpleContainerManager
from podkit.core.models import (
    ContainerConfig,
    ContainerStatus,
    Mount,
    ProcessResult,
    StartupVerificationConfig,
)
from podkit.core.session import RECOVERABLE_STATES, UNRECOVERABLE_STATES, BaseSessionManager
from podkit.monitors import BaseThreadMonitor, ContainerHealthMonitor
from podkit.monitors.orphans import OrphanContainerCleaner


class FakeBackend(BackendInterface):
    """Containers that are entries of a dictionary."""

    def __init__(self) -> None:
        self.containers: dict[str, dict[str, Any]] = {}
        self.numbers = itertools.count()
        self.fail: set[str] = set()
        self.commands: list[Any] = []

    def connect(self) -> None:
        pass

    def create_workload(self, name: str, config: ContainerConfig, mounts: list[Any], **kwargs: Any) -> str:
        if "create" in self.fail:
            raise RuntimeError("no room")
        container_id = f"id{next(self.numbers)}"
        self.containers[container_id] = {
            "name": name,
            "config": config,
            "mounts": mounts,
            "labels": kwargs["labels"],
            "status": ContainerStatus.CREATING,
            "created": "2020-01-01T00:00:00.123456789Z",
        }
        return container_id

    def start_workload(self, workload_id: str, verification_config: Any = None) -> None:
        if "start" in self.fail:
            raise RuntimeError("does not start")
        self.containers[workload_id]["status"] = ContainerStatus.RUNNING

    def stop_workload(self, workload_id: str, timeout: int = 10) -> None:
        self.containers[workload_id]["status"] = ContainerStatus.EXITED

    def execute_command(
        self,
        workload_id: str,
        command: Any,
        working_dir: Any = None,
        environment: Any = None,
        timeout: Any = None,
    ) -> ProcessResult:
        if workload_id not in self.containers:
            raise RuntimeError("gone")
        self.commands.append(command)
        return ProcessResult(exit_code=0, stdout=str(command), stderr="")

    def remove_workload(self, workload_id: str, force: bool = True) -> None:
        if "remove" in self.fail:
            raise RuntimeError("stays")
        self.containers.pop(workload_id, None)

    def get_workload_status(self, workload_id: str) -> ContainerStatus:
        found = self.containers.get(workload_id)
        return ContainerStatus.ERROR if found is None else found["status"]

    def list_workloads(self, filters: Any = None) -> list[dict[str, Any]]:
        prefix = (filters or {}).get("name", "").lstrip("^")
        return [
            {"id": key, "name": value["name"], "status": value["status"].value, "created": value["created"]}
            for key, value in self.containers.items()
            if value["name"].startswith(prefix)
        ]

    def get_workload_labels(self, workload_id: str) -> dict[str, str]:
        return dict(self.containers[workload_id]["labels"])

    def reload_workload(self, workload_id: str) -> None:
        pass

    def get_workload_logs(self, workload_id: str, tail: int = 100) -> str:
        return "last words"

    def get_workload_exit_code(self, workload_id: str) -> int | None:
        return 9

    def get_accessible_ports(self, workload_id: str) -> dict[int, int]:
        return {}

    def detect_current_image(self) -> str | None:
        return None


class Told(PodkitEventHandler):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, tuple[Any, ...]]] = []

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("on_"):
            return super().__getattribute__(name)

        def note(*arguments: Any) -> Any:
            self.events.append((name, arguments))
            return arguments[2] if name == "on_container_creating" else None

        return note

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.events]


class Containers(SimpleContainerManager):
    pass


@pytest.fixture
def fake() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def told() -> Told:
    return Told()


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


def wait_for(condition: Callable[[], Any], seconds: float = 10) -> Any:
    until = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.01)


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


# podkit's own engines.


def backend_of(engine: str) -> NativeBackend:
    return DockerBackend() if engine == "docker" else NativeBackend(engine)


def test_containers_of_an_engine_are_made_started_stopped_and_removed(
    user: str, engine: str, image: str, told: Told, workspace: Path
) -> None:
    backend = backend_of(engine)
    containers = Containers(backend, "pytest", workspace, event_handler=told)
    config = ContainerConfig(image=image, volumes=[Mount(source=workspace, target="/data", read_only=True)])
    container, name = containers.create_container(user, "s", config)
    assert container == name and containers.get_tracked_containers() == [container]
    assert containers.get_container_status(container) is ContainerStatus.CREATING
    containers.start_container(container, config)
    assert containers.get_container_status(container) is ContainerStatus.RUNNING
    assert containers.execute_command(container, "pwd; ls /data").stdout == "/workspace\nworkspaces\n"
    assert containers.write_file(container, "a", "b") == Path("/workspace/a")
    assert containers.execute_command(container, ["cat", "/workspace/a"]).stdout == "b"
    labels = backend.get_workload_labels(container)
    assert labels["podkit.user_id"] == user and labels["podkit.image"] == image
    containers.stop_container(container, timeout=0)
    assert containers.get_container_status(container) is ContainerStatus.EXITED
    assert backend.rests(container)
    assert containers.execute_command(container, "echo back").stdout == "back\n"
    assert container in [found["id"] for found in backend.list_workloads({"name": "^pytest-"})]
    containers.remove_container(container)
    assert containers.get_container_status(container) is ContainerStatus.ERROR
    containers.remove_container(container)
    assert told.names[:2] == ["on_container_creating", "on_container_created"]


def test_real_configuration_is_recovered_by_another_manager(
    user: str, engine: str, image: str, workspace: Path
) -> None:
    config = ContainerConfig(
        image=image, memory_limit="128m", environment={"A": "1"}, container_lifetime_seconds=90
    )
    first = BaseSessionManager(Containers(backend_of(engine), "pytest", workspace), image)
    first.create_session(user, "s", config)
    first.execute_command(user, "s", "echo kept > file")
    again = BaseSessionManager(Containers(backend_of(engine), "pytest", workspace), image)
    session = again.get_session(user, "s")
    assert session is not None
    assert session.config.memory_limit == "128m"
    assert session.config.container_lifetime_seconds == 90
    assert session.config.environment == {"A": "1"}
    assert again.execute_command(user, "s", "cat file; echo $A").stdout == "kept\n1\n"
    again.close_session(user, "s")


def test_container_that_does_not_stay_up_fails_to_start(
    user: str, engine: str, image: str, workspace: Path, told: Told
) -> None:
    containers = Containers(backend_of(engine), "pytest", workspace, event_handler=told)
    sessions = BaseSessionManager(containers, image, event_handler=told)
    config = ContainerConfig(
        image=image,
        entrypoint=["/bin/sh", "-c", "echo dying; exit 3"],
        startup_verification=StartupVerificationConfig(check_interval_seconds=0.1),
    )
    with pytest.raises(RuntimeError, match="Failed to create session"):
        sessions.create_session(user, "s", config)
    assert "on_container_startup_failed" in told.names
    assert Sandbox.list(user=user, prefix="pytest") == []


def test_health_leaves_what_rests_and_has_what_is_lost_made_anew(
    user: str, engine: str, image: str, workspace: Path, told: Told
) -> None:
    containers = Containers(backend_of(engine), "pytest", workspace)
    monitor = ContainerHealthMonitor(containers, check_interval=1000)
    sessions = BaseSessionManager(containers, image, event_handler=told)
    monitor.register_handler(sessions._handle_health)
    session = sessions.create_session(user, "s")
    Sandbox.connect(user, "s", prefix="pytest").stop(0)
    monitor._check_all()
    assert containers.get_container_status(str(session.container_id)) is ContainerStatus.EXITED
    assert told.names == ["on_session_created"]
    Sandbox.remove(user, "s", prefix="pytest")
    monitor._check_all()
    assert session.status is ContainerStatus.ERROR and session.container_id is None
    assert sessions.execute_command(user, "s", "echo back").stdout == "back\n"
    assert told.names[1:] == [
        "on_container_health_check_failed",
        "on_container_recovery_failed",
        "on_container_recovered",
    ]
    sessions.close_session(user, "s")


def test_entrypoints_and_lifetimes_mean_what_they_did(user: str, engine: str, image: str) -> None:
    from podkit import get_docker_session

    def spec(session: str, config: ContainerConfig) -> dict[str, Any]:
        opened = get_docker_session(
            user_id=user, session_id=session, config=config, container_prefix="pytest"
        )
        assert opened.execute_command("echo hi").stdout == "hi\n"
        return opened.info().spec

    assert spec("a", ContainerConfig(image=image))["auto_stop"]["after"]["secs"] == 60
    assert spec("b", ContainerConfig(image=image, entrypoint=[]))["auto_stop"] == "off"
    found = spec("c", ContainerConfig(image=image, command=["sleep", "1000"]))
    assert (found["command"], found["auto_stop"]) == (["sleep", "1000"], "off")
    found = spec("d", ContainerConfig(image=image, entrypoint=["sleep"], command=["1000"]))
    assert (found["entrypoint"], found["command"]) == (["sleep"], ["1000"])


def test_docker_client_is_the_sdks_or_says_what_to_install(engine: str) -> None:
    try:
        import docker  # noqa: F401
    except ImportError:
        with pytest.raises(PodkitError, match="docker") as caught:
            DockerBackend().client
        assert caught.value.hint == "install it with `pip install docker`"
    else:
        assert DockerBackend().client.ping()


def test_verification_config_is_kept() -> None:
    config = ContainerConfig(startup_verification={"required_consecutive_checks": 2})  # type: ignore[arg-type]
    assert config.startup_verification == StartupVerificationConfig(required_consecutive_checks=2)
