//! Which capabilities commands may hold.

use std::collections::BTreeSet;

use crate::{
    config::Security,
    error::{Error, Result},
};

/// Docker's default set less `NET_RAW`, `MKNOD` and `AUDIT_WRITE`.
const DEFAULT: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// The others that Linux knows, see capabilities(7).
const FURTHER: &[&str] = &[
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "DAC_READ_SEARCH",
    "IPC_LOCK",
    "IPC_OWNER",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "SYSLOG",
    "WAKE_ALARM",
];

/// The capabilities of a container, in alphabetical order and without `CAP_`.
///
/// # Errors
/// `InvalidInput` for a name that Linux does not know.
pub(super) fn capabilities(security: &Security) -> Result<Vec<String>> {
    let mut set: BTreeSet<&str> = DEFAULT.iter().copied().collect();
    for name in &security.drop_capabilities {
        if name.eq_ignore_ascii_case("all") {
            set.clear();
        } else {
            set.remove(known(name)?);
        }
    }
    for name in &security.add_capabilities {
        set.insert(known(name)?);
    }
    Ok(set.into_iter().map(str::to_owned).collect())
}

fn known(name: &str) -> Result<&'static str> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    DEFAULT
        .iter()
        .chain(FURTHER)
        .copied()
        .find(|known| *known == bare)
        .ok_or_else(|| {
            Error::invalid_input(format!("{name:?} is not a capability"))
                .with_hint("write the name as in capabilities(7), such as `NET_RAW`")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(add: &[&str], drop: &[&str]) -> Result<Vec<String>> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        capabilities(&Security {
            add_capabilities: owned(add),
            drop_capabilities: owned(drop),
            ..Security::default()
        })
    }

    #[test]
    fn capabilities_without_wishes_are_the_documented_eleven() {
        let all = set(&[], &[]).unwrap();
        assert_eq!(all.len(), 11);
        for missing in ["NET_RAW", "MKNOD", "AUDIT_WRITE", "SYS_ADMIN"] {
            assert!(!all.iter().any(|name| name == missing));
        }
    }

    #[test]
    fn capabilities_added_and_dropped_are_checked_by_name() {
        assert_eq!(set(&["cap_net_raw"], &["ALL"]).unwrap(), ["NET_RAW"]);
        assert!(set(&["EVERYTHING"], &[]).is_err());
        assert!(set(&[], &["X"]).is_err());
    }
}
