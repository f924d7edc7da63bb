//! Paths that are read as text.
#![expect(
    clippy::missing_panics_doc,
    reason = "a panic is how a fuzzer is told of what does not hold"
)]

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Component, Path},
};

use super::{MountContext, MountStrategy as _, mounts::WorkspaceMounts, paths};
use crate::{
    config::{SessionSpec, WORKSPACE_PATH, Workspace},
    id::{SessionId, UserId},
};

/// Between the texts of an input.
const CUT: u8 = 0xff;

/// Any path, in the container's words and in the host's: no translation leads out.
pub fn translations(input: &[u8]) {
    let mut texts = input.splitn(4, |byte| *byte == CUT);
    let mut text = || texts.next().unwrap_or_default();
    let (path, base) = (as_path(text()), as_path(text()));
    let (user, session) = (text(), text());
    if let Ok(normal) = paths::normalize(path) {
        assert!(normal.is_absolute() && !path.as_os_str().as_bytes().contains(&0));
        assert!(names_only(&normal));
        assert_eq!(paths::normalize(&normal).ok(), Some(normal.clone()));
        assert_eq!(Some(normal), walked(path), "as a walk from the root");
    } else {
        assert!(walked(path).is_none() || path.as_os_str().as_bytes().contains(&0));
    }
    if let Ok(rest) = paths::below(path, base) {
        assert!(rest.is_relative() && rest.components().all(is_name));
        assert!(base.join(&rest).starts_with(base));
    }
    if let Ok(text) = std::str::from_utf8(path.as_os_str().as_bytes()) {
        assert!(paths::inside_workspace(text).starts_with('/'));
    }
    let (Ok(user), Ok(session)) = (std::str::from_utf8(user), std::str::from_utf8(session)) else {
        return;
    };
    if UserId::new(user).is_err() || SessionId::new(session).is_err() {
        return;
    }
    let spec = SessionSpec::new().workspace(Workspace::new("/srv/base"));
    let context = MountContext::new(user, session, &spec);
    let here = Path::new("/srv/base/workspaces");
    let mounts = WorkspaceMounts;
    let top = mounts.to_host_path(&context, Path::new(WORKSPACE_PATH));
    let top = top.unwrap_or_default();
    assert_eq!(
        top.strip_prefix(here).map(|own| own.components().count()),
        Ok(2)
    );
    assert!(names_only(&top));
    if let Ok(host) = mounts.to_host_path(&context, path) {
        assert!(
            host.starts_with(&top) && names_only(&host),
            "{host:?} is outside"
        );
        let back = mounts.to_container_path(&context, &host);
        let back = back.unwrap_or_default();
        assert!(back.starts_with(WORKSPACE_PATH));
        assert_eq!(mounts.to_host_path(&context, &back).ok(), Some(host));
    }
    if let Ok(inside) = mounts.to_container_path(&context, path) {
        assert!(inside.starts_with(WORKSPACE_PATH) && names_only(&inside));
        assert!(path.starts_with(&top));
    }
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

fn is_name(part: Component<'_>) -> bool {
    matches!(part, Component::Normal(_))
}

fn names_only(path: &Path) -> bool {
    path.components()
        .all(|part| is_name(part) || part == Component::RootDir)
}

/// Where a walk from the root ends; nowhere when it goes above.
fn walked(path: &Path) -> Option<std::path::PathBuf> {
    let mut at: Vec<&[u8]> = Vec::new();
    for part in path.as_os_str().as_bytes().split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(at.pop()?),
            name => at.push(name),
        }
    }
    Some(Path::new("/").join(as_path(&at.join(&b'/'))))
}
