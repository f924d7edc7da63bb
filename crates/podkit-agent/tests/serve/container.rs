//! One agent as PID 1, seen from the host.

use std::{
    fs,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::client::Client;

/// Longest that anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// One agent as PID 1 of its own namespaces. Its end is the end of all that is in them.
pub(crate) struct Container {
    unshare: Child,
    /// PID 1, as the host numbers it; 0 when it had ended before it could be seen.
    pub(crate) init: u32,
    place: PathBuf,
}

/// What is around an agent when it starts.
pub(crate) struct Around<'a> {
    /// Its standard output.
    pub(crate) output: Stdio,
    /// Its working directory.
    pub(crate) cwd: &'a str,
    /// What executes it.
    pub(crate) wrapper: &'a [&'a str],
}

impl Default for Around<'_> {
    fn default() -> Self {
        Self {
            output: Stdio::inherit(),
            cwd: "/",
            wrapper: &[],
        }
    }
}

/// All that a container's log says until it ends.
pub(crate) fn read_to_end(mut log: ChildStdout) -> Vec<u8> {
    let (sender, all) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = log.read_to_end(&mut bytes).map(|_| bytes);
        // Nobody waits any more when the test has failed.
        let _ = sender.send(read);
    });
    let all = all.recv_timeout(PATIENCE).expect("the log did not end");
    all.unwrap()
}

/// Waits until something is there.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{what} did not come");
        thread::yield_now();
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn new_place() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    // A run that was killed may have left one of this number.
    let name = format!(
        "podkit-serve-{}-{number}-{}",
        std::process::id(),
        now.as_nanos()
    );
    let place = Path::new("/var/tmp").join(name);
    fs::create_dir(&place).unwrap();
    // Another process writes it: a file that this one has open cannot be executed.
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("prebuilt/podkit-agent-x86_64");
    let mut install = Command::new("install");
    install
        .args(["-m", "755"])
        .arg(shipped)
        .arg(place.join("agent"));
    assert!(install.status().unwrap().success());
    place
}

/// `podkit-agent init` in new namespaces, in an environment of `PATH` and `BASE=1`.
fn init_command(place: &Path, wrapper: &[&str], arguments: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    if !is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command
        .args([
            "--pid",
            "--fork",
            "--mount",
            "--mount-proc",
            "--net",
            "--kill-child=KILL",
            "--",
        ])
        .args(wrapper)
        .arg(place.join("agent"))
        .arg("init")
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("BASE", "1");
    command
}

fn arguments_of(pid: u32) -> Vec<String> {
    let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = text
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty());
    words
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect()
}

impl Container {
    /// Starts an agent with these arguments, in an environment of `PATH` and `BASE=1`.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_writing(arguments, Stdio::inherit())
    }

    /// As [`start`](Self::start), with this for its standard output.
    pub(crate) fn start_writing(arguments: &[&str], output: Stdio) -> Self {
        let around = Around {
            output,
            ..Around::default()
        };
        Self::start_in(arguments, around)
    }

    /// As [`start`](Self::start), with other things around the agent.
    pub(crate) fn start_in(arguments: &[&str], around: Around<'_>) -> Self {
        let place = new_place();
        let mut command = init_command(&place, around.wrapper, arguments);
        command
            .current_dir(around.cwd)
            // Not what a command should get.
            .stdin(Stdio::piped())
            .stdout(around.output);
        let mut unshare = command.spawn().unwrap();
        let children = format!("/proc/{0}/task/{0}/children", unshare.id());
        let init = wait_for("PID 1", || {
            let is_over = unshare.try_wait().unwrap().is_some();
            let text = fs::read_to_string(&children).unwrap_or_default();
            let pid = text
                .split_whitespace()
                .next()
                .and_then(|word| word.parse().ok());
            pid.filter(|pid| arguments_of(*pid).get(1).is_some_and(|word| word == "init"))
                .or(is_over.then_some(0))
        });
        Self {
            unshare,
            init,
            place,
        }
    }

    /// What an agent says that does not serve with these arguments.
    pub(crate) fn refused(arguments: &[&str]) -> Output {
        let place = new_place();
        // One that serves all the same ends soon.
        let arguments = [&["--max-lifetime", "5000"], arguments].concat();
        let output = init_command(&place, &[], &arguments).output().unwrap();
        fs::remove_dir_all(place).unwrap();
        output
    }

    /// What PID 1 writes, where it was given a pipe.
    pub(crate) fn log(&mut self) -> ChildStdout {
        self.unshare.stdout.take().unwrap()
    }

    /// Path of the agent's binary, inside and outside.
    pub(crate) fn agent(&self) -> String {
        self.place.join("agent").to_str().unwrap().to_owned()
    }

    /// A way in that has not greeted.
    pub(crate) fn dial(&self) -> Client {
        wait_for("the agent's socket", || {
            let sockets = fs::read_to_string(format!("/proc/{}/net/unix", self.init)).ok()?;
            sockets.contains("@podkit-agent").then_some(())
        });
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.init.to_string());
        if !is_root() {
            command.args(["--user", "--preserve-credentials"]);
        }
        command
            .args(["--pid", "--mount", "--net", "--"])
            .arg(self.agent())
            .arg("connect");
        Client::new(command)
    }

    /// A client that has greeted.
    pub(crate) fn client(&self) -> Client {
        let mut client = self.dial();
        client.greet();
        client
    }

    /// Numbers and arguments of what is inside, beside PID 1 and the clients' ways in.
    pub(crate) fn processes(&self) -> Vec<(u32, Vec<String>)> {
        let namespace = |pid: u32| {
            fs::metadata(format!("/proc/{pid}/ns/pid"))
                .ok()
                .map(|it| it.ino())
        };
        let own = namespace(self.init);
        let all = fs::read_dir("/proc").unwrap();
        all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid| *pid != self.init && own.is_some() && namespace(*pid) == own)
            .map(|pid| (pid, arguments_of(pid)))
            .filter(|(_, arguments)| arguments.get(1).is_none_or(|word| word != "connect"))
            .collect()
    }

    /// Waits until a program with this argument runs.
    pub(crate) fn wait_for_argument(&self, argument: &str) -> u32 {
        wait_for(argument, || {
            let all = self.processes();
            let found = all
                .iter()
                .find(|(_, words)| words.iter().any(|word| word == argument));
            found.map(|(pid, _)| *pid)
        })
    }

    /// Waits until nothing is left inside.
    pub(crate) fn wait_until_empty(&self) {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "still there: {left:?}");
            thread::yield_now();
        }
    }

    /// A number in PID 1's `/proc` file, in KiB.
    pub(crate) fn kilobytes(&self, file: &str, name: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/{file}", self.init)).unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Processor time that PID 1 has used.
    pub(crate) fn processor_time(&self) -> Duration {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.init)).unwrap();
        let (_, rest) = text.rsplit_once(')').unwrap();
        let ticks = rest.split_whitespace().skip(11).take(2);
        // Linux tells hundredths of a second on every machine.
        ticks
            .map(|word| Duration::from_millis(10 * word.parse::<u64>().unwrap()))
            .sum()
    }

    /// Sends PID 1 a signal from the host.
    pub(crate) fn signal(&self, name: &str) {
        // That would be this process and its group.
        assert_ne!(self.init, 0, "PID 1 has ended");
        let status = Command::new("kill")
            .arg(name)
            .arg(self.init.to_string())
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Waits until the container has ended by itself.
    pub(crate) fn end(&mut self) -> ExitStatus {
        wait_for("the container's end", || self.unshare.try_wait().unwrap())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
        let _ = fs::remove_dir_all(&self.place);
    }
}
