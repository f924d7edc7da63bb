//! Where the embedded engine keeps its state when the caller does not say.

use std::{
    ffi::OsString,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use podkit_runtime::RuntimeOptions;

use crate::{
    backend::connect::ConnectOptions,
    error::{Error, Result},
};

/// The runtime's directories: those that were named, the user's for the others.
///
/// # Errors
/// `InvalidInput` for a relative directory, or when a user has none.
pub(super) fn runtime_options(options: &ConnectOptions) -> Result<RuntimeOptions> {
    for directory in [&options.state_dir, &options.run_dir].into_iter().flatten() {
        if !directory.is_absolute() {
            return Err(Error::invalid_input(format!(
                "the directory `{}` is not absolute",
                directory.display()
            )));
        }
    }
    if let (Some(state), Some(run)) = (&options.state_dir, &options.run_dir) {
        return Ok(RuntimeOptions::new(state, run));
    }
    let uid = rustix::process::geteuid();
    let home = options.home.clone().or_else(|| home_of(uid.as_raw()));
    let runtime_dir = options
        .xdg_runtime_dir
        .clone()
        .unwrap_or_else(|| Path::new("/run/user").join(uid.as_raw().to_string()));
    let found = RuntimeOptions::for_user(
        home.as_deref(),
        options.xdg_data_home.as_deref(),
        Some(&runtime_dir),
    );
    // Sockets stay next to a state directory that was named alone, so that two programs which
    // name the same one find the same sockets.
    let beside = options.state_dir.as_ref().map(|state| state.join("run"));
    match (found, &options.state_dir) {
        (None, None) => Err(Error::invalid_input(
            "there is no directory to keep containers in: this user has no home directory",
        )
        .with_hint("set HOME, or name a directory with `--state-dir`")),
        (found, state) => {
            let state = state
                .clone()
                .or_else(|| found.as_ref().map(|found| found.state_dir.clone()));
            let run = options
                .run_dir
                .clone()
                .or(beside)
                .or_else(|| found.map(|found| found.run_dir));
            Ok(RuntimeOptions::new(
                state.unwrap_or_default(),
                run.unwrap_or_default(),
            ))
        }
    }
}

/// The home directory of a user of this host.
fn home_of(uid: u32) -> Option<PathBuf> {
    let passwd = std::fs::read("/etc/passwd").ok()?;
    let uid = uid.to_string();
    let home = passwd.split(|byte| *byte == b'\n').find_map(|line| {
        let fields: Vec<_> = line.split(|byte| *byte == b':').collect();
        match fields[..] {
            [_, _, id, _, _, home, ..] if id == uid.as_bytes() => Some(home.to_vec()),
            _ => None,
        }
    })?;
    let home = PathBuf::from(OsString::from_vec(home));
    home.is_absolute().then_some(home)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn directories_that_are_named_are_used() {
        let mut options = ConnectOptions {
            state_dir: Some("/a/state".into()),
            run_dir: Some("/b/run".into()),
            ..ConnectOptions::default()
        };
        let found = runtime_options(&options).unwrap();
        assert_eq!(found.state_dir, Path::new("/a/state"));
        assert_eq!(found.run_dir, Path::new("/b/run"));
        options.run_dir = None;
        let found = runtime_options(&options).unwrap();
        assert_eq!(found.run_dir, Path::new("/a/state/run"));
    }

    #[test]
    fn directory_that_is_relative_is_invalid_input() {
        let options = ConnectOptions {
            state_dir: Some("state".into()),
            ..ConnectOptions::default()
        };
        let error = runtime_options(&options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn home_of_root_is_in_the_hosts_list() {
        assert!(home_of(0).is_some());
        assert_eq!(home_of(u32::MAX - 7), None);
    }
}
