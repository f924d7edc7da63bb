//! Every case of the conformance suite on every backend.
//!
//! `PODKIT_TEST_BACKENDS` names the backends, separated by commas; `memory,embedded` without. A
//! backend that is asked for and not there fails. One that is not asked for shows as ignored.
#![expect(clippy::panic, reason = "a test fails by a panic")]

mod support;

use libtest_mimic::{Arguments, Trial};
use podkit::{
    backend::{BackendRef, connect::connect},
    conformance::{Case, Needs, Target, build_programs, cases},
};
use support::{Place, block_on};

/// Every backend that this package has, and whether it runs real programs.
const BACKENDS: &[(&str, bool)] = &[("memory", false), ("embedded", true)];

fn asked_for() -> Vec<String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "how a developer chooses the backends to test"
    )]
    let names = std::env::var("PODKIT_TEST_BACKENDS");
    let names = names.unwrap_or_else(|_| "memory,embedded".to_owned());
    names
        .split(',')
        .map(|name| name.trim().to_owned())
        .collect()
}

async fn target(name: &str, real: bool, case: &Case, place: &Place) -> Target {
    let backend: BackendRef = connect(name, &place.options())
        .await
        .unwrap_or_else(|error| panic!("`{name}` was asked for and is not there: {error:?}"));
    let target = Target::new(backend, place.path());
    if !real {
        return target.simulated();
    }
    if case.needs != Needs::Attacks {
        return target;
    }
    let programs = place.path().join("attacks");
    build_programs(&programs);
    target.with_programs(programs)
}

fn run(name: &'static str, real: bool, case: &'static Case) {
    let place = Place::new();
    block_on(async {
        let target = target(name, real, case, &place).await;
        case.run(target).await;
    });
    place.assert_empty();
}

fn main() -> std::process::ExitCode {
    let asked = asked_for();
    for name in &asked {
        let known = BACKENDS.iter().any(|(backend, _)| backend == name);
        assert!(known, "there is no backend `{name}` to test");
    }
    let trials = BACKENDS.iter().flat_map(|&(name, real)| {
        let skipped = !asked.iter().any(|backend| backend == name);
        let fitting = cases().filter(move |case| real || case.needs == Needs::Containers);
        fitting.map(move |case| {
            let title = format!("{name}::{}::{}", case.theme, case.name);
            let trial = Trial::test(title, move || {
                run(name, real, case);
                Ok(())
            });
            trial.with_ignored_flag(skipped)
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}
