//! How a process begins: its log first, then its command.

use alloc::{format, string::String};

use podkit_agent::{
    ExecStatus, Failure, FailureKind, MAX_PROCESS_ID_BYTES, MAX_PROCESS_NAME_BYTES, ProcessSpec,
    Reply,
};
use rustix::io::Errno;

use super::{
    super::{
        Agent,
        clocks::{now_ms, unix_ms},
        connection::Stream,
        exec::{self, Cause, Owner},
        requests::failure,
        start::Written,
    },
    DELAY_MS, MOST_RUNNING, NOTHING_USED, Process,
    log::Log,
    show::Show,
};

/// Least bytes of a log that are kept.
const LEAST_LOG_BYTES: u64 = 4096;

/// The status of a command for which there was no process.
const NOT_STARTED: ExecStatus = ExecStatus::Exited(126);

impl Agent {
    /// Begins a process for a client, which hears of it once it runs.
    pub(in super::super) fn spawn(
        &mut self,
        connection: u32,
        stream: u32,
        mut spec: ProcessSpec,
    ) -> Result<Stream, Failure> {
        self.check_process(&spec)?;
        self.clocks.touch();
        spec.exec.detached = true;
        spec.exec.stdin = spec.exec.terminal.is_some();
        spec.exec.output_limit_bytes = None;
        spec.log_limit_bytes = spec.log_limit_bytes.max(LEAST_LOG_BYTES);
        let number = self.fresh_id();
        let log = match spec.exec.terminal {
            Some(_) => None,
            None => {
                let started = self.start_log(number, &spec).map_err(exec::not_started);
                Some(started?)
            }
        };
        let process = Process {
            spawner: Some(Owner { connection, stream }),
            told: false,
            exec: None,
            show: spec.exec.terminal.map(|_| Show::default()),
            log,
            waiters: alloc::vec::Vec::new(),
            stopping: false,
            kill_at: None,
            restarts: 0,
            delay_ms: DELAY_MS[0],
            begin_at: None,
            began_ms: now_ms(),
            started_unix_ms: unix_ms(),
            ended_unix_ms: None,
            last: None,
            spec,
        };
        let has_log = process.log.is_some();
        self.background.insert(number, process);
        // With a log it begins when that is there.
        if !has_log && let Err(errno) = self.begin_process(number) {
            self.drop_process(number);
            return Err(exec::not_started(errno));
        }
        Ok(Stream::Process(number))
    }

    fn check_process(&self, spec: &ProcessSpec) -> Result<(), Failure> {
        exec::check(&spec.exec)?;
        let invalid = |text: &str| Err(failure(FailureKind::InvalidInput, 0, String::from(text)));
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
        let id = &spec.id;
        if id.is_empty()
            || id.len() > MAX_PROCESS_ID_BYTES
            || id[0] == b'.'
            || !id.iter().all(plain)
        {
            return invalid("the process's id is not 1 to 64 of [A-Za-z0-9._-]");
        }
        if spec.name.len() > MAX_PROCESS_NAME_BYTES || spec.name.contains(&0) {
            return invalid("the process's name is longer than 128 bytes or has a NUL byte");
        }
        let log = &spec.log_directory;
        if !log.is_empty() && (!log.starts_with(b"/") || log.contains(&0)) {
            return invalid("the directory of the log is not absolute or has a NUL byte");
        }
        let taken = self.background.values().find_map(|one| {
            if one.spec.id == *id {
                return Some("id");
            }
            let same = !spec.name.is_empty() && one.spec.name == spec.name;
            (same && one.is_alive()).then_some("name")
        });
        if let Some(what) = taken {
            let text = format!("there is a process with this {what} already");
            return Err(failure(FailureKind::AlreadyExists, 0, text));
        }
        let running = self.background.values().filter(|one| one.is_alive());
        if running.count() >= MOST_RUNNING {
            let text = "there are 1024 processes already";
            return Err(failure(FailureKind::LimitExceeded, 0, text));
        }
        Ok(())
    }

    /// Begins the command of a process.
    pub(super) fn begin_process(&mut self, number: u32) -> Result<(), Errno> {
        let Some(process) = self.background.get_mut(&number) else {
            return Ok(());
        };
        process.began_ms = now_ms();
        process.started_unix_ms = unix_ms();
        let spec = process.spec.exec.clone();
        // Taken out while it is used, since starting acts on everything else.
        let log = process.log.take();
        let written = log.as_ref().map_or(Written::Here, Log::written);
        let started = self.start_exec(&spec, None, written);
        if let Some(process) = self.background.get_mut(&number) {
            process.log = log;
            process.exec = started.ok();
        }
        let exec = started?;
        if let Some(exec) = self.execs.get_mut(&exec) {
            exec.process = Some(number);
        }
        self.resume_output(exec);
        Ok(())
    }

    /// Begins the command of a process anew.
    pub(super) fn begin_again(&mut self, number: u32) {
        if self.begin_process(number).is_err() {
            self.process_ended(number, NOT_STARTED, NOTHING_USED);
        }
    }

    /// The program of a process runs.
    pub(in super::super) fn process_began(&mut self, number: u32) {
        let Some(process) = self.background.get_mut(&number) else {
            return;
        };
        let again = process.spec.restart != podkit_agent::RestartPolicy::Never;
        if let (Some(log), false) = (&mut process.log, again) {
            log.let_go();
        }
        if let Some(spawner) = process.spawner
            && !process.told
        {
            process.told = true;
            self.tell_info(spawner, number);
        }
    }

    /// Whoever wanted a process knows that it runs: it is everybody's from now on. `Err` for one who
    /// cannot know yet.
    pub(super) fn confirm_spawning(&mut self, owner: Owner, number: u32) -> Result<(), ()> {
        let process = self.background.get_mut(&number);
        let Some(process) = process.filter(|one| one.spawner == Some(owner)) else {
            return Ok(());
        };
        if !process.told {
            return Err(());
        }
        process.spawner = None;
        self.reply(owner.connection, owner.stream, &Reply::Done);
        self.forget_stream(owner);
        // It may have ended already.
        self.forget_old_processes();
        Ok(())
    }

    /// A process cannot be begun: one that nobody has been told of is forgotten.
    pub(in super::super) fn process_refused(&mut self, number: u32, failure: &Failure) {
        let Some(process) = self.background.get_mut(&number) else {
            return;
        };
        let Some(spawner) = process.spawner.take() else {
            return;
        };
        self.reply(
            spawner.connection,
            spawner.stream,
            &Reply::Failed(failure.clone()),
        );
        self.forget_stream(spawner);
        self.drop_process(number);
    }

    /// Whoever wanted a process gives it up before it was told that it runs.
    pub(super) fn give_up_spawning(&mut self, number: u32) {
        let Some(process) = self.background.get_mut(&number) else {
            return;
        };
        if process.spawner.take().is_none() {
            return;
        }
        let exec = process.exec;
        self.drop_process(number);
        if let Some(exec) = exec {
            self.kill_exec(exec, Cause::GivenUp);
        }
    }
}
