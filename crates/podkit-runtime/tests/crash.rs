//! A client that is killed, or fails, at any step leaves nothing that a later one does not remove.
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

mod support;

use std::{
    path::Path,
    process::{Command, ExitCode, Stdio},
    sync::Arc,
    time::Duration,
};

use libtest_mimic::{Arguments, Trial};
use podkit_runtime::{ContainerSpec, ContainerState, Error, ErrorKind, Result, Runtime, STEPS};
use support::{Place, options_at};

/// Rounds for each step.
const ROUNDS: u32 = 20;

const WORKER: &str = "--as-worker";

/// Everything that happens to a container.
fn live(runtime: &Runtime, name: &str) -> Result<()> {
    runtime.create(&ContainerSpec::new(name))?;
    runtime.start(name)?;
    runtime.stop(name, Duration::ZERO)?;
    runtime.start(name)?;
    runtime.remove(name)
}

/// Lives until it comes to a step, and kills itself there.
fn work(place: &Path, at: String) -> ExitCode {
    let mut options = options_at(place);
    options.fault = Some(Arc::new(move |step| {
        if step == at {
            let me = rustix::process::getpid();
            let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
        }
        Ok(())
    }));
    match Runtime::open(options).and_then(|runtime| live(&runtime, "victim")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// A place with a container of somebody else, which nothing may touch.
fn with_bystander() -> (Place, Runtime, Option<u32>) {
    let place = Place::new();
    let runtime = place.runtime();
    runtime.create(&ContainerSpec::new("bystander")).unwrap();
    runtime.start("bystander").unwrap();
    let pid = runtime.inspect("bystander").unwrap().pid;
    assert!(pid.is_some());
    (place, runtime, pid)
}

fn assert_clean(runtime: &Runtime) {
    let report = runtime.sweep(Duration::ZERO).unwrap();
    assert!(report.failed.is_empty(), "{report:?}");
}

fn killed_at(step: &'static str) {
    let (place, runtime, bystander) = with_bystander();
    let before = place.snapshot();
    for round in 0..ROUNDS {
        let status = Command::new(std::env::current_exe().unwrap())
            .args([WORKER, place.path().to_str().unwrap(), step])
            .stdin(Stdio::null())
            .status()
            .unwrap();
        assert!(
            status.success() || status.code().is_none(),
            "{step} must be come by without failing: {status}"
        );
        if step != "stop.kill" {
            assert!(status.code().is_none(), "{step} must be come by: {status}");
        }
        let later = place.runtime();
        if round % 2 == 0 {
            // Whatever is left of it works.
            match later.start("victim") {
                Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{step}: {error}"),
                Ok(()) => {
                    let state = later.inspect("victim").unwrap().state;
                    assert_eq!(state, ContainerState::Running, "{step}");
                }
            }
        }
        later.remove("victim").unwrap();
        assert_clean(&later);
        before.assert_same(place.path(), step);
    }
    assert_eq!(
        runtime.inspect("bystander").unwrap().pid,
        bystander,
        "{step}"
    );
}

fn failing_at(step: &'static str) {
    let (place, runtime, bystander) = with_bystander();
    let before = place.snapshot();
    let mut options = place.options();
    options.fault = Some(Arc::new(move |at| {
        if at == step {
            return Err(Error::new(ErrorKind::TimedOut, "injected"));
        }
        Ok(())
    }));
    let faulty = Runtime::open(options).unwrap();
    match live(&faulty, "victim") {
        Err(error) => assert_eq!(error.kind(), ErrorKind::TimedOut, "{step}: {error}"),
        Ok(()) => assert_eq!(step, "stop.kill", "{step} must be come by"),
    }
    if step.starts_with("create.") {
        before.assert_same(place.path(), step);
    }
    // The next call works.
    match runtime.start("victim") {
        Ok(()) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{step}: {error}"),
    }
    runtime.remove("victim").unwrap();
    live(&runtime, "victim").unwrap();
    assert_clean(&runtime);
    before.assert_same(place.path(), step);
    assert_eq!(
        runtime.inspect("bystander").unwrap().pid,
        bystander,
        "{step}"
    );
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, worker, place, step] = arguments.as_slice()
        && worker == WORKER
    {
        return work(Path::new(place), step.clone());
    }
    let mut trials = Vec::new();
    for step in STEPS {
        trials.push(Trial::test(
            format!("client_killed_at_{step}_leaves_nothing"),
            move || {
                killed_at(step);
                Ok(())
            },
        ));
        trials.push(Trial::test(
            format!("failure_at_{step}_leaves_nothing"),
            move || {
                failing_at(step);
                Ok(())
            },
        ));
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, trials).exit_code()
}
