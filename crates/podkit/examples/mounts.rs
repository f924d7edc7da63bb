//! Seed example 4: directories of this machine in a session, two of them read-only.
//!
//! `cargo run --example mounts -- DATA CONFIGS OUTPUTS`, all of which must exist.

use std::path::{Path, PathBuf};

use podkit::{Error, Mount, Podkit, SessionSpec};

/// Reads shared data, and writes a result that stays.
pub(crate) async fn run(
    podkit: &Podkit,
    data: &Path,
    configs: &Path,
    outputs: &Path,
) -> podkit::Result<Vec<u8>> {
    let spec = SessionSpec::new()
        .mount(Mount::bind(data, "/data").read_only())
        .mount(Mount::bind(configs, "/configs").read_only())
        .mount(Mount::bind(outputs, "/workspace"));
    let session = podkit.session("bob", "mounts").spec(spec).await?;

    let read = session.exec(["cat", "/data/dataset.csv"]).await?.check()?;
    session
        .shell("echo 'processing complete' > /workspace/results.txt")
        .await?
        .check()?;
    // Safe from accidents and from malice.
    let refused = session.shell("echo x > /data/dataset.csv").await?;
    assert!(!refused.outcome.is_success());

    session.close().await?;
    Ok(read.stdout)
}

#[tokio::main]
async fn main() -> podkit::Result<()> {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [data, configs, outputs] = paths.as_slice() else {
        return Err(Error::invalid_input("name three directories"));
    };
    let podkit = Podkit::connect("auto").await?;
    run(&podkit, data, configs, outputs).await.map(drop)
}
