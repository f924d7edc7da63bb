//! What the tests on real containers share: a private place on disk, what is on the host, and
//! child processes of the test program that work as clients.
#![expect(dead_code, reason = "every test program uses a part of it")]
#![expect(unreachable_pub, reason = "this module is part of several programs")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

pub mod crowd;
pub mod cut_off;
pub mod examples;
pub mod host;
pub mod worker;

use std::{
    future::Future,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use podkit::{
    ConnectOptions, Podkit, PodkitBuilder, Prefix, SessionSpec, backend::connect::connect,
};
use tempfile::TempDir;

/// Runs a future as a program with two cores would.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.unwrap().block_on(future)
}

/// Lets something go on beside a test, until its runtime ends.
pub fn spawn<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test has no manager that could own it"
    )]
    tokio::spawn(future)
}

/// A test's own directories: state, sockets, and whatever else it wants to write.
#[derive(Debug)]
pub struct Place {
    directory: TempDir,
}

impl Place {
    pub fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("podkit-test-")
            .tempdir_in("/var/tmp");
        let directory = directory.unwrap();
        // Container users pass through on their way to what is bound from here.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(directory.path(), mode).unwrap();
        Self { directory }
    }

    /// A place whose clients use an engine that is not the embedded one.
    pub fn on(engine: &str) -> Self {
        let place = Self::new();
        std::fs::write(place.path().join(ENGINE), engine).unwrap();
        place
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn options(&self) -> ConnectOptions {
        options_at(self.path())
    }

    /// A podkit with its state here, to be put together further.
    pub fn builder(&self) -> PodkitBuilder {
        builder_at(self.path())
    }

    /// A podkit on the embedded engine with its state here.
    pub async fn podkit(&self) -> Podkit {
        podkit_at(self.path()).await
    }

    /// Fails when containers or half of them are left in the state directory.
    pub fn assert_empty(&self) {
        let left = self.left();
        assert!(left.is_empty(), "left behind: {left:#?}");
    }

    /// What of containers is left in the state directory.
    pub fn left(&self) -> Vec<PathBuf> {
        let state = self.path().join("state");
        ["containers", "tmp", "trash"]
            .iter()
            .flat_map(|part| entries(&state.join(part)))
            .collect()
    }
}

/// Whatever a test leaves, also when it panics, is removed before its directory is.
impl Drop for Place {
    fn drop(&mut self) {
        if self.left().is_empty() {
            return;
        }
        let path = self.path().to_owned();
        let cleaning = std::thread::spawn(move || {
            block_on(async {
                let Ok(backend) = connect("embedded", &options_at(&path)).await else {
                    return;
                };
                let all = std::collections::BTreeMap::new();
                for info in backend.list(&all).await.unwrap_or_default() {
                    let _ = backend.remove(&info.id).await;
                }
                let _ = backend.sweep(Duration::ZERO).await;
            });
        });
        let _ = cleaning.join();
    }
}

/// Where an engine with everything below `directory` keeps its state.
pub fn options_at(directory: &Path) -> ConnectOptions {
    let mut options = ConnectOptions::for_home(directory);
    options.state_dir = Some(directory.join("state"));
    options.run_dir = Some(directory.join("run"));
    options
}

pub async fn podkit_at(directory: &Path) -> Podkit {
    try_podkit_at(directory).await.unwrap()
}

pub async fn try_podkit_at(directory: &Path) -> podkit::Result<Podkit> {
    builder_at(directory).build().await
}

fn builder_at(directory: &Path) -> PodkitBuilder {
    let builder = Podkit::builder().connect_options(options_at(directory));
    match std::fs::read_to_string(directory.join(ENGINE)) {
        Ok(engine) => builder
            .backend(engine)
            .prefix(prefix_of(directory))
            .default_spec(SessionSpec::new().image(DEBIAN)),
        Err(_) => {
            let builder = builder.backend("embedded");
            builder.prefix(Prefix::new("test").unwrap())
        }
    }
}

/// File of a place that names its engine, where that is not the embedded one.
const ENGINE: &str = "engine";

/// Debian with Python, as `scripts/engines.sh` makes it.
pub const DEBIAN: &str = "podkit-test/debian:1";

/// A prefix of this place's own: an engine is shared with other tests.
pub fn prefix_of(directory: &Path) -> Prefix {
    let name = directory.file_name().unwrap().to_str().unwrap();
    let own: String = name
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect::<String>()
        .to_lowercase();
    Prefix::new(format!("t{own}")).unwrap()
}

/// Entries of a directory; none when it is missing.
pub fn entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(found) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    found.map(|entry| entry.unwrap().path()).collect()
}

/// Waits until `probe` gives a value; the last complaint is shown when it never does.
pub fn wait_for<T>(bound: Duration, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match probe() {
            Ok(value) => return value,
            Err(complaint) if start.elapsed() > bound => panic!("after {bound:?}: {complaint}"),
            Err(_) => std::thread::park_timeout(Duration::from_millis(2)),
        }
    }
}

/// Runs tests by name, one by one: they judge what is on the host.
pub fn run(tests: &'static [(&'static str, fn())]) -> std::process::ExitCode {
    let trials = tests.iter().map(|&(name, test)| {
        libtest_mimic::Trial::test(name, move || {
            test();
            Ok(())
        })
    });
    let mut arguments = libtest_mimic::Arguments::from_args();
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
