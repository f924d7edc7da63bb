//! Ports of a container, as client and agent speak of them.

use crate::codec::{DecodeError, Decoder};

/// What is done with a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortCall {
    /// Connects to it, on loopback or where else somebody listens. `Data(Stderr)` of `c` says that it is
    /// connected and of `e` that no more comes from it; `Data(Stdout)` are its bytes, `Stdin` those for
    /// it. `Done` once both directions have ended, `NotFound` when nobody listens.
    Dial,
    /// Answered by `Done` once somebody listens.
    Wait,
    /// Answered by `Data(Stdout)` with a line for each socket that listens (address, port, pid and name
    /// of an owner, which are 0 and nothing where they cannot be seen), then `Done`.
    List,
}

impl PortCall {
    pub(super) const fn tag(self) -> u8 {
        match self {
            Self::Dial => 1,
            Self::Wait => 2,
            Self::List => 3,
        }
    }

    pub(super) fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(match from.u8()? {
            1 => Self::Dial,
            2 => Self::Wait,
            3 => Self::List,
            tag => return Err(DecodeError::Unknown(tag)),
        })
    }
}
