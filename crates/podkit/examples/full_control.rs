//! Seed example 6: mounts of one's own, an event handler, the health monitor, sessions that stop by
//! themselves and one that does not.
//!
//! `cargo run --example full_control -- BASE`

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use podkit::{
    Error, Event, EventHandler, HealthOptions, Limit, Mount, MountStrategy, Podkit, PodkitBuilder,
    Result, SessionSpec, container::MountContext,
};

/// Mounts `BASE/<user>-<session>` at `/workspace`.
#[derive(Debug)]
pub(crate) struct ProjectMounts {
    base: PathBuf,
}

impl ProjectMounts {
    fn directory(&self, context: &MountContext<'_>) -> PathBuf {
        // Ids have no slash in them here; a project that allows them has to encode them.
        self.base
            .join(format!("{}-{}", context.user, context.session))
    }
}

impl MountStrategy for ProjectMounts {
    fn mounts(&self, context: &MountContext<'_>) -> Result<Vec<Mount>> {
        let directory = self.directory(context);
        std::fs::create_dir_all(&directory).map_err(|error| {
            Error::invalid_input(format!("cannot make {}", directory.display())).with_source(error)
        })?;
        Ok(vec![Mount::bind(directory, "/workspace")])
    }

    fn to_host_path(&self, context: &MountContext<'_>, container_path: &Path) -> Result<PathBuf> {
        let outside = |_| Error::invalid_input("the path is not in the workspace");
        let rest = container_path.strip_prefix("/workspace").map_err(outside)?;
        Ok(self.directory(context).join(rest))
    }

    fn to_container_path(&self, context: &MountContext<'_>, host_path: &Path) -> Result<PathBuf> {
        let outside = |_| Error::invalid_input("the path is not in the workspace");
        let directory = self.directory(context);
        let rest = host_path.strip_prefix(directory).map_err(outside)?;
        Ok(Path::new("/workspace").join(rest))
    }
}

/// Notes what happens.
struct Log;

impl EventHandler for Log {
    fn on_event(&self, event: &Event) {
        tracing::info!(key = ?event.key, what = event.kind.as_str(), "event");
    }
}

/// What every container of the project is like.
pub(crate) fn configured(builder: PodkitBuilder, base: &Path) -> PodkitBuilder {
    let health = HealthOptions::new()
        .interval(Duration::from_secs(30))
        .log_lines(50);
    builder
        .mount_strategy(ProjectMounts {
            base: base.to_owned(),
        })
        .event_handler(Log)
        .health(health)
}

/// Two sessions; gives what the first one said, and where its file is on this machine.
pub(crate) async fn run(podkit: &Podkit) -> Result<(Vec<u8>, PathBuf)> {
    // Stops by itself after five minutes without use, and starts again at the next one.
    let sandbox = SessionSpec::new()
        .auto_stop(Limit::After(Duration::from_secs(300)))
        .cpus(1.0)
        .memory("512m")
        .env("PYTHONUNBUFFERED", "1")
        .env("LOG_LEVEL", "DEBUG");
    let session = podkit.session("user", "session").spec(sandbox).await?;
    let said = session.exec(["sh", "-c", "echo 'Hello'"]).await?.check()?;
    session
        .files()
        .write("/workspace/file.txt", "Hello from podkit")
        .await?;
    let path = session.to_host_path("/workspace/file.txt")?;

    // Runs until it is closed.
    let lasting = SessionSpec::new().auto_stop(Limit::Off);
    let other = podkit.session("user2", "session2").spec(lasting).await?;

    session.close().await?;
    other.close().await?;
    Ok((said.stdout, path))
}

#[tokio::main]
async fn main() -> Result<()> {
    let Some(base) = std::env::args_os().nth(1).map(PathBuf::from) else {
        return Err(Error::invalid_input("name a directory"));
    };
    let podkit = configured(Podkit::builder(), &base).build().await?;
    run(&podkit).await?;
    podkit.shutdown().await;
    Ok(())
}
