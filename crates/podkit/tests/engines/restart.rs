//! An engine that is killed and started again in the middle of a session: one of the test's own.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use podkit::{
    ContainerState, ErrorKind, EventKind, HealthOptions, Network, Podkit, PodkitBuilder,
    SessionSpec, Symptom,
};

use super::{
    Engine, prefix_of, run,
    support::{options_at, wait_for},
    tests,
};

tests![
    engine_killed_and_started_again_keeps_its_sessions,
    engine_killed_and_started_again_under_a_monitor_has_its_sessions_back,
];

const IMAGE: &str = "podkit-test/static:1";

/// A second daemon, with everything below a directory of its own.
struct Daemon {
    directory: PathBuf,
    name: &'static str,
    child: Child,
}

impl Daemon {
    fn start(directory: &Path, name: &'static str) -> Self {
        let child = Self::spawn(directory, name);
        let daemon = Self {
            directory: directory.to_owned(),
            name,
            child,
        };
        daemon.wait();
        daemon
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("engine.sock")
    }

    fn spawn(directory: &Path, name: &str) -> Child {
        let at = |part: &str| directory.join(part).display().to_string();
        let socket = format!("unix://{}", at("engine.sock"));
        // In a network of its own: a daemon without a bridge takes the machine's away.
        let mut command = Command::new(if name == "docker" {
            "unshare"
        } else {
            "podman"
        });
        if name == "docker" {
            command
                .args([
                    "--net",
                    "dockerd",
                    "-H",
                    &socket,
                    "--data-root",
                    &at("data"),
                    "--exec-root",
                    &at("exec"),
                ])
                .args(["--pidfile", &at("pid"), "--bridge=none", "--iptables=false"]);
        } else {
            command.args(["system", "service", "-t", "0", &socket]);
            command.env("CONTAINERS_CONF", super::PODMAN_SETTINGS);
        }
        let log = File::create(directory.join("log")).unwrap();
        command
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    fn wait(&self) {
        wait_for(Duration::from_secs(60), || {
            let socket = self.socket().display().to_string();
            let output = Command::new("curl")
                .args(["-sf", "--unix-socket", &socket, "http://engine/_ping"])
                .output()
                .unwrap();
            if output.status.success() {
                return Ok(());
            }
            let log = std::fs::read_to_string(self.directory.join("log")).unwrap_or_default();
            Err(log.lines().rev().take(5).collect::<Vec<_>>().join("\n"))
        });
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn start_again(&mut self) {
        // What it has left stands in its own way: it takes a number that nobody reaped for a process.
        for part in ["pid", "engine.sock", "exec/containerd/containerd.pid"] {
            let _ = std::fs::remove_file(self.directory.join(part));
        }
        self.child = Self::spawn(&self.directory, self.name);
        self.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").arg(&pid).status();
        let ended = wait_for(Duration::from_secs(30), || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            _ => Err("it does not end".to_owned()),
        });
        let _ = ended;
        // Its containerd goes on a moment longer.
        let text = self.directory.display().to_string();
        let _ = Command::new("pkill").args(["-f", &text]).status();
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for line in mounts.lines().rev() {
            let target = line.split(' ').nth(1).unwrap_or_default();
            if target.starts_with(&text) {
                let _ = Command::new("umount").args(["-l", target]).status();
            }
        }
    }
}

/// A daemon of the test's own with the image, and a podkit on it that is to be put together further.
fn own_daemon(engine: &Engine) -> (Daemon, PodkitBuilder) {
    let directory = engine.place.path().join("daemon");
    std::fs::create_dir(&directory).unwrap();
    let daemon = Daemon::start(&directory, engine.name);
    let url = format!("unix://{}", daemon.socket().display());
    if engine.name == "docker" {
        let script = format!("docker save {IMAGE} | docker -H {url} load");
        let status = Command::new("sh")
            .args(["-c", &script])
            .stdout(Stdio::null())
            .status();
        assert!(status.unwrap().success());
    }
    let builder = Podkit::builder()
        .backend(&url)
        .prefix(prefix_of(engine.place.path()))
        .connect_options(options_at(engine.place.path()))
        .default_spec(SessionSpec::new().image(IMAGE).network(Network::None));
    (daemon, builder)
}

fn engine_killed_and_started_again_keeps_its_sessions(engine: &Engine) {
    let (mut daemon, builder) = own_daemon(engine);
    run(async {
        let podkit = builder.build().await.unwrap();
        let session = podkit.session("u", "a").await.unwrap();
        session.files().write("/workspace/x", "kept").await.unwrap();
        daemon.kill();
        // Commands need no engine.
        let out = session.exec(["/busybox", "echo", "hi"]).await.unwrap();
        assert_eq!(out.stdout, b"hi\n");
        let error = podkit.list().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        let error = podkit.session("u", "b").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        daemon.start_again();
        // Whether the engine has ended its containers or not.
        let content = session.files().read("/workspace/x").await.unwrap();
        assert_eq!(content, b"kept");
        let out = session.exec(["/busybox", "echo", "hi"]).await.unwrap();
        assert_eq!(out.stdout, b"hi\n");
        assert_eq!(podkit.list().await.unwrap().len(), 1);
        session.close().await.unwrap();
        assert!(podkit.list().await.unwrap().is_empty());
        podkit.shutdown().await;
    });
}

/// Whether the engine ends its containers with itself (Docker does, as it starts again) or not
/// (Podman): they run again without anybody asking, and what happened is told once.
fn engine_killed_and_started_again_under_a_monitor_has_its_sessions_back(engine: &Engine) {
    let (mut daemon, builder) = own_daemon(engine);
    run(async {
        let health = HealthOptions::new()
            .interval(Duration::from_millis(200))
            .probe_deadline(Duration::from_secs(2));
        let podkit = builder.health(health).build().await.unwrap();
        let session = podkit.session("u", "a").await.unwrap();
        session.files().write("/workspace/x", "kept").await.unwrap();
        let token = session.boot_token().await.unwrap();
        let mut events = podkit.events();
        daemon.kill();
        daemon.start_again();
        if engine.name == "docker" {
            let told = async {
                loop {
                    match events.next().await.unwrap().kind {
                        EventKind::HealthCheckFailed(illness) => {
                            assert_eq!(illness.symptom, Symptom::Died);
                        }
                        EventKind::Recovered(_) => break,
                        _ => {}
                    }
                }
            };
            let limit = Duration::from_secs(60);
            tokio::time::timeout(limit, told).await.unwrap();
        }
        let info = podkit.inspect(session.key()).await.unwrap();
        assert_eq!(info.state, ContainerState::Running);
        let content = session.files().read("/workspace/x").await.unwrap();
        assert_eq!(content, b"kept");
        let same = session.boot_token().await.unwrap() == token;
        assert_eq!(same, engine.name != "docker");
        session.close().await.unwrap();
        let more = async {
            while let Some(event) = events.next().await {
                let kind = event.kind;
                assert!(!matches!(kind, EventKind::HealthCheckFailed(_)), "{kind:?}");
                if kind == EventKind::SessionClosed {
                    break;
                }
            }
        };
        let limit = Duration::from_secs(60);
        tokio::time::timeout(limit, more).await.unwrap();
        podkit.shutdown().await;
    });
}
