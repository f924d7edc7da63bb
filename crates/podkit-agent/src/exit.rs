//! Exit codes of PID 1, where an engine keeps no other mark of why a container stopped.
//!
//! Nothing inside can end PID 1 or choose its code, except that the container's own program passes
//! on its own; a code of that one's that means something here is told as another.

use crate::StopReason;

const AUTO_STOP: u8 = 224;
const MAX_LIFETIME: u8 = 225;
const REQUESTED: u8 = 226;
/// The container's own program ended with a code that is taken.
const TAKEN: u8 = 227;

/// Why PID 1 ended, by its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitCause {
    /// A clock or somebody outside stopped the container.
    Stopped(StopReason),
    /// The container's own program ended with this code; one between 224 and 227 shows as 227.
    Main(u8),
}

/// The exit code of a PID 1 that stops for this reason; `main` is its own program's code.
#[must_use]
pub const fn exit_code(reason: StopReason, main: u8) -> u8 {
    match reason {
        StopReason::AutoStop => AUTO_STOP,
        StopReason::MaxLifetime => MAX_LIFETIME,
        StopReason::Requested => REQUESTED,
        StopReason::MainExited => match main {
            AUTO_STOP..=TAKEN => TAKEN,
            code => code,
        },
    }
}

/// What an exit code of PID 1 means.
#[must_use]
pub const fn exit_cause(code: u8) -> ExitCause {
    match code {
        AUTO_STOP => ExitCause::Stopped(StopReason::AutoStop),
        MAX_LIFETIME => ExitCause::Stopped(StopReason::MaxLifetime),
        REQUESTED => ExitCause::Stopped(StopReason::Requested),
        code => ExitCause::Main(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_code_of_a_reason_means_that_reason() {
        for reason in [
            StopReason::AutoStop,
            StopReason::MaxLifetime,
            StopReason::Requested,
        ] {
            assert_eq!(exit_cause(exit_code(reason, 3)), ExitCause::Stopped(reason));
        }
    }

    #[test]
    fn exit_code_of_the_own_program_forges_nothing() {
        for code in 0..=u8::MAX {
            let seen = exit_code(StopReason::MainExited, code);
            let expected = if (224..=227).contains(&code) {
                227
            } else {
                code
            };
            assert_eq!(exit_cause(seen), ExitCause::Main(expected));
        }
    }
}
