//! Flags of the commands about ports.

use std::net::IpAddr;

use clap::Args;

/// Show where the host offers a session's ports
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  podkit exec -p 8000 bob/web -- true              offer port 8000 of a session that is made
  podkit port bob/web
  podkit port --listening bob/web")]
pub(crate) struct PortArgs {
    /// The session, as USER/SESSION or SESSION
    #[arg(value_name = "SESSION")]
    pub(crate) session: String,

    /// Show on which ports somebody listens in the container instead
    #[arg(short = 'l', long)]
    pub(crate) listening: bool,
}

/// Connect a port of this machine to one in a session's container, until it is interrupted
///
/// The port in the container need not be offered by the host, and whoever listens there may do so on
/// loopback only. The address is written to standard output.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  podkit forward bob/web 8000
  podkit forward bob/web 8000 --local 0            any free port of this machine")]
pub(crate) struct ForwardArgs {
    /// The session, as USER/SESSION or SESSION
    #[arg(value_name = "SESSION")]
    pub(crate) session: String,

    /// Port in the container
    #[arg(value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..), allow_negative_numbers = true)]
    pub(crate) port: u16,

    /// Port of this machine; 0 for any that is free [default: the same]
    #[arg(long, value_name = "PORT")]
    pub(crate) local: Option<u16>,

    /// Address of this machine [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) address: Option<IpAddr>,

    /// Say nothing about what podkit itself does
    #[arg(short = 'q', long)]
    pub(crate) quiet: bool,
}
