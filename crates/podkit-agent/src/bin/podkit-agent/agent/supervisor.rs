//! A subreaper for each command, where there are no groups to hold its processes together.
//!
//! Whatever the command starts stays below its supervisor, also what left the session or was
//! forked twice. When a supervisor is killed, its processes come to PID 1, which kills them.

use alloc::vec::Vec;

use rustix::{
    fd::{AsRawFd, OwnedFd},
    io::write,
    process::{getpid, set_child_subreaper},
};

use super::child::{self, Order};
use crate::sys::{
    container::{clone_process, close_others, exit_group},
    serve::{self, Ended, Used},
};

/// Bytes of the command's number.
const PID: usize = 4;

/// Bytes of the number, the status and what was used.
pub(super) const MOST_BYTES: usize = PID + 4 + 24;

/// Starts the command, tells how it ends, and stays until nothing is below it.
pub(super) fn run(order: &Order<'_>, tells: &OwnedFd) -> ! {
    let _ = set_child_subreaper(Some(getpid()));
    let command = match clone_process(0, None) {
        Ok(Some(pid)) => pid.as_raw_nonzero().get(),
        Ok(None) => child::execute(order),
        Err(errno) => {
            child::refuse(order, errno);
            exit_group(0);
        }
    };
    // Pipes that were left open here would never end.
    close_others(0, &[tells.as_raw_fd()]);
    let _ = write(tells, &command.to_ne_bytes());
    loop {
        match serve::reap(true) {
            Ok(Some(ended)) if ended.pid == command => tell(tells, &ended),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            // Nothing is below any more.
            Err(_) => exit_group(0),
        }
    }
}

fn tell(tells: &OwnedFd, ended: &Ended) {
    let mut message = Vec::from(ended.status.to_ne_bytes());
    for number in [
        ended.used.user_us,
        ended.used.system_us,
        ended.used.resident_bytes,
    ] {
        message.extend_from_slice(&number.to_ne_bytes());
    }
    let _ = write(tells, &message);
}

/// What a supervisor has told so far.
pub(super) fn told(heard: &[u8]) -> (Option<i32>, Option<(i32, Used)>) {
    let number = |at: usize| {
        let bytes = heard.get(at..at + 4)?.try_into().ok()?;
        Some(i32::from_ne_bytes(bytes))
    };
    let long = |at: usize| {
        let bytes = heard.get(at..at + 8)?.try_into().ok()?;
        Some(u64::from_ne_bytes(bytes))
    };
    let ended = (|| {
        let used = Used {
            user_us: long(PID + 4)?,
            system_us: long(PID + 12)?,
            resident_bytes: long(PID + 20)?,
        };
        Some((number(PID)?, used))
    })();
    (number(0).filter(|pid| *pid > 1), ended)
}
