"""Files piece by piece, as archives, measured and watched."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import python

from podkit import AsyncSandbox, InvalidInputError, NotFoundError, PodkitError, Sandbox

#: More than what waits on the way.
SIZE = 5 << 20


def content() -> bytes:
    return b"".join(hashlib.sha256(str(number).encode()).digest() for number in range(SIZE // 32))


def archive(**files: str) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return made.getvalue()


def test_large_files_are_streamed_both_ways(user: str, workspace: Path) -> None:
    files, whole = Sandbox(user, "s").files, content()
    local = workspace / "local"
    local.write_bytes(whole)
    assert files.write_stream("a", local, mode=0o600) == SIZE
    assert files.stat("a").mode & 0o777 == 0o600
    with open(local, "rb") as file:
        assert files.write_stream("b", file) == SIZE
    assert files.write_stream("c", (whole[at : at + 1000] for at in range(0, SIZE, 1000))) == SIZE
    assert files.write_stream("c", whole[:7], append=True) == 7
    assert files.read("c") == whole + whole[:7]
    with files.read_stream("a") as stream:
        assert stream.read(10) == whole[:10]
        assert stream.read(0) == b""
        assert stream.read(100_000) == whole[10:100_010]
        assert b"".join(stream) == whole[100_010:]
        assert stream.read() == b""
    assert files.read_stream("b", offset=5, limit=3).read() == whole[5:8]
    assert files.read_stream("b").save(workspace / "saved") == SIZE
    assert (workspace / "saved").read_bytes() == whole


def test_source_that_fails_leaves_the_file_as_it_was(user: str) -> None:
    files = Sandbox(user, "s").files
    files.write("a", "before")

    def failing() -> Iterator[bytes]:
        yield b"x" * SIZE
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        files.write_stream("a", failing())
    with pytest.raises(NotFoundError, match="source"):
        files.write_stream("a", "/no/such/file")
    with pytest.raises(InvalidInputError, match="must give bytes"):
        files.write_stream("a", io.StringIO("text"))  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="source"):
        files.write_stream("a", 5)  # type: ignore[arg-type]
    assert files.read("a") == b"before"
    # Nothing of it is left beside it either.
    assert [entry.name for entry in files.list()] == ["a"]
    with pytest.raises(PodkitError):
        files.write_stream("/proc/none/a", b"x")


@pytest.mark.also
def test_trees_are_archived_extracted_and_measured(user: str, workspace: Path) -> None:
    files = Sandbox(user, "s").files
    assert files.extract("up", archive(one="1", two="22")) >= 1024
    assert files.read("up/two") == b"22"
    files.write("up/deep/er", "333")
    with files.archive("up") as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        found = {member.name.removeprefix("./"): member.size for member in tar if member.isfile()}
    assert found == {"one": 1, "two": 2, "deep/er": 3}
    saved = workspace / "up.tar"
    files.archive("up").save(saved)
    files.extract("again", saved)
    assert files.read("again/deep/er") == b"333"
    usage = files.disk_usage("up")
    assert (usage.files, usage.size_bytes, usage.unread) == (3, 6, 0)
    assert usage.disk_bytes > 0
    with pytest.raises(InvalidInputError):
        files.extract("bad", b"this is no archive" * 100)
    with pytest.raises(InvalidInputError):
        files.extract("bad", archive(**{"../out": "x"}))
    packed = gzip.compress(archive(one="1"))
    with pytest.raises(InvalidInputError, match="`source` is compressed\nhint: give what gzip makes of it"):
        files.extract("packed", packed)
    files.extract("packed", gzip.open(io.BytesIO(packed)))
    assert files.read("packed/one") == b"1"
    with pytest.raises(NotFoundError, match="`path` cannot be written"):
        files.archive("up").save("/no/such/file")
    with pytest.raises(NotFoundError):
        files.archive("missing")
    with pytest.raises(NotFoundError):
        files.disk_usage("missing")


def test_tree_that_is_not_all_there_is_told_with_a_count(user: str, workspace: Path) -> None:
    files = Sandbox(user, "s").files
    tree = workspace / "tree"
    tree.mkdir()
    (tree / "good").write_text("good")
    os.mkfifo(tree / "pipe")
    os.mkfifo(tree / "pipe2")
    with pytest.raises(PodkitError, match="2 entries were not transferred; the first of them: "):
        files.upload(tree, "tree")
    assert files.read("tree/good") == b"good"


def test_changes_of_files_are_told_as_they_happen(user: str) -> None:
    sandbox = Sandbox(user, "s")
    files = sandbox.files
    files.make_dir("d/e")
    with files.watch("d", recursive=True) as watch:
        files.write("d/e/f", "x")
        seen = []
        while not any(kind in ("created", "moved_to") and path == "e/f" for kind, path in seen):
            change = next(watch)
            seen.append((change.kind, change.path))
            assert change.is_dir is False
        files.remove("d", recursive=True)
        assert "removed" in {change.kind for change in watch}
        assert next(watch, None) is None
    with pytest.raises(NotFoundError):
        files.watch("d")


def test_other_threads_write_while_one_watches(user: str) -> None:
    files = Sandbox(user, "s").files
    with files.watch() as watch:
        found: list[str] = []
        thread = threading.Thread(target=lambda: found.append(next(watch).path))
        thread.start()
        files.make_dir("made")
        thread.join(30)
        assert found == ["made"]


def test_async_files_are_streamed_archived_and_watched(user: str, workspace: Path) -> None:
    whole = content()
    local = workspace / "local"
    local.write_bytes(whole)

    async def given() -> AsyncIterator[bytes]:
        for at in range(0, SIZE, 100_000):
            await asyncio.sleep(0)
            yield whole[at : at + 100_000]

    async def main() -> None:
        async with AsyncSandbox(user, "s") as sandbox:
            files = await sandbox.files()
            assert await files.write_stream("a", given()) == SIZE
            assert await files.write_stream("b", local) == SIZE
            reader = asyncio.StreamReader()
            reader.feed_data(b"streamed")
            reader.feed_eof()
            assert await files.write_stream("c", reader) == 8
            async with await files.read_stream("a") as stream:
                assert await stream.read() == whole
            assert await (await files.read_stream("b")).save(workspace / "saved") == SIZE
            assert (workspace / "saved").read_bytes() == whole
            await files.extract("up", archive(one="1"))
            packed = await (await files.archive("up")).read()
            with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
                assert "one" in [Path(name).name for name in tar.getnames()]
            assert (await files.disk_usage("up")).files == 1
            async with await files.watch(".") as watch:
                await files.make_dir("new")
                change = await watch.__anext__()
                assert (change.kind, change.path, change.is_dir) == ("created", "new", True)
            with pytest.raises(NotFoundError):
                await files.write_stream("a", "/no/such/file")
            # One that is cancelled on the way leaves what was there.
            gate = asyncio.Event()

            async def stuck() -> AsyncIterator[bytes]:
                yield b"x" * 1000
                gate.set()
                await asyncio.sleep(60)

            writing = asyncio.ensure_future(files.write_stream("a", stuck()))
            await gate.wait()
            writing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await writing
            assert await files.read("a") == whole

    asyncio.run(main())


def test_streams_are_collected_when_they_are_dropped(user: str) -> None:
    """A hundred that nobody has read to their end hold nothing up."""
    sandbox = Sandbox(user, "s")
    sandbox.files.write("a", content())
    for _ in range(100):
        assert len(next(sandbox.files.read_stream("a"))) > 0
    assert sandbox.exec(["true"]).ok


def test_ctrl_c_ends_new_waits_at_once(user: str) -> None:
    code = (
        "import os, signal, threading, time\n"
        "from podkit import Podkit\n"
        "podkit = Podkit()\n"
        f"s = podkit.sandbox({user!r}, 's')\n"
        "watch = s.files.watch('.')\n"
        "terminal = s.spawn(['cat'], terminal=(24, 80)).attach()\n"
        "for call in (lambda: next(watch), lambda: list(terminal), lambda: list(podkit.events())):\n"
        "    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "    begun = time.monotonic()\n"
        "    try:\n"
        "        call()\n"
        "    except KeyboardInterrupt:\n"
        "        print('interrupted', time.monotonic() - begun < 3)\n"
        "print(s.exec(['echo', 'alive']).stdout)\n"
    )
    ended = python(code)
    assert ended.stdout == "interrupted True\n" * 3 + "alive\n\n", ended.stderr


def test_forks_refuse_the_streams_of_their_parents(user: str) -> None:
    sandbox = Sandbox(user, "s")
    sandbox.files.write("a", content())
    made: list[Any] = [sandbox.files.read_stream("a"), sandbox.files.watch(".")]
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            said = []
            for stream in made:
                try:
                    next(stream)
                except PodkitError as error:
                    said.append(error.kind)
            said.append(sandbox.files.read_stream("a", limit=3).read().hex())
            os.write(write, " ".join(said).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.read() == f"unsupported unsupported {content()[:3].hex()}"
    os.waitpid(pid, 0)
    assert b"".join(made[0]) == content()


def test_memory_is_flat_while_a_large_file_is_streamed(user: str) -> None:
    code = (
        "import resource\n"
        "from podkit import Sandbox\n"
        f"s = Sandbox({user!r}, 's', memory='512m')\n"
        "s.exec(['true'])\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "s.files.write_stream('a', (b'x' * 65536 for _ in range(1600)))\n"
        "total = sum(len(piece) for piece in s.files.read_stream('a'))\n"
        "print(total, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stdout == f"{1600 * 65536} True\n", ended.stdout + ended.stderr
