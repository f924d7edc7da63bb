//! Flags for what only some engines have.

use std::net::IpAddr;

use clap::Args;
use podkit::{Device, Gpus, Port, PullPolicy, SessionSpec, Ulimit};

use crate::spec::complaint;

/// Settings of a session that is made, on engines that have them.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Options for a session that is made, where the engine has them")]
pub(crate) struct EngineArgs {
    /// Offer a port of the container's on this machine: 8000, 8080:8000, 0:8000, ADDR:8080:8000
    #[arg(short = 'p', long = "port", value_name = "PORT", value_parser = port)]
    ports: Vec<Port>,

    /// Run the image's own entrypoint and command
    #[arg(long, conflicts_with_all = ["entrypoint", "main"])]
    image_defaults: bool,

    /// Program that runs as the container's own; empty clears the image's
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,

    /// Word of the container's own command line; give it once for each word
    #[arg(long = "main", value_name = "WORD", allow_hyphen_values = true)]
    main: Vec<String>,

    /// When the image is fetched: missing, always, never [default: missing]
    #[arg(long, value_name = "WHEN", value_parser = pull)]
    pull: Option<PullPolicy>,

    /// Platform of the image, such as linux/amd64
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,

    /// Further name of the container on its named networks
    #[arg(long = "alias", value_name = "NAME")]
    aliases: Vec<String>,

    /// Name server
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<IpAddr>,

    /// Further line of /etc/hosts
    #[arg(long = "add-host", value_name = "NAME:ADDRESS", value_parser = host)]
    hosts: Vec<(String, String)>,

    /// Size of /dev/shm [default: 64m]
    #[arg(long, value_name = "SIZE")]
    shm: Option<String>,

    /// Limit of each process, such as nofile=1024 or nofile=1024:4096
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]", value_parser = ulimit)]
    ulimits: Vec<(String, Ulimit)>,

    /// Device of this machine's, as PATH[:PATH[:rwm]]
    #[arg(long = "device", value_name = "DEVICE", value_parser = device)]
    devices: Vec<Device>,

    /// Graphics processors: all, a number, or names separated by commas
    #[arg(long, value_name = "WHICH", value_parser = gpus)]
    gpus: Option<Gpus>,

    /// The engine's runtime, such as runsc or kata
    #[arg(long, value_name = "NAME")]
    runtime: Option<String>,

    /// Let the engine remove the container as soon as it stops
    #[arg(long)]
    auto_remove: bool,

    /// Run without the system call filter
    #[arg(long)]
    seccomp_unconfined: bool,

    /// Let programs gain rights by set-id bits
    #[arg(long)]
    allow_new_privileges: bool,
}

impl EngineArgs {
    /// Adds to the wish what these flags express.
    pub(crate) fn add_to(&self, spec: &mut SessionSpec) {
        spec.ports.clone_from(&self.ports);
        spec.image_defaults = self.image_defaults;
        spec.entrypoint = self.entrypoint.as_ref().map(|program| {
            let program = (!program.is_empty()).then(|| program.clone());
            program.into_iter().collect()
        });
        spec.command = (!self.main.is_empty()).then(|| self.main.clone());
        spec.pull = self.pull;
        spec.platform.clone_from(&self.platform);
        spec.aliases.clone_from(&self.aliases);
        spec.dns.clone_from(&self.dns);
        spec.hosts = self.hosts.iter().cloned().collect();
        spec.shm = self.shm.as_deref().map(Into::into);
        spec.ulimits = self.ulimits.iter().cloned().collect();
        spec.devices.clone_from(&self.devices);
        spec.gpus.clone_from(&self.gpus);
        spec.runtime.clone_from(&self.runtime);
        spec.auto_remove = self.auto_remove.then_some(true);
        spec.security.seccomp_unconfined = self.seccomp_unconfined;
        spec.security.allow_new_privileges = self.allow_new_privileges;
    }
}

fn port(text: &str) -> Result<Port, String> {
    Port::parse(text).map_err(|error| complaint(&error))
}

fn pull(text: &str) -> Result<PullPolicy, String> {
    PullPolicy::parse(text).map_err(|error| complaint(&error))
}

fn host(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((name, address)) if !name.is_empty() && address.parse::<IpAddr>().is_ok() => {
            Ok((name.to_owned(), address.to_owned()))
        }
        _ => Err("write NAME:ADDRESS".to_owned()),
    }
}

fn ulimit(text: &str) -> Result<(String, Ulimit), String> {
    Ulimit::parse(text).map_err(|error| complaint(&error))
}

fn device(text: &str) -> Result<Device, String> {
    Device::parse(text).map_err(|error| complaint(&error))
}

fn gpus(text: &str) -> Result<Gpus, String> {
    Gpus::parse(text).map_err(|error| complaint(&error))
}
