"""The package itself: where it is, what it costs, how it is typed, what it brings along."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import python

import podkit


def test_package_is_the_installed_one() -> None:
    # From a wheel, unless somebody points PYTHONPATH at the sources.
    if "PYTHONPATH" not in os.environ:
        assert str(podkit.__file__).startswith(sys.prefix)


def test_names_of_podkit_0_7_are_where_they_were() -> None:
    places = {
        "podkit": "PodkitEventHandler PortPool SessionProxy get_docker_session reset_lifecycle_cache run_in_docker",
        "podkit.constants": "DEFAULT_CONTAINER_IMAGE",
        "podkit.core.models": "ContainerStatus Mount StartupVerificationConfig ContainerConfig ProcessResult Session",
        "podkit.core.manager": "BaseContainerManager SimpleContainerManager",
        "podkit.core.session": "BaseSessionManager RECOVERABLE_STATES UNRECOVERABLE_STATES",
        "podkit.core.events": "PodkitEventHandler",
        "podkit.backends.base": "BackendInterface",
        "podkit.backends.docker": "DockerBackend",
        "podkit.monitors": "BaseThreadMonitor ContainerHealthMonitor",
        "podkit.monitors.base": "BaseThreadMonitor",
        "podkit.monitors.health": "ContainerHealthMonitor",
        "podkit.monitors.orphans": "OrphanContainerCleaner",
        "podkit.processes": "ProcessManager ProcessMonitor Process ProcessStatus",
        "podkit.processes.manager": "ProcessManager",
        "podkit.processes.models": "Process ProcessStatus",
        "podkit.processes.monitor": "ProcessMonitor",
        "podkit.utils": "SessionProxy get_docker_session reset_lifecycle_cache get_parent_container_networks "
        "is_running_in_docker_container container_to_host_path host_to_container_path get_workspace_path",
        "podkit.utils.lifecycle": "get_docker_session reset_lifecycle_cache run_in_docker SessionProxy "
        "_NoMountContainerManager _MountedContainerManager _managers_cache _cache_lock",
        "podkit.utils.paths": "normalize_container_path container_to_host_path host_to_container_path "
        "get_workspace_path write_to_mounted_path",
        "podkit.utils.mounts": "NAMED_VOLUME_MOUNT_PATH config_volumes_to_mounts get_volume_workspace_subpath "
        "get_volume_init_command get_standard_workspace_mounts",
        "podkit.utils.network": "is_running_in_docker_container get_parent_container_networks DOCKER_AVAILABLE",
        "podkit.utils.ports": "PortPool",
    }
    for place, names in places.items():
        module = importlib.import_module(place)
        for name in names.split():
            assert hasattr(module, name), f"{place}.{name}"
    assert set(places["podkit"].split()) <= set(podkit.__all__)
    for name in podkit.__all__:
        assert getattr(podkit, name) is not None
    assert "Sandbox" in dir(podkit)
    with pytest.raises(AttributeError, match="nothing"):
        podkit.nothing  # type: ignore[attr-defined]


def test_signatures_of_podkit_0_7_are_kept() -> None:
    from podkit.backends.base import BackendInterface
    from podkit.core.manager import BaseContainerManager
    from podkit.core.session import BaseSessionManager
    from podkit.monitors.health import ContainerHealthMonitor
    from podkit.monitors.orphans import OrphanContainerCleaner
    from podkit.processes import ProcessManager, ProcessMonitor
    from podkit.utils import lifecycle, mounts, paths, ports

    def names(function: object) -> str:
        parameters = inspect.signature(function).parameters.values()  # type: ignore[arg-type]
        return " ".join(p.name for p in parameters if p.name != "self" and not p.name.startswith("_"))

    expected = {
        lifecycle.get_docker_session: "user_id session_id config workspace workspace_host container_prefix image_name logger backend",
        lifecycle.run_in_docker: "command image command_timeout memory_limit cpu_limit files environment working_dir backend",
        lifecycle.SessionProxy.execute_command: "command working_dir environment timeout",
        lifecycle.SessionProxy.write_file: "container_path content",
        BaseSessionManager.__init__: "container_manager default_image logger health_monitor event_handler session_inactivity_timeout_seconds",
        BaseSessionManager.create_session: "user_id session_id config",
        BaseSessionManager.get_or_create_session: "user_id session_id config",
        BaseSessionManager.execute_command: "user_id session_id command working_dir environment timeout",
        BaseSessionManager.write_file: "user_id session_id container_path content",
        BaseSessionManager.close_session: "user_id session_id",
        BaseContainerManager.__init__: "backend container_prefix workspace_base workspace_base_host volume_name event_handler logger",
        BaseContainerManager.create_container: "user_id session_id config container_name",
        BaseContainerManager.start_container: "container_id config",
        BaseContainerManager.stop_container: "container_id timeout",
        BaseContainerManager.execute_command: "container_id command working_dir environment timeout",
        BaseContainerManager.get_container_status: "container_id refresh",
        BaseContainerManager.to_host_path: "container_path user_id session_id real_host",
        BaseContainerManager.to_container_path: "host_path user_id session_id",
        BackendInterface.create_workload: "name config mounts kwargs",
        BackendInterface.start_workload: "workload_id verification_config",
        BackendInterface.stop_workload: "workload_id timeout",
        BackendInterface.remove_workload: "workload_id force",
        BackendInterface.get_workload_logs: "workload_id tail",
        BackendInterface.list_workloads: "filters",
        ContainerHealthMonitor.__init__: "container_manager check_interval log_lines event_handler logger",
        OrphanContainerCleaner.__init__: "backend container_prefix check_interval max_age_seconds event_handler logger",
        ProcessManager.__init__: "container_manager container_id user_id session_id default_log_dir event_handler logger",
        ProcessManager.start_process: "command name working_dir environment log_dir",
        ProcessManager.stop_process: "process_id timeout force",
        ProcessManager.get_logs: "process_id tail",
        ProcessMonitor.__init__: "process_manager check_interval logger",
        ports.PortPool.__init__: "start end ports_per_container",
        paths.write_to_mounted_path: "container_path content to_host_path_fn",
        paths.container_to_host_path: "container_path workspace_base container_workspace",
        paths.host_to_container_path: "host_path workspace_base container_workspace",
        mounts.get_standard_workspace_mounts: "workspace_base user_id session_id config to_host_path_fn volume_name",
    }
    for function, parameters in expected.items():
        assert names(function) == parameters, function


def test_every_public_thing_says_what_it_is() -> None:
    silent = []
    for found in pkgutil.walk_packages(podkit.__path__, "podkit."):
        if found.name.rsplit(".")[-1].startswith("_"):
            continue
        module = importlib.import_module(found.name)
        if not module.__doc__:
            silent.append(found.name)
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if not (inspect.isclass(value) or inspect.isfunction(value)):
                continue
            if not inspect.getdoc(value):
                silent.append(f"{found.name}.{name}")
            for method, known in inspect.getmembers(value, inspect.isfunction):
                if not method.startswith("_") and not inspect.getdoc(known):
                    silent.append(f"{found.name}.{name}.{method}")
    assert silent == []


@pytest.mark.engine("embedded")
def test_examples_in_docstrings_run(engine: str) -> None:
    import doctest

    tried = 0
    for found in pkgutil.walk_packages(podkit.__path__, "podkit."):
        if not found.name.rpartition(".")[2].startswith("_native"):
            result = doctest.testmod(importlib.import_module(found.name))
            assert result.failed == 0, found.name
            tried += result.attempted
    result = doctest.testmod(podkit)
    assert result.failed == 0
    assert tried + result.attempted >= 10


@pytest.mark.engine("embedded")
def test_examples_of_the_readme_run(user: str, workspace: Path) -> None:
    readme = Path(__file__).with_name("README.md")
    text = readme.read_text()
    blocks = [block.partition("```")[0] for block in text.split("```python\n")[1:]]
    assert len(blocks) >= 3
    (workspace / "src").mkdir()
    (workspace / "src" / "main.py").write_text("print('hi')")
    for block in blocks:
        code = block.replace('"bob"', repr(user)).replace("/var/log/commands", str(workspace / "audit"))
        ended = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=workspace, timeout=120
        )
        assert ended.returncode == 0, ended.stderr
    assert (workspace / "src.tar").exists() and (workspace / "audit").exists()


def test_stubs_are_what_the_module_is() -> None:
    root = Path(str(podkit.__file__)).parent
    assert (root / "py.typed").exists() and (root / "_native.pyi").exists()
    stubtest = [sys.executable, "-m", "mypy.stubtest", "podkit._native"]
    checked = subprocess.run(stubtest, capture_output=True, text=True, cwd="/")
    assert checked.returncode == 0, checked.stdout
    typed = [sys.executable, "-m", "mypy", "--strict", "--cache-dir=/dev/null"]
    typed += ["--no-warn-return-any", "--python-version=3.10", "-c"]
    good = "import podkit\nreveal_type(podkit.Sandbox().exec(['a']).stdout)\nasync def f(s: podkit.AsyncSandbox) -> int:\n    return (await s.shell('x')).exit_code\n"
    checked = subprocess.run([*typed, good], capture_output=True, text=True, cwd="/")
    assert checked.returncode == 0, checked.stdout
    assert 'Revealed type is "str"' in checked.stdout.replace("builtins.", ""), checked.stdout
    bad = "import podkit\npodkit.Sandbox(memroy='1g')\npodkit.Sandbox().exec(5)\n"
    checked = subprocess.run([*typed, bad], capture_output=True, text=True, cwd="/")
    assert checked.stdout.count("error:") == 2, checked.stdout


def test_importing_costs_little_and_connects_to_nothing() -> None:
    heavy = "typing asyncio logging pydantic docker http ssl json inspect dataclasses subprocess"
    code = (
        "import sys, threading\n"
        "before = set(sys.modules)\n"
        "from podkit import get_docker_session, Sandbox\n"
        "from podkit.core.models import ContainerConfig\n"
        f"print(sorted((set(sys.modules) - before) & set({heavy.split()!r})), threading.active_count())"
    )
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}\n" + code],
        capture_output=True,
        text=True,
    )
    assert ended.stdout == "[] 1\n", ended.stdout + ended.stderr


def test_command_is_in_the_wheel() -> None:
    command = Path(sys.prefix) / "bin" / "podkit"
    if "PYTHONPATH" in os.environ:
        assert not command.exists()  # The sources have none.
        return
    told = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["podkit", podkit.__version__]


def test_program_that_ends_in_the_middle_of_everything_does_not_hang(engine: str) -> None:
    code = (
        "import asyncio, threading\n"
        "from podkit import AsyncSandbox, Sandbox\n"
        "s = Sandbox()\n"
        "threading.Thread(target=s.exec, args=(['sleep', '60'],), daemon=True).start()\n"
        "stream = s.stream('sleep 60')\n"
        "async def main():\n"
        "    a = AsyncSandbox(s.user_id, s.session_id)\n"
        "    t = asyncio.ensure_future(a.exec(['sleep', '60']))\n"
        "    await asyncio.sleep(0.3)\n"
        "asyncio.run(main())\n"
        "print(s.user_id, s.session_id)\n"
    )
    ended = python(code)
    assert ended.returncode == 0, ended.stderr
    user, session = ended.stdout.split()
    assert not podkit.Sandbox.remove(user, session)


def test_blocking_calls_work_where_a_loop_runs_in_the_main_thread(user: str) -> None:
    """As in a notebook, whose cells are run by a running loop of asyncio."""
    code = (
        "import asyncio\n"
        "from podkit import AsyncSandbox, Sandbox, get_docker_session\n"
        "async def cells():\n"
        f"    s = Sandbox({user!r}, 's')\n"
        "    print(s.shell('echo blocking').stdout.strip())\n"
        f"    print(get_docker_session(user_id={user!r}, session_id='s').execute_command('echo old').stdout.strip())\n"
        f"    a = AsyncSandbox({user!r}, 's')\n"
        "    print((await a.shell('echo awaited')).stdout.strip())\n"
        "    other = asyncio.ensure_future(a.shell('echo meanwhile'))\n"
        "    print(s.shell('sleep 0.1; echo again').stdout.strip(), (await other).stdout.strip())\n"
        "asyncio.run(cells())\n"
    )
    ended = python(code)
    assert ended.stdout == "blocking\nold\nawaited\nagain meanwhile\n", ended.stderr


def test_notebook_runs_cells_and_may_be_interrupted(user: str, tmp_path: Path) -> None:
    """With Jupyter's own kernel."""
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3", startup_timeout=120)
    try:

        def run(code: str, begun: str | None = None) -> tuple[str, str]:
            """Standard output and the name of an exception; interrupts once `begun` was written."""
            request, said, error = client.execute(code), "", ""
            while True:
                message = client.get_iopub_msg(timeout=120)
                if message["parent_header"].get("msg_id") != request:
                    continue
                kind, content = message["msg_type"], message["content"]
                if kind == "stream" and content["name"] == "stdout":
                    said += content["text"]
                    if begun is not None and begun in said:
                        begun = None
                        manager.interrupt_kernel()
                elif kind == "error":
                    error = content["ename"]
                elif kind == "status" and content["execution_state"] == "idle":
                    return said, error

        made = f"from podkit import AsyncSandbox, Sandbox\ns = Sandbox({user!r}, 's')"
        assert run(made) == ("", "")
        assert run("print(s.exec(['echo', 'hi']).stdout)") == ("hi\n\n", "")
        awaited = f"print((await AsyncSandbox({user!r}, 's').shell('echo awaited')).stdout)"
        assert run(awaited) == ("awaited\n\n", "")
        stuck = "for _, piece in s.stream('echo begun; sleep 1000'): print(piece.decode(), flush=True)"
        assert run(stuck, "begun") == ("begun\n\n", "KeyboardInterrupt")
        assert run("print(s.exec(['echo', 'alive']).stdout)") == ("alive\n\n", "")
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
