//! Where attacks are tried: a session of an attacker, one of a neighbour, and the stage on the host.

use std::{path::Path, time::Duration};

use super::{
    Run, Stage,
    stage::{NEIGHBOUR_PORT, last_word},
};
use crate::{
    config::{Limit, Mount, SessionSpec},
    error::{Error, ErrorKind, Result},
    exec::{ExecEvent, ExecOutput, Outcome},
    id::SessionKey,
    podkit::Podkit,
    session::{LEFT_BEHIND, Session},
};

/// Both runs of an attack that is more than a program.
#[derive(Clone, Debug)]
pub struct Played {
    /// Where nothing defends.
    pub control: Run,
    /// In podkit's container, or by podkit's client.
    pub inside: Run,
}

/// Limits of the attackers: small, so that little shows whether they hold.
const MEMORY: &str = "64m";
const PROCESSES: u32 = 64;

/// A share that all processors at once exceed.
pub(super) const FEW_PROCESSORS: f64 = 0.08;

/// A share in which what the kernel does for one call is paid for at once. Where it is not, all of the
/// container waits until its share has made up for it, its agent too.
pub(super) const PROCESSORS: f64 = 1.0;

/// How long anything may take before it hangs.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// An engine under attack.
#[derive(Debug)]
pub struct Field<'a> {
    podkit: &'a Podkit,
    stage: &'a Stage,
    spec: SessionSpec,
    name: String,
}

impl<'a> Field<'a> {
    /// The engine, the aims, and what sessions begin with. Sessions are named after this process.
    #[must_use]
    pub fn new(podkit: &'a Podkit, stage: &'a Stage, spec: SessionSpec) -> Self {
        let spec = spec
            .idle_timeout(Limit::After(LEFT_BEHIND))
            .mount(Mount::bind(stage.programs(), "/attacks").read_only())
            .mount(Mount::bind(stage.read_only(), "/data").read_only());
        let name = format!("attack-{}", std::process::id());
        Self {
            podkit,
            stage,
            spec,
            name,
        }
    }

    /// The engine.
    #[must_use]
    pub const fn podkit(&self) -> &'a Podkit {
        self.podkit
    }

    /// The aims.
    #[must_use]
    pub const fn stage(&self) -> &'a Stage {
        self.stage
    }

    /// What sessions begin with: the programs at `/attacks`, and `/data`.
    #[must_use]
    pub fn spec(&self) -> SessionSpec {
        self.spec.clone()
    }

    /// The same with small limits, where this engine has them, and a share of the processors.
    #[must_use]
    pub(super) fn limited(&self, processors: f64) -> SessionSpec {
        let (mut spec, can) = (self.spec(), self.podkit.capabilities());
        if can.memory_limit {
            spec = spec.memory(MEMORY);
        }
        if can.pids_limit {
            spec = spec.pids_max(PROCESSES);
        }
        if can.cpu_limit {
            spec = spec.cpus(processors);
        }
        spec
    }

    /// The key of a session `of` somebody.
    ///
    /// # Errors
    /// None that is known: the names are good ones.
    pub(super) fn key(&self, of: &str) -> Result<SessionKey> {
        SessionKey::new(format!("_{of}"), self.name.clone())
    }

    /// Opens the session `of` somebody.
    pub(super) async fn open(&self, of: &str, spec: SessionSpec) -> Result<Session> {
        self.podkit.open(&self.key(of)?).spec(spec).await
    }

    /// Opens a session, does something with it, and closes it, whatever the end.
    pub(super) async fn with<T>(
        &self,
        of: &str,
        spec: SessionSpec,
        deed: impl AsyncFnOnce(&Session) -> Result<T>,
    ) -> Result<T> {
        let key = self.key(of)?;
        let result = match self.open(of, spec).await {
            Ok(session) => within(deed(&session)).await,
            Err(error) => Err(error),
        };
        let closed = self.podkit.close(&key).await;
        result.and_then(|value| closed.map(|_| value))
    }

    /// Closes the sessions that are left where a [`prove`](super::prove) was dropped.
    ///
    /// # Errors
    /// What closing one of them ends with.
    pub async fn clear(&self) -> Result<()> {
        for of in ["programs", "neighbour", "attacker", "victim"] {
            self.podkit.close(&self.key(of)?).await?;
        }
        Ok(())
    }

    /// A directory of the host's for one attack alone.
    pub(super) fn directory(&self, name: &str) -> Result<std::path::PathBuf> {
        let path = self.stage.directory().join(name);
        io(std::fs::create_dir_all(&path))?;
        Ok(path)
    }
}

/// Bounds what may hang: that is then an error.
async fn within<T>(deed: impl Future<Output = Result<T>>) -> Result<T> {
    let hung = |_| Error::new(ErrorKind::TimedOut, "an attack has not ended");
    tokio::time::timeout(PATIENCE * 6, deed)
        .await
        .map_err(hung)?
}

/// A session that listens, for as long as this value is.
#[derive(Debug)]
pub(super) struct Neighbour {
    pub(super) session: Session,
    listener: crate::agent::ExecHandle,
    pub(super) address: String,
}

impl Neighbour {
    pub(super) async fn open(field: &Field<'_>) -> Result<Self> {
        let session = field.open("neighbour", field.limited(PROCESSORS)).await?;
        let said = session.exec(["/attacks/reach", "own_address"]).await?;
        let address = said.stdout_text();
        let listen = [
            "/attacks/reach",
            "listen",
            "podkit-neighbour",
            NEIGHBOUR_PORT,
        ];
        let mut listener = session.exec(listen).stdin_stream().stream().await?;
        first_line(&mut listener).await?;
        Ok(Self {
            session,
            listener,
            address: address
                .split_whitespace()
                .next()
                .unwrap_or("127.0.0.1")
                .to_owned(),
        })
    }

    pub(super) async fn close(mut self) -> Result<()> {
        // The end of the session ends it otherwise.
        let _ = self.listener.close_stdin().await;
        self.session.close().await.map(drop)
    }
}

/// What a command says first, and how it ended where it did so before.
pub(super) async fn first_line(
    command: &mut crate::agent::ExecHandle,
) -> Result<(String, Option<Outcome>)> {
    let (mut line, mut outcome) = (Vec::new(), None);
    while !line.contains(&b'\n') && outcome.is_none() {
        match command.next().await.transpose()? {
            Some(ExecEvent::Stdout(bytes)) => line.extend_from_slice(&bytes),
            Some(ExecEvent::Exited(result)) => outcome = Some(result.outcome),
            Some(_) => {}
            None => break,
        }
    }
    Ok((String::from_utf8_lossy(&line).into_owned(), outcome))
}

/// What a program of an attack said by its output and its end.
pub(super) fn said(output: &ExecOutput) -> String {
    match output.outcome {
        Outcome::Signaled(31) => "SIGSYS".to_owned(),
        Outcome::OutOfMemory => "out of memory".to_owned(),
        Outcome::Signaled(number) => format!("signal {number}"),
        _ => last_word(&output.stdout),
    }
}

/// An error of this machine's.
pub(super) fn io<T>(result: std::io::Result<T>) -> Result<T> {
    result.map_err(|error| {
        Error::new(
            ErrorKind::Unexpected,
            "this machine does not let the attack be prepared",
        )
        .with_source(error)
    })
}

/// A path as an argument of a shell's.
pub(super) fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}
