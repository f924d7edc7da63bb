"""The README's examples of podkit 0.7, verbatim but for paths, images and ports."""

from __future__ import annotations

import contextlib
import io
import socket
import subprocess
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import seed
from conftest import IMAGES, SERVER

from podkit import Sandbox
from podkit.monitors import ContainerHealthMonitor

#: Sessions of the examples.
IDS = [("bob", name) for name in ("123", "web-server", "task-123", "task-456")]
IDS += [("user", "session"), ("user2", "session2")]


def left() -> list[tuple[str, str]]:
    """Which of them there are."""
    return [ids for ids in IDS if ids in [(info.user_id, info.session_id) for info in Sandbox.list()]]


@pytest.fixture(autouse=True)
def clean(engine: str) -> Iterator[None]:
    for ids in IDS:
        Sandbox.remove(*ids)
    yield
    for ids in IDS:
        Sandbox.remove(*ids)


def run(example: str, **places: str) -> tuple[dict[str, Any], str]:
    """Runs an example, with other places in it; gives its names and what it printed."""
    for old, new in places.items():
        assert old in example, old
        example = example.replace(old, new)
    names: dict[str, Any] = {"__name__": "example"}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(example, "example", "exec"), names)
    return names, printed.getvalue()


@pytest.fixture
def python_image(engine: str, tmp_path: Path) -> Iterator[str]:
    """An image with a `python`, and an `nginx` that answers on its two ports."""
    if engine == "embedded":
        yield IMAGES[engine]
        return
    name = f"podkit-test/seed:{uuid.uuid4().hex[:8]}"
    nginx = tmp_path / "nginx"
    nginx.write_text(
        "#!/bin/sh\n"
        f"cat >/tmp/server.py <<'EOF'{SERVER}EOF\n"
        "python3 /tmp/server.py 443 tls &\n"
        "exec python3 /tmp/server.py 80 nginx\n"
    )
    nginx.chmod(0o755)
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nexec python3 "$@"\n')
    python.chmod(0o755)

    def docker(*arguments: str) -> str:
        done = subprocess.run([engine, *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    made = docker("create", "--network", "none", IMAGES[engine], "true")
    docker("cp", str(nginx), f"{made}:/usr/bin/nginx")
    docker("cp", str(python), f"{made}:/usr/bin/python")
    docker("commit", made, name)
    docker("rm", made)
    yield name
    docker("rmi", "-f", name)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_example_1(engine: str) -> None:
    for _ in range(2):
        assert run(seed.EXAMPLE_1)[1] == "/workspace\n\n"
    assert left() == [("bob", "123")]


def test_example_2(engine: str) -> None:
    assert run(seed.EXAMPLE_2)[1] == "/workspace\n\n"
    assert left() == []


@pytest.mark.engine("docker")
def test_example_3_returns(engine: str, python_image: str) -> None:
    # The ports of this machine may be others'; podkit offers the container's own numbers.
    one, two = free_port(), free_port()
    example = seed.EXAMPLE_3.replace("nginx:latest", python_image)
    example = example.replace("ports=[80, 443]", f"container_lifetime_seconds=5, ports=[{one}, {two}]")
    example = example.replace(
        '"nginx", "-g"', f'"sh", "-c", "sed -i s/80/{one}/\\\\;s/443/{two}/ /usr/bin/nginx; exec nginx", "-g"'
    )
    answers = []

    def ask() -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{one}/", timeout=5) as answer:
                    answers.append(answer.read())
                    return
            except OSError:
                time.sleep(0.05)

    asking = threading.Thread(target=ask)
    asking.start()
    names, _ = run(example)
    asking.join()
    assert answers == [b"nginx"]
    assert names["result"].exit_code == 124  # After the container's lifetime.
    assert left() == []


def places(workspace: Path) -> dict[str, str]:
    for name in ("datasets", "configs", "credentials", "outputs", "data"):
        (workspace / name).mkdir()
    (workspace / "outputs").chmod(0o777)
    (workspace / "datasets" / "dataset.csv").write_text("1,2\n")
    return {
        "/shared/": f"{workspace}/",
        "/app/": f"{workspace}/",
    }


def test_example_4(engine: str, workspace: Path, python_image: str) -> None:
    known = places(workspace)
    assert run(seed.EXAMPLE_4, **known, **{"python:3.11-alpine": python_image})[1] == "1,2\n\n"
    assert (workspace / "outputs" / "results.txt").read_text() == "processing complete\n"
    assert left() == []


@pytest.mark.engine("docker")
def test_example_5(engine: str, workspace: Path, python_image: str) -> None:
    known = places(workspace)
    (workspace / "datasets" / "process_data.py").write_text(
        "import os, sys\n"
        "text = open(sys.argv[2]).read() + os.environ['DATABASE_URL']\n"
        "open(sys.argv[4], 'w').write(text)\n"
    )
    network = f"podkit-test-{uuid.uuid4().hex[:8]}"
    subprocess.run(["docker", "network", "create", network], check=True, capture_output=True)
    try:
        example = {"python:3.11-alpine": python_image, '["execution-network"]': f'["{network}"]'}
        names, _ = run(seed.EXAMPLE_5, **known, **example)
    finally:
        subprocess.run(["docker", "network", "rm", network], check=True, capture_output=True)
    assert names["result"].exit_code == 0, names["result"]
    written = (workspace / "outputs" / "results.json").read_text()
    assert written == "1,2\npostgresql://db.execution-network:5432/tasks"


def test_example_5b(engine: str, workspace: Path) -> None:
    run(seed.EXAMPLE_5B, **{"/app/data": str(workspace)})
    file = workspace / "workspaces" / "bob" / "task-456" / "output.txt"
    assert file.read_text() == "results"
    assert left() == []


@pytest.mark.also
def test_example_6(engine: str, workspace: Path, python_image: str) -> None:
    example = seed.EXAMPLE_6
    if engine != "docker":
        own = "EmbeddedBackend" if engine == "embedded" else "PodmanBackend"
        example = example.replace(
            "from podkit.backends.docker import DockerBackend",
            f"from podkit.backends.native import {own}",
        )
        example = example.replace("DockerBackend()", f"{own}()")
    known = {"python:3.11-alpine": python_image, "/tmp/podkit_workspace": str(workspace)}
    names, printed = run(example, **known)
    try:
        assert printed == "Hello\n\n"
        file = workspace / "workspaces" / "user" / "session" / "file.txt"
        assert file.read_text() == "Hello from podkit"
        monitor = names["health_monitor"]
        assert isinstance(monitor, ContainerHealthMonitor) and monitor.running
        assert names["session"].config is names["sandbox_config"]
        assert left() == []
    finally:
        names["session_manager"].shutdown()
    assert not names["health_monitor"].running
