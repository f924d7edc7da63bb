"""Results of scripts/vm.sh: composed in the machine, kept in docs/setups, shown as the README's table."""

import json
import os
import re
import sys


def read(path, default=None):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return default


def tests_of(log):
    """What nextest says at its end, and the names of what failed."""
    said = re.search(r"Summary \[.*?\] +(\d+)(?:/\d+)? tests? run: (\d+) passed", log)
    if not said:
        return None
    failed = sorted(set(re.findall(r"^ +(?:FAIL|TIMEOUT|SIG\w+|ABORT) \[.*?\] +(?:\( *\d+/\d+\) +)?(.*)$", log, re.M)))
    return {"run": int(said[1]), "passed": int(said[2]), "failed": failed}


def compose(setup, results):
    """One JSON text of what the machine's trials left."""
    trials = []
    for line in read(f"{results}/trials", "").splitlines():
        name, verdict, _ = line.split("\t")
        log = read(f"{results}/{name}.log", "")
        trials.append({"name": name, "ok": verdict == "ok", "tests": tests_of(log)})
        if verdict != "ok" and trials[-1]["tests"] is None:
            trials[-1]["said"] = log[-1500:]
    os_release = dict(line.split("=", 1) for line in read("/etc/os-release").splitlines() if "=" in line)
    doctor = read(f"{results}/doctor.json")
    result = {
        "setup": setup,
        "system": os_release["PRETTY_NAME"].strip('"'),
        "kernel": os.uname().release,
        "trials": trials,
        "refused": json.loads(read(f"{results}/refused.json") or "null"),
        "doctor": json.loads(doctor) if doctor else None,
    }
    write(f"{results}/result.json", result)


def write(path, result):
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(result, file, indent=1, sort_keys=False)
        file.write("\n")
    os.rename(path + ".new", path)


def show(path):
    """Says how each trial ended; whether all is well."""
    result = json.loads(read(path))
    well = bool(result["trials"])
    for trial in result["trials"]:
        tests = trial["tests"]
        counted = f", {tests['passed']} of {tests['run']} tests" if tests else ""
        print(f"  {'ok    ' if trial['ok'] else 'FAILED'} {trial['name']}{counted}")
        for name in (tests or {}).get("failed", []):
            print(f"           {name}")
        if "said" in trial:
            print("           " + trial["said"].strip().replace("\n", "\n           "))
        well = well and trial["ok"]
    return well


def keep(source, target, about):
    """The result without what is different each time."""
    result = json.loads(read(source))
    for check in (result["doctor"] or {}).get("checks", []):
        del check["seconds"]
    write(target, {"about": about, **result})


def table(directory, document, names):
    """Puts the table of all kept results between the document's marks."""
    rows = [row(json.loads(text)) for name in names if (text := read(f"{directory}/{name}.json"))]
    heads = ["set-up", "kernel", "user ids", "limits", "pause", "trees killed", "files kept over a stop",
             "writable binds", "tests"]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    lines += ["| " + " | ".join(cells) + " |" for cells in rows]
    text = read(document)
    begin, end = "<!-- what holds where: made by scripts/vm.sh -->\n", "<!-- end of what holds where -->"
    if begin not in text:
        sys.exit(f"error: {document} has no place for the table")
    before, rest = text.split(begin)
    _, after = rest.split(end)
    with open(document, "w", encoding="utf-8") as file:
        file.write(before + begin + "\n".join(lines) + "\n" + end + after)


def row(result):
    about, kernel = result["about"], re.match(r"\d+\.\d+", result["kernel"])[0]
    doctor = result["doctor"]
    if not doctor or not doctor["works"]:
        error = (result["refused"] or {}).get("error") or {}
        return [about, kernel, "refused: " + (error.get("hint") or "?")] + ["–"] * 5 + [tests(result)]
    can = doctor["capabilities"]
    has = can["abilities"]
    yes = lambda name: "yes" if has[name] else "no"
    limits = [word for name, word in [("memory_limit", "memory"), ("cpu_limit", "processor"), ("pids_limit", "processes")]
              if has[name]]
    return [
        about,
        kernel,
        can["isolation"].replace("_", " "),
        "all" if len(limits) == 3 else ", ".join(limits) or "no",
        yes("pause"),
        "by the kernel" if can["tree_kill"] == "kernel" else "by search",
        yes("stop_keeps_files"),
        yes("writable_binds"),
        tests(result),
    ]


def tests(result):
    counted = [trial["tests"] for trial in result["trials"] if trial["tests"]]
    passed, run = sum(one["passed"] for one in counted), sum(one["run"] for one in counted)
    return f"{passed} of {run}" if run else "–"


if __name__ == "__main__":
    command, *words = sys.argv[1:]
    if command == "compose":
        compose(*words)
    elif command == "show":
        sys.exit(0 if show(*words) else 1)
    elif command == "keep":
        keep(*words)
    elif command == "table":
        table(words[0], words[1], words[2:])
