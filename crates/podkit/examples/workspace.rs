//! Seed example 5b: a directory of this machine for each session, made by itself.
//!
//! `cargo run --example workspace -- BASE`

use std::path::{Path, PathBuf};

use podkit::{Error, Podkit, SessionSpec, Workspace};

/// Writes a file in the session, and says where it is on this machine.
pub(crate) async fn run(podkit: &Podkit, base: &Path) -> podkit::Result<PathBuf> {
    // `Workspace::with_host_base` says where the engine finds the same directory, when that is
    // elsewhere than here: see docs/workspace-mounts.md.
    let spec = SessionSpec::new().workspace(Workspace::new(base));
    let session = podkit.session("bob", "task-456").spec(spec).await?;
    session
        .files()
        .write("/workspace/output.txt", "results")
        .await?;
    let path = session.to_host_path("/workspace/output.txt")?;
    // The container goes, the workspace stays.
    session.close().await?;
    Ok(path)
}

#[tokio::main]
async fn main() -> podkit::Result<()> {
    let Some(base) = std::env::args_os().nth(1).map(PathBuf::from) else {
        return Err(Error::invalid_input("name a directory"));
    };
    let podkit = Podkit::connect("auto").await?;
    run(&podkit, &base).await.map(drop)
}
