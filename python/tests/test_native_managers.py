"""Managers over podkit's own engines."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from managing import Containers, Told

from podkit import PodkitError, Sandbox, SessionProxy
from podkit.backends.docker import DockerBackend
from podkit.backends.native import NativeBackend
from podkit.core.manager import SimpleContainerManager
from podkit.core.models import (
    ContainerConfig,
    ContainerStatus,
    Mount,
    Session,
    StartupVerificationConfig,
)
from podkit.core.session import BaseSessionManager
from podkit.monitors import ContainerHealthMonitor


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
    script = "for i in 1 2 3 4; do echo dying $i; done; exit 3"
    config = ContainerConfig(
        image=image,
        entrypoint=["/bin/sh", "-c", script],
        startup_verification=StartupVerificationConfig(check_interval_seconds=0.1, log_tail_lines=2),
    )
    with pytest.raises(RuntimeError) as caught:
        sessions.create_session(user, "s", config)
    text = str(caught.value)
    assert text.startswith("Failed to create session: Container "), text
    assert " failed to start (status: exited).\nExit code: 3\nLogs:\ndying 3\ndying 4\nFailed after: " in text
    failed = next(arguments for name, arguments in told.events if name == "on_container_startup_failed")
    assert failed[4:] == (3, "dying 3\ndying 4")
    assert Sandbox.list(user=user, prefix="pytest") == []


def test_startup_verification_waits_and_keeps_logs_as_it_says(
    user: str, engine: str, image: str, workspace: Path
) -> None:
    sessions = BaseSessionManager(Containers(backend_of(engine), "pytest", workspace), image)

    def config(script: str, **verification: Any) -> ContainerConfig:
        return ContainerConfig(
            image=image,
            entrypoint=["/bin/sh", "-c", script],
            startup_verification=StartupVerificationConfig(**verification),
        )

    # Each of the checks is waited for.
    begun = time.monotonic()
    lasting = config(
        "sleep 1000", required_consecutive_checks=4, check_interval_seconds=0.1, max_wait_seconds=0.4
    )
    sessions.create_session(user, "up", lasting)
    assert time.monotonic() - begun >= 0.4
    # One that ends between two of them is found out.
    late = config(
        "echo secret; sleep 0.5; exit 4",
        required_consecutive_checks=8,
        check_interval_seconds=0.2,
        capture_logs_on_failure=False,
    )
    with pytest.raises(RuntimeError, match="Exit code: 4") as caught:
        sessions.create_session(user, "late", late)
    assert "secret" not in str(caught.value)
    # More checks than there is time for could never pass: nothing is made for them.
    begun = time.monotonic()
    for change in (
        {"required_consecutive_checks": 6},
        {"max_wait_seconds": 0.5},
        {"check_interval_seconds": 2},
    ):
        with pytest.raises(ValueError, match=r"startup_verification\.max_wait_seconds"):
            sessions.create_session(user, "never", config("sleep 1000", **change))
    assert [info.session_id for info in Sandbox.list(user=user, prefix="pytest")] == ["up"]
    sessions.close_session(user, "up")


@pytest.mark.also
@pytest.mark.engine("docker")
@pytest.mark.engine("podman")
def test_named_volume_has_the_workspaces_and_outlives_its_sessions(
    user: str, engine: str, image: str, tmp_path: Path
) -> None:
    volume = f"podkit-test-{user}"
    containers = SimpleContainerManager(backend_of(engine), "pytest", tmp_path, volume_name=volume)
    sessions = BaseSessionManager(containers, image)
    try:
        for session in ("one", "two"):
            sessions.create_session(user, session, ContainerConfig(image=image))
            written = sessions.write_file(user, session, "notes/a.txt", f"of {session}")
            assert written == Path("/workspace/notes/a.txt")
        assert sessions.execute_command(user, "one", "cat notes/a.txt").stdout == "of one"
        # The volume is there as a whole, as it was.
        shared = f"/mnt/podkit-workspace/workspaces/{user}/two/notes/a.txt"
        assert sessions.execute_command(user, "one", ["cat", shared]).stdout == "of two"
        assert sessions.write_file(user, "one", "/tmp/elsewhere", "x") == Path("/tmp/elsewhere")
        # What stopped finds it again, and so does what is made anew.
        containers.stop_container(str(sessions.sessions[f"{user}:one"].container_id), timeout=0)
        assert sessions.execute_command(user, "one", "cat notes/a.txt").stdout == "of one"
        sessions.close_session(user, "one")
        sessions.create_session(user, "one", ContainerConfig(image=image))
        assert sessions.execute_command(user, "one", "cat notes/a.txt; pwd -P").stdout == (
            f"of one/mnt/podkit-workspace/workspaces/{user}/one\n"
        )
    finally:
        sessions.cleanup_all()
        subprocess.run([engine, "volume", "rm", "-f", volume], check=True, capture_output=True)


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


def test_managers_close_what_their_process_made_and_no_more(
    user: str, engine: str, image: str, workspace: Path
) -> None:
    def manager() -> BaseSessionManager:
        return BaseSessionManager(Containers(backend_of(engine), "pytest", workspace), image)

    others = manager()
    others.create_session(user, "others")
    mine = manager()
    assert mine.get_session(user, "others") is not None
    session = mine.create_session(user, "mine")
    # It is its maker's also when it was started again.
    mine.container_manager.stop_container(str(session.container_id), timeout=0)
    mine.container_manager.start_container(str(session.container_id))
    mine.cleanup_all()
    assert [info.session_id for info in Sandbox.list(user=user, prefix="pytest")] == ["others"]
    assert mine.get_session(user, "others") is not None
    others.cleanup_all()
    assert Sandbox.list(user=user, prefix="pytest") == []


def test_session_that_is_used_past_its_manager_does_not_expire(
    user: str, engine: str, image: str, workspace: Path
) -> None:
    containers = Containers(backend_of(engine), "pytest", workspace)
    sessions = BaseSessionManager(containers, image, session_inactivity_timeout_seconds=60)
    proxy = SessionProxy(sessions, user, "s")

    def look(session: Session) -> bool:
        """Whether it is still there when the manager saw no use for a long time."""
        session.last_active_at = datetime.now(timezone.utc) - timedelta(hours=1)
        sessions._handle_health({})
        return sessions.get_session(user, "s") is not None

    session = sessions.create_session(user, "s")
    with proxy.stream("echo begun; sleep 1000") as stream:
        assert next(stream) == ("stdout", b"begun\n")
        assert look(session)
        assert session.last_active_at > datetime.now(timezone.utc) - timedelta(minutes=1)
    # What the manager waits for itself is use in any case.
    session.session_inactivity_timeout_seconds = 0

    def slow(*pieces: bytes) -> Iterator[bytes]:
        for piece in pieces:
            assert look(session)
            yield piece

    assert proxy.files.write_stream("a", slow(b"1", b"2")) == 2
    assert b"".join(piece for piece in proxy.files.read_stream("a")) == b"12"
    session.session_inactivity_timeout_seconds = 60
    # Another process is another manager.
    Sandbox(user, "s", prefix="pytest").exec(["true"])
    assert look(session)
    session.session_inactivity_timeout_seconds = 0
    assert not look(session)
    assert Sandbox.list(user=user, prefix="pytest") == []


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


def test_containers_are_listed_by_name_label_and_state(
    user: str, engine: str, image: str, workspace: Path
) -> None:
    containers = Containers(backend_of(engine), "pytest", workspace)
    backend = containers.backend
    config = ContainerConfig(image=image)
    runs, stopped = (containers.create_container(user, name, config)[0] for name in ("runs", "stopped"))
    for container in (runs, stopped):
        containers.start_container(container)
    containers.stop_container(stopped, timeout=0)

    def listed(**filters: Any) -> list[str]:
        found = [workload["id"] for workload in backend.list_workloads(filters)]
        return [name for name in ("runs", "stopped") if {"runs": runs, "stopped": stopped}[name] in found]

    both = ["runs", "stopped"]
    assert listed() == listed(name="^pytest-") == listed(name=["none", "pytest"]) == both
    assert listed(name=runs) == listed(name=runs[8:]) == ["runs"]
    assert listed(name="^podkit-") == listed(name=f"x{runs}") == []
    assert listed(status="running") == ["runs"]
    assert listed(status="exited") == ["stopped"]
    assert listed(status=["exited", "running"]) == both
    assert listed(label=f"podkit.user_id={user}") == listed(label="podkit.manager") == both
    assert listed(label=[f"podkit.user_id={user}", "podkit.session_id=runs"]) == ["runs"]
    assert listed(label="podkit.user_id=") == listed(label="other") == []
    for bad in ({"ancestor": "x"}, {"status": "asleep"}, {"name": "("}, {"label": 5}, "running"):
        with pytest.raises(ValueError, match="filters"):
            backend.list_workloads(bad)  # type: ignore[arg-type]
    for container in (runs, stopped):
        containers.remove_container(container)


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
