"""Models, constants and errors."""

from __future__ import annotations

import copy
import pickle
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

import podkit
from podkit import constants, errors
from podkit.core.models import (
    ContainerConfig,
    ContainerStatus,
    Mount,
    ProcessResult,
    Session,
    StartupVerificationConfig,
)
from podkit.processes import Process, ProcessStatus


def test_constants_are_those_of_podkit_0_7() -> None:
    assert constants.DEFAULT_CONTAINER_IMAGE == "python:3.11-alpine"
    assert constants.DEFAULT_CPU_LIMIT == 1.0
    assert constants.DEFAULT_MEMORY_LIMIT == "512m"
    assert constants.DEFAULT_CONTAINER_LIFETIME_SECONDS == 60
    assert constants.DEFAULT_SESSION_INACTIVITY_TIMEOUT_SECONDS == 3600
    assert constants.DEFAULT_WORKING_DIR == constants.CONTAINER_WORKSPACE_PATH == "/workspace"
    assert constants.DEFAULT_USER == "root"
    assert constants.DUMMY_WORKSPACE_PATH == "/tmp/podkit_dummy"
    assert constants.WORKSPACE_SUBDIRECTORY == "workspaces"
    assert constants.DEFAULT_CONTAINER_PREFIX == "podkit"
    assert constants.DOCKER_CPU_QUOTA_MULTIPLIER == 100000
    assert constants.DOCKER_STOP_TIMEOUT == 1
    assert constants.DEFAULT_HEALTH_CHECK_INTERVAL == 30
    assert constants.DEFAULT_HEALTH_CHECK_LOG_LINES == 50


def test_container_config_has_the_defaults_of_podkit_0_7() -> None:
    assert ContainerConfig().model_dump() == {
        "image": None,
        "inherit_parent_image": False,
        "cpu_limit": 1.0,
        "memory_limit": "512m",
        "container_lifetime_seconds": 60,
        "environment": {},
        "working_dir": "/workspace",
        "user": "root",
        "use_image_defaults": False,
        "entrypoint": None,
        "command": None,
        "volumes": [],
        "ports": [],
        "networks": [],
        "inherit_parent_networks": False,
        "tty": False,
        "stdin_open": False,
        "auto_remove": False,
        "startup_verification": None,
    }
    assert StartupVerificationConfig().model_dump() == {
        "required_consecutive_checks": 3,
        "check_interval_seconds": 1.0,
        "max_wait_seconds": 5.0,
        "capture_logs_on_failure": True,
        "log_tail_lines": 100,
    }


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"memory": "9g"}, "memory"),
        ({"memory_limit": "lots"}, "memory_limit"),
        ({"memory_limit": "0"}, "memory_limit"),
        ({"cpu_limit": -1}, "cpu_limit"),
        ({"cpu_limit": float("nan")}, "cpu_limit"),
        ({"cpu_limit": True}, "cpu_limit"),
        ({"container_lifetime_seconds": 0}, "container_lifetime_seconds"),
        ({"container_lifetime_seconds": 1.5}, "container_lifetime_seconds"),
        ({"environment": {"A": 1}}, "environment.A"),
        ({"environment": {"A=B": "1"}}, "environment"),
        ({"environment": ["A=1"]}, "environment"),
        ({"ports": [80, 70000]}, "ports.1"),
        ({"ports": "80"}, "ports"),
        ({"entrypoint": "sh"}, "entrypoint"),
        ({"command": ["a", 1]}, "command.1"),
        ({"volumes": [{"source": "/a"}]}, "volumes.0.target"),
        ({"volumes": [{"source": "/a", "target": "b"}]}, "volumes.0.target"),
        ({"volumes": ["/a:/b"]}, "volumes.0"),
        ({"image": ""}, "image"),
        ({"image": "a\0"}, "image"),
        ({"auto_remove": "perhaps"}, "auto_remove"),
        ({"startup_verification": {"max_wait_seconds": -1}}, "startup_verification.max_wait_seconds"),
    ],
)
def test_field_that_cannot_be_used_is_named(values: dict[str, object], field: str) -> None:
    with pytest.raises(errors.ValidationError) as caught:
        ContainerConfig(**values)
    assert caught.value.field == field
    assert f"`{field}`" in str(caught.value)
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, RuntimeError)
    assert caught.value.kind == "invalid_input"


def test_unknown_field_comes_with_the_one_that_is_meant() -> None:
    with pytest.raises(errors.ValidationError) as caught:
        ContainerConfig(memory_limits="1g")
    assert caught.value.hint == "did you mean `memory_limit`?"


def test_models_are_changed_in_place_copied_and_compared() -> None:
    config = ContainerConfig(environment={"A": "1"}, volumes=[{"source": "/a", "target": "/b"}])
    assert config.volumes == [Mount(source=Path("/a"), target=Path("/b"))]
    assert config.model_fields_set == {"environment", "volumes"}
    config.memory_limit = "1g"
    config.environment["B"] = "2"
    assert config.model_dump(exclude_unset=True)["memory_limit"] == "1g"
    other = config.model_copy(update={"image": "x"}, deep=True)
    other.environment["C"] = "3"
    assert "C" not in config.environment and other.image == "x" and config.image is None
    assert ContainerConfig.model_validate(config.model_dump()) == config
    assert ContainerConfig(**config.model_dump()) == config != other
    assert copy.deepcopy(config) == pickle.loads(pickle.dumps(config)) == config
    with pytest.raises(errors.ValidationError, match="cpu_limit"):
        config.cpu_limit = "fast"  # type: ignore[assignment]
    with pytest.raises(errors.ValidationError, match="cpu"):
        config.cpu = 1  # type: ignore[attr-defined]
    assert '"memory_limit": "1g"' in config.model_dump_json()


def test_values_of_the_environment_are_not_shown() -> None:
    config = ContainerConfig(environment={"TOKEN": "hunter2"})
    assert "hunter2" not in repr(config) and "TOKEN" in repr(config)
    session = Session(user_id="a", session_id="b", config=config, data_dir="/")
    assert "hunter2" not in repr(session)


def test_mount_may_be_a_tmpfs_without_a_source() -> None:
    assert Mount(type="tmpfs", target="/t").target == Path("/t")
    with pytest.raises(errors.ValidationError, match="source"):
        Mount(target="/t")
    with pytest.raises(errors.ValidationError, match="type"):
        Mount(type="nfs", source="/a", target="/t")


def test_session_expires_after_its_time() -> None:
    session = Session(user_id="a", session_id="b", config=ContainerConfig(), data_dir="/d")
    assert session.status is ContainerStatus.CREATING
    assert (session.container_id, session.metadata) == (None, {})
    assert not session.is_expired()
    session.last_active_at = datetime.now(timezone.utc) - timedelta(seconds=10)
    assert session.is_expired(5) and not session.is_expired(60) and not session.is_expired()
    session.update_activity()
    assert not session.is_expired(5)
    session.status = "running"  # type: ignore[assignment]
    assert session.status is ContainerStatus.RUNNING
    with pytest.raises(errors.ValidationError, match="status"):
        session.status = "perhaps"  # type: ignore[assignment]


def test_states_are_strings() -> None:
    names = "creating running paused exited stopped restarting removing dead error"
    assert [state.value for state in ContainerStatus] == names.split()
    assert ContainerStatus("running") == "running"
    names = "starting running stopping stopped failed"
    assert [state.value for state in ProcessStatus] == names.split()


def test_process_result_is_plain() -> None:
    result = ProcessResult(exit_code=1, stdout="a", stderr="b")
    assert (result.output, result.timed_out) == ("ab", False)
    assert result.model_dump() == {"exit_code": 1, "stdout": "a", "stderr": "b"}
    with pytest.raises(errors.ValidationError, match="stdout"):
        ProcessResult(exit_code=1)


def test_process_knows_its_files() -> None:
    process = Process(
        id="0123456789", container_id="c", command="x", working_dir="/w", log_dir="/l", name="web"
    )
    assert process.display_name == "web (01234567)"
    assert process.stdout_log == Path("/l/0123456789.out.log")
    assert process.stderr_log == Path("/l/0123456789.err.log")
    assert process.pid_file == Path("/l/0123456789.pid")
    assert process.exit_code_file == Path("/l/0123456789.exit")
    assert process.status is ProcessStatus.STARTING


def test_errors_have_kinds_and_hints_and_survive_pickling() -> None:
    for name in errors.__all__:
        kind = getattr(errors, name)
        assert issubclass(kind, errors.PodkitError) and issubclass(kind, RuntimeError)
        assert getattr(podkit, name) is kind
    error = errors.ConflictError("text", hint="do this", container="c")
    assert (str(error), error.kind, error.message) == ("text\nhint: do this", "conflict", "text")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is errors.ConflictError
    assert (again.hint, again.container, again.text) == ("do this", "c", "text")
    field = pickle.loads(pickle.dumps(errors.ValidationError("x", field="a.b")))
    assert field.field == "a.b"
