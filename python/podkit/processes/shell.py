"""Background processes on an engine that can only run commands, kept by the container's own shell.

It needs ``sh``, ``cat``, ``mkdir``, ``mv``, ``grep`` and ``tail`` in the image, and ``setsid`` for a process group
of its own. All that a process starts is known by a variable of its environment. Its pid, exit code, name and
command are in files beside its logs, so that another manager finds them.
"""

from __future__ import annotations

import secrets
import time
import uuid

from ..errors import PodkitError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..backends.base import BackendInterface

__all__ = ["ShellProcesses"]

#: Seconds that a command which asks or begins may take.
_LIMIT = 30

#: Seconds between two looks at a process that is to end.
_LOOK = 0.1

# The program's shell is a child of a keeper, which writes down how it ended. TERM does not end the keeper: it
# waits for its child again.
_KEEPER = r"""
trap : TERM INT
/bin/sh -c "$2" >"$1.out.log" 2>"$1.err.log" </dev/null &
child=$!
while :; do
    wait "$child"
    code=$?
    kill -0 "$child" 2>/dev/null || break
done
echo "$code" >"$1.exit.new" && mv "$1.exit.new" "$1.exit"
"""

_BEGIN = r"""
id=$1 directory=$2 logs=$3 text=$4 name=$5 keeper=$6
mkdir -p "$logs" || exit 92
base=$logs/$id
: >"$base.out.log" && : >"$base.err.log" || exit 92
printf %s "$name" >"$base.name" && printf %s "$text" >"$base.command" || exit 92
cd "$directory" || exit 93
group=
if command -v setsid >/dev/null 2>&1; then group=setsid; fi
PODKIT_PROCESS_ID=$id $group /bin/sh -c "$keeper" podkit-process "$base" "$text" >/dev/null 2>&1 </dev/null &
echo "$!" >"$base.pid.new" && mv "$base.pid.new" "$base.pid" || exit 92
echo "pid $!"
"""

# Whether the keeper is there, and is the one that is meant: its pid may be somebody else's by now.
_LOOK_AT = r"""
look() {
    if [ -f "$1.exit" ]; then
        echo "ended $(cat "$1.exit")"
        return
    fi
    pid=$(cat "$1.pid" 2>/dev/null)
    if [ -n "$pid" ] && grep -q "PODKIT_PROCESS_ID=$2" "/proc/$pid/environ" 2>/dev/null; then
        echo "running $pid"
    elif [ -f "$1.exit" ]; then
        echo "ended $(cat "$1.exit")"
    else
        echo gone
    fi
}
"""

_ASK = _LOOK_AT + 'look "$2/$1" "$1"\n'

_ALL = (
    _LOOK_AT
    + r"""
for file in "$1"/*.pid; do
    [ -f "$file" ] || continue
    base=${file%.pid}
    id=${base##*/}
    echo "$2 $id $(stat -c %Y "$file" 2>/dev/null || echo 0) $(look "$base" "$id")"
    cat "$base.name" 2>/dev/null
    echo "$2"
    cat "$base.command" 2>/dev/null
    echo
done
"""
)

# All that is there, by the variable or, for who has cleaned his environment, by the keeper's session. The
# keeper is spared as long as there is anything else, so that it can write down how its child ended.
_SIGNAL = r"""
id=$1 base=$2/$1 signal=$3
mine() { grep -q "PODKIT_PROCESS_ID=$id" "/proc/$1/environ" 2>/dev/null; }
pid=$(cat "$base.pid" 2>/dev/null)
group=$pid
# The number may be somebody else's by now.
if [ -n "$pid" ] && [ -d "/proc/$pid" ] && ! mine "$pid"; then group=; fi
left=
for directory in /proc/[0-9]*; do
    one=${directory#/proc/}
    { IFS= read -r stat <"$directory/stat"; } 2>/dev/null || continue
    # State, parent, group and session are behind a name that may have anything in it.
    set -- ${stat##*) }
    [ "$1" != Z ] || continue
    if { [ -n "$group" ] && [ "$3 $4" = "$group $group" ]; } || mine "$one"; then
        left="$left $one"
        [ "$one" = "$pid" ] || kill -s "$signal" "$one" 2>/dev/null
    fi
done
if [ "$left" = " $pid" ]; then kill -s "$signal" "$pid" 2>/dev/null; fi
echo "left$left"
"""

_LOGS = r"""
tail -n "$3" "$2/$1.out.log" 2>/dev/null
echo "$4"
tail -n "$3" "$2/$1.err.log" 2>/dev/null
"""

_PORTS = r"""
cat /proc/net/tcp /proc/net/tcp6 2>/dev/null
echo "$2"
for directory in /proc/[0-9]*; do
    if grep -q "PODKIT_PROCESS_ID=$1" "$directory/environ" 2>/dev/null; then
        ls -l "$directory/fd" 2>/dev/null
    fi
done
"""

#: Why a process did not begin, by the exit code of what was to begin it.
_REFUSED = {92: "the log directory cannot be written", 93: "the working directory cannot be entered"}


class ShellProcesses:
    """The processes of one container. What is told of one is a dictionary, or nothing when it is gone."""

    def __init__(self, backend: BackendInterface, container_id: str) -> None:
        self._backend = backend
        self._container_id = container_id

    def _run(
        self, script: str, *words: str, environment: dict[str, str] | None = None
    ) -> tuple[int, str, str]:
        command = ["/bin/sh", "-c", script, "podkit", *words]
        result = self._backend.execute_command(self._container_id, command, None, environment or None, _LIMIT)
        return result.exit_code, result.stdout, result.stderr

    def begin(
        self, text: str, name: str | None, directory: str, variables: list[tuple[str, str]], logs: str
    ) -> dict[str, Any]:
        """Begins a text of the shell's."""
        process_id = str(uuid.uuid4())
        code, said, problem = self._run(
            _BEGIN, process_id, directory, logs, text, name or "", _KEEPER, environment=dict(variables)
        )
        word, _, pid = said.strip().rpartition("\n")[2].partition(" ")
        if code != 0 or word != "pid" or not pid.isdecimal():
            why = _REFUSED.get(code, f"the shell of the container exited with {code}")
            more = (problem or said).strip()
            raise PodkitError(f"{why}: {more}" if more else why)
        return self._facts(process_id, "running", pid, logs, name, text)

    @staticmethod
    def _facts(
        process_id: str, state: str, number: str, logs: str, name: str | None = None, text: str = ""
    ) -> dict[str, Any]:
        number = number.strip()
        known = int(number) if number.lstrip("-").isdecimal() else None
        ended = state != "running"
        return {
            "id": process_id,
            "name": name or None,
            "argv": ["/bin/sh", "-c", text],
            "pid": None if ended else known,
            "state": "ended" if ended else "running",
            "exit_code": known if state == "ended" else None,
            "started_at": time.time(),
            "ended_at": None,
            "log_directory": logs,
        }

    def all(self, logs: str) -> list[dict[str, Any]]:
        """Those whose logs are in a directory of the caller's."""
        mark = f"--{secrets.token_hex(16)}"
        _, said, _ = self._run(_ALL, logs, mark)
        found = []
        parts = said.split(mark)
        # Before each name there is a line about it, and behind it its command.
        for head, command in zip(parts[1::2], parts[2::2], strict=False):
            line, _, name = head.partition("\n")
            words = line.split()
            if len(words) < 3:
                continue
            number = words[3] if len(words) > 3 else ""
            command = command.removeprefix("\n").removesuffix("\n")
            facts = self._facts(words[0], words[2], number, logs, name, command)
            if words[1].isdecimal() and words[1] != "0":
                facts["started_at"] = float(words[1])
            found.append(facts)
        return found

    def look(self, process_id: str, logs: str) -> dict[str, Any] | None:
        """What is known of one."""
        code, said, problem = self._run(_ASK, process_id, logs)
        state, _, number = said.strip().partition(" ")
        if code != 0 or state not in ("running", "ended", "gone"):
            raise PodkitError(f"the process cannot be looked at: {(problem or said).strip()}")
        return None if state == "gone" else self._facts(process_id, state, number, logs)

    def ports(self, process_id: str, pid: int, others: set[int]) -> list[int]:
        """What it, or what it started, listens on."""
        mark = f"--{secrets.token_hex(16)}"
        try:
            _, said, _ = self._run(_PORTS, process_id, mark)
        except Exception:
            return []  # They are a favour; the process is looked at for more than them.
        sockets, _, files = said.partition(mark)
        own = {word[8:-1] for word in files.split() if word.startswith("socket:[")}
        found = set()
        for line in sockets.splitlines():
            fields = line.split()
            # Address and port in hexadecimal digits, the state (0A: it listens), and the inode.
            if len(fields) > 9 and fields[3] == "0A" and fields[9] in own:
                found.add(int(fields[1].rpartition(":")[2], 16))
        return sorted(found)

    def _signal(self, process_id: str, logs: str, name: str) -> bool:
        """Sends a signal to all of it; gives whether anything was there."""
        return self._run(_SIGNAL, process_id, logs, name)[1].strip() != "left"

    def stop(self, process_id: str, logs: str, seconds: float, force: bool) -> dict[str, Any] | None:
        """Ends one with all that it started, by TERM and, with ``force``, by KILL after so long."""
        until = time.monotonic() + seconds
        left = self._signal(process_id, logs, "TERM")
        while left and time.monotonic() < until:
            time.sleep(_LOOK)
            left = self._signal(process_id, logs, "0")
        if left and force:
            until = time.monotonic() + _LIMIT
            # What is started meanwhile is killed, too.
            while self._signal(process_id, logs, "KILL"):
                if time.monotonic() >= until:
                    raise PodkitError("what the process has started cannot be killed")
                time.sleep(_LOOK)
        return self.look(process_id, logs)

    def logs(self, process_id: str, logs: str, lines: int) -> dict[str, str]:
        """The last lines of both streams."""
        mark = f"--{secrets.token_hex(16)}"
        _, said, _ = self._run(_LOGS, process_id, logs, str(lines), mark)
        out, _, err = said.partition(f"{mark}\n")
        return {"stdout": out, "stderr": err}
