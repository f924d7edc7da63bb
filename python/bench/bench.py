"""Measures the Python package as podkit 0.7 was measured; prints a table in Markdown.

`python bench.py ENGINE IMAGE [OTHERS...]`, from an environment with the wheel. Each step that needs a fresh
process has one.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

PREFIX = "bench"


def row(step: str, times: list[float], note: str = "") -> None:
    low, middle, high = min(times), statistics.median(times), max(times)
    print(f"| {step}{note} | {len(times)} | {low:.2f} | {middle:.2f} | {high:.2f} |", flush=True)


def timed(call: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    call()
    return (time.perf_counter() - begun) * 1e3


def fresh(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


IMPORT = "import time; t = time.perf_counter(); import podkit; print((time.perf_counter() - t) * 1e3)"
USED = (
    "import time; t = time.perf_counter(); from podkit import get_docker_session; "
    "print((time.perf_counter() - t) * 1e3)"
)
OPEN = """
import sys, time
from podkit import get_docker_session
begun = time.perf_counter()
session = get_docker_session(user_id="bench", session_id=sys.argv[1], container_prefix="bench")
opened = time.perf_counter()
assert session.execute_command("pwd").exit_code == 0
print((opened - begun) * 1e3, (time.perf_counter() - begun) * 1e3)
"""
MEMORY = """
import resource
from podkit import get_docker_session
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
session = get_docker_session(user_id="bench", session_id="memory", container_prefix="bench")
session.execute_command("true")
idle = peak()
result = session.execute_command("head -c 100000000 /dev/zero | tr '\\\\0' x")
assert len(result.stdout) == 100_000_000
print(idle, peak())
"""
STREAMED = """
import resource
from podkit import get_docker_session
session = get_docker_session(user_id="bench", session_id="memory", container_prefix="bench")
size = 0
with session.stream("head -c 100000000 /dev/zero") as run:
    for _, piece in run:
        size += len(piece)
assert size == 100_000_000
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def main() -> None:
    engine, image, *others = sys.argv[1:]
    os.environ["PODKIT_BACKEND"], os.environ["PODKIT_IMAGE"] = engine, image
    from podkit import Sandbox, get_docker_session
    from podkit.monitors import ContainerHealthMonitor
    from podkit.processes import ProcessManager

    def opened(name: str, **rest: Any) -> Any:
        return get_docker_session(user_id="bench", session_id=name, container_prefix=PREFIX, **rest)

    def remove(name: str) -> None:
        Sandbox.remove("bench", name, prefix=PREFIX)

    print(f"Engine: {engine}, load {os.getloadavg()[0]:.1f}\n")
    print("| step, ms | n | min | median | max |\n| --- | --- | --- | --- | --- |")
    fresh(IMPORT)
    row("`import podkit`", [float(fresh(IMPORT)) for _ in range(20)])
    row("`from podkit import get_docker_session`", [float(fresh(USED)) for _ in range(20)])
    wall = [timed(lambda: fresh("pass")) for _ in range(20)]
    row("`python -c pass`, wall", wall)
    row("`python -c 'import podkit'`, wall", [timed(lambda: fresh("import podkit")) for _ in range(20)])

    names = [uuid.uuid4().hex[:8] for _ in range(20)]
    cold = [fresh(OPEN, name).split() for name in names]
    row("cold: fresh process, open and exec, without import", [float(both) for _, both in cold])
    name = names[0]
    for other in names[1:]:
        remove(other)
    made: list[str] = []
    for count in [0, *map(int, others)]:
        while len(made) < count:
            made.append(uuid.uuid4().hex[:8])
            opened(made[-1])
        again = [fresh(OPEN, name).split() for _ in range(20)]
        note = f", {count} others there"
        row("reconnect: fresh process, open", [float(first) for first, _ in again], note)
        row("reconnect: fresh process, open and exec", [float(both) for _, both in again], note)
    threads = [threading.Thread(target=remove, args=(other,)) for other in made]
    for at in range(0, len(threads), 8):
        for thread in threads[at : at + 8]:
            thread.start()
        for thread in threads[at : at + 8]:
            thread.join()

    session = opened(name)
    session.execute_command("pwd")
    row("warm exec `pwd` (text)", [timed(lambda: session.execute_command("pwd")) for _ in range(60)])
    row("warm exec `pwd` (list)", [timed(lambda: session.execute_command(["pwd"])) for _ in range(60)])
    row(
        "warm exec `pwd`, timeout=5",
        [timed(lambda: session.execute_command("pwd", timeout=5)) for _ in range(60)],
    )
    large = "head -c 10000000 /dev/zero"
    row("warm exec, 10 MB of output", [timed(lambda: session.execute_command(large)) for _ in range(20)])
    text = "x" * 1024
    row("`write_file` 1 KiB, no workspace", [timed(lambda: session.write_file("a", text)) for _ in range(20)])
    place = f"/var/tmp/podkit-bench-{uuid.uuid4().hex[:8]}"
    os.makedirs(place, mode=0o755)
    kept = opened("workspace", workspace=place, workspace_host=place)
    row("`write_file` 1 KiB, workspace", [timed(lambda: kept.write_file("a", text)) for _ in range(20)])
    kept.close()
    shutil.rmtree(place)

    whole, create, run, close = [], [], [], []
    for _ in range(20):
        begun = time.perf_counter()
        cycle = opened(uuid.uuid4().hex[:8])
        at = time.perf_counter()
        cycle.execute_command("pwd")
        ran = time.perf_counter()
        cycle.close()
        ended = time.perf_counter()
        whole.append((ended - begun) * 1e3)
        create.append((at - begun) * 1e3)
        run.append((ran - at) * 1e3)
        close.append((ended - ran) * 1e3)
    row("whole cycle (warm manager)", whole)
    row("– create + start", create)
    row("– exec", run)
    row("– close", close)

    walls, closings = [], []
    for _ in range(10):
        ids = [uuid.uuid4().hex[:8] for _ in range(8)]

        def side_by_side(call: Callable[[str], Any], ids: list[str] = ids) -> float:
            workers = [threading.Thread(target=call, args=(known,)) for known in ids]

            def all_of() -> None:
                for worker in workers:
                    worker.start()
                for worker in workers:
                    worker.join()

            return timed(all_of)

        walls.append(side_by_side(lambda known: opened(known).execute_command("pwd")))
        closings.append(side_by_side(lambda known: opened(known).close()))
    row("8 threads, each create + exec, wall", walls)
    row("closing the 8 in parallel", closings)

    info = session.get_info()
    manager = ProcessManager(session._session_manager.container_manager, info.container_id, "bench", name)
    row(
        '`start_process("sleep 1000")`',
        [timed(lambda: manager.start_process("sleep 1000")) for _ in range(6)],
    )
    row('`start_process("true")`', [timed(lambda: manager.start_process("true")) for _ in range(6)])
    monitor = ContainerHealthMonitor(session._session_manager.container_manager, check_interval=30)
    monitor.start()
    row("`ContainerHealthMonitor.stop()`, interval 30", [timed(monitor.stop)])
    remove(name)

    idle, peak = fresh(MEMORY).split()
    streamed = fresh(STREAMED)
    print(
        f"\nMemory (peak RSS, MB): after a first command {float(idle):.0f}, having read 100 MB of output at once "
        f"{float(peak):.0f}, streamed {float(streamed):.0f}."
    )
    remove("memory")


if __name__ == "__main__":
    main()
