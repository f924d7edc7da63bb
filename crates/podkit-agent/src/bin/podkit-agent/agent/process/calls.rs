//! What clients do with processes.

use alloc::vec::Vec;

use podkit_agent::{Failure, FailureKind, ProcessCall, Reply, Request, Target};

use super::super::{
    Agent,
    clocks::now_ms,
    connection::Stream,
    exec::{Cause, Owner},
    requests::failure,
    signals::{CONTINUE, TERM},
};

impl Agent {
    pub(in super::super) fn tell_processes(&mut self, connection: u32, stream: u32) {
        let infos: Vec<Reply> = self
            .known()
            .map(|(_, process)| Reply::Process(self.process_info(process)))
            .collect();
        for info in infos {
            self.reply(connection, stream, &info);
        }
        self.reply(connection, stream, &Reply::Done);
    }

    pub(in super::super) fn call_process(
        &mut self,
        connection: u32,
        stream: u32,
        id: &[u8],
        call: ProcessCall,
    ) -> Result<Option<Stream>, Failure> {
        let owner = Owner { connection, stream };
        let Some(number) = self.find_process(id) else {
            let text = "there is no such process in this life of the container";
            return Err(failure(FailureKind::NotFound, 0, text));
        };
        match call {
            ProcessCall::Inspect => self.tell_of(owner, number),
            ProcessCall::Wait => return Ok(self.wait_for_process(owner, number)),
            ProcessCall::Signal(target, signal) => {
                self.clocks.touch();
                self.signal_process(number, target, signal);
                self.reply(connection, stream, &Reply::Done);
            }
            ProcessCall::Stop { grace_ms } => {
                self.clocks.touch();
                self.stop_process(number, grace_ms);
                return Ok(self.wait_for_process(owner, number));
            }
            ProcessCall::KeepAlive(keep) => {
                self.clocks.touch();
                self.keep_alive(number, keep);
                self.reply(connection, stream, &Reply::Done);
            }
            ProcessCall::Forget => {
                self.clocks.touch();
                return self.forget_process(owner, number);
            }
            ProcessCall::Logs(query) => return self.send_log(owner, number, query).map(Some),
            ProcessCall::Attach { size } => {
                self.clocks.touch();
                return self.attach(owner, number, size).map(Some);
            }
        }
        Ok(None)
    }

    fn wait_for_process(&mut self, owner: Owner, number: u32) -> Option<Stream> {
        let process = self.background.get_mut(&number)?;
        if process.is_alive() {
            process.waiters.push(owner);
            return Some(Stream::Process(number));
        }
        self.tell_of(owner, number);
        None
    }

    fn signal_process(&self, number: u32, target: Target, signal: i32) {
        let exec = self.background.get(&number).and_then(|one| one.exec);
        if let Some(exec) = exec {
            self.signal(exec, target, signal);
        }
    }

    fn keep_alive(&mut self, number: u32, keep: bool) {
        let Some(process) = self.background.get_mut(&number) else {
            return;
        };
        process.spec.exec.passive = !keep;
        if let Some(exec) = process.exec.and_then(|exec| self.execs.get_mut(&exec)) {
            exec.passive = !keep;
        }
    }

    fn stop_process(&mut self, number: u32, grace_ms: u64) {
        let Some(process) = self.background.get_mut(&number) else {
            return;
        };
        process.stopping = true;
        process.begin_at = None;
        let Some(exec) = process.exec else {
            return self.process_is_over(number);
        };
        if grace_ms == 0 {
            return self.kill_exec(exec, Cause::GivenUp);
        }
        let kill_at = now_ms().saturating_add(grace_ms);
        process.kill_at = Some(process.kill_at.map_or(kill_at, |at| at.min(kill_at)));
        self.signal(exec, Target::Tree, TERM);
        // What is stopped cannot end otherwise.
        self.signal(exec, Target::Tree, CONTINUE);
    }

    fn forget_process(&mut self, owner: Owner, number: u32) -> Result<Option<Stream>, Failure> {
        let alive = self
            .background
            .get(&number)
            .is_some_and(super::Process::is_alive);
        if alive {
            let text = "the process runs; stop it first";
            return Err(failure(FailureKind::AlreadyExists, 0, text));
        }
        let removing = self.remove_log(owner, number)?;
        self.drop_process(number);
        if removing.is_none() {
            self.reply(owner.connection, owner.stream, &Reply::Done);
        }
        Ok(removing)
    }

    /// A message on the stream of somebody who waits for a process, or looks at its terminal.
    pub(in super::super) fn go_on_with(
        &mut self,
        connection: u32,
        stream: u32,
        number: u32,
        request: &Request,
    ) -> Result<(), ()> {
        let owner = Owner { connection, stream };
        match *request {
            Request::Cancel => {
                let waits = self.background.get(&number).is_some_and(|process| {
                    process.waiters.contains(&owner) || process.spawner == Some(owner)
                });
                self.leave_process(number, connection, stream);
                let last = if waits {
                    let text = "the call was given up";
                    Reply::Failed(failure(FailureKind::Cancelled, 0, text))
                } else {
                    Reply::Done
                };
                self.reply(connection, stream, &last);
                self.forget_stream(owner);
                Ok(())
            }
            // Of one who looks at a terminal it is no end of that terminal's input.
            Request::StdinEnd => self.confirm_spawning(owner, number),
            Request::Credit(_, bytes) => {
                self.grant_show(owner, number, bytes);
                Ok(())
            }
            Request::Resize(size) => {
                self.clocks.touch();
                if let Some(exec) = self.background.get(&number).and_then(|one| one.exec) {
                    self.resize(exec, size);
                }
                Ok(())
            }
            Request::Signal(target, signal) => {
                self.clocks.touch();
                self.signal_process(number, target, signal);
                Ok(())
            }
            _ => Err(()),
        }
    }

    /// A client no longer waits, or looks.
    pub(in super::super) fn leave_process(&mut self, number: u32, connection: u32, stream: u32) {
        let owner = Owner { connection, stream };
        let Some(process) = self.background.get_mut(&number) else {
            return;
        };
        process.waiters.retain(|waiter| *waiter != owner);
        if process.spawner == Some(owner) {
            return self.give_up_spawning(number);
        }
        self.leave_show(owner, number);
    }
}
