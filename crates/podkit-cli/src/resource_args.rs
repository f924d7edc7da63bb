//! Flags of the commands about what containers use and may use.

use std::time::Duration;

use clap::Args;

use crate::spec::{cores, size};

/// Show what running sessions use
///
/// Processor time is in cores, as an average over the time between two looks. Nothing is started,
/// and looking is no use of a session.
#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// The sessions, as USER/SESSION or SESSION [default: all that run]
    #[arg(value_name = "SESSION")]
    pub(crate) sessions: Vec<String>,

    /// Go on, until it is interrupted or none of the sessions runs
    #[arg(short = 'f', long)]
    pub(crate) follow: bool,

    /// Time between two looks
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = crate::args::duration)]
    pub(crate) interval: Duration,
}

/// Change the limits of a session's container while it runs
///
/// They hold at once and for later starts; a container that is made anew has those that its session
/// was opened with.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct LimitArgs {
    /// The session, as USER/SESSION or SESSION
    #[arg(value_name = "SESSION")]
    pub(crate) session: String,

    /// Memory, such as 512m or 2g
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) memory: Option<String>,

    /// Swap on top of the memory
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) swap: Option<String>,

    /// Processor cores, such as 0.5 or 2
    #[arg(long, value_name = "CORES", value_parser = cores, allow_negative_numbers = true)]
    pub(crate) cpus: Option<f64>,

    /// Most processes and threads
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..), allow_negative_numbers = true)]
    pub(crate) pids: Option<u32>,
}

/// Freeze a session's processes; the next use lets them go on
///
/// Timeouts of commands and the greatest lifetime go on; the time to the stop of an unused container
/// does not.
#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    /// The session, as USER/SESSION or SESSION
    #[arg(value_name = "SESSION")]
    pub(crate) session: String,
}

/// Let a paused session's processes go on
#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    /// The session, as USER/SESSION or SESSION
    #[arg(value_name = "SESSION")]
    pub(crate) session: String,
}

/// Watch over all sessions, and tell what happens, until it is interrupted
///
/// A session whose container was killed, frozen, removed or does not answer is recovered; one that was
/// not used for its idle timeout is removed. Those that stopped by themselves are left alone. Each
/// event is one line; with --json, one JSON value.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  podkit monitor
  podkit monitor --interval 10s --clean-orphans 24h --json >> events")]
pub(crate) struct MonitorArgs {
    /// Time between two looks at a session, give or take a half
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = crate::args::duration)]
    pub(crate) interval: Duration,

    /// Also remove every session that was not used for this long
    #[arg(long, value_name = "TIME", value_parser = crate::args::duration)]
    pub(crate) clean_orphans: Option<Duration>,

    /// Lines of a failed container's own program that are shown
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) log_lines: usize,
}
