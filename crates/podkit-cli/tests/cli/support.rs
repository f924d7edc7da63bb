//! The real binary, with a home and an engine state of its own for each test.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// A private home; what is left in it is removed with it.
pub(crate) struct Home {
    directory: tempfile::TempDir,
}

/// How a run of podkit ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Home {
    pub(crate) fn new() -> Self {
        // Below /var/tmp: the engine's layers cannot always lie on a tmpfs.
        Self {
            directory: tempfile::Builder::new()
                .prefix("podkit-cli.")
                .tempdir_in("/var/tmp")
                .unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Podkit with these words and an environment that holds nothing else.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_podkit"));
        command
            .args(words)
            .env_clear()
            .env("HOME", self.directory.path())
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("PODKIT_STATE_DIR", self.path("state"))
            .env("PODKIT_RUN_DIR", self.path("run"))
            .env("PODKIT_USER", "me")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, words: &[&str]) -> Ran {
        self.command(words).output().unwrap().into()
    }

    /// Runs podkit with these bytes as its input.
    pub(crate) fn run_with(&self, words: &[&str], input: &[u8]) -> Ran {
        let mut child = self
            .command(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        // A command that does not read its input ends this with a broken pipe.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        output.into()
    }

    /// Runs podkit and expects code 0.
    pub(crate) fn ok(&self, words: &[&str]) -> String {
        let ran = self.run(words);
        assert_eq!(ran.code, 0, "{words:?}: {}", ran.stderr);
        ran.text()
    }

    pub(crate) fn json(&self, words: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.ok(words)).unwrap()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if !self.path("state").exists() {
            return;
        }
        let list = self.run(&["ls", "-q", "-a"]).text();
        for session in list.lines() {
            let closed = self.run(&["close", session]);
            if closed.code != 0 && !std::thread::panicking() {
                panic!("{session} is left: {}", closed.stderr);
            }
        }
    }
}

impl Ran {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).unwrap()
    }

    /// The error of a run with `--json`.
    pub(crate) fn error(&self) -> serde_json::Value {
        let value: serde_json::Value = serde_json::from_str(&self.stderr).expect(&self.stderr);
        value["error"].clone()
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        // A signal that ends podkit itself is shown as a negative number.
        let code = output
            .status
            .code()
            .unwrap_or_else(|| -output.status.signal().unwrap());
        Self {
            code,
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Sends a signal to podkit itself, and to nothing else.
pub(crate) fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Waits until a condition holds.
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "waited in vain: {what}"
        );
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Reads until the text appears.
pub(crate) fn read_until(source: &mut impl io::Read, text: &str) {
    let (mut seen, mut byte) = (Vec::new(), [0]);
    while !seen.ends_with(text.as_bytes()) {
        assert_eq!(
            source.read(&mut byte).unwrap(),
            1,
            "{:?}",
            String::from_utf8_lossy(&seen)
        );
        seen.extend(byte);
    }
}
