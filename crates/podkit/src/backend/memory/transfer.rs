//! One file call of a simulated container.

use std::{sync::Arc, time::Duration};

use podkit_agent::{Failure, FailureKind, FileCall, Output, Reply};
use tokio::{sync::mpsc, time::timeout};

use super::{
    agent::{Channel, Ends, Event, Input},
    engine::Container,
    exec,
    files::User,
    life::Life,
    place::{self, Place, Result},
};

/// Time of a call that names none.
const TIMEOUT_MS: u64 = 60_000;

/// What every file call has.
pub(super) struct Transfer {
    pub(super) container: Arc<Container>,
    pub(super) path: Vec<u8>,
    pub(super) user: Vec<u8>,
    pub(super) timeout_ms: Option<u64>,
}

impl Transfer {
    /// Runs a call; what comes back is the last message of its stream.
    pub(super) async fn run(&self, life: &Life, call: FileCall, ends: Ends) -> Reply {
        let Ends {
            channel,
            input,
            mut events,
        } = ends;
        let failed = |kind, text: &str| {
            Reply::Failed(Failure {
                kind,
                errno: 0,
                message: text.to_owned(),
            })
        };
        let limit = Duration::from_millis(self.timeout_ms.unwrap_or(TIMEOUT_MS));
        let reply = tokio::select! {
            biased;
            _ = life.stopping() => failed(FailureKind::Closing, "the container is stopping"),
            () = given_up(&mut events) => {
                failed(FailureKind::Cancelled, "the file call was given up")
            }
            result = timeout(limit, self.serve(call, &channel, input)) => match result {
                Ok(Ok(())) => Reply::Done,
                Ok(Err(failure)) => Reply::Failed(failure),
                Err(_) => failed(FailureKind::TimedOut, "the file call took too long"),
            },
        };
        life.thawed().await;
        reply
    }

    fn place(&self, path: &[u8]) -> Result<Place> {
        place::place(self.container.spec.cwd.as_bytes(), path)
    }

    async fn serve(&self, call: FileCall, channel: &Channel, input: Input) -> Result<()> {
        let user = exec::user(&self.container, &self.user)?;
        let place = self.place(&self.path)?;
        let tree = &self.container.tree;
        match call {
            FileCall::Read { offset, limit } => {
                let bytes = tree.lock().read(&place)?;
                let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                let end = limit.map_or(u64::MAX, |limit| offset.saturating_add(limit));
                let part = bytes.get(index(offset)..index(end)).unwrap_or_default();
                channel.data(Output::Stdout, part).await;
                Ok(())
            }
            FileCall::Write { mode, parents } => {
                self.replace(&place, mode, parents, user, input).await
            }
            FileCall::Append { mode, parents } => {
                self.append(&place, mode, parents, user, input).await
            }
            FileCall::List => {
                let entries = tree.lock().list(&place)?;
                for (name, stat) in entries {
                    channel.reply(&Reply::Entry { name, stat });
                }
                Ok(())
            }
            FileCall::Stat { .. } => {
                let stat = tree.lock().stat(&place)?;
                channel.reply(&Reply::Entry {
                    name: Vec::new(),
                    stat,
                });
                Ok(())
            }
            FileCall::MakeDir { mode, parents } => {
                tree.lock().make_dir(&place, mode, parents, user)
            }
            FileCall::Rename { to } => tree.lock().rename(&place, &self.place(&to)?),
            FileCall::Archive => self.archive(&place, channel).await,
            FileCall::Extract => self.extract(&place, user, channel, input).await,
            FileCall::Usage => {
                channel.data(Output::Stdout, &self.usage(&place)?).await;
                Ok(())
            }
            FileCall::Watch { .. } => {
                let why = "a simulated container tells of no changes";
                Err(place.fail(FailureKind::Unsupported, 0, why))
            }
            FileCall::Remove { recursive } => tree.lock().remove(&place, recursive),
        }
    }

    /// Nothing changes before the end of the input.
    async fn replace(
        &self,
        place: &Place,
        mode: Option<u32>,
        parents: bool,
        user: User,
        mut input: Input,
    ) -> Result<()> {
        self.container.tree.lock().prepare(place, parents, user)?;
        let mut bytes = Vec::new();
        while let Some(chunk) = input.next().await {
            bytes.extend_from_slice(&chunk);
        }
        self.container
            .tree
            .lock()
            .write(place, &bytes, false, mode, user)
    }

    async fn append(
        &self,
        place: &Place,
        mode: Option<u32>,
        parents: bool,
        user: User,
        mut input: Input,
    ) -> Result<()> {
        let tree = &self.container.tree;
        tree.lock().prepare(place, parents, user)?;
        tree.lock().write(place, &[], true, mode, user)?;
        while let Some(chunk) = input.next().await {
            tree.lock().write(place, &chunk, true, mode, user)?;
        }
        Ok(())
    }
}

/// Waits until nobody wants the call any more.
async fn given_up(events: &mut mpsc::UnboundedReceiver<Event>) {
    while let Some(event) = events.recv().await {
        if matches!(event, Event::Cancelled | Event::Lost) {
            return;
        }
    }
    std::future::pending::<()>().await;
}
