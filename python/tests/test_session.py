"""The shortest way in: get_docker_session and what it gives."""

from __future__ import annotations

import copy
import os
import pickle
import threading
import time
from pathlib import Path

import pytest
from conftest import python

from podkit import (
    NotFoundError,
    PodkitError,
    Sandbox,
    get_docker_session,
    reset_lifecycle_cache,
    run_in_docker,
)
from podkit.core.models import ContainerConfig, ContainerStatus, Mount


def open_session(user: str, session: str = "s", **rest: object):  # type: ignore[no-untyped-def]
    return get_docker_session(user_id=user, session_id=session, container_prefix="pytest", **rest)


@pytest.mark.also
def test_session_is_made_and_found_again_with_its_files(user: str) -> None:
    first = open_session(user)
    assert first.execute_command("pwd").stdout == "/workspace\n"
    first.execute_command("echo kept > file")
    again = open_session(user)
    assert again.execute_command(["cat", "file"]).stdout == "kept\n"
    assert (again.user_id, again.session_id) == (user, "s")
    info = again.get_info()
    assert info is not None and info.status is ContainerStatus.RUNNING
    again.close()
    assert again.get_info() is None
    with pytest.raises(RuntimeError, match="Session not found"):
        again.close()


def test_session_is_found_by_another_process(user: str, engine: str) -> None:
    open_session(user).execute_command("echo kept > file")
    code = (
        "from podkit import get_docker_session\n"
        f"s = get_docker_session(user_id={user!r}, session_id='s', container_prefix='pytest')\n"
        "print(s.execute_command('cat file').stdout, s.exec(['true']).ok)"
    )
    other = python(code)
    assert other.stdout == "kept\n True\n", other.stderr


def test_command_streams_are_apart_and_text_is_the_shells(user: str) -> None:
    session = open_session(user)
    result = session.execute_command("echo $HOME; echo b >&2; cd /tmp && pwd")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "/root\n/tmp\n", "b\n")
    assert sorted(result.output.split()) == ["/root", "/tmp", "b"]
    assert session.execute_command(["echo", "$HOME"]).stdout == "$HOME\n"
    result = session.execute_command("echo $A; pwd; exit 3", working_dir=Path("/tmp"), environment={"A": "1"})
    assert (result.exit_code, result.stdout) == (3, "1\n/tmp\n")
    assert session.execute_command("kill -9 $$", timeout=30).exit_code == 137


def test_results_are_copied_and_pickled_with_their_order(user: str) -> None:
    result = open_session(user).execute_command("echo 1; echo 2 >&2; sleep 30", timeout=0.5)
    for copied in (copy.deepcopy(result), result.model_copy(deep=True), pickle.loads(pickle.dumps(result))):
        assert copied == result
        assert (copied.output, copied.timed_out) == (result.output, True)


def test_command_that_runs_too_long_is_124_with_what_it_wrote(user: str) -> None:
    session = open_session(user)
    begun = time.monotonic()
    result = session.execute_command("echo out; trap '' TERM; sleep 30", timeout=1)
    assert time.monotonic() - begun < 10
    assert (result.exit_code, result.stdout) == (124, "out\n")
    assert "Command timed out after 1 seconds" in result.stderr
    assert result.timed_out


def test_command_without_a_timeout_has_the_lifetime(user: str) -> None:
    session = open_session(user, config=ContainerConfig(container_lifetime_seconds=2))
    result = session.execute_command(["sleep", "30"])
    assert result.exit_code == 124
    assert "Command timed out after 2 seconds" in result.stderr
    lasting = open_session(user, "l", config=ContainerConfig(entrypoint=[]))
    assert lasting.execute_command(["sleep", "3"]).exit_code == 0


def test_files_of_any_name_and_size_are_written(user: str) -> None:
    session = open_session(user)
    assert session.write_file("a b; touch x.txt", "x" * 200_000) == Path("/workspace/a b; touch x.txt")
    assert len(session.read_file("a b; touch x.txt")) == 200_000
    assert session.write_file(Path("/tmp/deep/er.txt"), "ü") == Path("/tmp/deep/er.txt")
    assert session.files.read("/tmp/deep/er.txt") == "ü".encode()
    assert not session.files.exists("x.txt")


def test_workspace_is_made_and_stays(user: str, workspace: Path) -> None:
    session = open_session(user, workspace=workspace, workspace_host=str(workspace))
    assert session.write_file("/workspace/out/a.txt", "results") == Path("/workspace/out/a.txt")
    file = workspace / "workspaces" / user / "s" / "out" / "a.txt"
    assert file.read_text() == "results"
    assert session.execute_command("cat out/a.txt; echo in > b").stdout == "results"
    assert (file.parent.parent / "b").read_text() == "in\n"
    with pytest.raises(ValueError, match="not in"):
        session.write_file("/etc/passwd", "x")
    with pytest.raises(ValueError, match="leads out"):
        session.write_file("/workspace/../../x", "x")
    session.close()
    assert file.read_text() == "results"


def test_workspace_link_leads_the_host_nowhere(user: str, workspace: Path) -> None:
    session = open_session(user, workspace=workspace, workspace_host=workspace)
    secret = workspace / "secret"
    secret.write_text("kept")
    secret.chmod(0o666)
    session.execute_command(["ln", "-s", str(secret), "/workspace/link"])
    try:
        session.write_file("/workspace/link", "overwritten")
    except PodkitError:
        pass  # Refusing is fine; following is not.
    assert secret.read_text() == "kept"


def test_mounts_limits_and_environment_are_as_configured(user: str, image: str, workspace: Path) -> None:
    (workspace / "in").mkdir()
    (workspace / "in" / "data.csv").write_text("1,2")
    (workspace / "out").mkdir(mode=0o777)
    config = ContainerConfig(
        image=image,
        memory_limit="256m",
        environment={"A": "1"},
        working_dir="/tmp",
        volumes=[
            Mount(source=workspace / "in", target="/data", read_only=True),
            Mount(source=str(workspace / "out"), target="/out"),
        ],
    )
    session = open_session(user, config=config)
    assert session.execute_command("cat /data/data.csv; echo $A; pwd").stdout == "1,21\n/tmp\n"
    assert session.execute_command("echo x > /data/y").exit_code != 0
    assert session.execute_command("echo x > /out/y").exit_code == 0
    assert (workspace / "out" / "y").read_text() == "x\n"
    assert session.info().spec["memory"] == "256m"


def test_session_made_otherwise_is_used_with_a_warning(
    user: str, image: str, caplog: pytest.LogCaptureFixture
) -> None:
    Sandbox(user, "s", prefix="pytest", image=image, memory="128m")
    session = open_session(user, config=ContainerConfig(image=image, memory_limit="256m"))
    assert session.execute_command("true").exit_code == 0
    assert "is used as it was made" in caplog.text
    assert session.info().spec["memory"] == "128m"


def test_another_configuration_in_the_same_process_is_warned_of(
    user: str, image: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = ContainerConfig(memory_limit="128m", environment={"TOKEN": "hunter2"})
    session = open_session(user, config=config)
    for same in (None, config, config.model_copy(update={"image": image}, deep=True)):
        open_session(user, config=same)
    assert caplog.text == ""
    open_session(user, config=ContainerConfig(memory_limit="256m", environment={"TOKEN": "hunter3"}))
    assert f"session {user}/s is used as it was made" in caplog.text
    assert "memory_limit" in caplog.text and "environment" in caplog.text and "image" not in caplog.text
    assert "hunter" not in caplog.text
    assert session.info().spec["memory"] == "128m"


def test_removed_container_is_made_anew(user: str) -> None:
    session = open_session(user)
    assert Sandbox.remove(user, "s", prefix="pytest")
    assert session.execute_command("echo there").stdout == "there\n"


def test_context_manager_closes_and_lets_the_bodys_error_through(user: str) -> None:
    with open_session(user) as session:
        assert session.execute_command("pwd").stdout == "/workspace\n"
    assert Sandbox.list(user=user, prefix="pytest") == []
    with pytest.raises(KeyError), open_session(user):
        raise KeyError("body")
    assert Sandbox.list(user=user, prefix="pytest") == []
    with open_session(user) as session:
        session.close()


def test_cache_reset_closes_what_this_process_made_and_no_more(user: str) -> None:
    Sandbox(user, "others", prefix="pytest")
    open_session(user, "others").execute_command("true")
    mine = open_session(user, "mine")
    reset_lifecycle_cache()
    assert [info.session_id for info in Sandbox.list(user=user, prefix="pytest")] == ["others"]
    with pytest.raises(RuntimeError):
        mine.execute_command("true")


def test_sessions_of_threads_are_made_side_by_side(user: str) -> None:
    failed: list[BaseException] = []
    outputs: dict[str, str] = {}

    def work(name: str) -> None:
        try:
            outputs[name] = open_session(user, name[0]).execute_command(f"echo {name}").stdout
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(f"{i % 4}{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failed == []
    assert outputs == {f"{i % 4}{i}": f"{i % 4}{i}\n" for i in range(8)}
    assert len(Sandbox.list(user=user, prefix="pytest")) == 4


def test_one_command_in_a_container_of_its_own(engine: str, image: str) -> None:
    result = run_in_docker(
        "cat in/a.txt; echo $A; pwd",
        files={"in/a.txt": "hey\n"},
        environment={"A": "1"},
        working_dir=Path("/workspace"),
    )
    assert result.stdout == "hey\n1\n/workspace\n"
    late = run_in_docker(["sleep", "30"], image=image, command_timeout=1)
    assert late.exit_code == 124
    assert Sandbox.list(user="_run_in_docker") == []


def test_image_that_is_missing_is_a_typed_error(user: str, engine: str) -> None:
    config = ContainerConfig(image="podkit-test/no-such-image:1")
    with pytest.raises(RuntimeError, match="Failed to create session") as caught:
        open_session(user, config=config)
    assert isinstance(caught.value, PodkitError)
    assert caught.value.kind in ("image_not_found", "unsupported", "invalid_input", "unavailable")
    assert Sandbox.list(user=user, prefix="pytest") == []


def test_arguments_that_cannot_be_used_are_named(engine: str) -> None:
    with pytest.raises(ValueError, match="workspace_host is required when workspace is provided"):
        get_docker_session(user_id="a", session_id="b", workspace="/tmp")
    for bad in ("", "\0", 7, None):
        with pytest.raises(ValueError, match="user_id"):
            get_docker_session(user_id=bad, session_id="b")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="config"):
        get_docker_session(user_id="a", session_id="b", config={"image": "x"})  # type: ignore[arg-type]
    for bad in ("..", "a" * 200, " a"):
        with pytest.raises(ValueError):
            get_docker_session(user_id=bad, session_id="b")


def test_engine_that_is_not_there_is_a_runtime_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(RuntimeError) as caught:
        get_docker_session(user_id="a", session_id="b", backend="docker")
    assert isinstance(caught.value, PodkitError) and caught.value.kind == "unavailable"
    with pytest.raises(ValueError, match="no engine"):
        get_docker_session(user_id="a", session_id="b", backend="nonsense")


def test_forked_process_works_with_a_session_of_its_parent(user: str) -> None:
    session = open_session(user)
    session.execute_command("echo kept > file")
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            mine = open_session(user).execute_command("cat file").stdout
            old = session.execute_command("cat file").stdout
            os.write(write, (mine + old).encode())
        except BaseException as error:
            os.write(write, repr(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.read() == "kept\nkept\n"
    os.waitpid(pid, 0)
    assert session.execute_command("cat file").stdout == "kept\n"


def test_unknown_session_is_not_found(user: str) -> None:
    session = open_session(user)
    session.close()
    with pytest.raises(NotFoundError):
        session.execute_command("true")
    with pytest.raises(NotFoundError):
        session.write_file("a", "b")
    with pytest.raises(NotFoundError):
        session.exec(["true"])
