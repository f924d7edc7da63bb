"""What the environment and the configuration file say means what it means to the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import python

from podkit import InvalidInputError, NotFoundError, Podkit, Sandbox, get_docker_session


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration file of this test."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    file = tmp_path / "config" / "podkit" / "config.toml"
    file.parent.mkdir(parents=True)
    return file


def test_environment_says_prefix_user_and_workspace(
    user: str, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PODKIT_PREFIX", "pytest")
    monkeypatch.setenv("PODKIT_USER", user)
    monkeypatch.setenv("PODKIT_WORKSPACE", str(workspace))
    sandbox = Sandbox(session="s")
    assert (sandbox.user_id, sandbox.session_id) == (user, "s")
    assert sandbox.container.startswith("pytest-")
    sandbox.files.write("a", "lasting")
    mine = workspace / "workspaces" / user / "s" / "a"
    assert mine.read_text() == "lasting"
    assert sandbox.to_host_path("a") == mine
    assert sandbox.to_container_path(mine) == Path("/workspace/a")
    assert [info.session_id for info in Sandbox.list(user=user)] == ["s"]
    assert Sandbox.list(user=user, prefix="podkit") == []
    # The earlier API goes by it as well, and finds the same session.
    assert get_docker_session(user_id=user, session_id="s").execute_command("cat a").stdout == "lasting"
    # A mount of one's own takes the place of a workspace that is only usual.
    own = workspace / "own"
    own.mkdir()
    (own / "b").write_text("own")
    other = Sandbox(user, "t", mounts=[f"{own}:/workspace"])
    assert other.files.read_text("b") == "own"
    other.close()
    assert sandbox.close()


def test_file_says_what_new_sandboxes_are_like(user: str, configured: Path) -> None:
    configured.write_text(
        'prefix = "pytest"\n[session]\nmemory = "96m"\nenv = { A = "file", B = "file" }\nauto_stop = "90s"\n'
    )
    sandbox = Sandbox(user, "s", env={"B": "own"})
    assert sandbox.container.startswith("pytest-")
    assert sandbox.shell("echo $A $B").stdout == "file own\n"
    assert sandbox.stats().memory_limit_bytes == 96 << 20
    # What is only usual is no cause of a conflict, and keywords go before it.
    assert Sandbox(user, "s", env={"B": "own"}).opened == "reconnected"
    assert Sandbox(user, "t", memory="128m").stats().memory_limit_bytes == 128 << 20
    with Podkit(defaults={"env": {"A": "program"}, "memory": "160m"}) as podkit:
        third = podkit.sandbox(user, "u")
        assert third.shell("echo $A $B").stdout == "program file\n"
        assert third.stats().memory_limit_bytes == 160 << 20
    for session in ("s", "t", "u"):
        assert Sandbox.remove(user, session)


def test_file_that_cannot_be_understood_is_named_with_its_line(
    configured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured.write_text("\nimmage = 'x'\n")
    with pytest.raises(InvalidInputError, match=r"config.toml`, line 2: unknown field `immage`"):
        Sandbox("a", "b")
    with pytest.raises(ValueError, match="line 2"):
        get_docker_session(user_id="a", session_id="b")
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.setenv("PODKIT_INHERIT_IMAGE", "perhaps")
    with pytest.raises(InvalidInputError, match="PODKIT_INHERIT_IMAGE"):
        Sandbox("a", "b")


def test_command_line_and_python_go_by_the_same(
    user: str, configured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = Path(sys.prefix) / "bin" / "podkit"
    if not command.exists():
        pytest.fail("these tests are for the wheel, which has the command in it")
    configured.write_text(f'prefix = "pytest"\nuser = "{user}"\n')
    with pytest.raises(NotFoundError):
        Sandbox(session="s", create=False)
    Sandbox(session="s").files.write("a", "both\n")
    told = subprocess.run(
        [command, "exec", "s", "--", "cat", "a"], capture_output=True, text=True, check=True
    )
    assert told.stdout == "both\n"
    assert Sandbox(session="s").close()


def test_commands_are_written_down_until_the_program_ends(user: str, tmp_path: Path) -> None:
    audit = tmp_path / "audit"
    code = (
        "from podkit import Sandbox, get_docker_session\n"
        f"Sandbox({user!r}, 's').exec(['echo', 'one'])\n"
        f"get_docker_session(user_id={user!r}, session_id='s').execute_command(['sh', '-c', 'exit 3'])\n"
        "with Sandbox() as sandbox:\n"
        "    sandbox.exec(['echo', 'three'])\n"
    )
    ended = python(code, PODKIT_AUDIT=str(audit))
    assert ended.returncode == 0, ended.stderr
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [line["argv"] for line in lines] == [["echo", "one"], ["sh", "-c", "exit 3"], ["echo", "three"]]
    assert [line["code"] for line in lines] == [0, 3, 0]
    assert audit.stat().st_mode & 0o777 == 0o600


def test_usual_image_of_one_engine_stands_in_no_others_way(
    engine: str, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from podkit import UnsupportedError

    unusual = "python:3.12" if engine == "embedded" else "host"
    monkeypatch.setenv("PODKIT_IMAGE", unusual)
    assert Sandbox.list(user=user) == []
    with pytest.raises(UnsupportedError, match="image"):
        Sandbox(user, "s")
