//! What is particular to Docker and Podman, on real engines: settings that only they have, images,
//! how the agent comes in, requests, faults, restarts, several processes.
//!
//! `PODKIT_TEST_BACKENDS` names the engines, as for the conformance suite; both without. One that is
//! asked for and does not answer fails, one that is not asked for shows as ignored.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by a panic")]

#[path = "../support/mod.rs"]
mod support;

mod agent;
mod clients;
mod crowd;
mod events;
mod examples;
mod hostile_images;
mod hung;
mod images;
mod main_program;
mod nested;
mod proxy;
mod requests;
mod restart;
mod settings;
mod transport;

use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Trial};
use podkit::{ExecEvent, ExecHandle, Podkit, Session, SessionSpec};
use support::{DEBIAN, Place, block_on, prefix_of, worker::main_if_asked};

/// An engine, and a corner of it for one test.
struct Engine {
    name: &'static str,
    place: Place,
}

impl Engine {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            place: Place::on(name),
        }
    }

    /// A client with nothing remembered but what is in the test's place.
    async fn podkit(&self) -> Podkit {
        self.place.podkit().await
    }

    async fn open(&self, spec: SessionSpec) -> podkit::Result<Session> {
        self.podkit().await.session("u", "a").spec(spec).await
    }

    /// The engine's own command line.
    fn command(&self) -> Command {
        let mut command = Command::new(self.name);
        if self.name == "podman" {
            command.env("CONTAINERS_CONF", PODMAN_SETTINGS);
        }
        command
    }

    /// Runs the engine's own command line.
    fn run(&self, arguments: &[&str]) -> String {
        let output = self.command().args(arguments).output().unwrap();
        assert!(
            output.status.success(),
            "{} {arguments:?}: {}",
            self.name,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// As [`run`](Self::run) for what looks at all containers: Podman gives that up where one of
    /// another test's goes meanwhile.
    fn run_beside_others(&self, arguments: &[&str]) {
        for _ in 0..50 {
            let Err(said) = self.attempt(arguments) else {
                return;
            };
            let passes = said.contains("no such container");
            assert!(passes, "{} {arguments:?}: {said}", self.name);
        }
        self.run(arguments);
    }

    /// As [`run`](Self::run), whatever comes of it.
    fn try_run(&self, arguments: &[&str]) {
        let _ = self.attempt(arguments);
    }

    /// What [`run`](Self::run) gives, or what the engine complained of.
    fn attempt(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.command().args(arguments).output().unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stderr))
        }
    }

    /// A name on the engine that is this test's own.
    fn own_name(&self, name: &str) -> String {
        format!("{}-{name}", prefix_of(self.place.path()))
    }

    /// Containers of this test's prefix, in any state.
    fn containers(&self) -> Vec<String> {
        let filter = format!("label=podkit.prefix={}", prefix_of(self.place.path()));
        let names = self.run(&["ps", "-a", "--filter", &filter, "--format", "{{.Names}}"]);
        names.lines().map(str::to_owned).collect()
    }

    /// Directories of sockets of this test's containers.
    fn socket_directories(&self) -> Vec<std::path::PathBuf> {
        let links = self.place.path().join("run/links");
        support::entries(&links)
            .iter()
            .flat_map(|engine| support::entries(engine))
            .collect()
    }
}

/// Whatever a test leaves, also when it panics, is removed.
impl Drop for Engine {
    fn drop(&mut self) {
        let filter = format!("label=podkit.prefix={}", prefix_of(self.place.path()));
        let listed = Command::new(self.name)
            .args(["ps", "-aq", "--filter", &filter])
            .output();
        let ids = listed.map(|output| output.stdout).unwrap_or_default();
        for id in String::from_utf8_lossy(&ids).lines() {
            self.try_run(&["rm", "-f", "-v", id]);
        }
    }
}

/// The standard output of a shell text that must succeed.
async fn text(session: &Session, script: &str) -> String {
    let output = session.shell(script).await.unwrap();
    assert!(output.outcome.is_success(), "`{script}`: {output:?}");
    output.stdout_text()
}

/// A command that has begun and does not end by itself.
async fn long_command(session: &Session) -> ExecHandle {
    let exec = session.shell("echo up; exec sleep 1000");
    let mut running = exec.stream().await.unwrap();
    while !matches!(running.next().await.unwrap().unwrap(), ExecEvent::Stdout(_)) {}
    running
}

/// The settings with which `scripts/engines.sh` starts Podman.
const PODMAN_SETTINGS: &str = "/run/podkit-test/containers.conf";

fn debian() -> SessionSpec {
    SessionSpec::new().image(DEBIAN)
}

/// A test, and whether it has to run alone.
type Test = (&'static str, fn(&Engine));

const ENGINES: [&str; 2] = ["docker", "podman"];

fn asked_for() -> Vec<String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "how a developer chooses the engines to test"
    )]
    match std::env::var("PODKIT_TEST_BACKENDS") {
        Ok(names) => names
            .split(',')
            .map(|name| name.trim().to_owned())
            .collect(),
        Err(_) => ENGINES.map(str::to_owned).to_vec(),
    }
}

fn main() -> ExitCode {
    if let Some(code) = main_if_asked(nested::work) {
        return code;
    }
    let asked = asked_for();
    let tables: [(&str, &[Test]); 14] = [
        ("settings", settings::TESTS),
        ("main_program", main_program::TESTS),
        ("images", images::TESTS),
        ("hostile_images", hostile_images::TESTS),
        ("agent", agent::TESTS),
        ("requests", requests::TESTS),
        ("hung", hung::TESTS),
        ("events", events::TESTS),
        ("clients", clients::TESTS),
        ("restart", restart::TESTS),
        ("transport", transport::TESTS),
        ("crowd", crowd::TESTS),
        ("nested", nested::TESTS),
        ("examples", examples::TESTS),
    ];
    let trials = ENGINES.iter().flat_map(|engine| {
        let skipped = !asked.iter().any(|name| name == engine);
        tables.iter().flat_map(move |(theme, tests)| {
            tests.iter().map(move |(name, test)| {
                let trial = Trial::test(format!("{engine}::{theme}::{name}"), move || {
                    test(&Engine::new(engine));
                    Ok(())
                });
                trial.with_ignored_flag(skipped)
            })
        })
    });
    let trials: Vec<Trial> = trials.collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A table of tests by their names.
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub(crate) const TESTS: &[super::Test] = &[$((stringify!($name), $name)),*];
    };
}
use tests;

/// Runs the body of a test.
fn run<T>(body: impl Future<Output = T>) -> T {
    block_on(body)
}
