"""All sessions of a prefix at once, and the engine's images."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import wait_for

from podkit import (
    AsyncPodkit,
    AsyncSandbox,
    ConflictError,
    Event,
    Health,
    ImageNotFoundError,
    InvalidInputError,
    NotFoundError,
    Podkit,
    PodkitError,
    Sandbox,
    TimedOutError,
    UnsupportedError,
)


def test_sessions_of_a_prefix_are_listed_looked_at_and_removed(user: str) -> None:
    with Podkit(prefix="pytest") as podkit:
        podkit.ping()
        sandbox = podkit.sandbox(user, "s", labels={"a": "b"})
        assert sandbox.exec(["echo", "hi"]).stdout == "hi\n"
        assert [info.session_id for info in podkit.list(user)] == ["s"]
        assert podkit.inspect(user, "s").state == "running"
        assert Sandbox.list(user=user) == []
        if podkit.capabilities()["inherit"]:
            assert podkit.parent() is None
        else:
            with pytest.raises(UnsupportedError):
                podkit.parent()
        assert podkit.remove(user, "s") is True
        assert podkit.remove(user, "s") is False
        with pytest.raises(NotFoundError):
            podkit.inspect(user, "s")
        with podkit.sandbox() as thrown:
            assert thrown.opened == "created"
            ids = thrown.user_id, thrown.session_id
        assert ids not in [(info.user_id, info.session_id) for info in podkit.list()]
    with pytest.raises(PodkitError) as caught:
        podkit.sandbox(user, "t")
    assert caught.value.kind == "unavailable"


def test_throw_away_sandboxes_end_with_their_podkit(user: str) -> None:
    def there() -> set[str]:
        return {info.session_id for info in Sandbox.list(prefix="pytest")}

    with Podkit(prefix="pytest") as podkit:
        thrown, kept = podkit.sandbox(), podkit.sandbox(user, "s")
        other = Sandbox(prefix="pytest")
    assert {thrown.session_id, kept.session_id, other.session_id} & there() == {"s", other.session_id}

    async def main() -> None:
        async with AsyncPodkit(prefix="pytest") as podkit:
            late = podkit.sandbox()
            await late.open()
        assert late.session_id not in there()

    asyncio.run(main())
    assert other.close()


def test_sessions_that_nobody_uses_are_collected(user: str) -> None:
    with Podkit(prefix=f"pytest-{user}") as podkit:
        podkit.sandbox(user, "old", idle_timeout=0.2).exec(["true"])
        podkit.sandbox(user, "kept")

        def idle() -> bool:
            return podkit.gc(dry_run=True).removed == [(user, "old")]

        wait_for(idle)
        report = podkit.gc()
        assert (report.removed, report.kept, report.failed) == ([(user, "old")], 1, [])
        assert [info.session_id for info in podkit.list()] == ["kept"]
        # More than that was not used for so long.
        wait_for(lambda: podkit.gc(idle=0.1, dry_run=True).removed == [(user, "kept")])
        assert podkit.gc(idle=0.1).removed == [(user, "kept")]
        assert podkit.list() == []


def test_sessions_are_watched_over_and_events_tell_of_it(user: str) -> None:
    health = Health(interval=0.2, log_lines=5)
    with Podkit(prefix="pytest", health=health) as podkit:
        events = podkit.events()
        found: list[Event] = []
        reader = threading.Thread(target=found.extend, args=(events,), daemon=True)
        reader.start()
        sandbox = podkit.sandbox(user, "s", auto_stop=False)
        sandbox.files.write("a", "kept")
        # Somebody else takes it away.
        assert Sandbox.remove(user, "s", prefix="pytest")

        def recovered() -> Event | None:
            return next((event for event in found if event.kind == "recovered"), None)

        event = wait_for(recovered)
        assert (event.user_id, event.session_id) == (user, "s")
        assert event.details["opened"] in ("recovered", "created")
        kinds = [event.kind for event in found]
        assert kinds.index("session_opened") < kinds.index("health_check_failed") < kinds.index("recovered")
        failed = found[kinds.index("health_check_failed")]
        assert failed.details["symptom"]
        assert sandbox.exec(["true"]).ok
        sandbox.close()
    # Nobody is left who could tell anything.
    del podkit, sandbox, events
    reader.join(30)
    assert not reader.is_alive()


def test_commands_are_audited_without_what_may_be_secret(user: str, tmp_path: Path) -> None:
    audit = tmp_path / "audit"
    with Podkit(prefix="pytest", audit=audit, audit_arguments=False) as podkit:
        podkit.sandbox(user, "s").exec(["echo", "secret"])
    (line,) = [json.loads(line) for line in audit.read_text().splitlines()]
    assert (line["argv"], line["code"], line["user"]) == (["echo"], 0, user)
    with pytest.raises(NotFoundError):
        Podkit(audit=tmp_path / "none" / "audit")


def test_sandboxes_of_one_podkit_are_its_own(user: str) -> None:
    with Podkit(prefix="pytest", defaults={"env": {"A": "1"}, "user_name": "65534"}) as podkit:
        sandbox = Sandbox(user, "s", podkit=podkit)
        assert sandbox.shell("echo $A; id -u").stdout == "1\n65534\n"
        for named in ({"backend": "embedded"}, {"prefix": "other"}):
            with pytest.raises(InvalidInputError, match=next(iter(named))):
                Sandbox(user, "s", podkit=podkit, **named)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="podkit"):
        Sandbox(user, "s", podkit="docker")  # type: ignore[arg-type]
    for bad, name in [
        ({"defaults": {"memroy": "1g"}}, "memroy"),
        ({"defaults": {"memory": "lots"}}, "memory"),
        ({"defaults": 5}, "defaults"),
        ({"health": 5}, "health"),
        ({"on_pull": 5}, "on_pull"),
        ({"audit": 5}, "audit"),
        ({"max_connections": 0}, "max_connections"),
        ({"prefix": "no/prefix"}, "prefix"),
    ]:
        with pytest.raises(ValueError, match=name):
            Podkit(**bad)  # type: ignore[arg-type]
    for bad, name in [
        ({"interval": 0}, "interval"),
        ({"log_lines": -1}, "log_lines"),
        ({"clean_orphans": 0}, "clean_orphans"),
    ]:
        with pytest.raises(ValueError, match=name):
            Health(**bad)  # type: ignore[arg-type]


def test_podkit_of_asyncio_is_the_same(user: str) -> None:
    async def main() -> None:
        async with AsyncPodkit(prefix="pytest", health=Health(interval=0.2)) as podkit:
            await podkit.ping()
            events = podkit.events()
            sandbox = podkit.sandbox(user, "s")
            assert isinstance(sandbox, AsyncSandbox)
            assert (await sandbox.exec(["echo", "hi"])).stdout == "hi\n"
            kinds = []
            async for event in events:
                kinds.append(event.kind)
                if event.kind == "exec_ended":
                    break
            assert kinds[0] == "container_created"
            assert "session_opened" in kinds
            assert [info.session_id for info in await podkit.list(user)] == ["s"]
            assert (await podkit.inspect(user, "s")).state == "running"
            assert (await podkit.gc(dry_run=True)).failed == []
            assert (await podkit.capabilities())["pids_limit"] in (True, False)
            assert await podkit.remove(user, "s")
            # One that is opened by its first use knows nothing before it.
            late = AsyncSandbox(user, "t", podkit=podkit)
            told = late.events()
            await late.open()
            await late.exec(["true"])
            assert (await asyncio.wait_for(told.__anext__(), 30)).session_id == "t"
            await told.aclose()
            assert await late.close()

    asyncio.run(main())


def test_many_first_uses_of_a_podkit_are_one(user: str) -> None:
    async def main() -> None:
        podkit = AsyncPodkit(prefix="pytest")
        events = podkit.events()
        opened: list[str] = []

        async def listen() -> None:
            async for event in events:
                if event.kind == "session_opened":
                    opened.append(str(event.session_id))
                    if len(opened) == 4:
                        return

        listening = asyncio.ensure_future(listen())
        await asyncio.gather(*(podkit.sandbox(user, f"s{i}").open() for i in range(4)))
        await asyncio.wait_for(listening, 30)
        assert sorted(opened) == ["s0", "s1", "s2", "s3"]
        await podkit.shutdown()

    asyncio.run(main())


def test_events_of_a_sandbox_begin_when_they_are_asked_for(user: str) -> None:
    async def main() -> None:
        sandbox = AsyncSandbox(user, "s")
        # Nothing is connected to yet, so they begin with the first that is asked for.
        first = asyncio.ensure_future(sandbox.events().__anext__())
        for _ in range(1000):
            await sandbox.exec(["true"])
            if first.done():
                break
        assert (await first).user_id == user
        # From here on each is told.
        events = sandbox.events()
        await sandbox.exec(["echo", "it"])
        event = await events.__anext__()
        while event.details.get("argv") != ["echo", "it"]:
            event = await events.__anext__()
        await sandbox.close()

    asyncio.run(main())


def test_fork_connects_anew(user: str) -> None:
    podkit = Podkit(prefix="pytest", health=True)
    podkit.sandbox(user, "s").files.write("a", "b")
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, podkit.sandbox(user, "s").files.read("a"))
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.read() == "b"
    os.waitpid(pid, 0)
    assert podkit.remove(user, "s")
    podkit.shutdown()


def root_file_system(directory: Path) -> Path:
    """An archive of what the smallest image is: one program that needs no other."""
    made = directory / "image.tar"
    with tarfile.open(made, "w") as tar:
        (directory / "marker").write_text("imported")
        tar.add(directory / "marker", "etc/marker")
    return made


@pytest.mark.engine("docker")
def test_images_are_imported_listed_used_and_removed(user: str, tmp_path: Path) -> None:
    name = f"podkit-test/{user}:1"
    archive = root_file_system(tmp_path)
    with Podkit(prefix="pytest") as podkit:
        info = podkit.import_image(name, archive)
        assert name in info.names and info.size_bytes > 0
        assert podkit.image(name).id == info.id
        assert info.id in [image.id for image in podkit.images()]
        sandbox = podkit.sandbox(user, "s", image=name, pull="never")
        assert sandbox.files.read_text("/etc/marker") == "imported"
        with pytest.raises(ConflictError):
            podkit.remove_image(name)
        sandbox.close()
        podkit.remove_image(name)
        with pytest.raises(ImageNotFoundError):
            podkit.image(name)
        with pytest.raises(InvalidInputError):
            podkit.import_image(name, b"no archive" * 1000)
        with pytest.raises(NotFoundError):
            podkit.import_image(name, tmp_path / "missing.tar")
        with pytest.raises(PodkitError):
            podkit.pull_image("127.0.0.1:1/none:1")

    async def main() -> None:
        async with AsyncPodkit(prefix="pytest") as podkit:
            with open(archive, "rb") as file:
                info = await podkit.import_image(name, file)
            assert (await podkit.image(name)).id == info.id
            assert info.id in [image.id for image in await podkit.images()]
            await podkit.remove_image(name)
            with pytest.raises(PodkitError):
                await podkit.pull_image("127.0.0.1:1/none:1")

    asyncio.run(main())


@pytest.mark.engine("docker")
def test_pull_tells_how_far_it_is(user: str, tmp_path: Path) -> None:
    """From a registry of Docker's own making: one that answers for one image."""
    from registry import Registry

    with Registry(tmp_path) as registry:
        told: list[Any] = []
        with Podkit(prefix="pytest", on_pull=told.append) as podkit:
            info = podkit.pull_image(registry.image)
            try:
                assert registry.image in info.names
                wait_for(lambda: any(news.layer for news in told))
                assert {news.image for news in told} == {registry.image}
            finally:
                podkit.remove_image(registry.image)


@pytest.mark.engine("embedded")
def test_engine_without_images_says_so(engine: str) -> None:
    with Podkit() as podkit:
        calls = [
            podkit.images,
            lambda: podkit.image("x"),
            lambda: podkit.pull_image("x"),
            lambda: podkit.remove_image("x"),
            lambda: podkit.import_image("x", b"x"),
        ]
        for call in calls:
            with pytest.raises(UnsupportedError):
                call()


@pytest.fixture
def further() -> Iterator[Path]:
    """A directory of this machine's where no container has one of its own."""
    made = Path(tempfile.mkdtemp(prefix="podkit-python-", dir="/srv"))
    made.chmod(0o755)
    (made / "x").write_text("shown")
    yield made
    shutil.rmtree(made)


@pytest.mark.also
def test_every_part_of_a_configuration_arrives(user: str, engine: str, further: Path) -> None:
    can = Podkit().capabilities()
    everywhere: dict[str, Any] = {
        "hosts": {"somewhere": "192.0.2.7"},
        "drop_capabilities": ["CHOWN"],
        "network": "none",
        "read_only_root": False,
        "startup_checks": 1,
        "startup_interval": 0.05,
        "ready_command": ["true"],
    }
    sandbox = Sandbox(user, "s", **everywhere)
    assert "192.0.2.7" in sandbox.files.read_text("/etc/hosts")
    effective = next(
        line
        for line in sandbox.files.read_text("/proc/self/status").splitlines()
        if line.startswith("CapBnd")
    )
    assert int(effective.split()[1], 16) & 1 == 0
    spec = sandbox.info().spec
    assert spec["security"]["drop_capabilities"] == ["CHOWN"]
    relaxed = Sandbox(user, "r", allow_new_privileges=True, add_capabilities=["SYS_PTRACE"])
    assert relaxed.info().spec["security"]["allow_new_privileges"] is True
    only: dict[str, Any] = {
        # The last one Podman would set otherwise, and may not on every machine.
        "ulimits": {"nofile": (100, 200), "core": 0, "nproc": 900},
        "dns": ["192.0.2.53"],
        "devices": ["/dev/null:/dev/nothing:r"],
        "auto_remove": False,
    }
    if engine == "embedded":
        for name, value in {**only, "gpus": "all", "platform": "linux/amd64", "runtime": "x"}.items():
            if name == "auto_remove":
                value = True
            with pytest.raises((UnsupportedError, InvalidInputError)):
                Sandbox(user, f"u-{name}", **{name: value})
        assert not can["volumes"]
        shown = Sandbox(user, "h", host_paths=[further], isolation=sandbox.info().isolation)
        assert shown.files.read_text(further / "x") == "shown"
        return
    made = Sandbox(user, "o", ports=["127.0.0.1:0:8000", "0:53/udp"], **only)
    assert made.shell("ulimit -Sn; ulimit -Hn; ulimit -c").stdout == "100\n200\n0\n"
    assert made.info().spec["dns"] == ["192.0.2.53"]
    assert made.shell("cat /dev/nothing && echo read").stdout == "read\n"
    assert {(port.container, port.protocol) for port in made.ports()} == {(8000, "tcp"), (53, "udp")}
    with pytest.raises(PodkitError):
        Sandbox(user, "g", gpus=["no-such-gpu"])


def test_parts_that_cannot_be_meant_are_named(engine: str) -> None:
    bad: dict[str, Any] = {
        "ulimits": {"nofile": "many"},
        "dns": ["nowhere"],
        "hosts": {"a": 5},
        "devices": ["fuse"],
        "gpus": "a,,b",
        "pull": "perhaps",
        "mounts": ["/only-one"],
        "ports": ["x:y:z"],
        "isolation": "none",
        "auto_remove": "yes",
        "image_defaults": 1,
        "add_capabilities": "NET_RAW",
        "aliases": [5],
        "host_paths": "x",
        "inherit_networks": "x",
        "platform": 5,
        "ready_path": "/health",
        "ready_command": "true",
        "startup_checks": 0,
    }
    for name, value in bad.items():
        with pytest.raises(InvalidInputError, match=name):
            Sandbox("a", "b", **{name: value})
    with pytest.raises(InvalidInputError, match="ready_command"):
        Sandbox("a", "b", ready_command=["true"], ready_port=80)


def test_sandbox_is_ready_when_it_says_so_and_not_made_otherwise(user: str) -> None:
    with pytest.raises(TimedOutError):
        Sandbox(user, "s", ready_command=["false"], ready_timeout=0.3)
    with pytest.raises(TimedOutError):
        Sandbox(user, "s", ready_port=8020, ready_path="/health", ready_timeout=0.3)
    with pytest.raises(PodkitError, match="last words"):
        Sandbox(
            user,
            "s",
            entrypoint=["/bin/sh", "-c", "echo last words; sleep 0.2; exit 3"],
            startup_checks=2,
            startup_interval=0.3,
        )
    assert Sandbox.list(user=user) == []


def test_terminals_are_kept_and_joined(user: str) -> None:
    sandbox = Sandbox(user, "s")
    shell = sandbox.spawn(["/bin/sh"], name="shell", terminal=(24, 80))
    shell.set_keep_alive(True)
    assert shell.info().keep_alive and shell.info().terminal

    def shown(stream: Any, text: bytes) -> None:
        seen = b""
        for _, piece in stream:
            seen += piece
            if text in seen:
                return
        raise AssertionError(seen)

    with shell.attach((33, 99)) as terminal:
        terminal.write("stty size; echo $((6 * 7))answer\n")
        shown(terminal, b"42answer")
    # It goes on without anybody, and shows who comes later what it showed last.
    with sandbox.process("shell").attach() as terminal:
        shown(terminal, b"33 99")
        terminal.resize(44, 111)
        terminal.write("stty size\n")
        shown(terminal, b"44 111")
        terminal.write("exit 7\n")
        assert terminal.wait().exit_code == 7
    with pytest.raises(InvalidInputError):
        sandbox.spawn(["sleep", "9"]).attach()

    async def main() -> None:
        async with AsyncSandbox(user, "s") as same:
            cat = await same.spawn(["cat"], terminal=(24, 80))
            await cat.set_keep_alive(False)
            async with await cat.attach() as terminal:
                await terminal.write("typed\n")
                seen = b""
                async for _, piece in terminal:
                    seen += piece
                    if seen.count(b"typed") == 2:
                        break
                await cat.kill()

    asyncio.run(main())
