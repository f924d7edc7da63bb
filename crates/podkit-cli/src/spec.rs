//! Flags that say what a new session's container is like.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum, ValueHint};
use podkit::{Isolation, Limit, Mount, Network, Security, SessionSpec, Workspace, parse_bytes};

use crate::engine_args::EngineArgs;

/// Settings of a session that is made; one that exists already must agree with those given.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Options for a session that is made")]
pub(crate) struct SpecArgs {
    /// Memory, such as 512m or 2g [default: 512m]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<String>,

    /// Swap on top of the memory [default: none]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    swap: Option<String>,

    /// Processor cores, such as 0.5 or 2 [default: 1]
    #[arg(long, value_name = "CORES", value_parser = cores, allow_negative_numbers = true)]
    cpus: Option<f64>,

    /// Most processes and threads [default: 512]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..), allow_negative_numbers = true)]
    pids: Option<u32>,

    /// Network: default, outbound, none, host, or names separated by commas
    #[arg(long, value_name = "NETWORK", value_parser = network)]
    network: Option<Network>,

    /// Take the named networks of the container that podkit itself runs in
    #[arg(long, conflicts_with = "network")]
    inherit_networks: bool,

    /// Show a file or directory of the host, or a volume, in the container
    #[arg(short = 'm', long = "mount", value_name = "SOURCE:TARGET[:ro]", value_parser = mount)]
    mounts: Vec<Mount>,

    /// Mount fresh memory at a path
    #[arg(long, value_name = "TARGET")]
    tmpfs: Vec<PathBuf>,

    /// Keep /workspace in DIR/workspaces/USER/SESSION on the host
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    workspace: Option<PathBuf>,

    /// Set a variable for every command of the session
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    session_env: Vec<(String, String)>,

    /// Stop the container when it was not used for this long, or off [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = limit)]
    auto_stop: Option<Limit>,

    /// Let gc remove the session when it was not used for this long, or off [default: off]
    #[arg(long, value_name = "TIME", value_parser = limit)]
    idle_timeout: Option<Limit>,

    /// Stop everything this long after the session was made, or off [default: off]
    #[arg(long, value_name = "TIME", value_parser = limit)]
    max_lifetime: Option<Limit>,

    /// Make the root file system read-only
    #[arg(long)]
    read_only: bool,

    /// Show one more directory of the host, read-only, in the image `host`
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    host_path: Vec<PathBuf>,

    /// How user ids are kept apart from other containers' [default: the best there is]
    #[arg(long, value_name = "CLASS")]
    isolation: Option<IsolationArg>,

    /// Add a capability, such as NET_RAW
    #[arg(long, value_name = "NAME")]
    cap_add: Vec<String>,

    /// Drop a capability, or ALL
    #[arg(long, value_name = "NAME")]
    cap_drop: Vec<String>,

    /// Attach a label of your own
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = assignment)]
    labels: Vec<(String, String)>,

    /// Host name in the container
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,

    #[command(flatten)]
    engine: EngineArgs,
}

/// Classes of isolation, as flags spell them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum IsolationArg {
    /// Every container has its own 65 536 user ids.
    OwnRange,
    /// All containers of this user share one range.
    SharedRange,
    /// Container root is the calling user.
    CallerUid,
}

impl SpecArgs {
    /// The wish that these flags express; what no flag names stays unset.
    pub(crate) fn spec(&self) -> podkit::Result<SessionSpec> {
        let mut spec = SessionSpec::new();
        spec.memory = self.memory.as_deref().map(Into::into);
        spec.swap = self.swap.as_deref().map(Into::into);
        spec.cpus = self.cpus;
        spec.pids_max = self.pids;
        spec.network.clone_from(&self.network);
        spec.inherit_networks = self.inherit_networks;
        for mount in &self.mounts {
            spec.mounts.push(absolute(mount)?);
        }
        spec.mounts
            .extend(self.tmpfs.iter().map(|target| Mount::tmpfs(target, None)));
        for path in &self.host_path {
            spec.host_paths.push(absolute_path(path)?);
        }
        if let Some(base) = &self.workspace {
            spec.workspace = Some(Workspace::new(absolute_path(base)?));
        }
        spec.env = self.session_env.iter().cloned().collect();
        spec.labels = self.labels.iter().cloned().collect();
        spec.auto_stop = self.auto_stop;
        spec.idle_timeout = self.idle_timeout;
        spec.max_lifetime = self.max_lifetime;
        spec.read_only_root = self.read_only.then_some(true);
        spec.hostname.clone_from(&self.hostname);
        let mut security = Security::default();
        security.add_capabilities.clone_from(&self.cap_add);
        security.drop_capabilities.clone_from(&self.cap_drop);
        security.isolation = self.isolation.map(|class| match class {
            IsolationArg::OwnRange => Isolation::OwnRange,
            IsolationArg::SharedRange => Isolation::SharedRange,
            IsolationArg::CallerUid => Isolation::CallerUid,
        });
        spec.security = security;
        self.engine.add_to(&mut spec);
        Ok(spec)
    }
}

/// Resolves the source of a bind from the caller's working directory: the container is found again
/// from another one.
pub(crate) fn absolute(mount: &Mount) -> podkit::Result<Mount> {
    let mut mount = mount.clone();
    if let podkit::MountSource::Bind(source) = &mount.source {
        mount.source = podkit::MountSource::Bind(absolute_path(source)?);
    }
    Ok(mount)
}

/// Resolves a path from the caller's working directory, without following links.
pub(crate) fn absolute_path(path: &Path) -> podkit::Result<PathBuf> {
    std::path::absolute(path).map_err(|error| {
        podkit::Error::invalid_input(format!("`{}` is not a path", path.display()))
            .with_source(error)
    })
}

/// Reads a length of time, or `off`.
fn limit(text: &str) -> Result<Limit, String> {
    Limit::parse(text).map_err(|error| complaint(&error))
}

/// An error in one argument, with what to write instead, as one line for clap.
pub(crate) fn complaint(error: &podkit::Error) -> String {
    match error.hint() {
        Some(hint) => format!("{}; {hint}", error.message()),
        None => error.message().to_owned(),
    }
}

pub(crate) fn size(text: &str) -> Result<String, String> {
    match parse_bytes(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(complaint(&error)),
    }
}

pub(crate) fn cores(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(cores) if cores.is_finite() && cores > 0.0 => Ok(cores),
        _ => Err("write a positive number, such as `0.5` or `2`".to_owned()),
    }
}

fn network(text: &str) -> Result<Network, String> {
    Network::parse(text).map_err(|error| complaint(&error))
}

fn mount(text: &str) -> Result<Mount, String> {
    Mount::parse(text).map_err(|error| complaint(&error))
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}
