//! Flags of the commands about background processes and terminals.

use std::{ffi::OsString, time::Duration};

use clap::{Args, ValueHint};
use podkit::RestartPolicy;

use crate::command_args::{AroundArgs, WordsArgs};

/// Begin a process in the background of a session, which is made on first use
///
/// The process belongs to the container: it goes on when podkit ends, and ends with the container.
/// What it writes is kept in a log of bounded size. Its id is written to standard output.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  podkit spawn bob/123 --name web -- python3 -m http.server 8000
  podkit spawn bob/123 --restart on-failure:5 --keep-alive -c 'exec ./worker'")]
pub(crate) struct SpawnArgs {
    /// The session, as USER/SESSION or SESSION
    #[arg(value_name = "SESSION")]
    pub(crate) session: String,

    /// Name, by which it is found as SESSION#NAME
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// Begin it again when it has ended: never, on-failure, on-failure:N or always
    #[arg(long, value_name = "POLICY", default_value = "never", value_parser = restart)]
    pub(crate) restart: RestartPolicy,

    /// Keep the container from stopping by itself while it runs
    #[arg(long)]
    pub(crate) keep_alive: bool,

    /// Directory of its log in the container [default: one that podkit chooses]
    #[arg(long, value_name = "DIR")]
    pub(crate) log_dir: Option<String>,

    /// Bytes of its log that are kept, as 10m; at most twice as many are on disk
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(crate) log_limit: Option<u64>,

    /// Give it a terminal instead of a log; see `podkit attach`
    #[arg(short = 't', long, conflicts_with_all = ["log_dir", "log_limit"])]
    pub(crate) terminal: bool,

    #[command(flatten)]
    pub(crate) words: WordsArgs,

    #[command(flatten)]
    pub(crate) around: AroundArgs,

    /// Kill it after this long, each time that it is begun
    #[arg(long, value_name = "TIME", value_parser = crate::args::duration)]
    pub(crate) timeout: Option<Duration>,

    /// Say nothing about what podkit itself does
    #[arg(short = 'q', long)]
    pub(crate) quiet: bool,
}

/// List the background processes of a session; a session that does not run has none
#[derive(Debug, Args)]
pub(crate) struct PsArgs {
    /// The session, as USER/SESSION or SESSION
    #[arg(value_name = "SESSION")]
    pub(crate) session: String,

    /// Only those that run
    #[arg(short = 'r', long)]
    pub(crate) running: bool,

    /// Only ids, one a line
    #[arg(short = 'q', long)]
    pub(crate) quiet: bool,
}

/// Show what a process has written, or a session's own program
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  podkit logs bob/123#web --tail 20
  podkit logs bob/123#web -f
  podkit logs bob/123")]
pub(crate) struct LogsArgs {
    /// The process, as SESSION#NAME or SESSION#ID; a session for its own program
    #[arg(value_name = "SESSION[#PROCESS]")]
    pub(crate) process: String,

    /// Go on with what it writes, until it has ended
    #[arg(short = 'f', long)]
    pub(crate) follow: bool,

    /// Only the last N lines
    #[arg(long, value_name = "N")]
    pub(crate) tail: Option<u64>,

    /// Only what was written in the last TIME, as 10m
    #[arg(long, value_name = "TIME", value_parser = crate::args::duration)]
    pub(crate) since: Option<Duration>,

    /// Only its standard output
    #[arg(long, conflicts_with = "stderr")]
    pub(crate) stdout: bool,

    /// Only its standard error
    #[arg(long)]
    pub(crate) stderr: bool,
}

/// Stop processes with all that they have started, or send them a signal
///
/// Without -s each gets SIGTERM, is killed once the grace is over, and is not begun again; podkit waits
/// until it is gone.
#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// The processes, as SESSION#NAME or SESSION#ID
    #[arg(value_name = "SESSION#PROCESS", required = true)]
    pub(crate) processes: Vec<String>,

    /// Send this signal, as HUP or 1, to the process's group, and do not wait
    #[arg(short = 's', long, value_name = "SIGNAL", value_parser = signal, conflicts_with = "grace")]
    pub(crate) signal: Option<i32>,

    /// Time between SIGTERM and SIGKILL
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = crate::args::duration)]
    pub(crate) grace: Duration,
}

/// Wait until a process has ended, and exit as it did
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// The process, as SESSION#NAME or SESSION#ID
    #[arg(value_name = "SESSION#PROCESS")]
    pub(crate) process: String,
}

/// Open a shell in a session, which is made on first use
///
/// The shell has a terminal that is kept in the container: type the detach keys to leave it running,
/// and come back by `podkit attach`; the container does not stop by itself until it ends. It ends when
/// your own terminal is closed.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  podkit shell bob/123
  podkit shell bob/123 -- python3")]
pub(crate) struct ShellArgs {
    /// The session, as USER/SESSION or SESSION
    #[arg(value_name = "SESSION")]
    pub(crate) session: String,

    /// Name, by which it is found as SESSION#NAME [default: shell, shell-2, ...]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// Program and arguments [default: bash, else sh]
    #[arg(value_name = "COMMAND", trailing_var_arg = true, value_hint = ValueHint::CommandWithArguments)]
    pub(crate) argv: Vec<OsString>,

    #[command(flatten)]
    pub(crate) around: AroundArgs,

    #[command(flatten)]
    pub(crate) detach: DetachArgs,

    /// Say nothing about what podkit itself does
    #[arg(short = 'q', long)]
    pub(crate) quiet: bool,
}

/// Join in with a process that has a terminal
///
/// Several may look and type at once. When your own terminal is closed the process goes on.
#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// The process, as SESSION#NAME or SESSION#ID
    #[arg(value_name = "SESSION#PROCESS")]
    pub(crate) process: String,

    #[command(flatten)]
    pub(crate) detach: DetachArgs,

    /// Say nothing about what podkit itself does
    #[arg(short = 'q', long)]
    pub(crate) quiet: bool,
}

/// How a terminal is left.
#[derive(Debug, Args)]
pub(crate) struct DetachArgs {
    /// Keys that leave the terminal: characters and ctrl-X, with commas between them; `none` for none
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", value_parser = keys)]
    pub(crate) detach_keys: Keys,
}

/// Bytes that are typed one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keys(pub(crate) Vec<u8>);

fn keys(text: &str) -> Result<Keys, String> {
    if text == "none" {
        return Ok(Keys(Vec::new()));
    }
    let bad = || format!("{text:?} is no list of keys such as ctrl-p,ctrl-q");
    let key = |key: &str| match (key.strip_prefix("ctrl-"), key.as_bytes()) {
        (Some(letter), _) => match letter.as_bytes() {
            [byte @ (b'a'..=b'z' | b'@' | b'[' | b'\\' | b']' | b'^' | b'_')] => Ok(byte & 0x1f),
            _ => Err(bad()),
        },
        (None, [byte]) if byte.is_ascii_graphic() => Ok(*byte),
        _ => Err(bad()),
    };
    text.split(',').map(key).collect::<Result<_, _>>().map(Keys)
}

fn restart(text: &str) -> Result<RestartPolicy, String> {
    match text.split_once(':') {
        None if text == "never" => Ok(RestartPolicy::Never),
        None if text == "always" => Ok(RestartPolicy::Always),
        None if text == "on-failure" => Ok(RestartPolicy::OnFailure { max_restarts: None }),
        Some(("on-failure", most)) if most.parse::<u32>().is_ok() => Ok(RestartPolicy::OnFailure {
            max_restarts: most.parse().ok(),
        }),
        _ => Err("it is one of never, on-failure, on-failure:N, always".to_owned()),
    }
}

fn bytes(text: &str) -> Result<u64, String> {
    podkit::parse_bytes(text).map_err(|error| crate::spec::complaint(&error))
}

/// Names of signals by their numbers, from 1 on.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

fn signal(text: &str) -> Result<i32, String> {
    if let Ok(number @ 1..=64) = text.parse::<i32>() {
        return Ok(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = SIGNALS.iter().position(|known| *known == name);
    number
        .and_then(|index| i32::try_from(index + 1).ok())
        .ok_or_else(|| format!("{text:?} is no signal such as TERM or 15"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_characters_and_controls() {
        assert_eq!(keys("ctrl-p,ctrl-q").unwrap().0, [16, 17]);
        assert_eq!(keys("ctrl-],x").unwrap().0, [29, b'x']);
        assert!(keys("none").unwrap().0.is_empty());
        for bad in ["", "ctrl-", "ctrl-P", "xy", ",", "ctrl-p,"] {
            assert!(keys(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn signals_are_names_and_numbers() {
        for (text, number) in [
            ("TERM", 15),
            ("sigkill", 9),
            ("1", 1),
            ("64", 64),
            ("winch", 28),
        ] {
            assert_eq!(signal(text), Ok(number), "{text:?}");
        }
        for bad in ["", "0", "65", "-1", "SIG", "NOSUCH"] {
            assert!(signal(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn restart_policies_are_known() {
        let most = |max_restarts| Ok(RestartPolicy::OnFailure { max_restarts });
        assert_eq!(restart("on-failure"), most(None));
        assert_eq!(restart("on-failure:3"), most(Some(3)));
        for bad in ["", "on-failure:", "on-failure:x", "always:3", "no"] {
            assert!(restart(bad).is_err(), "{bad:?}");
        }
    }
}
