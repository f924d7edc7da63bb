//! One command in a container of its own: podkit beside the other tools of this machine, in turn, in one run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use super::{Bench, Rounds, Times, assert_hardened, first_byte, pause, plot, sorted};

/// Debian, as `scripts/engines.sh` makes it.
const IMAGE: &str = "podkit-test/debian:1";

/// The settings with which `scripts/engines.sh` starts Podman.
const PODMAN_SETTINGS: &str = "/run/podkit-test/containers.conf";

/// What the OCI runtimes run: about what podkit's containers have, without an overlay and ids of their own.
const BUNDLE: &str = r#"{
"ociVersion": "1.0.2",
"root": {"path": "rootfs", "readonly": true},
"process": {"terminal": false, "user": {"uid": 0, "gid": 0}, "args": ["/first"], "cwd": "/",
  "env": ["PATH=/bin"], "noNewPrivileges": true},
"mounts": [
  {"destination": "/proc", "type": "proc", "source": "proc"},
  {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
  {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance"]},
  {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev"]},
  {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
  {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]}],
"linux": {
  "resources": {"memory": {"limit": 536870912}, "pids": {"limit": 512}},
  "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
  "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
  "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]}}
"#;

/// A tool that runs one command in a container of its own.
struct Tool {
    name: &'static str,
    /// Makes the command of a round.
    command: Box<dyn Fn(usize) -> Command + Send + Sync>,
}

/// The tools that work here; the others are named.
fn tools(bench: &Bench, cli: &Path) -> Vec<Tool> {
    let directory = bench.directory.path();
    let bundle = directory.join("bundle");
    fs::create_dir_all(bundle.join("rootfs")).unwrap();
    for place in ["proc", "dev", "sys"] {
        fs::create_dir_all(bundle.join("rootfs").join(place)).unwrap();
    }
    fs::copy(bench.program(), bundle.join("rootfs/first")).unwrap();
    fs::write(bundle.join("config.json"), BUNDLE).unwrap();
    let all = [
        podkit_run(bench, cli),
        tool("bwrap", bwrap(&bench.program())),
        tool("crun run", oci("crun", &bundle)),
        tool("runc run", oci("runc", &bundle)),
        tool("docker run", engine("docker")),
        tool("podman run", engine("podman")),
    ];
    let works = |tool: &Tool| {
        let output = (tool.command)(usize::MAX).output();
        let works = output.as_ref().is_ok_and(|output| output.stdout == b"x");
        if !works {
            println!("{} does not run here: {output:?}\n", tool.name);
        }
        works
    };
    all.into_iter().filter(works).collect()
}

fn tool(name: &'static str, command: impl Fn(usize) -> Command + Send + Sync + 'static) -> Tool {
    Tool {
        name,
        command: Box::new(command),
    }
}

fn podkit_run(bench: &Bench, cli: &Path) -> Tool {
    let (cli, program) = (cli.to_owned(), bench.directory.path().join("bin"));
    let state = bench.directory.path().join("state");
    tool("podkit run", move |_| {
        let mut command = Command::new(&cli);
        command.args(["--backend", "embedded", "--state-dir"]);
        command
            .arg(&state)
            .args(["run", "--network", "none", "--mount"]);
        command.arg(format!("{}:/bench:ro", program.display()));
        command.args(["host", "--", "/bench/first"]);
        command
    })
}

fn bwrap(program: &Path) -> impl Fn(usize) -> Command + Send + Sync + 'static {
    let program = program.to_owned();
    move |_| {
        let mut command = Command::new("bwrap");
        command.args(["--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc"]);
        command.args(["--dev", "/dev"]).arg(&program);
        command
    }
}

/// An OCI runtime. On a machine with both versions of cgroups crun refuses, so it runs where version 2 is not seen.
fn oci(name: &'static str, bundle: &Path) -> impl Fn(usize) -> Command + Send + Sync + 'static {
    let bundle: PathBuf = bundle.to_owned();
    let hybrid = name == "crun" && Path::new("/sys/fs/cgroup/unified").exists();
    move |round| {
        let mut command = Command::new(if hybrid { "unshare" } else { name });
        if hybrid {
            command.args(["--mount", "sh", "-c"]);
            command.arg("umount /sys/fs/cgroup/unified && exec crun \"$@\"");
            command.arg("crun");
        }
        command.arg("run").arg("--bundle").arg(&bundle);
        command.arg(format!(
            "podkit-bench-{name}-{}-{round}",
            std::process::id()
        ));
        command
    }
}

fn engine(name: &'static str) -> impl Fn(usize) -> Command + Send + Sync + 'static {
    move |_| {
        let mut command = Command::new(name);
        command.env("CONTAINERS_CONF", PODMAN_SETTINGS);
        command.args(["run", "--rm", "--network", "none", IMAGE, "printf", "x"]);
        command
    }
}

fn time(mut command: Command) -> Duration {
    let start = Instant::now();
    let output = command.output().unwrap();
    let elapsed = start.elapsed();
    assert_eq!(output.stdout, b"x", "{command:?}: {output:?}");
    elapsed
}

/// Prints the table; the medians without pauses become the plot.
pub(super) async fn table(bench: &Bench, cli: &Path, rounds: &[Rounds]) -> Vec<plot::Bar> {
    let tools = tools(bench, cli);
    println!(
        "\n| one command in a container of its own | pauses | n | ms: p50 / p99 | podkit's opening to it |"
    );
    println!("| --- | --- | --- | --- | --- |");
    let mut bars = Vec::new();
    for &rounds in rounds {
        let (mut open, mut whole) = (Vec::new(), Vec::new());
        let mut others: Vec<Vec<Duration>> = tools.iter().map(|_| Vec::new()).collect();
        for round in 0..rounds.count {
            pause(rounds).await;
            let start = Instant::now();
            let session = bench.open(&format!("beside-{round}")).await;
            open.push(first_byte(&session).await - start);
            let before_checks = start.elapsed();
            assert_hardened(&session).await;
            let closing = Instant::now();
            session.close().await.unwrap();
            whole.push(before_checks + closing.elapsed());
            for (tool, times) in tools.iter().zip(&mut others) {
                pause(rounds).await;
                times.push(time((tool.command)(round)));
            }
        }
        let names = tools.iter().map(|tool| tool.name);
        let all = [
            ("podkit, open to the first byte", open),
            ("podkit, open, exec, close", whole),
        ];
        let all = all.into_iter().chain(names.zip(others));
        let all: Vec<(&str, Times)> = all.map(|(name, times)| (name, sorted(times))).collect();
        let ours = all[0].1.percentile(50);
        for (name, times) in &all {
            let (median, p99) = (times.percentile(50), times.percentile(99));
            let pauses = rounds.pauses();
            let ratio = median / ours;
            println!(
                "| {name} | {pauses} | {} | {median:.2} / {p99:.2} | {ratio:.1} × |",
                rounds.count
            );
        }
        if rounds.pause.is_zero() {
            let bar = |(name, times): (&str, Times)| plot::Bar {
                name: name.to_owned(),
                value: times.percentile(50),
            };
            bars = all.into_iter().map(bar).collect();
        }
    }
    bars
}
