"""What `podkit doctor --attack --format json` found, for people.

summary FILE                              what is not as promised, and counts
table DOCUMENT DOCKER PODMAN EMBEDDED     writes the table between the marks of a document
"""

import json
import sys

BEGIN = "<!-- attacks: made by scripts/prove.sh -->"
END = "<!-- end of attacks -->"


def said(run):
    if run is None or "said" not in run:
        return "–"
    return "**succeeds**" if run["said"] == "ok" else run["said"]


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def summary(path):
    report = load(path)
    if "attacks" not in report:
        sys.exit(f"{path}: {report}")
    for attack in report["attacks"]:
        if attack["verdict"] in ("succeeded", "unclear", "not_run", "conceded"):
            why = attack["why"] or ""
            print(f"  {attack['verdict']}: {attack['attack']}: control {attack['control']}, inside {attack['inside']} {why}")
    print(f"  {report['backend']}: {len(report['attacks'])} attacks, {report['counts']}")


def table(document, docker, podman, embedded):
    reports = [load(path) for path in (docker, podman, embedded)]
    rows = [
        "| attack | control on the host | Docker's default | podkit on Docker | podkit on Podman | podkit embedded |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    reasons, through = {}, []
    for found in zip(*(report["attacks"] for report in reports), strict=True):
        cells = [said(found[0]["plain"])]
        for engine in found:
            cell = said(engine["inside"])
            if engine["why"]:
                number = reasons.setdefault(engine["why"], len(reasons) + 1)
                cell += f" ({number})"
            cells.append(cell)
        controls = {said(engine["control"]) for engine in found}
        control = "**succeeds**" if "**succeeds**" in controls else min(controls)
        rows.append(f"| {found[0]['attack']} | {control} | {' | '.join(cells)} |")
    for report, name in zip(reports, ("Docker", "Podman", "the embedded engine"), strict=True):
        count = report["counts"]
        through.append(
            f"On {name} {count['held']} of {len(report['attacks'])} were refused, {count['conceded']} are conceded"
            f" for the reasons below, {count['absent']} found nothing to attack,"
            f" and {count['succeeded'] + count['unclear'] + count['not_run']} did otherwise."
        )
    notes = [f"{number}. {why}" for why, number in reasons.items()]
    with open(document, encoding="utf-8") as file:
        text = file.read()
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    made = "\n".join(["", *through, "", *rows, "", *notes, ""])
    with open(document, "w", encoding="utf-8") as file:
        file.write(head + BEGIN + made + END + tail)


{"summary": summary, "table": table}[sys.argv[1]](*sys.argv[2:])
