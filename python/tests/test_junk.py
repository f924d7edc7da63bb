"""Junk for every public call: it ends in a documented exception that names an argument, or works."""

from __future__ import annotations

import datetime
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from managing import Containers, FakeBackend

import podkit
from podkit import AsyncPodkit, AsyncSandbox, Health, Podkit, PodkitError, PortPool, Sandbox
from podkit.core.models import ContainerConfig, Mount, ProcessResult, Session, StartupVerificationConfig
from podkit.core.session import BaseSessionManager
from podkit.monitors.health import ContainerHealthMonitor
from podkit.monitors.orphans import OrphanContainerCleaner
from podkit.processes import Process, ProcessManager, ProcessMonitor
from podkit.transfers import ByteStream
from podkit.utils import lifecycle, mounts, paths

#: What is not an argument of any call, and what nearly is.
JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.text(alphabet="\0\ud800/.:%= \n", max_size=4),
    st.binary(max_size=8),
    st.lists(st.one_of(st.integers(), st.text(max_size=3)), max_size=3),
    st.dictionaries(st.text(max_size=3), st.one_of(st.integers(), st.text(max_size=3)), max_size=3),
    st.sampled_from(
        [object(), Path(".."), datetime.timedelta(days=-1), float("nan"), 10**400, b"\xff", set()]
    ),
)

FEW = settings(
    max_examples=int(os.environ.get("PODKIT_TEST_EXAMPLES", "25")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def acceptable(error: BaseException, call: Callable[..., Any]) -> bool:
    """A documented exception, or Python's own for a call that has the wrong form."""
    if isinstance(error, PodkitError):
        return bool(str(error)) and error.kind != "unexpected"
    return False


def throw(call: Callable[..., Any], *arguments: Any, **named: Any) -> None:
    try:
        call(*arguments, **named)
    except Exception as error:
        assert acceptable(error, call), f"{call}({arguments!r}, {named!r}): {error!r}"


MODELS = [ContainerConfig, Mount, ProcessResult, Session, StartupVerificationConfig, Process]


@pytest.mark.parametrize("model", MODELS)
@FEW
@given(data=st.data())
def test_models_name_the_field(model: Any, data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from([*model._fields, "memory"]), unique=True, max_size=3))
    values = {name: data.draw(JUNK) for name in names}
    try:
        model(**values)
    except podkit.ValidationError as error:
        assert error.field.split(".")[0] in {*model._fields, *values}
        assert error.field in str(error)


FUNCTIONS = [
    paths.normalize_container_path,
    paths.get_workspace_path,
    lambda a, b, c: mounts.get_volume_workspace_subpath(a, b),
    lambda a, b, c: mounts.get_volume_init_command(a, b),
    lambda a, b, c: PortPool(a, b, c),
    lambda a, b, c: PortPool(40000, 40005).allocate(a),
    lambda a, b, c: PortPool(40000, 40005).release(a),
    lambda a, b, c: paths.container_to_host_path(a, "/base"),
    lambda a, b, c: paths.host_to_container_path(a, "/base"),
]


@pytest.mark.parametrize("function", FUNCTIONS)
@FEW
@given(data=st.data())
def test_helpers_refuse_junk(function: Any, data: st.DataObject) -> None:
    count = len(inspect.signature(function).parameters)
    throw(function, *(data.draw(JUNK) for _ in range(count)))


@pytest.fixture(scope="module")
def managed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory = tmp_path_factory.mktemp("junk")
    containers = Containers(FakeBackend(), "pytest", directory)
    sessions = BaseSessionManager(containers, "img")
    sessions.create_session("u", "s")
    return directory, containers, sessions


@FEW
@given(a=JUNK, b=JUNK, c=JUNK)
def test_managers_refuse_junk(managed: Any, a: Any, b: Any, c: Any) -> None:
    _, containers, sessions = managed
    throw(sessions.create_session, a, b, c)
    throw(sessions.create_session, a, b, ContainerConfig())
    throw(sessions.get_session, a, b)
    throw(sessions.execute_command, a, b, c)
    throw(sessions.update_session_activity, a, b)
    throw(sessions.write_file, "u", "s", a, b)
    throw(sessions.close_session, a, b)
    throw(containers.to_host_path, a, b, c)
    throw(containers.to_container_path, a, b, c)
    throw(containers.create_container, a, b, c)
    throw(BaseSessionManager, containers, a, session_inactivity_timeout_seconds=b)
    throw(Containers, FakeBackend(), a, b, c)
    throw(ContainerHealthMonitor, containers, a, b)
    throw(OrphanContainerCleaner, containers.backend, a, b, c)
    throw(ProcessManager, containers, a, b, c)
    throw(ProcessMonitor, None, a)


@FEW
@given(data=st.data())
def test_shortest_ways_in_refuse_junk(engine: str, data: st.DataObject) -> None:
    # With one argument at least that no call takes, so that nothing is made.
    names = ["config", "workspace", "workspace_host", "container_prefix", "image_name"]
    chosen = data.draw(st.lists(st.sampled_from(names), max_size=2, unique=True))
    junk = {name: data.draw(JUNK) for name in chosen}
    throw(lifecycle.get_docker_session, user_id=data.draw(JUNK), session_id=5, **junk)
    throw(lifecycle.get_docker_session, user_id="..", session_id=data.draw(JUNK), **junk)
    throw(lifecycle.run_in_docker, [], files=data.draw(JUNK), command_timeout=data.draw(JUNK))
    throw(lifecycle.run_in_docker, "true", files=5, environment=data.draw(JUNK), cpu_limit=data.draw(JUNK))
    options = {
        name: data.draw(JUNK)
        for name in data.draw(st.lists(st.sampled_from(SANDBOX_OPTIONS), unique=True, max_size=3))
    }
    throw(Sandbox, "only-a-user", **options)
    throw(AsyncSandbox, data.draw(JUNK), data.draw(JUNK), **options)
    chosen = data.draw(st.lists(st.sampled_from(PODKIT_OPTIONS), unique=True, max_size=3))
    throw(Podkit, "no-such-engine", **{name: data.draw(JUNK) for name in chosen})
    throw(AsyncPodkit, **{name: data.draw(JUNK) for name in chosen})
    throw(Health, **{name: data.draw(JUNK) for name in HEALTH_OPTIONS})


@pytest.fixture(scope="module")
def podkits() -> Any:
    made: dict[str, Podkit] = {}
    yield made
    for one in made.values():
        one.shutdown()


@FEW
@given(a=JUNK, b=JUNK)
def test_podkits_refuse_junk(engine: str, podkits: dict[str, Podkit], a: Any, b: Any) -> None:
    if engine not in podkits:
        podkits[engine] = Podkit(engine, prefix="pytest-junk")
    here = podkits[engine]
    throw(here.list, a)
    throw(here.inspect, a, b)
    throw(here.remove, a, b)
    throw(here.gc, idle=a, dry_run=True)
    throw(here.sandbox, "only-a-user", None, memory=a, cpus=b)
    throw(here.image, a)
    # Texts that are no names; others would be asked for at a registry.
    name = a if not isinstance(a, str) else f"{a} "
    throw(here.pull_image, name, platform=b)
    throw(here.remove_image, name)
    throw(here.import_image, name, b)
    throw(here.import_image, "podkit-test/junk:1", 5)


SANDBOX_OPTIONS = [
    name for name in inspect.signature(Sandbox.__init__).parameters if name not in ("self", "user", "session")
]


PODKIT_OPTIONS = [
    name for name in inspect.signature(Podkit.__init__).parameters if name not in ("self", "backend")
]
HEALTH_OPTIONS = [name for name in inspect.signature(Health.__init__).parameters if name != "self"]


@pytest.fixture(scope="module")
def sandboxes() -> Any:
    made: dict[str, Sandbox] = {}
    yield made
    for sandbox in made.values():
        sandbox.close()


@FEW
@given(a=JUNK, b=JUNK, c=JUNK)
def test_sandboxes_refuse_junk(engine: str, sandboxes: dict[str, Sandbox], a: Any, b: Any, c: Any) -> None:
    if engine not in sandboxes:
        sandboxes[engine] = Sandbox(backend=engine)
    sandbox = sandboxes[engine]
    files = sandbox.files
    # Each has one argument that junk does not make right: what is junk otherwise does not matter.
    throw(sandbox.exec, a, timeout=0.2)
    throw(sandbox.exec, ["true"], cwd=a, env=b, user=c, timeout=0.5)
    throw(sandbox.exec, ["true"], stdin=a, timeout=b, output_limit=c)
    throw(sandbox.shell, a, timeout=0.2)
    throw(sandbox.spawn, ["true"], name=a, restart=b, log_limit=c, timeout=1)
    throw(sandbox.process, a)
    throw(sandbox.url, a)
    throw(sandbox.wait_for_port, a, 0.01)
    throw(sandbox.wait_for_port, 1, a if not isinstance(a, (int, float)) else "x")
    throw(sandbox.forward, a, -1)
    throw(sandbox.set_limits, cpus=a if not isinstance(a, (int, float)) else "x", memory=b)
    throw(sandbox.files_as, a)
    for call in (files.read, files.list, files.stat, files.exists, files.read_text):
        throw_unless_decoding(call, a)
    throw(files.write, a, 5)
    throw(files.write, "ok", a, mode=b)
    throw(files.rename, "missing", a)
    throw(files.remove, "missing/x", recursive=bool(a))
    throw(files.upload, a, "")
    throw(files.download, a, "")
    throw(files.read_stream, a, offset=b, limit=c)
    throw(files.write_stream, a, 5, mode=b)
    throw(files.write_stream, "ok", a, mode=b, append=False)
    throw(files.archive, "missing/x" if isinstance(a, str) else a)
    throw(files.extract, a, 5)
    throw(files.extract, "out", a)
    throw(files.disk_usage, "missing/x" if isinstance(a, str) else a)
    throw(files.watch, "missing/x" if isinstance(a, str) else a, recursive=bool(b))
    throw(sandbox.to_host_path, a)
    throw(sandbox.to_container_path, a)
    throw(sandbox.process("missing").attach, a)
    throw(sandbox.process("missing").set_keep_alive, a)
    throw(ByteStream(sandbox.files._native.read_stream("/etc/hostname").wait()).read, a)
    throw(Sandbox.connect, a, b)
    throw(Sandbox.list, user=a)


def throw_unless_decoding(call: Callable[..., Any], value: Any) -> None:
    try:
        throw(call, value)
    except (AssertionError, UnicodeDecodeError) as error:
        if "UnicodeDecodeError" not in str(error):
            raise
