//! A test's own engine, and what is on the host because of it.
#![expect(unreachable_pub, reason = "this module is part of several programs")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use podkit_runtime::{Runtime, RuntimeOptions};
use tempfile::TempDir;

/// A test's own directories.
#[derive(Debug)]
pub struct Place {
    directory: TempDir,
}

impl Place {
    pub fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("podkit-runtime-")
            .tempdir_in("/var/tmp")
            .unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self { directory }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn options(&self) -> RuntimeOptions {
        options_at(self.path())
    }

    pub fn runtime(&self) -> Runtime {
        Runtime::open(self.options()).unwrap()
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot::take(self.path())
    }
}

/// Whatever a test leaves, also when it panics, goes before its directory does.
impl Drop for Place {
    fn drop(&mut self) {
        let Ok(runtime) = Runtime::open(self.options()) else {
            return;
        };
        for info in runtime.list(&Default::default()).unwrap_or_default() {
            let _ = runtime.remove(&info.name);
        }
        let _ = runtime.sweep(Duration::ZERO);
    }
}

pub fn options_at(place: &Path) -> RuntimeOptions {
    let mut options = RuntimeOptions::new(place.join("state"), place.join("run"));
    options.uid_range_dir = place.join("ranges");
    options
}

/// Everything that containers of a place may leave, one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot(BTreeSet<String>);

impl Snapshot {
    pub fn take(place: &Path) -> Self {
        let mut found = BTreeSet::new();
        let name = place.to_str().unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        found.extend(
            mounts
                .lines()
                .filter(|line| line.contains(name))
                .map(|line| format!("mount {line}")),
        );
        for part in ["state", "run", "ranges"] {
            files(&place.join(part), &mut found);
        }
        let prefix = format!("podkit-{}", engine_id(place));
        for process in entries(Path::new("/proc")) {
            let groups = fs::read_to_string(process.join("cgroup")).unwrap_or_default();
            if groups.contains(&prefix) && !is_zombie(&process) {
                found.insert(format!("process {}", process.display()));
            }
        }
        for hierarchy in entries(Path::new("/sys/fs/cgroup")) {
            found.extend(
                entries(&hierarchy)
                    .iter()
                    .filter(|group| group.to_string_lossy().contains(&prefix))
                    .map(|group| format!("cgroup {}", group.display())),
            );
        }
        Self(found)
    }

    /// Waits until all is as it was then.
    pub fn assert_same(&self, place: &Path, about: &str) {
        wait_for(about, || {
            let now = Self::take(place);
            let new: Vec<_> = now.0.difference(&self.0).cloned().collect();
            // A process that was ending then may be gone.
            let gone: Vec<_> = self
                .0
                .difference(&now.0)
                .filter(|line| !line.starts_with("process "))
                .cloned()
                .collect();
            if new.is_empty() && gone.is_empty() {
                Ok(())
            } else {
                Err(format!("new: {new:#?}, gone: {gone:#?}"))
            }
        });
    }
}

/// Whether a process is dead and only waits for its parent to hear of it. How soon the machine's
/// first process listens is not for containers to say.
fn is_zombie(process: &Path) -> bool {
    let status = fs::read_to_string(process.join("stat")).unwrap_or_default();
    status
        .rsplit(')')
        .next()
        .is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X']))
}

/// What the engine with its state in a place calls itself.
fn engine_id(place: &Path) -> String {
    let facts = entries(&place.join("run"));
    let name = facts.iter().find_map(|path| {
        let name = path.file_name()?.to_str()?.strip_prefix("facts-")?;
        Some(name.strip_suffix(".json")?.to_owned())
    });
    name.unwrap_or_else(|| "none".to_owned())
}

fn files(directory: &Path, found: &mut BTreeSet<String>) {
    for path in entries(directory) {
        if path.is_dir() && !path.is_symlink() {
            // What is in images and running containers is their own affair.
            if !path.ends_with("images") && !path.ends_with("rootfs") {
                files(&path, found);
            }
        }
        found.insert(format!("file {}", path.display()));
    }
}

pub fn entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(found) = fs::read_dir(directory) else {
        return Vec::new();
    };
    found.flatten().map(|entry| entry.path()).collect()
}

/// Waits until `probe` gives a value; the last complaint is shown when it never does.
pub fn wait_for<T>(about: &str, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match probe() {
            Ok(value) => return value,
            Err(complaint) if start.elapsed() > Duration::from_secs(15) => {
                panic!("{about}: {complaint}")
            }
            Err(_) => std::thread::park_timeout(Duration::from_millis(2)),
        }
    }
}
