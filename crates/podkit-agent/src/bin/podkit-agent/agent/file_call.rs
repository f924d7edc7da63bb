//! File calls: a child of the caller's user does the work, the agent passes frames on.

use alloc::vec::Vec;

use podkit_agent::{
    Failure, FailureKind, FileCall, FrameBuffer, INITIAL_WINDOW_BYTES, Output, PortCall, Reply,
    Request,
};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::{
    Agent, child,
    clocks::now_ms,
    connection::{READ_BYTES, Stream, read_more},
    exec::Owner,
    input::{Flow, Input},
    output::place,
    poll::{Source, Wants},
    requests::failure,
    signals::KILL,
    start::{is_want, pipe},
};
use crate::{
    files::{self, Job},
    ports,
    sys::{
        container::{clone_process, close_others, exit_group, unblock_signals},
        serve,
    },
};

/// Time of a call that names none.
const TIMEOUT_MS: u64 = 60_000;

/// Time that a child has to end once nobody wants its answer.
pub(super) const LINGER_MS: u64 = 2000;

/// What a child that answers is to be.
#[derive(Clone, Copy)]
pub(super) struct Wish {
    /// Whether it is told things.
    pub(super) input: bool,
    /// Whether what it sends is of both outputs, as a log is; of the first only, as a file is.
    pub(super) both_outputs: bool,
    /// Milliseconds that it has.
    pub(super) timeout_ms: Option<u64>,
    /// Whether it holds off the clock.
    pub(super) activity: bool,
}

/// One file call.
pub(super) struct FileJob {
    owner: Owner,
    pub(super) pid: i32,
    /// Frames of the child; gone at their end.
    from_child: Option<OwnedFd>,
    registered: bool,
    buffer: FrameBuffer,
    /// Data that the client cannot take yet.
    held: (Output, Vec<u8>),
    both_outputs: bool,
    windows: [u32; 2],
    input: Option<Input>,
    /// Whether it holds off the clock, and its end counts as activity.
    pub(super) activity: bool,
    pub(super) deadline: u64,
}

impl Agent {
    pub(super) fn begin_file(
        &mut self,
        connection: u32,
        stream: u32,
        call: &FileCall,
        path: &[u8],
        user: &[u8],
        timeout_ms: Option<u64>,
    ) -> Result<u32, Failure> {
        if path.is_empty() || path.contains(&0) || user.contains(&0) {
            let text = "the path is empty, or it or the user has a NUL byte";
            return Err(failure(FailureKind::InvalidInput, 0, text));
        }
        let watches = matches!(call, FileCall::Watch { .. });
        let wish = Wish {
            input: matches!(
                call,
                FileCall::Write { .. } | FileCall::Append { .. } | FileCall::Extract
            ),
            both_outputs: matches!(call, FileCall::Archive),
            timeout_ms: if watches { Some(u64::MAX) } else { timeout_ms },
            // Nobody uses a session by looking on.
            activity: !watches,
        };
        let user = match user.is_empty() {
            true => self.config.user.clone(),
            false => user.to_vec(),
        };
        let cwd = self.config.cwd.clone();
        let owner = Owner { connection, stream };
        self.start_job(owner, wish, |from_parent, to_parent| {
            files::serve(&Job {
                call,
                path,
                user: &user,
                cwd: &cwd,
                from_parent,
                to_parent,
            })
        })
    }

    pub(super) fn begin_port(
        &mut self,
        owner: Owner,
        call: PortCall,
        port: u16,
        timeout_ms: Option<u64>,
    ) -> Result<Option<Stream>, Failure> {
        if port == 0 && call != PortCall::List {
            return Err(failure(FailureKind::InvalidInput, 0, "0 is no port"));
        }
        let activity = call != PortCall::List;
        if activity {
            self.clocks.touch();
        }
        let wish = Wish {
            input: call == PortCall::Dial,
            both_outputs: true,
            timeout_ms: Some(timeout_ms.unwrap_or(u64::MAX)),
            activity,
        };
        let job = self.start_job(owner, wish, |from_parent, to_parent| {
            ports::serve(call, port, from_parent, to_parent)
        })?;
        Ok(Some(Stream::File(job)))
    }

    /// Starts a child that answers as a file call does.
    pub(super) fn start_job(
        &mut self,
        owner: Owner,
        wish: Wish,
        body: impl FnOnce(BorrowedFd<'_>, BorrowedFd<'_>),
    ) -> Result<u32, Failure> {
        self.try_job(owner, wish, body).map_err(|errno| {
            let kind = if is_want(errno) {
                FailureKind::LimitExceeded
            } else {
                FailureKind::Unexpected
            };
            let text = "start a file call: the kernel refused";
            failure(kind, errno.raw_os_error(), text)
        })
    }

    fn try_job(
        &mut self,
        owner: Owner,
        wish: Wish,
        body: impl FnOnce(BorrowedFd<'_>, BorrowedFd<'_>),
    ) -> rustix::io::Result<u32> {
        let id = self.fresh_id();
        let (from_child, to_parent) = pipe(true)?;
        let (to_child, from_parent) = pipe(false)?;
        let input = match wish.input {
            true => Some(Input::new(to_child, &self.poll, Source::ToFile(id))?),
            false => None,
        };
        self.poll
            .add(&from_child, Source::FromFile(id), Wants::Read)?;
        let pid = match clone_process(0, None)? {
            Some(pid) => pid.as_raw_nonzero().get(),
            None => {
                unblock_signals();
                if child::enter_groups(&self.config).is_err() {
                    exit_group(1);
                }
                close_others(3, &[from_parent.as_raw_fd(), to_parent.as_raw_fd()]);
                body(from_parent.as_fd(), to_parent.as_fd());
                exit_group(0)
            }
        };
        self.files.insert(
            id,
            FileJob {
                owner,
                pid,
                from_child: Some(from_child),
                registered: true,
                buffer: FrameBuffer::new(),
                held: (Output::Stdout, Vec::new()),
                both_outputs: wish.both_outputs,
                windows: [INITIAL_WINDOW_BYTES; 2],
                input,
                activity: wish.activity,
                deadline: now_ms().saturating_add(wish.timeout_ms.unwrap_or(TIMEOUT_MS)),
            },
        );
        Ok(id)
    }

    /// Lets a child that waits for more know that no more comes.
    pub(super) fn end_waiting(&mut self, id: u32) {
        if let Some(job) = self.files.get_mut(&id)
            && let Some(input) = job.input.take()
        {
            input.leave(&self.poll);
        }
    }

    /// Passes on what the child says.
    pub(super) fn relay_file(&mut self, id: u32) {
        let mut held_up = false;
        while self
            .files
            .get(&id)
            .is_some_and(|job| job.from_child.is_some())
        {
            if !self.pass_frames(id) {
                held_up = true;
                break;
            }
            let Some(job) = self.files.get_mut(&id) else {
                return;
            };
            let Some(fd) = &job.from_child else {
                return;
            };
            match read_more(fd, job.buffer.tail(READ_BYTES)) {
                None => break,
                // It was killed with all else; the client hears why the container stops.
                Some(0) if self.closing.is_some() => return self.end_file(id),
                Some(0) => {
                    let text = "the file call ended without an answer";
                    return self.fail_file(id, failure(FailureKind::Unexpected, 0, text));
                }
                Some(_) => {}
            }
        }
        let Some(job) = self.files.get_mut(&id) else {
            return;
        };
        let Some(fd) = &job.from_child else {
            return;
        };
        if held_up && job.registered {
            self.poll.remove(fd);
            job.registered = false;
        } else if !held_up && !job.registered {
            job.registered = self.poll.add(fd, Source::FromFile(id), Wants::Read).is_ok();
        }
    }

    /// Passes the whole frames on that are there: `false` when the client cannot take more now.
    fn pass_frames(&mut self, id: u32) -> bool {
        loop {
            let Some(job) = self.files.get_mut(&id) else {
                return true;
            };
            let Owner { connection, stream } = job.owner;
            let room = self
                .connections
                .get(&connection)
                .is_some_and(super::Connection::has_room);
            if !room {
                return false;
            }
            let (output, held) = (job.held.0, &mut job.held.1);
            if !held.is_empty() {
                let window = &mut job.windows[place(output)];
                let count = held.len().min(*window as usize);
                if count == 0 {
                    return false;
                }
                let rest = held.split_off(count);
                let data = core::mem::replace(held, rest);
                *window -= u32::try_from(count).unwrap_or(*window);
                self.reply_data(connection, stream, output, &data);
                continue;
            }
            let reply = match job.buffer.next_frame() {
                Ok(None) => return true,
                Ok(Some((kind, 0, payload))) => Reply::decode(kind, payload).map_err(drop),
                Ok(Some(_)) | Err(_) => Err(()),
            };
            match reply {
                Ok(Reply::Data(output, data)) if output == Output::Stdout || job.both_outputs => {
                    job.held = (output, data);
                }
                Ok(entry @ Reply::Entry { .. }) => self.reply(connection, stream, &entry),
                Ok(Reply::Done) => return self.end_file_with(id, &Reply::Done),
                Ok(Reply::Failed(failure)) => {
                    return self.end_file_with(id, &Reply::Failed(failure));
                }
                _ => {
                    let text = "the file call was disturbed";
                    let failure = failure(FailureKind::Unexpected, 0, text);
                    return self.end_file_with(id, &Reply::Failed(failure));
                }
            }
        }
    }

    fn end_file_with(&mut self, id: u32, reply: &Reply) -> bool {
        if let Some(job) = self.files.get(&id) {
            let Owner { connection, stream } = job.owner;
            self.reply(connection, stream, reply);
            if let Some(connection) = self.connections.get_mut(&connection) {
                connection.streams.remove(&stream);
            }
        }
        self.end_file(id);
        true
    }

    /// Answers with a failure, whatever the child does.
    pub(super) fn fail_file(&mut self, id: u32, failure: Failure) {
        self.end_file_with(id, &Reply::Failed(failure));
    }

    /// Lets the child go; one that does not end is killed.
    pub(super) fn end_file(&mut self, id: u32) {
        let Some(job) = self.files.remove(&id) else {
            return;
        };
        if job.activity {
            self.clocks.touch();
        }
        if let (Some(fd), true) = (&job.from_child, job.registered) {
            self.poll.remove(fd);
        }
        if let Some(input) = job.input {
            input.leave(&self.poll);
        }
        // It sees that nobody listens any more, and takes away what it has half written.
        if job.pid > 0 {
            self.lingering.push((job.pid, now_ms() + LINGER_MS));
        }
    }

    /// The child has ended; what it has said may still be in the pipe.
    pub(super) fn file_child_ended(&mut self, id: u32) {
        if let Some(job) = self.files.get_mut(&id) {
            // Its number may be another's from now on.
            job.pid = 0;
        }
    }

    pub(super) fn end_files_in_time(&mut self, now: u64) {
        self.lingering.retain(|(pid, until)| {
            let late = *until <= now;
            if late {
                let _ = serve::kill(*pid, KILL);
            }
            !late
        });
        let late: Vec<u32> = self
            .files
            .iter()
            .filter(|(_, job)| job.deadline <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            let text = "the file call took too long";
            self.fail_file(id, failure(FailureKind::TimedOut, 0, text));
        }
    }

    pub(super) fn take_file_input(&mut self, id: u32, data: &[u8]) -> Result<(), ()> {
        let Some(job) = self.files.get_mut(&id) else {
            return Ok(());
        };
        let Some(input) = &mut job.input else {
            return Ok(());
        };
        input.take_framed(data)?;
        self.feed_file(id, false);
        Ok(())
    }

    pub(super) fn end_file_input(&mut self, id: u32) {
        if let Some(job) = self.files.get_mut(&id)
            && let Some(input) = &mut job.input
        {
            let mut frame = Vec::new();
            Request::StdinEnd.encode(0, &mut frame);
            input.take_own(&frame);
            input.end();
            self.feed_file(id, false);
        }
    }

    /// The child takes more, or none any more.
    pub(super) fn feed_file(&mut self, id: u32, ended: bool) {
        let Some(job) = self.files.get_mut(&id) else {
            return;
        };
        let Owner { connection, stream } = job.owner;
        let Some(input) = &mut job.input else {
            return;
        };
        let flow = if ended {
            Flow::Broken
        } else {
            input.write(&self.poll, Source::ToFile(id), true)
        };
        let grant = input.grant(true);
        if flow != Flow::Open
            && let Some(input) = job.input.take()
        {
            input.leave(&self.poll);
        }
        if let (Flow::Open, Some(bytes)) = (flow, grant) {
            self.reply(connection, stream, &Reply::Credit(bytes));
        }
    }

    pub(super) fn grant_file(&mut self, id: u32, output: Output, bytes: u32) {
        if let Some(job) = self.files.get_mut(&id) {
            let window = &mut job.windows[place(output)];
            *window = window.saturating_add(bytes);
            self.relay_file(id);
        }
    }
}
