//! Seed example 5: limits, mounts, a network and variables.
//!
//! `cargo run --example production -- DATA OUTPUTS [NETWORK]`; named networks are Docker's and
//! Podman's, and must exist.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use podkit::{Error, ExecOutput, Limit, Mount, Network, Podkit, SessionSpec};

/// Runs one task on shared data.
pub(crate) async fn run(
    podkit: &Podkit,
    data: &Path,
    outputs: &Path,
    network: Option<&str>,
) -> podkit::Result<ExecOutput> {
    let mut spec = SessionSpec::new()
        .cpus(2.0)
        .memory("1g")
        .pids_max(200)
        .mount(Mount::bind(data, "/data").read_only())
        .mount(Mount::bind(outputs, "/outputs"))
        .env("ENV", "production")
        .env("LOG_LEVEL", "INFO")
        .env(
            "DATABASE_URL",
            "postgresql://db.execution-network:5432/tasks",
        )
        // What happens to a session that nobody uses or ends.
        .auto_stop(Limit::After(Duration::from_secs(300)))
        .idle_timeout(Limit::After(Duration::from_secs(3600)))
        .exec_timeout(Limit::After(Duration::from_secs(600)));
    if let Some(network) = network {
        spec = spec.network(Network::Named(vec![network.to_owned()]));
    }
    let session = podkit.session("bob", "task-123").spec(spec).await?;
    let output = session
        .exec([
            "sh",
            "/data/process.sh",
            "--input",
            "/data/dataset.csv",
            "--output",
            "/outputs/results.json",
        ])
        .await?;
    session.close().await?;
    Ok(output)
}

#[tokio::main]
async fn main() -> podkit::Result<()> {
    let words: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let (Some(data), Some(outputs)) = (words.first(), words.get(1)) else {
        return Err(Error::invalid_input("name two directories"));
    };
    let network = words.get(2).and_then(|name| name.to_str());
    let podkit = Podkit::connect("auto").await?;
    run(&podkit, data, outputs, network)
        .await?
        .check()
        .map(drop)
}
