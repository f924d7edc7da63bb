"""What tests need: an engine each, sessions of their own, and nothing left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from managing import Told

# Shells have what they start in the background ignore it, and programs hand that on.
signal.signal(signal.SIGINT, signal.default_int_handler)

IMAGES = {"embedded": "host", "docker": "podkit-test/debian:1", "podman": "localhost/podkit-test/debian:1"}
ENGINES = os.environ.get("PODKIT_TEST_BACKENDS", "embedded,docker").split(",")
ENGINES = [name for name in ENGINES if name in IMAGES]
#: Engines that only the tests marked `also` are run on, besides.
ALSO = [name for name in os.environ.get("PODKIT_TEST_ALSO", "").split(",") if name in IMAGES]


#: A server that needs no more than the smallest Python: its arguments are a port and an answer.
SERVER = """
import socket, sys
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("", int(sys.argv[1])))
server.listen(8)
while True:
    client, _ = server.accept()
    client.recv(65536)
    body = sys.argv[2].encode()
    client.sendall(b"HTTP/1.0 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body)
    client.close()
"""


@pytest.fixture(scope="session", autouse=True)
def own_state() -> Iterator[None]:
    """The embedded engine keeps its state in a directory of the tests'."""
    state = Path(tempfile.mkdtemp(prefix="podkit-python-", dir="/var/tmp"))
    state.chmod(0o755)
    for name in [name for name in os.environ if name.startswith("PODKIT_")]:
        if not name.startswith("PODKIT_TEST_"):
            del os.environ[name]
    os.environ["PODKIT_STATE_DIR"] = str(state)
    # Nobody's own configuration says what holds here.
    os.environ["XDG_CONFIG_HOME"] = str(state / "no-configuration")
    yield
    left = [entry.name for entry in (state / "containers").glob("*")]
    assert left == [], "containers are left"
    shutil.rmtree(state)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engine" in metafunc.fixturenames:
        only = [mark.args[0] for mark in metafunc.definition.iter_markers("engine")]
        asked = [*ENGINES, *ALSO] if metafunc.definition.get_closest_marker("also") else ENGINES
        names: list[Any] = [name for name in dict.fromkeys(asked) if not only or name in only]
        for name in only:
            if name not in asked:
                why = f"{name} is not among PODKIT_TEST_BACKENDS={','.join(ENGINES)}"
                names.append(pytest.param(name, marks=pytest.mark.skip(reason=why)))
        metafunc.parametrize("engine", names, indirect=True)


@pytest.fixture
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of the engine that podkit uses in this test."""
    name: str = request.param
    monkeypatch.setenv("PODKIT_BACKEND", name)
    monkeypatch.setenv("PODKIT_IMAGE", IMAGES[name])
    return name


@pytest.fixture
def image(engine: str) -> str:
    """Name of an image that the engine has."""
    return IMAGES[engine]


@pytest.fixture
def user(engine: str) -> Iterator[str]:
    """A user whose sessions are removed afterwards, whatever their prefix."""
    from podkit import Sandbox

    name = f"t{uuid.uuid4().hex[:12]}"
    yield name
    for prefix in ("podkit", "pytest"):
        for info in Sandbox.list(user=name, prefix=prefix):
            Sandbox.remove(info.user_id, info.session_id, prefix=prefix)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A directory that engines may mount: one that is not only ours to enter and to read."""
    tmp_path.chmod(0o755)
    for directory in (tmp_path, *tmp_path.parents):
        if directory.owner() == "root" and os.getuid() == 0 and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o011)
    return tmp_path


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    """Sessions that a test opened by `get_docker_session` are closed after it."""
    yield
    import sys

    lifecycle = sys.modules.get("podkit.utils.lifecycle")
    if lifecycle is not None:
        lifecycle.reset_lifecycle_cache()


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs a program of its own."""
    import sys

    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **env},
    )


def wait_for(condition: Callable[[], Any], seconds: float = 10) -> Any:
    """What a condition gives once it is more than nothing."""
    until = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.01)


@pytest.fixture
def told() -> Told:
    return Told()
