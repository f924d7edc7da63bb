//! File calls, as a child of PID 1 does them: under the user's rights, inside the container's root.
//!
//! Memory is flat whatever the size of a file, and nothing blocks but the two pipes to PID 1 and
//! the file system itself; for that one, PID 1 keeps the time.

mod archive;
mod channel;
mod content;
mod entries;
mod error;
mod extract;
mod place;
mod remove;
mod usage;
mod walk;
mod watch;

use podkit_agent::FileCall;
use rustix::{fd::BorrowedFd, fs::Mode, process::umask};

use crate::{sys::container::exit_group, users};
use channel::Input;
pub(crate) use channel::{Answers, Stop, write_all};
pub(crate) use error::{failure, refused};
pub(crate) use place::{make_directories, open_directory};
pub(crate) use remove::remove;

/// One file call and what it needs.
pub(crate) struct Job<'a> {
    pub call: &'a FileCall,
    /// As the client gave it.
    pub path: &'a [u8],
    /// As in [`users::resolve`].
    pub user: &'a [u8],
    /// Where a relative path begins.
    pub cwd: &'a [u8],
    /// Frames of input, from a pipe that blocks.
    pub from_parent: BorrowedFd<'a>,
    /// Frames of answers, to a pipe that blocks.
    pub to_parent: BorrowedFd<'a>,
}

/// Does the call and ends this process.
pub(crate) fn serve(job: &Job<'_>) -> ! {
    let mut answers = Answers::new(job.to_parent);
    let result = run(job, &mut answers);
    answers.end(result);
    exit_group(0)
}

/// Does something else that answers as a file call does, and ends this process.
pub(crate) fn answer(
    to_parent: BorrowedFd<'_>,
    body: impl FnOnce(&mut Answers<'_>) -> Result<(), Stop>,
) -> ! {
    let mut answers = Answers::new(to_parent);
    let result = body(&mut answers);
    answers.end(result);
    exit_group(0)
}

fn run(job: &Job<'_>, answers: &mut Answers<'_>) -> Result<(), Stop> {
    let identity = users::resolve(job.user)?;
    users::become_user(&identity)?;
    // Permission bits are as the call says; what it leaves open is what 022 would leave.
    umask(Mode::empty());
    let path = &place::absolute(job.cwd, job.path)?;
    match *job.call {
        FileCall::Read { offset, limit } => content::send(path, offset, limit, answers),
        FileCall::Write { mode, parents } => {
            content::replace(path, mode, parents, &mut Input::new(job.from_parent))
        }
        FileCall::Append { mode, parents } => {
            content::append(path, mode, parents, &mut Input::new(job.from_parent))
        }
        FileCall::List => entries::list(path, answers),
        FileCall::Stat { follow } => entries::stat(path, follow, answers),
        FileCall::MakeDir { mode, parents } => Ok(entries::make_dir(path, mode, parents)?),
        FileCall::Rename { ref to } => {
            let to = place::absolute(job.cwd, to)?;
            Ok(entries::rename(path, &to)?)
        }
        FileCall::Archive => archive::archive(path, answers),
        FileCall::Extract => extract::extract(path, &mut Input::new(job.from_parent), answers),
        FileCall::Watch { recursive } => watch::watch(path, recursive, job.to_parent, answers),
        FileCall::Usage => usage::usage(path, answers),
        FileCall::Remove { recursive } => Ok(remove::remove(path, recursive)?),
    }
}
