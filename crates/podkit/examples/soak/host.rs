//! What the parent sees and does from outside: processes, what is left, and killing containers.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// What a client holds at a quiet point.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
    pub(crate) memory_kib: u64,
}

/// Looks at a process; `None` when it is gone.
pub(crate) fn sample(pid: u32) -> Option<Sample> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let number = |field: &str| -> Option<u64> {
        let line = status.lines().find(|line| line.starts_with(field))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    Some(Sample {
        descriptors,
        threads: usize::try_from(number("Threads:")?).ok()?,
        memory_kib: number("VmRSS:")?,
    })
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(directory).into_iter().flatten();
    found.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn pids() -> Vec<u32> {
    let name = |path: &PathBuf| path.file_name()?.to_str()?.parse().ok();
    entries(Path::new("/proc"))
        .iter()
        .filter_map(name)
        .collect()
}

fn proc_has(pid: u32, file: &str, marker: &str) -> bool {
    let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    bytes
        .windows(marker.len())
        .any(|part| part == marker.as_bytes())
}

fn describe(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).replace('\0', " ");
    format!("process {pid} `{}`", line.trim_end())
}

/// Commands of sessions: what runs with `marker` in its environment.
pub(crate) fn commands(marker: &str) -> Vec<String> {
    let mut found = pids();
    found.retain(|&pid| proc_has(pid, "environ", marker));
    found.into_iter().map(describe).collect()
}

/// Kills a container's PID 1 behind podkit's back; whether there was one.
pub(crate) fn kill_container(backend: &str, container: &str) -> bool {
    let run = |command: &mut Command| {
        let command = command.stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if backend == "docker" {
        return run(Command::new("docker").args(["kill", container]));
    }
    let is_init = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("NSpid:"));
        let ids: Vec<&str> = line.unwrap_or_default().split_whitespace().collect();
        ids.len() == 3 && ids.last() == Some(&"1")
    };
    let found = pids()
        .into_iter()
        .find(|pid| proc_has(*pid, "cgroup", container) && is_init(pid));
    found.is_some_and(|pid| run(Command::new("kill").args(["-9", &pid.to_string()])))
}

/// Everything with `marker` that is on this host, one line each: processes, mounts, control
/// groups, ranges of ids, containers and state on disk; and every volume and network of Docker's.
pub(crate) fn snapshot(backend: &str, place: &Path, marker: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let own = std::process::id();
    for pid in pids().into_iter().filter(|&pid| pid != own) {
        let files = ["cgroup", "cmdline", "environ", "mountinfo"];
        if files.iter().any(|file| proc_has(pid, file, marker)) {
            found.insert(describe(pid));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounts = mounts.lines().filter(|line| line.contains(marker));
    found.extend(mounts.map(|line| format!("mount {line}")));
    cgroups(Path::new("/sys/fs/cgroup"), 5, marker, &mut found);
    for path in entries(Path::new("/var/lib/podkit/uid-ranges")) {
        if fs::read_to_string(&path).is_ok_and(|text| text.contains(marker)) {
            found.insert(format!("uid range {}", path.display()));
        }
    }
    for part in ["containers", "tmp", "trash", "run"] {
        let left = entries(&place.join("state").join(part));
        found.extend(left.iter().map(|path| format!("state {}", path.display())));
    }
    sockets(&place.join("run"), &mut found);
    if backend == "docker" {
        let label = format!("label=podkit.prefix={marker}");
        let lists: [(&str, &[&str]); 3] = [
            (
                "container",
                &["ps", "-a", "--filter", &label, "--format", "{{.Names}}"],
            ),
            ("volume", &["volume", "ls", "-q"]),
            ("network", &["network", "ls", "--format", "{{.Name}}"]),
        ];
        for (what, arguments) in lists {
            found.extend(
                docker(arguments)
                    .iter()
                    .map(|name| format!("{what} {name}")),
            );
        }
    }
    // One volume holds the agent for all containers, and stays.
    found.retain(|line| !line.starts_with("volume podkit-agent-"));
    found
}

fn cgroups(directory: &Path, depth: u32, marker: &str, found: &mut BTreeSet<String>) {
    for path in entries(directory).into_iter().filter(|path| path.is_dir()) {
        if path.to_string_lossy().contains(marker) {
            found.insert(format!("cgroup {}", path.display()));
        }
        if depth > 0 {
            cgroups(&path, depth - 1, marker, found);
        }
    }
}

/// What is below a directory of sockets, but what is only remembered there of an engine.
fn sockets(directory: &Path, found: &mut BTreeSet<String>) {
    for path in entries(directory) {
        if path.is_dir() {
            sockets(&path, found);
        } else if path.extension().is_none_or(|extension| extension != "json") {
            found.insert(format!("run {}", path.display()));
        }
    }
}

fn docker(arguments: &[&str]) -> Vec<String> {
    let output = Command::new("docker").args(arguments).output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().map(str::to_owned).collect()
}
