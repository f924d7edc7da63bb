#!/usr/bin/env python3
"""Breaks podkit's promises one by one, and sees that tests notice.

scripts/mutations.toml lists changes of one place each, with the promise that is broken and the tests that
should catch it. They are made in a checkout of its own, from what is committed here and what git knows as
changed; nothing in this one is touched. First the tests run on the sources as they are, and must pass.

    scripts/mutations.py                 all, which takes ten minutes once built
    scripts/mutations.py --only NAME…    these
    scripts/mutations.py --list          names and promises
    scripts/mutations.py --check         whether the list fits the sources, which `just tidy` asks as well
    scripts/mutations.py --table         writes the table into docs/security.md
    scripts/mutations.py --json FILE     all, and the results into a file

Exits with 0 when each change was caught. One that does not compile, or whose text is not found exactly
once, is a mistake in the list and never counts as caught.
"""

import argparse
import contextlib
import fcntl
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIST = ROOT / "scripts/mutations.toml"
DOCS = ROOT / "docs/security.md"
BEGIN, END = "<!-- mutations: made by scripts/mutations.py --table -->", "<!-- end of mutations -->"

# The same packages with the same features every time: what is built serves all tests. The agent's own need no
# other crate.
AGENTS = ["-p", "podkit-agent"]
ALL = [*AGENTS, "-p", "podkit", "-p", "podkit-runtime", "-p", "podkit-cli", "--features", "podkit/conformance"]

# The agent as it is shipped is built as a whole; here it need not be small.
AGENT = {
    "CARGO_PROFILE_AGENT_LTO": "off",
    "CARGO_PROFILE_AGENT_CODEGEN_UNITS": "16",
    "CARGO_PROFILE_AGENT_INCREMENTAL": "true",
}

# How nextest exits.
PASSED, FAILED, NOT_BUILT = 0, 100, 101


class Stale(Exception):
    """The list does not fit the sources."""


class Mutation:
    """One change."""

    FIELDS = {"name", "promise", "file", "old", "new", "tests"}

    def __init__(self, fields):
        if set(fields) != self.FIELDS:
            raise Stale(f"{fields.get('name')}: fields {sorted(fields)}, not {sorted(self.FIELDS)}")
        self.name, self.promise, self.file = fields["name"], fields["promise"], fields["file"]
        self.old, self.new, self.tests = fields["old"], fields["new"], fields["tests"]
        # The agent's binary is made from all of this crate.
        self.of_agent = self.file.startswith("crates/podkit-agent/src/")

    def apply(self, tree):
        """The file with the change."""
        text = (tree / self.file).read_text()
        if text.count(self.old) != 1 or self.old == self.new:
            raise Stale(f"{self.name}: its text is {text.count(self.old)} times in {self.file}")
        return text.replace(self.old, self.new)


def read_list():
    mutations = [Mutation(one) for one in tomllib.loads(LIST.read_text())["mutation"]]
    names = [one.name for one in mutations]
    if len(set(names)) != len(names):
        raise Stale("a name is there twice")
    return mutations


def check(mutations):
    """Whether all texts and tests are there, and the table is the list's."""
    sources = [*ROOT.glob("crates/**/*.rs"), *ROOT.glob("python/tests/*.py")]
    functions = set()
    for path in sources:
        functions.update(re.findall(r"\b(?:fn|def) ([a-z0-9_]+)\(", path.read_text()))
    problems = []
    for one in mutations:
        try:
            one.apply(ROOT)
        except (Stale, OSError) as error:
            problems.append(str(error))
        missing = [test for test in one.tests if function(test) not in functions]
        problems += [f"{one.name}: there is no test `{test}`" for test in missing]
        if not one.tests:
            problems.append(f"{one.name}: names no test")
    if table(mutations) not in DOCS.read_text():
        problems.append("the table in docs/security.md is old: run scripts/mutations.py --table")
    return problems


def function(test):
    """The name of a test as its source has it."""
    return re.split(r"::| ", test)[-1]


def table(mutations):
    """What docs/security.md shows."""
    lines = ["| change | promise that it breaks | caught by |", "| --- | --- | --- |"]
    for one in mutations:
        tests = dict.fromkeys(f"`{function(test)}`" for test in one.tests)
        lines.append(f"| {one.name} | {one.promise} | {', '.join(tests)} |")
    return "\n".join([BEGIN, *lines, END])


def write_table(mutations):
    before, rest = DOCS.read_text().split(BEGIN)
    after = rest.split(END)[1]
    DOCS.write_text(before + table(mutations) + after)


class Tests:
    """Tests to run together: `BINARY NAME`, as nextest names them, or `python NAME`."""

    def __init__(self, tests):
        self.rust = [test.split(" ", 1) for test in tests if not test.startswith("python ")]
        self.python = [test.split(" ", 1)[1] for test in tests if test.startswith("python ")]

    def filter(self):
        return " | ".join(f"binary_id(={binary}) & test(={name})" for binary, name in self.rust)

    def targets(self):
        """What cargo has to build."""
        agents = all(binary.partition("::")[0] == "podkit-agent" for binary, _ in self.rust)
        found = {tuple(AGENTS if agents else ALL)}
        for binary, _ in self.rust:
            kind, _, name = binary.partition("::")
            found.add(("--test", name) if name and not name.startswith("bin/") else
                      ("--bins",) if name else ("--lib",))
        return [word for words in found for word in words]

    def backends(self):
        """Rows of the tables of tests that are needed; the others need not be there."""
        known = ("memory", "embedded", "embedded-as-user", "embedded-without-cgroups", "docker", "podman")
        rows = {name.split("::")[0] for _, name in self.rust} & set(known)
        rows |= {"embedded"} if self.python else set()
        # Not all tables of tests have all of them.
        return ",".join(sorted(rows)) or "memory"


class Workshop:
    """A checkout of its own, with what is built from it."""

    def __init__(self, directory):
        self.tree, self.target = directory / "tree", directory / "target"
        self.log = directory / "log"
        directory.mkdir(parents=True, exist_ok=True)
        self.lock = (directory / "lock").open("w")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Stale(f"another run works in {directory}") from None
        # Both what is committed and what is changed, without a change here.
        stash = git("stash", "create").strip() or git("rev-parse", "HEAD").strip()
        if not self.tree.exists():
            git("clone", "-q", "--shared", "--no-checkout", str(ROOT), str(self.tree))
        git("-C", str(self.tree), "checkout", "-q", "--force", "--detach", stash)
        # Whether the agent that is there has the change of the last mutation.
        self.agent_is_changed = False
        self.environment = os.environ | {
            "CARGO_TARGET_DIR": str(self.target),
            "RUSTFLAGS": "-D warnings",
            "CARGO_TERM_COLOR": "never",
            "RUST_BACKTRACE": "0",
        }

    def run(self, *command, **environment):
        """Exit code and output; what is below the command ends with this program."""
        process = subprocess.Popen(
            command, cwd=self.tree, env=self.environment | environment, text=True, errors="replace",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            raise
        with self.log.open("a") as log:
            log.write(f"$ {' '.join(command)}\n{output}\n")
        return process.returncode, output

    def build_agent(self):
        """Builds the agent from the sources: whether that went well."""
        code, _ = self.run("./scripts/build-agent.sh", **AGENT)
        return code == 0

    def test(self, tests):
        """Exit code as nextest's, the tests that passed, and those that failed."""
        code, passed, failed = PASSED, [], []
        if tests.rust:
            code, output = self.run(
                "cargo", "nextest", "run", *tests.targets(), "--profile", "mutations",
                "-E", tests.filter(), PODKIT_TEST_BACKENDS=tests.backends(),
            )
            ended = r"^ +(PASS|FAIL|TIMEOUT|ABORT|SIG[A-Z]+) +\[[^]]*\] +(?:\([^)]*\) +)?(\S+ \S+)$"
            for word, name in dict.fromkeys(re.findall(ended, output, re.MULTILINE)):
                (passed if word == "PASS" else failed).append(name)
        if tests.python and code == PASSED:
            code, output = self.run(
                "timeout", "600", "./scripts/test-python.sh", "-rA", "-k", " or ".join(tests.python),
                PROFILE="dev", PODKIT_TEST_BACKENDS=tests.backends(),
            )
            ended = r"^(PASSED|FAILED|ERROR) \S*::(\w+)"
            for word, name in dict.fromkeys(re.findall(ended, output, re.MULTILINE)):
                (passed if word == "PASSED" else failed).append(f"python {name}")
            code = FAILED if failed else code
        return code, passed, failed

    def judge(self, one):
        """What comes of one change."""
        path = self.tree / one.file
        before = path.read_text()
        path.write_text(one.apply(self.tree))
        try:
            if one.of_agent or self.agent_is_changed:
                self.agent_is_changed = one.of_agent
                if not self.build_agent():
                    return "does not compile", []
            code, _, failed = self.test(Tests(one.tests))
        finally:
            path.write_text(before)
        if code == NOT_BUILT:
            return "does not compile", failed
        if code == FAILED and failed:
            return "caught", failed
        return ("SURVIVED" if code == PASSED else f"tests ended with {code}"), failed


def git(*arguments):
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE
    ).stdout


def prove(mutations, workshop):
    """Runs the tests on the sources as they are, and then each change."""
    every = list(dict.fromkeys(test for one in mutations for test in one.tests))
    begin = time.monotonic()
    if any(one.of_agent for one in mutations):
        # So that it differs by the change alone.
        workshop.build_agent()
    code, passed, failed = workshop.test(Tests(every))
    seconds = time.monotonic() - begin
    print(f"{'as it is':40} {len(every)} tests, {seconds:.0f} s", flush=True)
    absent = [test for test in every if test not in passed]
    if code != PASSED or absent:
        why = f"these did not pass: {absent}" if absent else f"they ended with {code}"
        print(f"error: {why}; see {workshop.log}", file=sys.stderr)
        return None
    results = []
    for one in mutations:
        begin = time.monotonic()
        try:
            result, failed = workshop.judge(one)
        except Stale as stale:
            result, failed = f"list out of date: {stale}", []
        seconds = time.monotonic() - begin
        spared = [test for test in one.tests if result == "caught" and test not in failed]
        remark = f", but not by {spared}" if spared else ""
        print(f"{one.name:40} {result}{remark}, {seconds:.0f} s", flush=True)
        results.append({"name": one.name, "promise": one.promise, "result": result, "caught_by": failed,
                        "seconds": round(seconds, 1)})
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE")
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser.add_argument("--work", type=pathlib.Path, metavar="DIR", default=target / "mutations")
    arguments = parser.parse_args()
    try:
        mutations = read_list()
        if arguments.only:
            unknown = set(arguments.only) - {one.name for one in mutations}
            if unknown:
                raise Stale(f"there is no {sorted(unknown)}")
            mutations = [one for one in mutations if one.name in arguments.only]
        if arguments.list:
            for one in mutations:
                print(f"{one.name:40} {one.promise}")
            return 0
        if arguments.table:
            write_table(mutations)
        if arguments.table or arguments.check:
            problems = check(mutations)
            print("\n".join(problems) or f"{len(mutations)} changes fit the sources", file=sys.stderr)
            return 1 if problems else 0
        workshop = Workshop(arguments.work.resolve())
    except Stale as stale:
        print(f"error: {stale}", file=sys.stderr)
        return 1
    results = prove(mutations, workshop)
    if results is None:
        return 1
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    caught = sum(one["result"] == "caught" for one in results)
    print(f"{caught} of {len(results)} caught")
    return 0 if caught == len(results) else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
