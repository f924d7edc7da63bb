//! A process's log: the child that writes it, and those that read it.

use alloc::{format, vec::Vec};

use podkit_agent::{
    DRAIN_MS, Failure, FailureKind, FrameBuffer, LogQuery, Output, ProcessSpec, Reply,
};
use rustix::{
    fd::{AsFd, AsRawFd, OwnedFd},
    io::Result as Outcome,
    pipe::{PipeFlags, pipe_with},
};

use super::{
    super::{
        Agent, child,
        clocks::now_ms,
        connection::{Stream, read_some},
        exec::{self, Owner},
        file_call::{LINGER_MS, Wish},
        poll::{Source, Wants},
        requests::{closing, failure},
        signals::KILL,
        start::{Written, pipe},
    },
    Process,
};
use crate::{
    files,
    logs::{read, write},
    sys::{
        container::{clone_process, close_others, exit_group},
        serve,
    },
};

/// Time of a child that reads a log: its pace is the client's, who ends it by leaving.
const UNLIMITED_MS: u64 = u64::MAX;

/// A log that is written.
pub(super) struct Log {
    /// The logger; 0 once it has ended.
    pid: i32,
    /// What the command writes to, as long as it may be begun again.
    pipes: [Option<OwnedFd>; 2],
    /// The logger says that it is ready, or why it is not.
    report: Option<OwnedFd>,
    told: FrameBuffer,
    directory: Vec<u8>,
    /// Reading children that wait for more.
    followers: Vec<u32>,
    /// When they are told that no more comes.
    over_at: Option<u64>,
}

impl Log {
    pub(super) fn next(&self) -> Option<u64> {
        self.over_at
    }

    pub(super) fn pid(&self) -> Option<i32> {
        (self.pid > 0).then_some(self.pid)
    }

    pub(super) fn directory(&self) -> Vec<u8> {
        self.directory.clone()
    }

    pub(super) fn written(&self) -> Written<'_> {
        Written::Elsewhere([self.pipes[0].as_ref(), self.pipes[1].as_ref()])
    }

    /// The command is not begun again, so the log ends with it.
    pub(super) fn let_go(&mut self) {
        self.pipes = [None, None];
    }

    /// The process is over. What others that it has left still write after a time is in the log, but
    /// those who follow it are not told.
    pub(super) fn ends(&mut self) {
        self.let_go();
        let drain = if self.pid > 0 { DRAIN_MS } else { 0 };
        self.over_at = Some(now_ms() + drain);
    }
}

impl Agent {
    /// Starts the child that writes a log.
    pub(super) fn start_log(&self, number: u32, spec: &ProcessSpec) -> Outcome<Log> {
        let (stdout, their_stdout) = pipe_with(PipeFlags::CLOEXEC)?;
        let stderr = match spec.exec.merge_output {
            true => None,
            false => Some(pipe_with(PipeFlags::CLOEXEC)?),
        };
        let (stderr, their_stderr) = match stderr {
            Some((reader, writer)) => (Some(reader), Some(writer)),
            None => (None, None),
        };
        let (report, to_parent) = pipe(true)?;
        self.poll
            .add(&report, Source::Logger(number), Wants::Read)?;
        let pid = match clone_process(0, None)? {
            Some(pid) => pid.as_raw_nonzero().get(),
            None => {
                if child::enter_groups(&self.config).is_err() {
                    exit_group(1);
                }
                let user = self.owner_of(spec);
                let mut keep = Vec::from([stdout.as_raw_fd(), to_parent.as_raw_fd()]);
                keep.extend(stderr.as_ref().map(AsRawFd::as_raw_fd));
                close_others(3, &keep);
                write::serve(&write::Job {
                    id: &spec.id,
                    directory: &spec.log_directory,
                    life: &self.life(),
                    limit_bytes: spec.log_limit_bytes,
                    user,
                    pipes: [Some(stdout.as_fd()), stderr.as_ref().map(AsFd::as_fd)],
                    to_parent: to_parent.as_fd(),
                })
            }
        };
        Ok(Log {
            pid,
            pipes: [Some(their_stdout), their_stderr],
            report: Some(report),
            told: FrameBuffer::new(),
            directory: Vec::new(),
            followers: Vec::new(),
            over_at: None,
        })
    }

    /// A name of this life of the container's.
    fn life(&self) -> Vec<u8> {
        let number = u64::from_ne_bytes(
            self.config
                .boot_token
                .first_chunk()
                .copied()
                .unwrap_or_default(),
        );
        format!("{number:016x}").into_bytes()
    }

    /// Removes the log of a process that is forgotten to make room, unless it is in a place of the
    /// user's.
    pub(super) fn clear_log(&mut self, process: &Process) {
        let Some(log) = process
            .log
            .as_ref()
            .filter(|_| process.spec.log_directory.is_empty())
        else {
            return;
        };
        match clone_process(0, None) {
            Ok(Some(pid)) => {
                let pid = pid.as_raw_nonzero().get();
                self.lingering.push((pid, now_ms() + LINGER_MS));
            }
            Ok(None) => {
                let entered = child::enter_groups(&self.config);
                close_others(3, &[]);
                if entered.is_ok() {
                    let _ = write::remove(&log.directory, &process.spec.id, None);
                }
                exit_group(0)
            }
            // There is no room for a process just now; the next life removes it.
            Err(_) => {}
        }
    }

    /// Whose rights the log has: the user's in a place of the user's choice.
    fn owner_of<'a>(&'a self, spec: &'a ProcessSpec) -> Option<&'a [u8]> {
        let user = match spec.exec.user.is_empty() {
            true => &self.config.user,
            false => &spec.exec.user,
        };
        (!spec.log_directory.is_empty()).then_some(user)
    }

    fn log_mut(&mut self, number: u32) -> Option<&mut Log> {
        self.background.get_mut(&number)?.log.as_mut()
    }

    /// The logger says that the log is there, or why it is not.
    pub(in super::super) fn hear_logger(&mut self, number: u32) {
        let Some(log) = self.log_mut(number) else {
            return;
        };
        let Some(report) = &log.report else {
            return;
        };
        let mut buffer = [0_u8; 4096];
        let result = match read_some(report, &mut buffer) {
            None => return,
            Some(0) => {
                let text = "the log could not be begun";
                Err(failure(FailureKind::Unexpected, 0, text))
            }
            Some(count) => {
                log.told.push(buffer.get(..count).unwrap_or_default());
                match heard(&mut log.told, &mut log.directory) {
                    Some(result) => result,
                    None => return,
                }
            }
        };
        if let Some(report) = log.report.take() {
            self.poll.remove(&report);
        }
        let begun = result.and_then(|()| {
            if self.closing.is_some() {
                return Err(closing());
            }
            self.begin_process(number).map_err(exec::not_started)
        });
        if let Err(failure) = begun {
            self.process_refused(number, &failure);
        }
    }

    /// Whether the child that ended was a logger.
    pub(in super::super) fn logger_ended(&mut self, pid: i32) -> bool {
        let found = self.background.values_mut().find_map(|process| {
            let log = process.log.as_mut().filter(|log| log.pid == pid)?;
            log.pid = 0;
            log.over_at = log.over_at.map(|_| now_ms());
            Some(())
        });
        found.is_some()
    }

    /// Tells those who follow a log that no more comes.
    pub(super) fn tend_log(&mut self, number: u32, now: u64) {
        let Some(log) = self.log_mut(number) else {
            return;
        };
        if log.over_at.is_none_or(|at| at > now) {
            return;
        }
        log.over_at = None;
        for follower in core::mem::take(&mut log.followers) {
            self.end_waiting(follower);
        }
    }

    /// Lets the logger of a process go that is forgotten.
    pub(super) fn drop_log(&mut self, log: &mut Log) {
        log.let_go();
        if let Some(report) = log.report.take() {
            self.poll.remove(&report);
        }
        for follower in core::mem::take(&mut log.followers) {
            self.end_waiting(follower);
        }
        // Its process may have left others, which still write; nobody asks for that any more.
        if log.pid > 0 {
            let _ = serve::kill(log.pid, KILL);
            self.lingering.push((log.pid, u64::MAX));
        }
    }

    /// Sends a log to a client.
    pub(super) fn send_log(
        &mut self,
        owner: Owner,
        number: u32,
        query: LogQuery,
    ) -> Result<Stream, Failure> {
        let (id, directory, user, growth) = self.log_of(number)?;
        // What a process wrote just before its end is waited for in any case.
        let follow = match growth {
            Growth::Open => query.follow,
            Growth::Last => true,
            Growth::Over => false,
        };
        let wish = Wish {
            input: follow,
            both_outputs: true,
            timeout_ms: Some(UNLIMITED_MS),
            activity: false,
        };
        let query = LogQuery { follow, ..query };
        let file = self.start_job(owner, wish, |from_parent, to_parent| {
            let job = read::Job {
                id: &id,
                directory: &directory,
                user: user.as_deref(),
                query,
                from_parent,
            };
            files::answer(to_parent, |answers| read::run(&job, answers))
        })?;
        if follow
            && let Some(process) = self.background.get_mut(&number)
            && let Some(log) = &mut process.log
        {
            // Those that have left meanwhile need not be told.
            log.followers.retain(|id| self.files.contains_key(id));
            log.followers.push(file);
        }
        Ok(Stream::File(file))
    }

    /// Removes the log of a process that has ended; nothing for one that has none.
    pub(super) fn remove_log(
        &mut self,
        owner: Owner,
        number: u32,
    ) -> Result<Option<Stream>, Failure> {
        let Ok((id, directory, user, _)) = self.log_of(number) else {
            return Ok(None);
        };
        let wish = Wish {
            input: false,
            both_outputs: false,
            timeout_ms: None,
            activity: true,
        };
        let file = self.start_job(owner, wish, |_, to_parent| {
            files::answer(to_parent, |_| {
                Ok(write::remove(&directory, &id, user.as_deref())?)
            })
        })?;
        Ok(Some(Stream::File(file)))
    }

    /// Id, directory and owner of a log, and how it grows.
    fn log_of(&self, number: u32) -> Result<LogPlace, Failure> {
        let process = self.background.get(&number);
        let log = process.and_then(|process| Some((process, process.log.as_ref()?)));
        let Some((process, log)) = log else {
            let text = "the process has a terminal and no log: attach to it";
            return Err(failure(FailureKind::InvalidInput, 0, text));
        };
        let growth = match (process.is_alive(), log.over_at) {
            (true, _) => Growth::Open,
            (false, Some(_)) => Growth::Last,
            (false, None) => Growth::Over,
        };
        let user = self.owner_of(&process.spec).map(<[u8]>::to_vec);
        Ok((process.spec.id.clone(), log.directory(), user, growth))
    }
}

/// Id, directory, owner, and how it grows.
type LogPlace = (Vec<u8>, Vec<u8>, Option<Vec<u8>>, Growth);

/// How a log grows.
#[derive(Clone, Copy)]
enum Growth {
    /// Its process lives.
    Open,
    /// Its process has ended, and the last is still written.
    Last,
    /// No more.
    Over,
}

/// What a logger has said, once it has said all.
fn heard(told: &mut FrameBuffer, directory: &mut Vec<u8>) -> Option<Result<(), Failure>> {
    let disturbed = || {
        let text = "the log was disturbed";
        Err(failure(FailureKind::Unexpected, 0, text))
    };
    loop {
        let reply = match told.next_frame() {
            Ok(None) => return None,
            Ok(Some((kind, 0, payload))) => Reply::decode(kind, payload),
            Ok(Some(_)) | Err(_) => return Some(disturbed()),
        };
        match reply {
            Ok(Reply::Data(Output::Stdout, path)) => *directory = path,
            Ok(Reply::Done) => return Some(Ok(())),
            Ok(Reply::Failed(failure)) => return Some(Err(failure)),
            _ => return Some(disturbed()),
        }
    }
}
