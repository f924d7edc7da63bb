//! Ports of the container, as a child of PID 1 sees them: which are listened on, and bytes to and
//! from one.

mod bridge;
mod dial;
mod listening;

pub(crate) use bridge::bridge;
use podkit_agent::{FailureKind, PortCall};
use rustix::{
    fd::BorrowedFd,
    thread::{NanosleepRelativeResult, nanosleep},
    time::Timespec,
};

use crate::files::{self, Stop};

/// Shortest and longest time between two looks for a port that is waited for.
const LOOK_MS: [i64; 2] = [5, 100];

/// Does the call and ends this process.
pub(crate) fn serve(
    call: PortCall,
    port: u16,
    from_parent: BorrowedFd<'_>,
    to_parent: BorrowedFd<'_>,
) -> ! {
    files::answer(to_parent, |answers| match call {
        PortCall::Dial => dial::dial(port, from_parent, to_parent),
        PortCall::Wait => wait(port),
        PortCall::List => listening::list(answers),
    })
}

/// Waits until somebody listens; PID 1 keeps the time.
fn wait(port: u16) -> Result<(), Stop> {
    let mut pause = LOOK_MS[0];
    while !listening::is_listened_on(port) {
        let time = Timespec {
            tv_sec: 0,
            tv_nsec: pause * 1_000_000,
        };
        match nanosleep(&time) {
            NanosleepRelativeResult::Ok | NanosleepRelativeResult::Interrupted(_) => {}
            NanosleepRelativeResult::Err(errno) => {
                return Err(files::refused(b"the clock", errno).into());
            }
        }
        pause = (pause * 2).min(LOOK_MS[1]);
    }
    Ok(())
}

fn nobody_listens(port: u16, errno: i32) -> Stop {
    Stop::Failed(podkit_agent::Failure {
        kind: FailureKind::NotFound,
        errno,
        message: alloc::format!("nothing listens on port {port} in the container"),
    })
}
