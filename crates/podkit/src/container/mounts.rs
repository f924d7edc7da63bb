//! The seam for project-specific mounts and for path translation.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::{paths, workspace};
use crate::{
    config::{Mount, MountSource, SessionSpec, WORKSPACE_PATH},
    error::{Error, Result},
    id::percent_encode,
};

/// Whose container it is about.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct MountContext<'a> {
    /// User id as given.
    pub user: &'a str,
    /// Session id as given.
    pub session: &'a str,
    /// What the container should be like.
    pub spec: &'a SessionSpec,
}

impl<'a> MountContext<'a> {
    /// A context from its parts.
    #[must_use]
    pub const fn new(user: &'a str, session: &'a str, spec: &'a SessionSpec) -> Self {
        Self {
            user,
            session,
            spec,
        }
    }
}

/// Decides which of the host's directories a container has beside the mounts of its spec, and
/// translates paths between host and container.
///
/// # Contract
/// - [`mounts`](Self::mounts) may make directories; it runs where blocking is allowed, and is
///   called before every creation. Its result depends on the context alone.
/// - The translations are text only: they touch no file system, and refuse a path that leads out
///   of what is mounted.
pub trait MountStrategy: fmt::Debug + Send + Sync + 'static {
    /// The mounts beside those of the spec, with sources as the engine sees them.
    ///
    /// # Errors
    /// What keeps a directory from being made.
    fn mounts(&self, context: &MountContext<'_>) -> Result<Vec<Mount>>;

    /// Where this process finds what the container has at `container_path`.
    ///
    /// # Errors
    /// `InvalidInput` for a path that is not the host's.
    fn to_host_path(&self, context: &MountContext<'_>, container_path: &Path) -> Result<PathBuf>;

    /// Where the container finds what this process has at `host_path`.
    ///
    /// # Errors
    /// `InvalidInput` for a path that the container does not have.
    fn to_container_path(&self, context: &MountContext<'_>, host_path: &Path) -> Result<PathBuf>;
}

/// The lasting workspace of [`SessionSpec::workspace`] at `/workspace`, and nothing else.
#[derive(Clone, Copy, Debug, Default)]
pub struct WorkspaceMounts;

impl MountStrategy for WorkspaceMounts {
    fn mounts(&self, context: &MountContext<'_>) -> Result<Vec<Mount>> {
        let Some(workspace) = &context.spec.workspace else {
            return Ok(Vec::new());
        };
        let parts = parts(context);
        workspace::make(&workspace.base, [&parts[0], &parts[1], &parts[2]])?;
        let base = workspace.host_base.as_ref().unwrap_or(&workspace.base);
        Ok(vec![Mount::bind(
            absolute(base)?.join(parts.join("/")),
            WORKSPACE_PATH,
        )])
    }

    fn to_host_path(&self, context: &MountContext<'_>, container_path: &Path) -> Result<PathBuf> {
        let directory = directory(context)?;
        let path = Path::new(WORKSPACE_PATH).join(container_path);
        Ok(directory.join(paths::below(&path, Path::new(WORKSPACE_PATH))?))
    }

    fn to_container_path(&self, context: &MountContext<'_>, host_path: &Path) -> Result<PathBuf> {
        let rest = paths::below(host_path, &directory(context)?)?;
        Ok(Path::new(WORKSPACE_PATH).join(rest))
    }
}

/// A volume of the engine for each session, at `/workspace`: it stays when the session is closed, and
/// no session sees another one's. For engines with named volumes, wherever they are.
///
/// # Examples
/// ```no_run
/// # async fn example() -> podkit::Result<()> {
/// use podkit::{Podkit, VolumeWorkspaces};
///
/// let podkit = Podkit::builder()
///     .backend("docker")
///     .mount_strategy(VolumeWorkspaces::new("data")?)
///     .build()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeWorkspaces {
    prefix: String,
}

impl VolumeWorkspaces {
    /// Volumes whose names begin like this: 1 to 32 of `a-z`, `0-9`, `_` and `-`, first a letter or a
    /// digit.
    ///
    /// # Errors
    /// `InvalidInput` for another text.
    pub fn new(prefix: impl Into<String>) -> Result<Self> {
        let prefix = prefix.into();
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
        let begins = prefix.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        if !begins || prefix.len() > 32 || !prefix.chars().all(good) {
            return Err(Error::invalid_input(format!(
                "{prefix:?} cannot begin the name of a volume"
            )));
        }
        Ok(Self { prefix })
    }

    /// The name of a session's volume: the same for ever, and no other session's.
    #[must_use]
    pub fn volume(&self, user: &str, session: &str) -> String {
        // Volumes are one namespace, and so are container names: what is right there is right here.
        let mut hash = Sha256::new();
        for part in [user, session] {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        let hash = HEXLOWER.encode(hash.finalize().get(..16).unwrap_or_default());
        format!("{}-{hash}", self.prefix)
    }
}

impl MountStrategy for VolumeWorkspaces {
    fn mounts(&self, context: &MountContext<'_>) -> Result<Vec<Mount>> {
        let volume = self.volume(context.user, context.session);
        Ok(vec![Mount::volume(volume, WORKSPACE_PATH)])
    }

    fn to_host_path(&self, _: &MountContext<'_>, _: &Path) -> Result<PathBuf> {
        Err(not_here())
    }

    fn to_container_path(&self, _: &MountContext<'_>, _: &Path) -> Result<PathBuf> {
        Err(not_here())
    }
}

fn not_here() -> Error {
    Error::invalid_input("the workspace is a volume of the engine, which has no path here")
        .with_hint("use the session's files, which go through its container")
}

/// The session's directory below the base: ids cannot be `.`, `..` or hold a slash once encoded.
fn parts(context: &MountContext<'_>) -> [String; 3] {
    [
        "workspaces".to_owned(),
        percent_encode(context.user),
        percent_encode(context.session),
    ]
}

fn directory(context: &MountContext<'_>) -> Result<PathBuf> {
    let Some(workspace) = &context.spec.workspace else {
        return Err(
            Error::invalid_input("the session has no workspace on the host")
                .with_hint("set a `Workspace` in the session's spec"),
        );
    };
    Ok(absolute(&workspace.base)?.join(parts(context).join("/")))
}

fn absolute(base: &Path) -> Result<&Path> {
    if base.is_absolute() {
        return Ok(base);
    }
    Err(Error::invalid_input(format!(
        "the workspace base {base:?} is not absolute"
    )))
}

/// Asks the strategy for its mounts and checks that every source of a bind exists: the one piece of
/// IO before a container is made. Blocks.
///
/// # Errors
/// `InvalidInput` naming the missing source; what the strategy says.
pub(crate) fn prepare_mounts(
    strategy: &dyn MountStrategy,
    context: &MountContext<'_>,
    sources_are_here: bool,
) -> Result<Vec<Mount>> {
    if sources_are_here {
        for mount in &context.spec.mounts {
            let MountSource::Bind(source) = &mount.source else {
                continue;
            };
            if let Err(error) = source.metadata() {
                return Err(Error::invalid_input(format!(
                    "the mount source `{}` cannot be used",
                    source.display()
                ))
                .with_source(error)
                .with_hint("make it first; podkit never makes a mount source"));
            }
        }
    }
    strategy.mounts(context)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Workspace;

    #[test]
    fn translation_of_workspace_paths_goes_both_ways_and_never_out() {
        let spec = SessionSpec::new().workspace(Workspace::new("/srv"));
        let context = MountContext::new("a/b", "s", &spec);
        let host = WorkspaceMounts
            .to_host_path(&context, Path::new("/workspace/x/y"))
            .unwrap();
        assert_eq!(host, Path::new("/srv/workspaces/a%2Fb/s/x/y"));
        let back = WorkspaceMounts.to_container_path(&context, &host).unwrap();
        assert_eq!(back, Path::new("/workspace/x/y"));
        for bad in [
            "/workspace/../x",
            "../x",
            "/etc/passwd",
            "/workspace/a/../../..",
        ] {
            assert!(
                WorkspaceMounts
                    .to_host_path(&context, Path::new(bad))
                    .is_err(),
                "{bad}"
            );
        }
        let outside = Path::new("/srv/workspaces/a%2Fb/s/../other");
        assert!(
            WorkspaceMounts
                .to_container_path(&context, outside)
                .is_err()
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn mounts_with_a_workspace_make_it_once_and_refuse_links() {
        use std::os::unix::fs::{MetadataExt, symlink};
        let base = tempfile::tempdir().unwrap();
        let workspace = Workspace::new(base.path()).with_host_base("/engine");
        let spec = SessionSpec::new().workspace(workspace);
        let context = MountContext::new("bob", "1", &spec);
        for _ in 0..2 {
            let mounts = WorkspaceMounts.mounts(&context).unwrap();
            assert_eq!(
                mounts,
                [Mount::bind("/engine/workspaces/bob/1", "/workspace")]
            );
        }
        let mode = |path: &str| base.path().join(path).metadata().unwrap().mode() & 0o777;
        assert_eq!((mode("workspaces"), mode("workspaces/bob")), (0o700, 0o700));
        assert_eq!(mode("workspaces/bob/1"), 0o755);

        let elsewhere = tempfile::tempdir().unwrap();
        symlink(elsewhere.path(), base.path().join("workspaces/eve")).unwrap();
        let error = WorkspaceMounts
            .mounts(&MountContext::new("eve", "1", &spec))
            .unwrap_err();
        assert!(error.to_string().contains("symbolic link"), "{error}");
        assert!(!elsewhere.path().join("1").exists());
    }

    #[test]
    fn prepare_mounts_with_a_missing_source_is_invalid_input() {
        let spec = SessionSpec::new().mount(Mount::bind("/nonexistent/x", "/x"));
        let context = MountContext::new("bob", "1", &spec);
        let error = prepare_mounts(&WorkspaceMounts, &context, true).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/x"));
    }
}
