//! Clients in processes of their own: the test program, started again with `worker` as its first
//! argument, takes commands line by line and answers each with one line.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use podkit::{GcOptions, Outcome, Podkit, conformance::DEEDS};

use super::{block_on, try_podkit_at};

/// A client process, as the test sees it. It is killed when this value is dropped.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts a client whose engine keeps its state below `place`.
    pub fn start(place: &Path) -> Self {
        Self::try_start(place).unwrap_or_else(|answer| panic!("the client said {answer:?}"))
    }

    /// Starts a client that may fail to reach its engine; then its answer is returned.
    pub fn try_start(place: &Path) -> Result<Self, String> {
        let program = std::env::current_exe().unwrap();
        Self::spawn(Command::new(program).arg("worker").arg(place))
    }

    /// Starts a client in namespaces of its own, as `unshare` makes them, after a shell text has
    /// changed them. It may fail to reach its engine; then its answer is returned.
    pub fn try_start_in(place: &Path, namespaces: &[&str], setup: &str) -> Result<Self, String> {
        let script = format!("set -e; {setup}; exec \"$@\"");
        let mut command = Command::new("unshare");
        command
            .args(namespaces)
            .args(["sh", "-c", &script, "sh"])
            .arg(std::env::current_exe().unwrap())
            .arg("worker")
            .arg(place);
        Self::spawn(&mut command)
    }

    /// Starts a client by a command that runs the words after its own. It may fail to reach its engine;
    /// then its answer is returned.
    pub fn try_start_by(place: &Path, command: &mut Command) -> Result<Self, String> {
        let program = std::env::current_exe().unwrap();
        Self::spawn(command.arg(program).arg("worker").arg(place))
    }

    fn spawn(command: &mut Command) -> Result<Self, String> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut worker = Self {
            child,
            input,
            output: BufReader::new(output),
        };
        match worker.answer().as_str() {
            "ready" => Ok(worker),
            answer => Err(answer.to_owned()),
        }
    }

    /// Sends a command.
    pub fn tell(&mut self, command: &str) {
        writeln!(self.input, "{command}").unwrap();
    }

    /// Waits for the answer to a command; empty when the worker is dead.
    pub fn answer(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Sends a command and waits for its answer.
    pub fn ask(&mut self, command: &str) -> String {
        self.tell(command);
        self.answer()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it as the kernel would, and waits for its end.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end, and tells the signal that killed it.
    pub fn wait_for_signal(&mut self) -> Option<i32> {
        use std::os::unix::process::ExitStatusExt;
        self.child.wait().unwrap().signal()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An instant a little ahead, as an argument: the barrier that all workers start from.
pub fn soon() -> u128 {
    (SystemTime::now() + Duration::from_millis(4))
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_nanos()
}

/// Works as a client when the program was started as one.
pub fn main_if_asked(extra: fn(&Path, &[&str]) -> Option<String>) -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != "worker" {
        return None;
    }
    let place = PathBuf::from(arguments.next()?);
    block_on(serve(&place, extra));
    Some(ExitCode::SUCCESS)
}

#[expect(clippy::future_not_send, reason = "it is the one task of its process")]
async fn serve(place: &Path, extra: fn(&Path, &[&str]) -> Option<String>) {
    let podkit = match try_podkit_at(place).await {
        Ok(podkit) => podkit,
        Err(error) => return say(&tell(Err(error))),
    };
    say("ready");
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match words.as_slice() {
            ["open", session, at] => tell(open(&podkit, session, at).await),
            ["echo", session, count] => tell(echo(&podkit, session, count.parse().unwrap()).await),
            ["do", deed, session] => tell(begin(&podkit, place, session, deed).await),
            ["close", session, at] => {
                wait_until(at);
                tell(
                    podkit
                        .close_by_name(session)
                        .await
                        .map(|report| format!("{:?}", report.existed)),
                )
            }
            ["gc", at] => {
                wait_until(at);
                let options = GcOptions::new().with_idle(Duration::from_secs(600));
                tell(
                    podkit
                        .gc(options)
                        .await
                        .map(|report| format!("{}", report.failed.len())),
                )
            }
            words => match extra(place, words) {
                Some(answer) => answer,
                None => panic!("no such command: {line}"),
            },
        };
        say(&answer);
    }
}

/// Shorter ways to sessions of the one test user.
trait ByName {
    async fn close_by_name(&self, session: &str) -> podkit::Result<podkit::CloseReport>;
}

impl ByName for Podkit {
    async fn close_by_name(&self, session: &str) -> podkit::Result<podkit::CloseReport> {
        self.close(&podkit::SessionKey::new("u", session)?).await
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

/// A result as one line: `ok …` or `error KIND …`.
pub fn tell(result: podkit::Result<String>) -> String {
    match result {
        Ok(text) => format!("ok {text}"),
        Err(error) => format!("error {} {error:?}", error.kind()).replace('\n', " "),
    }
}

/// All workers leave this at the same time.
fn wait_until(nanoseconds: &str) {
    let at = UNIX_EPOCH + Duration::from_nanos(nanoseconds.parse().unwrap());
    while SystemTime::now() < at {
        std::hint::spin_loop();
    }
}

/// Sends so many bytes through a command of a session and back.
async fn echo(podkit: &Podkit, name: &str, count: usize) -> podkit::Result<String> {
    let session = podkit.session("u", name).await?;
    let bytes = vec![b'x'; count];
    let output = session.exec(["cat"]).stdin(bytes.clone()).await?;
    assert!(output.stdout == bytes, "{} bytes", output.stdout.len());
    Ok(String::new())
}

/// Begins something in a session that goes on until something ends it.
async fn begin(podkit: &Podkit, place: &Path, name: &str, deed: &str) -> podkit::Result<String> {
    let session = podkit.session("u", name).await?;
    let deed = DEEDS.iter().find(|one| one.name == deed).unwrap();
    super::spawn(deed.begin(&session, place).await?);
    Ok(String::new())
}

/// Opens a session, runs a command in it and returns its boot token. A command that another
/// process ended by closing the session is run again.
async fn open(podkit: &Podkit, name: &str, at: &str) -> podkit::Result<String> {
    wait_until(at);
    let session = podkit.session("u", name).await?;
    for _ in 0..8 {
        let output = session.exec(["echo", "hi"]).await?;
        match output.outcome {
            Outcome::SessionClosed => continue,
            outcome => assert_eq!(outcome, Outcome::Exited(0)),
        }
        assert_eq!(output.stdout, b"hi\n");
        let token = session.boot_token().await?;
        return Ok(token.iter().map(|byte| format!("{byte:02x}")).collect());
    }
    panic!("the session was closed eight times");
}
