//! Paths of the container's, read as text. Nothing here touches a file system.

use std::path::{Component, Path, PathBuf};

use crate::{
    config::WORKSPACE_PATH,
    error::{Error, Result},
};

/// Removes `.` and resolves `..` as text.
///
/// # Errors
/// `InvalidInput` when a `..` would leave the root, or for a NUL byte.
pub(crate) fn normalize(path: &Path) -> Result<PathBuf> {
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(Error::invalid_input(format!(
            "the path {path:?} contains a NUL byte"
        )));
    }
    let mut out = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                if !out.pop() {
                    return Err(Error::invalid_input(format!(
                        "the path {path:?} leaves the root"
                    )));
                }
            }
        }
    }
    Ok(out)
}

/// The part of `path` below `base`; both are read as text, and `..` may not leave `base`.
///
/// # Errors
/// `InvalidInput` when the path is not below the base.
pub(crate) fn below(path: &Path, base: &Path) -> Result<PathBuf> {
    let outside = || {
        Error::invalid_input(format!(
            "the path {path:?} is not inside `{}`",
            base.display()
        ))
    };
    let rest = path.strip_prefix(base).map_err(|_| outside())?;
    let mut out = PathBuf::new();
    for component in rest.components() {
        match component {
            Component::Normal(name) => out.push(name),
            Component::CurDir => {}
            Component::ParentDir if out.pop() => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(outside());
            }
        }
    }
    Ok(out)
}

/// A path in the container as it was given, made absolute: relative ones are in `/workspace`.
/// `..` is left to the container's kernel, which cannot leave the container.
pub(crate) fn inside_workspace(path: &str) -> String {
    if path.starts_with('/') {
        return path.to_owned();
    }
    let path = path.strip_prefix("./").unwrap_or(path);
    if path.is_empty() || path == "." {
        return WORKSPACE_PATH.to_owned();
    }
    format!("{WORKSPACE_PATH}/{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_with_parent_directories_never_leaves_the_base() {
        let base = Path::new("/workspace");
        assert_eq!(
            below(Path::new("/workspace/a/../b"), base).unwrap(),
            Path::new("b")
        );
        assert_eq!(below(Path::new("/workspace"), base).unwrap(), Path::new(""));
        for bad in [
            "/workspace/..",
            "/workspace/a/../../x",
            "/workspacex/a",
            "/etc",
            "a",
        ] {
            assert!(below(Path::new(bad), base).is_err(), "{bad}");
        }
    }

    #[test]
    fn normalize_of_a_path_leaving_the_root_is_invalid() {
        assert_eq!(
            normalize(Path::new("/a/./b/../c")).unwrap(),
            Path::new("/a/c")
        );
        assert!(normalize(Path::new("/a/../..")).is_err());
        assert!(normalize(Path::new("/a\0b")).is_err());
    }

    #[test]
    fn inside_workspace_of_relative_paths_is_absolute() {
        let cases = [
            ("a", "/workspace/a"),
            (".", "/workspace"),
            ("./a", "/workspace/a"),
            ("/x", "/x"),
            ("./", "/workspace"),
        ];
        for (given, expected) in cases {
            assert_eq!(inside_workspace(given), expected);
        }
    }
}
