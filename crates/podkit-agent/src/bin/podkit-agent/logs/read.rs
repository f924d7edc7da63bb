//! Reads a log: all of it or its end, and what is still being written.

use alloc::{vec, vec::Vec};

use podkit_agent::{FailureKind, LogQuery, Output};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::{BorrowedFd, OwnedFd},
    fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, statat},
    io::{Errno, pread},
    thread::nanosleep,
};

use super::{PARTS, Part, RECORD, Record, become_owner, name, without};
use crate::files::{self, Answers, Stop};

/// How often it is tried to open files that belong together, and the pause in between. The logger may
/// have to wait for its turn in the middle of putting them aside.
const TRIES: u32 = 1000;
const TRY_MS: i64 = 2;

/// Shortest and longest time between two looks at a log that grows.
const LOOK_MS: [i64; 2] = [5, 100];

/// What a reader needs.
pub(crate) struct Job<'a> {
    pub(crate) id: &'a [u8],
    pub(crate) directory: &'a [u8],
    /// Whose rights it has; the agent's own without.
    pub(crate) user: Option<&'a [u8]>,
    pub(crate) query: LogQuery,
    /// Ends when nothing more will be written.
    pub(crate) from_parent: BorrowedFd<'a>,
}

/// One set of files.
struct Set {
    files: [OwnedFd; 3],
    index: Stat,
}

/// How far a set is read.
#[derive(Clone, Copy, Default)]
struct Place {
    index: u64,
    outputs: [u64; 2],
}

/// Sends the log.
pub(crate) fn run(job: &Job<'_>, answers: &mut Answers<'_>) -> Result<(), Stop> {
    become_owner(job.user)?;
    let directory = files::open_directory(job.directory)?;
    let mut sets = open_all(&directory, job.id)?;
    let mut skip = match job.query.tail_lines {
        Some(lines) => count_lines(&sets, job.query)?.saturating_sub(lines),
        None => 0,
    };
    let last = sets.pop();
    for set in &sets {
        let mut place = Place::default();
        send(set, &mut place, job.query, &mut skip, answers)?;
    }
    let Some(mut set) = last else {
        return Ok(());
    };
    let mut place = Place::default();
    let mut pause = LOOK_MS[0];
    loop {
        // Before the look, so that what was written until then is seen.
        let over = !job.query.follow || has_ended(job.from_parent, pause);
        let next = newer(&directory, job.id, &set);
        if send(&set, &mut place, job.query, &mut skip, answers)? {
            // Who follows is not kept waiting for more.
            answers.flush()?;
            pause = LOOK_MS[0];
        } else {
            pause = (pause * 2).min(LOOK_MS[1]);
        }
        if let Some(next) = next {
            // What was written to the old files last is sent.
            send(&set, &mut place, job.query, &mut skip, answers)?;
            (set, place) = (next, Place::default());
        } else if over {
            return Ok(());
        }
    }
}

/// Waits for the end, at most so long.
fn has_ended(from_parent: BorrowedFd<'_>, pause_ms: i64) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(from_parent, PollFlags::IN)];
    match poll(&mut fds, Some(&timespec(pause_ms))) {
        Ok(0) | Err(Errno::INTR) => false,
        Ok(_) | Err(_) => true,
    }
}

/// The old set, where there is one, and the one that is written.
fn open_all(directory: &OwnedFd, id: &[u8]) -> Result<Vec<Set>, Stop> {
    for attempt in 0..TRIES {
        if attempt > 0 {
            pause(TRY_MS);
        }
        let set = match open_set(directory, id, false) {
            Ok(set) => set,
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(files::refused(id, errno).into()),
        };
        let old = open_set(directory, id, true).ok();
        if is_current(directory, id, &set) {
            return Ok(old.into_iter().chain([set]).collect());
        }
    }
    // There was no room for new files.
    let old = open_set(directory, id, true).map_err(|_| {
        let text = "its log is gone";
        files::failure(id, FailureKind::NotFound, 0, text)
    })?;
    Ok(Vec::from([old]))
}

fn pause(milliseconds: i64) {
    let _ = nanosleep(&timespec(milliseconds));
}

const fn timespec(milliseconds: i64) -> Timespec {
    Timespec {
        tv_sec: 0,
        tv_nsec: milliseconds * 1_000_000,
    }
}

fn open_set(directory: &OwnedFd, id: &[u8], old: bool) -> Result<Set, Errno> {
    let open = |part: Part| {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(directory, name(id, part, old), flags, Mode::empty())?;
        let stat = fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Errno::NXIO);
        }
        Ok((file, stat))
    };
    let (index, stat) = open(Part::Index)?;
    let [stdout, stderr, _] = PARTS;
    Ok(Set {
        files: [open(stdout)?.0, open(stderr)?.0, index],
        index: stat,
    })
}

/// Whether a set is the one that is written, and so belongs together.
fn is_current(directory: &OwnedFd, id: &[u8], set: &Set) -> bool {
    let now = statat(
        directory,
        name(id, Part::Index, false),
        AtFlags::SYMLINK_NOFOLLOW,
    );
    now.is_ok_and(|now| (now.st_dev, now.st_ino) == (set.index.st_dev, set.index.st_ino))
}

/// The set that has come after this one.
fn newer(directory: &OwnedFd, id: &[u8], set: &Set) -> Option<Set> {
    if is_current(directory, id, set) {
        return None;
    }
    let next = open_set(directory, id, false).ok()?;
    is_current(directory, id, &next).then_some(next)
}

/// Goes through what is there of a set from a place on: whether there was anything.
fn walk(
    set: &Set,
    place: &mut Place,
    query: LogQuery,
    mut with: impl FnMut(Output, Vec<u8>) -> Result<(), Stop>,
) -> Result<bool, Stop> {
    let [stdout, stderr, index] = &set.files;
    let mut records = vec![0; RECORD * 256];
    let mut some = false;
    loop {
        let count = pread(index, &mut *records, place.index).map_err(|_| Stop::CutOff)?;
        let whole = count / RECORD * RECORD;
        if whole == 0 {
            return Ok(some);
        }
        some = true;
        for bytes in records
            .get(..whole)
            .unwrap_or_default()
            .chunks_exact(RECORD)
        {
            place.index += RECORD as u64;
            let record = Record::decode(bytes).ok_or_else(disturbed)?;
            let (file, at) = match record.output {
                Output::Stdout => (stdout, &mut place.outputs[0]),
                Output::Stderr => (stderr, &mut place.outputs[1]),
            };
            let from = *at;
            *at = at.saturating_add(u64::from(record.count));
            let wanted = query.only.is_none_or(|only| only == record.output)
                && query
                    .since_unix_ms
                    .is_none_or(|since| record.unix_ms >= since);
            if !wanted {
                continue;
            }
            let mut data = vec![0; record.count as usize];
            let count = pread(file, &mut *data, from).map_err(|_| Stop::CutOff)?;
            data.truncate(count);
            with(record.output, data)?;
        }
    }
}

/// Somebody else has written to the index. What it says may be anything, and without end.
fn disturbed() -> Stop {
    let text = "it was changed by another hand than the logger's";
    files::failure(b"the log's index", FailureKind::Unexpected, 0, text).into()
}

/// Sends what is there, but for lines that are to be skipped.
fn send(
    set: &Set,
    place: &mut Place,
    query: LogQuery,
    skip: &mut u64,
    answers: &mut Answers<'_>,
) -> Result<bool, Stop> {
    walk(set, place, query, |output, data| {
        let data = skip_lines(data, skip);
        if data.is_empty() {
            return Ok(());
        }
        answers.data_of(output, data)
    })
}

/// What is left after so many lines, of which those are counted off that are in it.
fn skip_lines(data: Vec<u8>, skip: &mut u64) -> Vec<u8> {
    let mut from = 0;
    while *skip > 0 {
        let rest = data.get(from..).unwrap_or_default();
        match rest.iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                *skip -= 1;
                from += end + 1;
            }
            None => return Vec::new(),
        }
    }
    without(data, from)
}

/// Lines of both outputs together; one that has no end yet counts.
fn count_lines(sets: &[Set], query: LogQuery) -> Result<u64, Stop> {
    let (mut lines, mut open) = (0, false);
    for set in sets {
        walk(set, &mut Place::default(), query, |_, data| {
            let ends = data.iter().filter(|byte| **byte == b'\n').count();
            lines += ends as u64;
            open = data.last().map_or(open, |last| *last != b'\n');
            Ok(())
        })?;
    }
    Ok(lines + u64::from(open))
}
