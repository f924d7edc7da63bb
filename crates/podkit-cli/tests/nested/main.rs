//! The real binary in a container, with the engine's socket and a workspace mounted: what it makes is
//! seen by the machine around.
//!
//! `PODKIT_TEST_BACKENDS` names the engines, as for the library's tests; both without. One that is
//! asked for and does not answer fails, one that is not asked for shows as ignored.
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::{
    fs,
    path::PathBuf,
    process::{Command, ExitCode, Output},
};

use libtest_mimic::{Arguments, Trial};
use serde_json::Value;

/// Debian with Python, as `scripts/engines.sh` makes it.
const DEBIAN: &str = "podkit-test/debian:1";

/// The settings with which `scripts/engines.sh` starts Podman.
const PODMAN_SETTINGS: &str = "/run/podkit-test/containers.conf";

/// Where the client sees the engine's socket, and the base of its workspaces.
const SOCKET: &str = "/run/engine.sock";
const BASE: &str = "/app/data";

/// Where each engine's socket is on this machine.
const ENGINES: [(&str, &str); 2] = [
    ("docker", "/run/docker.sock"),
    ("podman", "/run/podman/podman.sock"),
];

/// A test, by its name.
type Test = (&'static str, fn(&Outer));

const TESTS: &[Test] = &[
    (
        "file_written_in_a_session_is_seen_by_the_machine_around",
        file_written_in_a_session_is_seen_by_the_machine_around,
    ),
    (
        "session_inherits_networks_and_image_by_flags",
        session_inherits_networks_and_image_by_flags,
    ),
    (
        "session_inherits_networks_and_image_by_the_environment",
        session_inherits_networks_and_image_by_the_environment,
    ),
    (
        "flags_that_name_something_win_over_the_environment",
        flags_that_name_something_win_over_the_environment,
    ),
];

/// A container on an engine, with podkit in it, and what belongs to it.
struct Outer {
    engine: &'static str,
    /// Name of the container, and part of every other name.
    name: String,
    networks: [String; 2],
    /// The base of the workspaces on this machine, and so for the engine.
    directory: tempfile::TempDir,
}

impl Outer {
    fn new(engine: &'static str, socket: &str) -> Self {
        // Where a container that runs this test would have it at the same path.
        let directory = tempfile::Builder::new()
            .prefix("podkit-nested-")
            .tempdir_in("/var/tmp")
            .unwrap();
        let own = directory.path().file_name().unwrap().to_str().unwrap();
        let name = own.to_lowercase().replace('_', "-");
        let outer = Self {
            engine,
            networks: ["b", "a"].map(|network| format!("{name}-{network}")),
            name,
            directory,
        };
        for network in &outer.networks {
            outer.engine(&["network", "create", network]);
        }
        let mounts = [
            format!("{socket}:{SOCKET}"),
            format!("{}:{BASE}", outer.directory.path().display()),
            format!("{}:/usr/local/bin/podkit:ro", env!("CARGO_BIN_EXE_podkit")),
        ];
        let mut words = vec!["run", "-d", "--name", &outer.name, "--hostname", "app"];
        words.extend(["--stop-timeout", "0", "--network", &outer.networks[0]]);
        for mount in &mounts {
            words.extend(["-v", mount]);
        }
        words.extend([DEBIAN, "sleep", "1000"]);
        outer.engine(&words);
        outer.engine(&["network", "connect", &outer.networks[1], &outer.name]);
        outer
    }

    fn try_engine(&self, words: &[&str]) -> Output {
        let mut command = Command::new(self.engine);
        if self.engine == "podman" {
            command.env("CONTAINERS_CONF", PODMAN_SETTINGS);
        }
        command.args(words).output().unwrap()
    }

    fn engine(&self, words: &[&str]) -> String {
        let output = self.try_engine(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Runs podkit inside, in an environment that names the engine and the workspace.
    fn podkit(&self, environment: &[&str], words: &[&str]) -> String {
        let own = [
            format!("PODKIT_BACKEND=unix://{SOCKET}"),
            format!("PODKIT_PREFIX={}", self.name),
            format!("PODKIT_WORKSPACE={BASE}"),
            format!("PODKIT_WORKSPACE_HOST={}", self.directory.path().display()),
        ];
        let mut all = vec!["exec"];
        for variable in own
            .iter()
            .map(String::as_str)
            .chain(environment.iter().copied())
        {
            all.extend(["-e", variable]);
        }
        all.extend([self.name.as_str(), "podkit"]);
        all.extend(words);
        self.engine(&all)
    }

    /// The container of the session `u/s`, as the engine has it.
    fn session(&self) -> Value {
        let filter = format!("label=podkit.prefix={}", self.name);
        let id = self.engine(&["ps", "-aq", "--filter", &filter]);
        let text = self.engine(&["inspect", &id]);
        let all: Value = serde_json::from_str(&text).unwrap();
        all[0].clone()
    }

    /// The image and the networks that a container of the engine's has.
    fn assert_inherited(&self) {
        let session = self.session();
        let own = self.engine(&["inspect", "-f", "{{.Image}}", &self.name]);
        assert_eq!(session["Image"], Value::from(own));
        assert_eq!(networks(&session), self.sorted_networks());
    }

    fn sorted_networks(&self) -> Vec<String> {
        let mut networks = self.networks.to_vec();
        networks.sort();
        networks
    }
}

fn networks(container: &Value) -> Vec<String> {
    let networks = container["NetworkSettings"]["Networks"]
        .as_object()
        .unwrap();
    let mut names: Vec<String> = networks.keys().cloned().collect();
    names.sort();
    names
}

impl Drop for Outer {
    fn drop(&mut self) {
        let filter = format!("label=podkit.prefix={}", self.name);
        let listed = self.try_engine(&["ps", "-aq", "--filter", &filter]);
        let ids = String::from_utf8_lossy(&listed.stdout).into_owned();
        for id in ids.lines().chain([self.name.as_str()]) {
            self.try_engine(&["rm", "-f", "-v", id]);
        }
        for network in &self.networks {
            self.try_engine(&["network", "rm", network]);
        }
    }
}

fn file_written_in_a_session_is_seen_by_the_machine_around(outer: &Outer) {
    let words = [
        "exec",
        "--image",
        DEBIAN,
        "u/s",
        "-c",
        "echo from-inside > note; pwd",
    ];
    assert_eq!(outer.podkit(&[], &words), "/workspace");
    let path: PathBuf = outer.directory.path().join("workspaces/u/s/note");
    assert_eq!(fs::read_to_string(&path).unwrap(), "from-inside\n");
    // And the other way round, through the client's own view and the machine's.
    fs::write(path.with_file_name("answer"), "from-outside\n").unwrap();
    assert_eq!(
        outer.podkit(&[], &["read", "u/s", "answer"]),
        "from-outside"
    );
    let seen = format!("{BASE}/workspaces/u/s/note");
    assert_eq!(
        outer.engine(&["exec", &outer.name, "cat", &seen]),
        "from-inside"
    );
    let mounts = outer.session()["Mounts"].clone();
    let workspace = mounts.as_array().unwrap().iter();
    let workspace = workspace
        .filter(|mount| mount["Destination"] == "/workspace")
        .collect::<Vec<_>>();
    let source = path.parent().unwrap().to_str().unwrap();
    assert_eq!(workspace[0]["Source"], source);
    outer.podkit(&[], &["close", "u/s"]);
    assert!(path.exists(), "it outlives the session");
}

fn session_inherits_networks_and_image_by_flags(outer: &Outer) {
    let words = [
        "exec",
        "--inherit-networks",
        "--inherit-image",
        "u/s",
        "--",
        "hostname",
    ];
    let name = outer.podkit(&[], &words);
    outer.assert_inherited();
    // Another process with the same wish finds it.
    assert_eq!(outer.podkit(&[], &words), name);
    let shown: Value =
        serde_json::from_str(&outer.podkit(&[], &["inspect", "--json", "u/s"])).unwrap();
    let image = shown["spec"]["image"].as_str().unwrap();
    assert!(image.starts_with("sha256:"), "{shown}");
}

fn session_inherits_networks_and_image_by_the_environment(outer: &Outer) {
    let environment = ["PODKIT_INHERIT_NETWORKS=1", "PODKIT_INHERIT_IMAGE=1"];
    outer.podkit(&environment, &["exec", "u/s", "--", "true"]);
    outer.assert_inherited();
}

fn flags_that_name_something_win_over_the_environment(outer: &Outer) {
    let environment = ["PODKIT_INHERIT_NETWORKS=1", "PODKIT_INHERIT_IMAGE=1"];
    let other = "podkit-test/user:1";
    let network = &outer.networks[1];
    let words = [
        "exec",
        "--network",
        network,
        "--image",
        other,
        "u/s",
        "--",
        "true",
    ];
    outer.podkit(&environment, &words);
    let session = outer.session();
    assert_eq!(networks(&session), std::slice::from_ref(network));
    let id = outer.engine(&["image", "inspect", "-f", "{{.Id}}", other]);
    let bare = |id: &str| id.trim_start_matches("sha256:").to_owned();
    assert_eq!(bare(session["Image"].as_str().unwrap()), bare(&id));
}

fn asked_for() -> Option<Vec<String>> {
    #[expect(
        clippy::disallowed_methods,
        reason = "how a developer chooses the engines to test"
    )]
    let names = std::env::var("PODKIT_TEST_BACKENDS").ok()?;
    Some(
        names
            .split(',')
            .map(|name| name.trim().to_owned())
            .collect(),
    )
}

fn main() -> ExitCode {
    let asked = asked_for();
    let trials = ENGINES.iter().flat_map(|&(engine, socket)| {
        let skipped = asked
            .as_ref()
            .is_some_and(|asked| !asked.iter().any(|name| name == engine));
        TESTS.iter().map(move |&(name, test)| {
            let trial = Trial::test(format!("{engine}::{name}"), move || {
                test(&Outer::new(engine, socket));
                Ok(())
            });
            trial.with_ignored_flag(skipped)
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}
