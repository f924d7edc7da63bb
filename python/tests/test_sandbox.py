"""Sandboxes, blocking and asynchronous."""

from __future__ import annotations

import asyncio
import copy
import gc
import os
import pickle
import signal
import threading
import time
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import pytest
from conftest import SERVER, python, wait_for

from podkit import (
    AsyncSandbox,
    CommandError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    Podkit,
    PodkitError,
    Sandbox,
    UnsupportedError,
)
from podkit._calls import wait


def test_throw_away_sandbox_is_gone_after_its_block(engine: str) -> None:
    with Sandbox() as sandbox:
        assert sandbox.opened == "created"
        assert sandbox.exec(["echo", "hi"]).stdout == "hi\n"
        ids = sandbox.user_id, sandbox.session_id
    assert ids not in [(info.user_id, info.session_id) for info in Sandbox.list()]


def test_throw_away_sandbox_is_gone_after_its_program(engine: str) -> None:
    ended = python("from podkit import Sandbox; s = Sandbox(); print(s.user_id, s.session_id)")
    user, session = ended.stdout.split()
    assert session not in [info.session_id for info in Sandbox.list(user=user)]


def test_throw_away_sandbox_goes_when_its_opening_is_interrupted(engine: str, workspace: Path) -> None:
    prefix = f"pytest-{uuid.uuid4().hex[:8]}"
    code = (
        "import os, pathlib, signal, threading, time\n"
        "from podkit import Sandbox\n"
        f"prefix, workspace = {prefix!r}, pathlib.Path({str(workspace)!r})\n"
        "def interrupt():\n"
        "    while not Sandbox.list(prefix=prefix):\n"
        "        time.sleep(0.01)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "threading.Thread(target=interrupt).start()\n"
        "try:\n"
        "    Sandbox(prefix=prefix, workspace=workspace, ready_command=['test', '-e', '/workspace/go'])\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
        "next(workspace.glob('workspaces/*/*')).joinpath('go').touch()\n"
    )
    ended = python(code)
    assert ended.stdout == "interrupted\n", ended.stderr
    assert Sandbox.list(prefix=prefix) == []


def test_throw_away_sandbox_goes_when_its_block_is_never_entered(engine: str, workspace: Path) -> None:
    prefix = f"pytest-{uuid.uuid4().hex[:8]}"

    async def enter() -> None:
        ready = ["test", "-e", "/workspace/go"]
        async with AsyncSandbox(prefix=prefix, workspace=workspace, ready_command=ready):
            raise AssertionError("it was not cancelled")

    async def main() -> None:
        entering = asyncio.ensure_future(enter())
        while not await AsyncSandbox.list(prefix=prefix):
            await asyncio.sleep(0.01)
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering

    asyncio.run(main())
    next(workspace.glob("workspaces/*/*")).joinpath("go").touch()
    wait_for(lambda: not Sandbox.list(prefix=prefix))


def test_throw_away_sandbox_expires_unless_somebody_said_otherwise(user: str) -> None:
    def clock(sandbox: Sandbox) -> object:
        return sandbox.info().spec["idle_timeout"]

    with Podkit(prefix="pytest", defaults={"idle_timeout": 7}) as podkit:
        with Sandbox() as usual, Sandbox(idle_timeout=5) as said, Sandbox(idle_timeout=False) as never:
            with podkit.sandbox() as default, podkit.sandbox(idle_timeout=9) as own:
                clocks = [clock(sandbox) for sandbox in (usual, said, default, own)]
                assert clocks == [{"after": {"secs": n, "nanos": 0}} for n in (600, 5, 7, 9)]
                assert clock(never) == "off"
    assert clock(Sandbox(user, "s")) is None


@pytest.mark.also
def test_named_sandbox_stays_and_is_found_again(user: str) -> None:
    with Sandbox(user, "s") as sandbox:
        sandbox.files.write("a", "kept")
    again = Sandbox.get_or_create(user, "s")
    assert again.opened == "reconnected"
    assert again.files.read_text("a") == "kept"
    assert [info.session_id for info in Sandbox.list(user=user)] == ["s"]
    assert again.close() is True
    assert again.close() is False
    with pytest.raises(NotFoundError):
        Sandbox.connect(user, "s")


def test_sandbox_made_otherwise_is_a_conflict(user: str) -> None:
    Sandbox(user, "s", memory="128m")
    with pytest.raises(ConflictError, match="memory") as caught:
        Sandbox(user, "s", memory="256m")
    assert caught.value.kind == "conflict"
    assert 'on_conflict="reuse"' in str(caught.value)
    assert Sandbox(user, "s", memory="256m", on_conflict="reuse").opened == "reconnected"
    assert Sandbox(user, "s", memory="256m", on_conflict="replace").opened == "created"


@pytest.mark.also
def test_result_tells_how_a_command_ended(user: str) -> None:
    sandbox = Sandbox(user, "s")
    result = sandbox.shell("echo out; echo err >&2; exit 3")
    assert (result.outcome, result.exit_code, result.ok) == ("exited", 3, False)
    assert (result.stdout, result.stderr_bytes) == ("out\n", b"err\n")
    with pytest.raises(CommandError, match="exited with 3: err") as caught:
        result.check()
    assert caught.value.result is result
    with pytest.raises(CommandError):
        sandbox.exec(["false"], check=True)
    late = sandbox.exec(["sleep", "9"], timeout=0.3)
    assert late.timed_out and late.exit_code == 124
    killed = sandbox.shell("kill -9 $$")
    assert (killed.outcome, killed.exit_code) == ("signaled", 137)
    assert sandbox.exec(["cat"], stdin="some text").stdout == "some text"
    assert sandbox.exec(["cat"], stdin=b"\xff\x00").stdout_bytes == b"\xff\x00"
    cut = sandbox.shell("yes | head -c 100000", output_limit=1000)
    assert (len(cut.stdout), cut.stdout_truncated) == (1000, True)
    both = sandbox.shell("echo 1; echo 2 >&2; echo 3", merge_output=True)
    assert (both.stdout, both.stderr) == ("1\n2\n3\n", "")
    assert sandbox.exec(["id", "-u"], user="65534").stdout == "65534\n"
    assert sandbox.shell("echo $A; pwd", env={"A": "b"}, cwd="/tmp").stdout == "b\n/tmp\n"
    assert result.usage.wall > 0


def test_results_are_copied_and_pickled_with_what_was_written(user: str) -> None:
    result = Sandbox(user, "s").shell("echo out; echo err >&2; printf '\\377'; exit 3")
    with pytest.raises(CommandError) as caught:
        result.check()

    def told(result: Any) -> tuple[Any, ...]:
        bytes_of = result.stdout_bytes, result.stderr_bytes, result.output_bytes
        return (repr(result), result.stdout, result.stderr, result.output, *bytes_of)

    for copied in (copy.copy(result), copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        assert told(copied) == told(result)
        assert told(pickle.loads(pickle.dumps(copied))) == told(result)
    error = pickle.loads(pickle.dumps(caught.value))
    assert (str(error), told(error.result)) == (str(caught.value), told(result))


def test_stream_gives_output_as_it_comes_and_takes_input(user: str) -> None:
    sandbox = Sandbox(user, "s")
    with sandbox.stream("while read line; do echo got $line; done; echo end >&2; exit 2", stdin=True) as run:
        run.write("one\n")
        assert next(run) == ("stdout", b"got one\n")
        run.write("two\n")
        assert next(run) == ("stdout", b"got two\n")
        run.close_stdin()
        assert list(run) == [("stderr", b"end\n")]
        assert run.result is not None and run.result.exit_code == 2
        assert run.wait().exit_code == 2
    with sandbox.stream(["sleep", "100"]) as run:
        run.kill()
        assert run.wait().outcome == "signaled"


def test_stream_that_is_left_ends_its_command(user: str) -> None:
    sandbox = Sandbox(user, "s")
    with sandbox.stream("touch /tmp/alive; sleep 100", timeout=90) as run:
        pid = run.pid
    until = time.monotonic() + 10
    while sandbox.exec(["test", "-d", f"/proc/{pid}"]).ok:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_stream_has_a_terminal(user: str) -> None:
    sandbox = Sandbox(user, "s")
    with sandbox.stream("test -t 0 && stty size", terminal=(33, 99)) as run:
        output = b"".join(piece for _, piece in run)
    assert output.split() == [b"33", b"99"]


def test_files_are_read_written_listed_and_moved(user: str, workspace: Path) -> None:
    files = Sandbox(user, "s").files
    files.write("d/a.bin", bytes(range(256)), mode=0o640)
    assert files.read("/workspace/d/a.bin") == bytes(range(256))
    assert files.read("d/a.bin", offset=10, limit=3) == b"\x0a\x0b\x0c"
    info = files.stat("d/a.bin")
    assert (info.name, info.kind, info.mode & 0o777, info.size) == ("a.bin", "file", 0o640, 256)
    files.append("d/b", "1")
    files.append("d/b", "2")
    assert files.read_text("d/b") == "12"
    files.make_dir("d/c/e")
    assert [entry.name for entry in files.list("d")] == ["a.bin", "b", "c"]
    files.rename("d/b", "d/f")
    assert files.exists("d/f") and not files.exists("d/b")
    files.remove("d/f")
    files.remove("d", recursive=True)
    with pytest.raises(NotFoundError) as caught:
        files.read("d/a.bin")
    assert caught.value.kind == "not_found"
    tree = workspace / "tree"
    (tree / "x").mkdir(parents=True)
    (tree / "x" / "y").write_text("hi")
    files.upload(tree, "up")
    assert files.read_text("up/x/y") == "hi"
    files.download("up", workspace / "down")
    assert (workspace / "down" / "x" / "y").read_text() == "hi"


@pytest.mark.also
def test_process_outlives_its_handle_and_keeps_its_log(user: str) -> None:
    sandbox = Sandbox(user, "s")
    process = sandbox.spawn("echo ready; echo oops >&2; exec sleep 100", name="web", keep_alive=True)
    assert process.wait_for_log("ready") == "ready"
    same = Sandbox(user, "s").process("web")
    assert same.info().state == "running"
    assert [info.name for info in sandbox.processes()] == ["web"]
    assert (same.logs(stream="stdout"), same.logs(stream="stderr")) == ("ready\n", "oops\n")
    ended = same.stop()
    assert (ended.state, ended.outcome) == ("ended", "signaled")
    assert dict(process.follow()) == {"stdout": b"ready\n", "stderr": b"oops\n"}
    assert sandbox.spawn(["sh", "-c", "exit 4"]).wait().exit_code == 4
    process.forget()
    with pytest.raises(NotFoundError):
        process.info()


@pytest.mark.also
def test_ports_are_published_waited_for_and_forwarded(user: str) -> None:
    sandbox = Sandbox(user, "s", ports={8000: 0})
    sandbox.spawn(["python3", "-c", SERVER, "8000", "hello"])
    sandbox.wait_for_port(8000)
    with urllib.request.urlopen(sandbox.url(8000), timeout=10) as answer:
        assert answer.read() == b"hello"
    assert [(port.container, port.address) for port in sandbox.ports()] == [(8000, "127.0.0.1")]
    with sandbox.forward(8000) as forward:
        with urllib.request.urlopen(f"http://127.0.0.1:{forward.port}/", timeout=10) as answer:
            assert answer.read() == b"hello"
    assert 8000 in [port["port"] for port in sandbox.listening_ports()]


@pytest.mark.also
def test_stats_limits_pause_and_stop(user: str, engine: str) -> None:
    sandbox = Sandbox(user, "s", memory="128m")
    assert sandbox.stats().memory_limit_bytes == 128 << 20
    watched, limit = sandbox.watch_stats(0.05), 256
    if engine == "podman":
        with pytest.raises(UnsupportedError):
            sandbox.set_limits(memory="256m")
        limit = 128
    else:
        sandbox.set_limits(memory="256m")
    assert next(watched).memory_limit_bytes == limit << 20
    assert next(watched).pids is not None
    sandbox.pause()
    assert sandbox.info().state == "paused"
    sandbox.resume()
    sandbox.files.write("a", "kept")
    sandbox.touch()
    sandbox.stop(0)
    assert (sandbox.info().state, sandbox.info().stop_cause) == ("exited", "requested")
    assert sandbox.files.read_text("a") == "kept"


def test_events_of_a_session_are_told(user: str) -> None:
    sandbox = Sandbox(user, "s")
    events = sandbox.events()
    found = []
    reader = threading.Thread(target=lambda: found.extend(next(events) for _ in range(2)))
    reader.start()
    until = time.monotonic() + 10
    while reader.is_alive():
        sandbox.exec(["echo", "hi"])
        reader.join(0.05)
        assert time.monotonic() < until
    assert [event.kind for event in found] == ["exec_started", "exec_ended"]
    assert found[0].details["argv"] == ["echo", "hi"]
    assert found[0].user_id == user


def test_ctrl_c_ends_a_wait_at_once(user: str) -> None:
    code = (
        "import os, signal, threading, time\n"
        "from podkit import Sandbox\n"
        f"s = Sandbox({user!r}, 's')\n"
        "threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "begun = time.monotonic()\n"
        "try:\n"
        "    s.exec(['sleep', '60'])\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted', time.monotonic() - begun < 3)\n"
        "print(s.shell('pgrep -c sleep || true').ok)\n"
    )
    ended = python(code)
    assert ended.stdout == "interrupted True\nTrue\n", ended.stderr


def test_other_threads_run_while_one_waits(user: str) -> None:
    sandbox = Sandbox(user, "s")
    sandbox.exec(["mkfifo", "/tmp/gate"])
    told: list[str] = []
    waiting = threading.Thread(target=lambda: told.append(sandbox.exec(["cat", "/tmp/gate"]).stdout))
    waiting.start()
    # The one ends only if the other can be called meanwhile.
    assert sandbox.shell("echo opened > /tmp/gate", timeout=30).ok
    waiting.join(30)
    assert told == ["opened\n"]


def test_forked_process_opens_its_own_connections(user: str) -> None:
    sandbox = Sandbox(user, "s")
    sandbox.exec(["true"])
    stream = sandbox.stream("sleep 100")
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            said = sandbox.exec(["echo", "child"]).stdout
            try:
                stream.kill()
            except PodkitError as error:
                said += error.kind
            os.write(write, said.encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.read() == "child\nunsupported"
    os.waitpid(pid, 0)
    assert sandbox.exec(["echo", "parent"]).stdout == "parent\n"
    stream.kill()
    assert stream.wait().outcome == "signaled"


def test_async_sandbox_runs_many_commands_at_once(user: str) -> None:
    async def main() -> None:
        async with AsyncSandbox(user, "s") as sandbox:
            begun = time.monotonic()
            results = await asyncio.gather(*(sandbox.shell(f"sleep 0.5; echo {i}") for i in range(8)))
            assert [result.stdout for result in results] == [f"{i}\n" for i in range(8)]
            assert time.monotonic() - begun < 3
            await sandbox.write_file("a", "b")
            files = await sandbox.files()
            assert await files.read_text("a") == "b"
            assert (await sandbox.info()).state == "running"
            assert (await sandbox.stats()).pids
            process = await sandbox.spawn("echo ready; sleep 100", name="p")
            assert await process.wait_for_log("ready") == "ready"
            assert (await process.stop()).state == "ended"
        assert await AsyncSandbox.remove(user, "s")

    asyncio.run(main())


def test_async_call_that_is_cancelled_kills_its_command(user: str) -> None:
    async def main() -> None:
        sandbox = await AsyncSandbox.get_or_create(user, "s")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(sandbox.exec(["sleep", "123"]), 0.3)
        for _ in range(200):
            found = await sandbox.shell("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '")
            if "sleep 123" not in found.stdout:
                break
            await asyncio.sleep(0.05)
        else:
            raise AssertionError("the command is still there")
        with pytest.raises(NotFoundError):
            await AsyncSandbox.connect(user, "none")

    asyncio.run(main())


def test_async_stream_and_events_are_iterated(user: str) -> None:
    async def main() -> None:
        async with AsyncSandbox(user, "s") as sandbox:
            async with await sandbox.stream("read a; echo got $a", stdin=True) as run:
                await run.write("x\n")
                assert [piece async for piece in run] == [("stdout", b"got x\n")]
                assert run.result is not None and run.result.ok
            events = sandbox.events()

            async def started() -> str:
                # The end of a command whose start was told to nobody may come first.
                while (event := await events.__anext__()).kind != "exec_started":
                    assert event.kind == "exec_ended"
                return event.kind

            first = asyncio.ensure_future(started())
            for _ in range(1000):
                await sandbox.exec(["true"])
                if first.done():
                    break
            assert await asyncio.wait_for(first, 10) == "exec_started"
            await events.aclose()

    asyncio.run(main())


def test_arguments_that_cannot_be_used_are_named(engine: str) -> None:
    bad = {
        "memory": "lots",
        "cpus": "two",
        "env": {"A=B": "x"},
        "ports": [0],
        "mounts": ["x"],
        "timeout": 5,
    }
    for name, value in bad.items():
        with pytest.raises((ValueError, TypeError), match=name):
            Sandbox(**{name: value})
    with pytest.raises(InvalidInputError, match="session"):
        Sandbox("only-user")
    with pytest.raises(InvalidInputError, match="on_conflict"):
        Sandbox("a", "b", on_conflict="perhaps")
    with Sandbox() as sandbox:
        for call, name in [
            (lambda: sandbox.exec("text"), "command"),
            (lambda: sandbox.exec([]), "command"),
            (lambda: sandbox.exec([1]), r"command\[0\]"),
            (lambda: sandbox.exec(["a\0"]), "command"),
            (lambda: sandbox.exec(["true"], timeout=0), "timeout"),
            (lambda: sandbox.exec(["true"], timeout=float("nan")), "timeout"),
            (lambda: sandbox.exec(["true"], env={"": "x"}), "env"),
            (lambda: sandbox.exec(["true"], cwd=""), "cwd"),
            (lambda: sandbox.exec(["true"], stdin=5), "stdin"),
            (lambda: sandbox.shell(5), "text"),
            (lambda: sandbox.files.read(""), "path"),
            (lambda: sandbox.files.write("a", 5), "content"),
            (lambda: sandbox.files.write("a", "b", mode=-1), "mode"),
            (lambda: sandbox.url(0), "port"),
            (lambda: sandbox.set_limits(), "limit"),
            (lambda: sandbox.spawn(["true"], name="a/b"), "name"),
            (lambda: sandbox.spawn(["true"], restart="perhaps"), "restart"),
        ]:
            with pytest.raises(ValueError, match=name):
                call()


def test_signals_of_the_program_are_its_own(engine: str) -> None:
    seen = []
    old = signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
    try:
        with Sandbox() as sandbox:
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
            assert sandbox.shell("sleep 0.5; echo done").stdout == "done\n"
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert seen == [1]


def test_handler_of_a_signal_calls_podkit_in_the_middle_of_a_wait(user: str) -> None:
    sandbox = Sandbox(user, "s")
    sandbox.exec(["mkfifo", "/tmp/gate"])
    handled: list[str] = []

    def interrupt() -> None:
        wait_for(lambda: sandbox.files.exists("/tmp/begun"))
        os.kill(os.getpid(), signal.SIGUSR1)
        wait_for(lambda: handled)
        sandbox.shell("echo opened > /tmp/gate")

    old = signal.signal(signal.SIGUSR1, lambda *_: handled.append(sandbox.exec(["echo", "hi"]).stdout))
    other = threading.Thread(target=interrupt)
    other.start()
    try:
        assert sandbox.shell("touch /tmp/begun; cat /tmp/gate", timeout=30).stdout == "opened\n"
    finally:
        signal.signal(signal.SIGUSR1, old)
        other.join(30)
    assert handled == ["hi\n"]


def test_finaliser_calls_podkit_in_whatever_thread_it_runs(user: str) -> None:
    sandbox = Sandbox(user, "s")
    said: list[str] = []

    class Left:
        def __init__(self) -> None:
            self.cycle = self

        def __del__(self) -> None:
            said.append(sandbox.exec(["echo", "hi"]).stdout)

    collected = threading.Event()

    def collect(*_: object) -> None:
        gc.collect()
        collected.set()

    gc.disable()
    try:
        Left()
        # What coroutines wait for is told of in a thread of the runtime.
        wait(sandbox._session()).info().begin(collect)
        assert collected.wait(30)
    finally:
        gc.enable()
    assert said == ["hi\n"]
