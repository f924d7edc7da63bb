//! Every case of the conformance suite on every backend.
//!
//! `PODKIT_TEST_BACKENDS` names the rows of the table, separated by commas; all of them without. A
//! row that is asked for and cannot be had fails. One that is not asked for shows as ignored.
#![expect(clippy::panic, reason = "a test fails by a panic")]

mod support;

use std::process::Command;

use libtest_mimic::{Arguments, Failed, Trial};
use podkit::{
    attacks::build_programs,
    backend::{BackendRef, connect::connect},
    conformance::{Case, Needs, Target, cases},
};
use support::{DEBIAN, Place, block_on};

/// One row of the table: a backend, and the circumstances in which it works.
struct Row {
    name: &'static str,
    backend: &'static str,
    /// Whether it runs real programs.
    real: bool,
    /// Image of cases that name none; the engine's default one without.
    image: Option<&'static str>,
    /// Program and arguments before this program's own, which then runs the case once more; its
    /// own process without.
    around: &'static [&'static str],
    /// Whether the aims of the attacks can be set up on the host.
    attacks: bool,
}

const ROWS: &[Row] = &[
    Row {
        name: "memory",
        backend: "memory",
        real: false,
        image: None,
        around: &[],
        attacks: false,
    },
    Row {
        name: "embedded",
        backend: "embedded",
        real: true,
        image: None,
        around: &[],
        attacks: true,
    },
    // The kernel cannot kill trees here, so this is also the test of how the agent does.
    Row {
        name: "embedded-without-cgroups",
        backend: "embedded",
        real: true,
        image: None,
        around: &[
            "unshare",
            "--mount",
            "sh",
            "-ec",
            "mount -t tmpfs -o ro none /sys/fs/cgroup; exec \"$@\"",
            "sh",
        ],
        attacks: true,
    },
    // An ordinary user without sub-ids: root of a container is that user.
    Row {
        name: "embedded-as-user",
        backend: "embedded",
        real: true,
        image: None,
        around: &[
            "setpriv",
            "--reuid=54321",
            "--regid=54321",
            "--clear-groups",
            "env",
            "HOME=/nonexistent",
        ],
        attacks: false,
    },
    Row {
        name: "docker",
        backend: "docker",
        real: true,
        image: Some(DEBIAN),
        around: &[],
        attacks: true,
    },
    Row {
        name: "podman",
        backend: "podman",
        real: true,
        image: Some(DEBIAN),
        around: &[],
        attacks: true,
    },
];

fn asked_for() -> Vec<String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "how a developer chooses the rows to test"
    )]
    match std::env::var("PODKIT_TEST_BACKENDS") {
        Ok(names) => names
            .split(',')
            .map(|name| name.trim().to_owned())
            .collect(),
        Err(_) => ROWS.iter().map(|row| row.name.to_owned()).collect(),
    }
}

async fn target(row: &Row, case: &Case, place: &Place) -> Target {
    let name = row.backend;
    let backend: BackendRef = connect(name, &place.options())
        .await
        .unwrap_or_else(|error| panic!("`{name}` was asked for and is not there: {error:?}"));
    let mut target = Target::new(backend, place.path());
    if let Some(image) = row.image {
        target = target.with_image(image);
    }
    if !row.real {
        return target.simulated();
    }
    if case.needs != Needs::Attacks {
        return target;
    }
    let programs = place.path().join("attacks");
    build_programs(&programs).unwrap_or_else(|error| panic!("{error:?}"));
    target.with_programs(programs)
}

fn run(row: &Row, case: &'static Case) {
    let place = Place::new();
    block_on(async {
        let target = target(row, case, &place).await;
        case.run(target).await;
    });
    place.assert_empty();
}

/// Runs the case in the row's circumstances: in this program, started once more.
fn run_around(row: &Row, case: &'static Case) -> Result<(), Failed> {
    let (program, arguments) = row.around.split_first().ok_or("nothing around")?;
    let output = Command::new(program)
        .args(arguments)
        .arg(std::env::current_exe()?)
        .args(["--exact", &title(row.backend, case)])
        .env("PODKIT_TEST_BACKENDS", row.backend)
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    // One that ran nothing proves nothing.
    if output.status.success() && said.contains("1 passed") {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(format!("{}\n{said}\n{complaint}", output.status).into())
}

fn title(row: &str, case: &Case) -> String {
    format!("{row}::{}::{}", case.theme, case.name)
}

fn main() -> std::process::ExitCode {
    let asked = asked_for();
    for name in &asked {
        let known = ROWS.iter().any(|row| row.name == name);
        assert!(known, "there is no row `{name}` to test");
    }
    let trials = ROWS.iter().flat_map(|row| {
        let skipped = !asked.iter().any(|name| name == row.name);
        let fitting = cases().filter(move |case| match case.needs {
            Needs::Containers => true,
            Needs::Programs => row.real,
            Needs::Attacks => row.attacks,
        });
        fitting.map(move |case| {
            let trial = Trial::test(title(row.name, case), move || {
                if row.around.is_empty() {
                    run(row, case);
                    return Ok(());
                }
                run_around(row, case)
            });
            trial.with_ignored_flag(skipped)
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}
