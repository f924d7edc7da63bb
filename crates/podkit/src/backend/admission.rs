//! Whether this machine has memory for one more container.

use std::fs;

use crate::error::{Error, ErrorKind, Result};

/// What is kept free of a small machine: a part of all memory.
const KEPT_PART: u64 = 50;

/// What is kept free of a large machine.
const KEPT_MOST: u64 = 256 << 20;

/// Refuses containers while too little memory is available: what is running would be the next to
/// be killed for want of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Admission {
    /// Bytes that stay available; the default without, no limit with none.
    reserve: Option<u64>,
}

impl Admission {
    pub(super) const fn new(reserve: Option<u64>) -> Self {
        Self { reserve }
    }

    /// Reads what is available now: a small file of the kernel's. Where there is none, nothing is
    /// refused.
    ///
    /// # Errors
    /// `LimitExceeded`.
    pub(super) fn check(self) -> Result<()> {
        let Ok(memory) = fs::read_to_string("/proc/meminfo") else {
            return Ok(());
        };
        self.judge(&memory)
    }

    fn judge(self, memory: &str) -> Result<()> {
        let of = |name| field(memory, name);
        let (Some(total), Some(available)) = (of("MemTotal:"), of("MemAvailable:")) else {
            return Ok(());
        };
        let reserve = self
            .reserve
            .unwrap_or_else(|| (total / KEPT_PART).min(KEPT_MOST));
        if available >= reserve {
            return Ok(());
        }
        let mebibytes = |bytes: u64| bytes >> 20;
        Err(Error::new(
            ErrorKind::LimitExceeded,
            format!(
                "this machine has {} MiB of memory available, and {} MiB are kept free",
                mebibytes(available),
                mebibytes(reserve)
            ),
        )
        .with_hint("close sessions that are not used: `podkit gc --idle 10m` does"))
    }
}

/// Bytes of one line of `/proc/meminfo`.
fn field(memory: &str, name: &str) -> Option<u64> {
    let line = memory.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admission_keeps_a_part_of_memory_free() {
        let memory = |available: u64| {
            format!("MemTotal:        1024000 kB\nMemFree: 1 kB\nMemAvailable:   {available} kB\n")
        };
        let default = Admission::new(None);
        default.judge(&memory(20_480)).unwrap();
        let refused = default.judge(&memory(20_479)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::LimitExceeded);
        Admission::new(Some(0)).judge(&memory(0)).unwrap();
        Admission::new(Some(2 << 20))
            .judge(&memory(1 << 10))
            .unwrap_err();
        default.judge("MemTotal: much\n").unwrap();
    }
}
