//! What is done to containers, each with the event that tells of it.

use std::{sync::Arc, time::Duration};

use super::{manager::SessionManager, slot::Slot};
use crate::{
    agent::ExecHandle,
    container::{ContainerInfo, ContainerSpec, StopCause},
    error::{Error, ErrorKind, Result},
    event::{CommandEnd, CommandInfo, EventKind, Reason, told_words},
    exec::ExecRequest,
    id::ContainerId,
};

impl SessionManager {
    pub(super) fn tell(&self, slot: &Slot, kind: EventKind) {
        self.events().tell(&slot.key, &slot.name, kind);
    }

    /// Makes a container; of several makers exactly one succeeds.
    pub(super) async fn create_container(
        &self,
        slot: &Slot,
        order: &ContainerSpec,
    ) -> Result<ContainerId> {
        let made = self.containers().create(order).await;
        match &made {
            Ok(_) => self.tell(slot, EventKind::ContainerCreated),
            // Another maker was faster, and tells of it.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => {
                let reason = Reason::new(error);
                self.tell(slot, EventKind::ContainerCreationFailed(reason));
            }
        }
        made
    }

    pub(super) async fn start_container(&self, slot: &Slot) -> Result<()> {
        let started = self.containers().start(&slot.name).await;
        match &started {
            Ok(()) => self.tell(slot, EventKind::ContainerStarted),
            // It went away; whoever starts it looks again.
            Err(error) if is_gone(error) => {}
            Err(error) => {
                let reason = Reason::new(error);
                self.tell(slot, EventKind::ContainerStartFailed(reason));
            }
        }
        started
    }

    pub(super) async fn stop_container(&self, slot: &Slot, grace: Duration) -> Result<()> {
        let stopped = self.containers().stop(&slot.name, grace).await;
        match &stopped {
            Ok(()) => {
                let cause = StopCause::Requested;
                self.tell(slot, EventKind::ContainerStopped(Some(cause)));
            }
            Err(error) if is_gone(error) => {}
            Err(error) => self.tell(slot, EventKind::ContainerStopFailed(Reason::new(error))),
        }
        stopped
    }

    pub(super) async fn remove_container(&self, slot: &Slot, id: &ContainerId) -> Result<()> {
        let removed = self.containers().remove(id).await;
        self.tell(
            slot,
            match &removed {
                Ok(()) => EventKind::ContainerRemoved,
                Err(error) => EventKind::ContainerRemovalFailed(Reason::new(error)),
            },
        );
        removed
    }

    pub(super) async fn pause_container(&self, slot: &Slot) -> Result<()> {
        self.containers().pause(&slot.name).await?;
        self.tell(slot, EventKind::ContainerPaused);
        Ok(())
    }

    pub(super) async fn resume_container(&self, slot: &Slot) -> Result<()> {
        self.containers().resume(&slot.name).await?;
        self.tell(slot, EventKind::ContainerResumed);
        Ok(())
    }

    /// Tells of a command that was begun, and of its end when that comes.
    pub(super) fn tell_of_command(
        &self,
        slot: &Arc<Slot>,
        request: &ExecRequest,
        handle: &mut ExecHandle,
    ) {
        if !self.events().is_heard() {
            return;
        }
        let command = self.command_info(request);
        self.tell(slot, EventKind::ExecStarted(command.clone()));
        let (manager, slot) = (self.clone(), Arc::clone(slot));
        handle.on_end(Box::new(move |end| {
            let end = match end {
                Some(Ok(result)) => CommandEnd::Ended(result.outcome, result.usage),
                Some(Err(error)) => CommandEnd::Failed(Reason::new(error)),
                None => CommandEnd::LetGo,
            };
            manager.tell(&slot, EventKind::ExecEnded(command, end));
        }));
    }

    /// Tells of a command that could not be begun.
    pub(super) fn tell_of_refusal(&self, slot: &Slot, request: &ExecRequest, error: &Error) {
        if self.events().is_heard() {
            let end = CommandEnd::Failed(Reason::new(error));
            self.tell(slot, EventKind::ExecEnded(self.command_info(request), end));
        }
    }

    fn command_info(&self, request: &ExecRequest) -> CommandInfo {
        CommandInfo {
            number: self.events().next_command(),
            argv: told_words(&request.argv),
            user: request.user.clone(),
            cwd: request.cwd.clone(),
        }
    }

    /// Tells of a container that ended by itself when it had to run; the error that says so, with what
    /// its own program wrote last.
    pub(super) async fn did_not_stay_up(
        &self,
        slot: &Slot,
        info: Option<&ContainerInfo>,
        what: &str,
        lines: usize,
    ) -> Error {
        let exit_code = info.and_then(|info| info.exit_code);
        let log = match info {
            Some(info) => self.last_words(info, lines).await,
            None => Vec::new(),
        };
        let mut message = what.to_owned();
        if let Some(code) = exit_code {
            message.push_str(&format!(" (its program exits with {code})"));
        }
        for line in &log {
            message.push('\n');
            message.extend(line.chars().filter(|c| !c.is_control()));
        }
        let error = Error::new(ErrorKind::Unexpected, message)
            .with_container(&slot.name)
            .with_hint("check the entrypoint and the command, or leave them out");
        let reason = Reason {
            exit_code,
            log,
            ..Reason::new(&error)
        };
        self.tell(slot, EventKind::ContainerStartFailed(reason));
        error
    }

    /// The last lines that a container's own program wrote, cut where they are long.
    pub(super) async fn last_words(&self, info: &ContainerInfo, lines: usize) -> Vec<String> {
        const BYTES_A_LINE: usize = 1024;
        if lines == 0 {
            return Vec::new();
        }
        let bytes = u64::try_from(lines * BYTES_A_LINE).unwrap_or(u64::MAX);
        let Ok(log) = self.containers().logs(&info.id, bytes).await else {
            return Vec::new();
        };
        let text = String::from_utf8_lossy(&log);
        let all: Vec<&str> = text.lines().collect();
        let last = all
            .get(all.len().saturating_sub(lines)..)
            .unwrap_or_default();
        let cut = |line: &&str| line.chars().take(BYTES_A_LINE).collect();
        last.iter().map(cut).collect()
    }
}

fn is_gone(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ContainerGone)
}
