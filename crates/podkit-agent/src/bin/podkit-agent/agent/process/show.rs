//! A terminal that is kept: what it showed last, and who looks at it.

use alloc::{collections::VecDeque, vec::Vec};

use podkit_agent::{
    ExecStatus, ExecUsage, Failure, FailureKind, INITIAL_WINDOW_BYTES, MAX_DATA_BYTES, Output,
    Reply, TerminalSize, replay::without_questions,
};

use super::{
    super::{
        Agent,
        connection::{Connection, Stream},
        exec::Owner,
        requests::failure,
    },
    Process,
};

/// Bytes of what was shown that are kept.
const KEPT: usize = 256 * 1024;

/// How far behind all who look may be before the terminal waits for them.
const BEHIND: u64 = 64 * 1024;

/// Most who look at once.
const MOST: usize = 64;

/// A terminal's last output, and who looks.
#[derive(Default)]
pub(super) struct Show {
    kept: VecDeque<u8>,
    /// Bytes that have been shown.
    end: u64,
    viewers: Vec<Viewer>,
    /// How the process ended, once it has.
    ended: Option<(ExecStatus, ExecUsage)>,
}

struct Viewer {
    owner: Owner,
    /// What was shown before it came, as far as it has not got it.
    earlier: Vec<u8>,
    /// Bytes that have been shown when what comes next for it was.
    at: u64,
    window: u32,
    /// Bytes that it may type, and that it typed and is not yet granted again.
    may_type: u32,
    owed: u32,
}

impl Show {
    /// Whether anybody looks.
    pub(super) fn is_seen(&self) -> bool {
        !self.viewers.is_empty()
    }

    fn add(&mut self, bytes: &[u8]) {
        self.kept.extend(bytes);
        self.end += bytes.len() as u64;
        let over = self.kept.len().saturating_sub(KEPT);
        self.kept.drain(..over);
    }

    /// The next bytes for one who looks; one who is too far behind misses some.
    fn next(&mut self, which: usize, most: usize) -> Option<(Owner, Vec<u8>)> {
        let begin = self.end - self.kept.len() as u64;
        let viewer = self.viewers.get_mut(which)?;
        if !viewer.earlier.is_empty() {
            let most = most.min(viewer.window as usize).min(viewer.earlier.len());
            if most == 0 {
                return None;
            }
            let rest = viewer.earlier.split_off(most);
            viewer.window -= u32::try_from(most).unwrap_or(0);
            return Some((viewer.owner, core::mem::replace(&mut viewer.earlier, rest)));
        }
        viewer.at = viewer.at.max(begin);
        let from = usize::try_from(viewer.at - begin).ok()?;
        let most = most.min(viewer.window as usize).min(MAX_DATA_BYTES);
        let count = most.min(self.kept.len().saturating_sub(from));
        if count == 0 {
            return None;
        }
        let bytes = self.kept.range(from..from + count).copied().collect();
        viewer.at += count as u64;
        viewer.window -= u32::try_from(count).unwrap_or(0);
        Some((viewer.owner, bytes))
    }
}

impl Process {
    /// Whether more may be read of its terminal: when nobody looks, or somebody keeps up.
    pub(in super::super) fn takes_output(&self) -> bool {
        self.show.as_ref().is_none_or(|show| {
            let keeps_up = |viewer: &Viewer| show.end.saturating_sub(viewer.at) < BEHIND;
            show.viewers.is_empty() || show.viewers.iter().any(keeps_up)
        })
    }
}

impl Agent {
    /// A process's terminal has shown something.
    pub(in super::super) fn show(&mut self, number: u32, bytes: &[u8]) {
        if let Some(process) = self.background.get_mut(&number)
            && let Some(show) = &mut process.show
        {
            show.add(bytes);
            self.pass_on(number);
        }
    }

    /// Sends what they have not seen to all who look.
    fn pass_on(&mut self, number: u32) {
        let mut which = 0;
        while let Some(show) = self.show_of(number)
            && let Some(viewer) = show.viewers.get(which)
        {
            let connection = viewer.owner.connection;
            let room = self
                .connections
                .get(&connection)
                .is_some_and(Connection::has_room);
            let next = match room {
                true => self
                    .show_of(number)
                    .and_then(|show| show.next(which, MAX_DATA_BYTES)),
                false => None,
            };
            match next {
                Some((owner, bytes)) => {
                    self.reply_data(owner.connection, owner.stream, Output::Stdout, &bytes);
                }
                None if room && self.end_for(number, which) => {}
                None => which += 1,
            }
        }
    }

    /// Tells one who has seen all of a process that has ended: whether it was so.
    fn end_for(&mut self, number: u32, which: usize) -> bool {
        let Some(show) = self.show_of(number) else {
            return false;
        };
        let seen = show
            .viewers
            .get(which)
            .is_some_and(|one| one.at == show.end && one.earlier.is_empty());
        let Some((status, usage)) = show.ended.filter(|_| seen) else {
            return false;
        };
        let owner = show.viewers.swap_remove(which).owner;
        let exited = Reply::Exited {
            status,
            stdout_truncated: false,
            stderr_truncated: false,
            tree_survives: false,
            usage,
        };
        self.reply(owner.connection, owner.stream, &exited);
        self.forget_stream(owner);
        true
    }

    fn show_of(&mut self, number: u32) -> Option<&mut Show> {
        self.background.get_mut(&number)?.show.as_mut()
    }

    /// Goes on with a terminal after somebody can take more.
    pub(in super::super) fn show_on(&mut self, number: u32) {
        self.pass_on(number);
        let exec = self.background.get(&number).and_then(|one| one.exec);
        if let Some(exec) = exec {
            self.relay(exec, Output::Stdout);
        }
    }

    pub(super) fn attach(
        &mut self,
        owner: Owner,
        number: u32,
        size: Option<TerminalSize>,
    ) -> Result<Stream, Failure> {
        let process = self.background.get_mut(&number);
        let refuse = |text| Err(failure(FailureKind::InvalidInput, 0, text));
        let Some((process, exec)) = process.and_then(|one| one.exec.map(|exec| (one, exec))) else {
            return refuse("the process does not run now");
        };
        let Some(show) = &mut process.show else {
            return refuse("the process has a log and no terminal: read its log");
        };
        if show.viewers.len() >= MOST {
            let text = "64 clients look at this terminal already";
            return Err(failure(FailureKind::LimitExceeded, 0, text));
        }
        let earlier = without_questions(show.kept.make_contiguous());
        show.viewers.push(Viewer {
            owner,
            earlier,
            at: show.end,
            window: INITIAL_WINDOW_BYTES,
            may_type: INITIAL_WINDOW_BYTES,
            owed: 0,
        });
        if let Some(size) = size {
            self.resize(exec, size);
        }
        let pid = self.execs.get(&exec).and_then(|exec| exec.pid);
        let started = Reply::Started(pid.map_or(0, i32::cast_unsigned));
        self.reply(owner.connection, owner.stream, &started);
        self.show_on(number);
        Ok(Stream::Process(number))
    }

    /// Types something on a terminal.
    pub(in super::super) fn type_in(
        &mut self,
        owner: Owner,
        number: u32,
        data: &[u8],
    ) -> Result<(), ()> {
        let exec = self.background.get(&number).and_then(|one| one.exec);
        let count = u32::try_from(data.len()).map_err(drop)?;
        let viewer = self
            .show_of(number)
            .and_then(|show| show.viewers.iter_mut().find(|one| one.owner == owner));
        let Some(viewer) = viewer else {
            return Ok(());
        };
        viewer.may_type = viewer.may_type.checked_sub(count).ok_or(())?;
        viewer.owed = viewer.owed.saturating_add(count);
        if !exec.is_some_and(|exec| self.take_typed(exec, data)) {
            // Nobody reads it, now or ever.
            self.grant_typed(number);
        }
        Ok(())
    }

    /// The terminal has taken all that was typed: whoever typed may go on.
    pub(in super::super) fn grant_typed(&mut self, number: u32) {
        let Some(show) = self.show_of(number) else {
            return;
        };
        let granted: Vec<(Owner, u32)> = show
            .viewers
            .iter_mut()
            .filter(|viewer| viewer.owed > 0)
            .map(|viewer| {
                let owed = core::mem::take(&mut viewer.owed);
                viewer.may_type += owed;
                (viewer.owner, owed)
            })
            .collect();
        for (owner, bytes) in granted {
            self.reply(owner.connection, owner.stream, &Reply::Credit(bytes));
        }
    }

    pub(super) fn grant_show(&mut self, owner: Owner, number: u32, bytes: u32) {
        let viewer = self
            .show_of(number)
            .and_then(|show| show.viewers.iter_mut().find(|one| one.owner == owner));
        if let Some(viewer) = viewer {
            viewer.window = viewer.window.saturating_add(bytes);
            self.show_on(number);
        }
    }

    pub(super) fn leave_show(&mut self, owner: Owner, number: u32) {
        if let Some(show) = self.show_of(number) {
            let before = show.viewers.len();
            show.viewers.retain(|viewer| viewer.owner != owner);
            if show.viewers.len() < before {
                self.clocks.touch();
            }
            self.show_on(number);
        }
    }

    /// The process has ended: all who look are told once they have seen everything.
    pub(super) fn end_show(&mut self, number: u32) {
        let Some(process) = self.background.get_mut(&number) else {
            return;
        };
        let last = process.last;
        if let Some(show) = &mut process.show {
            show.ended = last;
            self.pass_on(number);
        }
    }
}
