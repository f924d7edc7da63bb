//! What is done with one session.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use podkit::{ErrorKind, Exec, ExecOutput, Opened, Outcome, Podkit, Session};
use tokio::sync::{Semaphore, mpsc, watch};

use super::{COMMAND, FILES, Order, Phase, key, spec};
use crate::{random, random::Random, say};

/// One session's task.
pub(super) struct Worker {
    pub(super) podkit: Podkit,
    pub(super) order: Order,
    pub(super) session: usize,
    pub(super) handle: Option<Session>,
    pub(super) sequence: u64,
    pub(super) random: Random,
    pub(super) operations: Arc<AtomicU64>,
    pub(super) heavy: Arc<Semaphore>,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) arrive: mpsc::Sender<()>,
}

impl Worker {
    pub(super) async fn run(mut self) {
        loop {
            let phase = *self.phase.borrow_and_update();
            match phase {
                Phase::Work => {
                    self.step().await;
                    let pause = match self.random.below(20) {
                        // Long enough for some containers to stop by themselves.
                        0 if self.session % 4 == 3 => 18_000,
                        0 => 5_000,
                        _ => 100 + self.random.below(1900),
                    };
                    let pause = tokio::time::sleep(Duration::from_millis(pause));
                    tokio::select! {
                        () = pause => {}
                        _ = self.phase.changed() => {}
                    }
                }
                Phase::Gather | Phase::Touch => {
                    if phase == Phase::Touch {
                        self.touch().await;
                    }
                    if self.arrive.send(()).await.is_err() || self.phase.changed().await.is_err() {
                        return;
                    }
                }
                Phase::Finish => return self.finish().await,
            }
        }
    }

    async fn step(&mut self) {
        let Some(handle) = self.opened().await else {
            return;
        };
        match self.random.below(100) {
            0..35 => self.write(&handle).await,
            35..60 => {
                let path = self.path();
                self.read(&handle, path).await;
            }
            60..76 => self.echo(&handle).await,
            76..84 => self.overrun(&handle).await,
            84..92 => self.side_by_side(&handle).await,
            92..96 => self.close().await,
            _ => self.handle = None,
        }
        if let Some(handle) = &self.handle
            && handle.opened() == Opened::Recovered
        {
            say(&format!("recovered {}", self.session));
            // The next handle starts with a clean slate.
            self.handle = None;
        }
    }

    /// Says that something begins, does it, and says how it ended.
    async fn operation(
        &self,
        what: &str,
        limit: Duration,
        body: impl Future<Output = podkit::Result<String>>,
    ) -> bool {
        let id = self.operations.fetch_add(1, Ordering::Relaxed);
        let session = self.session;
        say(&format!(
            "begin {id} {session} {} {what}",
            limit.as_millis()
        ));
        let begun = Instant::now();
        let ending = match body.await {
            Ok(text) => text,
            Err(error) => {
                let mut text = format!("error {} {error}", error.kind());
                let mut source = std::error::Error::source(&error);
                while let Some(cause) = source {
                    text = format!("{text}: {cause}");
                    source = cause.source();
                }
                text.replace('\n', " ").chars().take(1000).collect()
            }
        };
        say(&format!(
            "end {id} {} {ending}",
            begun.elapsed().as_millis()
        ));
        !ending.starts_with("error")
    }

    async fn opened(&mut self) -> Option<Session> {
        if self.handle.is_none() {
            let Ok(_turn) = Arc::clone(&self.heavy).acquire_owned().await else {
                return None;
            };
            let mut handle = None;
            let open = async {
                let key = key(self.session)?;
                let spec = spec(&self.order, self.session);
                let opened = self.podkit.open(&key).spec(spec).await?;
                let how = format!("opened {}", opened.opened().as_str());
                handle = Some(opened);
                Ok(how)
            };
            self.operation("open", COMMAND, open).await;
            self.handle = handle;
        }
        self.handle.clone()
    }

    async fn close(&mut self) {
        self.handle = None;
        let Ok(_turn) = Arc::clone(&self.heavy).acquire_owned().await else {
            return;
        };
        let close = async {
            let report = self.podkit.close(&key(self.session)?).await?;
            match report.failed.into_iter().next() {
                Some(error) => Err(error),
                None => Ok("ok".to_owned()),
            }
        };
        self.operation("close", COMMAND, close).await;
    }

    /// Sees that the session is there: commands of clients that are dead end meanwhile.
    async fn touch(&mut self) {
        if let Some(handle) = self.opened().await {
            let touch = async {
                let output = self.command(handle.exec(["true"])).await?;
                Ok(expect(&output, Outcome::Exited(0), b""))
            };
            self.operation("touch", COMMAND, touch).await;
        }
    }

    async fn finish(mut self) {
        if let Some(handle) = self.opened().await {
            for path in FILES {
                self.read(&handle, path).await;
            }
        }
        self.close().await;
    }

    fn path(&mut self) -> &'static str {
        let index = usize::try_from(self.random.below(FILES.len() as u64)).unwrap_or_default();
        FILES.get(index).copied().unwrap_or("/tmp/a")
    }

    /// Commands carry a mark, by which they are found on the host.
    async fn command(&self, exec: Exec) -> podkit::Result<ExecOutput> {
        exec.env("SOAK", &self.order.prefix).await
    }

    async fn write(&mut self, handle: &Session) {
        let path = self.path();
        let length = match self.random.below(20) {
            0 => self.random.below(300_000),
            _ => self.random.below(2_000),
        };
        self.sequence += 1;
        let bytes = random::contents(self.session, path, self.sequence, length);
        let what = format!("write {path} {} {}", self.sequence, random::hash(&bytes));
        let through_shell = self.random.below(5) < 2;
        let pause = pause(&mut self.random);
        let write = async {
            if !through_shell {
                handle.files().write(path, bytes).await?;
                return Ok("ok".to_owned());
            }
            // A name of its own: another one may be left of a client that was killed.
            let own = self.sequence;
            let script =
                format!("mkdir -p ${{0%/*}} && cat > $0.{own} && sleep {pause} && mv $0.{own} $0");
            let exec = handle.exec(["/bin/sh", "-c", &script, path]).stdin(bytes);
            let output = self.command(exec.timeout(COMMAND)).await?;
            Ok(expect(&output, Outcome::Exited(0), b""))
        };
        self.operation(&what, COMMAND, write).await;
    }

    async fn read(&mut self, handle: &Session, path: &str) {
        let through_shell = self.random.below(5) < 2;
        let found = |bytes: &[u8]| {
            let head = bytes
                .split(|&byte| byte == b'\n')
                .next()
                .unwrap_or_default();
            let head: String = String::from_utf8_lossy(head).chars().take(80).collect();
            format!("read {} {} {head:?}", random::hash(bytes), bytes.len())
        };
        let read = async {
            if !through_shell {
                return match handle.files().read(path).await {
                    Ok(bytes) => Ok(found(&bytes)),
                    Err(error) if error.kind() == ErrorKind::NotFound => Ok("missing".to_owned()),
                    Err(error) => Err(error),
                };
            }
            let exec = handle.exec(["cat", path]).timeout(COMMAND);
            let output = self.command(exec).await?;
            let missing = output.stderr_text().contains("No such file");
            Ok(match output.outcome {
                Outcome::Exited(0) => found(&output.stdout),
                Outcome::Exited(1) if missing => "missing".to_owned(),
                _ => expect(&output, Outcome::Exited(0), b""),
            })
        };
        self.operation(&format!("read {path}"), COMMAND, read).await;
    }

    /// A command whose output and code are known.
    async fn echo(&mut self, handle: &Session) {
        let (code, number) = (self.random.below(100), self.random.next());
        let code = u8::try_from(code).unwrap_or_default();
        let script = format!("cat; sleep {}; exit {code}", pause(&mut self.random));
        let length = usize::try_from(number % 4000).unwrap_or_default();
        let input = format!("{number:0length$}");
        let echo = async {
            let exec = handle.shell(script).stdin(input.clone()).timeout(COMMAND);
            let output = self.command(exec).await?;
            Ok(expect(&output, Outcome::Exited(code), input.as_bytes()))
        };
        self.operation("echo", COMMAND, echo).await;
    }

    /// A command that runs out of time, with processes in the background.
    async fn overrun(&mut self, handle: &Session) {
        let timeout = Duration::from_millis(100 + self.random.below(1500));
        let overrun = async {
            let script = "sleep 1000 & (trap '' TERM; sleep 1000; sleep 1000) & wait; sleep 1000";
            let output = self.command(handle.shell(script).timeout(timeout)).await?;
            Ok(expect(&output, Outcome::TimedOut, b""))
        };
        self.operation("overrun", timeout, overrun).await;
    }

    /// Two commands at once.
    async fn side_by_side(&mut self, handle: &Session) {
        let one = |number: u64| {
            let (this, exec) = (&*self, handle.exec(["echo".to_owned(), number.to_string()]));
            let echo = async move {
                let output = this.command(exec.timeout(COMMAND)).await?;
                let line = format!("{number}\n");
                Ok(expect(&output, Outcome::Exited(0), line.as_bytes()))
            };
            async move { this.operation("echo", COMMAND, echo).await }
        };
        futures::future::join(one(1), one(2)).await;
    }
}

/// How long a command takes, in seconds: mostly no time.
fn pause(random: &mut Random) -> String {
    let long = random.below(4) == 0;
    format!(
        "{}.{}",
        if long { random.below(4) } else { 0 },
        if long { random.below(10) } else { 0 }
    )
}

/// Compares a command's end with what it should be.
fn expect(output: &ExecOutput, outcome: Outcome, stdout: &[u8]) -> String {
    if output.outcome == Outcome::SessionClosed {
        return "closed".to_owned();
    }
    if output.outcome == outcome && output.stdout == stdout {
        return "ok".to_owned();
    }
    let errors: String = output.stderr_text().chars().take(300).collect();
    format!(
        "wrong the command {} with {} bytes, not {outcome} with {}: {errors:?}",
        output.outcome,
        output.stdout.len(),
        stdout.len(),
    )
}
