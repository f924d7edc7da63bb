//! Flags of the commands about files.

use clap::{Args, ValueHint};

/// Copy a file or a directory into or out of a session
///
/// One of the two is [USER/]SESSION:PATH. A local path that contains a colon begins with `/` or
/// `./`. A directory is copied with all that is in it; into an existing directory, under its own
/// name. Permissions and times are kept, set-id bits are not. Links are copied as links; out of a
/// session only those that stay inside what is copied. `-` is a tar archive on standard input or
/// output.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  podkit cp ./data bob/123:/workspace/data
  podkit cp bob/123:/workspace/result.csv .
  podkit cp bob/123:/workspace - | gzip > workspace.tar.gz")]
pub(crate) struct CpArgs {
    /// What to copy: a local path, or [USER/]SESSION:PATH
    #[arg(value_name = "FROM", value_hint = ValueHint::AnyPath)]
    pub(crate) from: String,

    /// Where to: a local path, or [USER/]SESSION:PATH
    #[arg(value_name = "TO", value_hint = ValueHint::AnyPath)]
    pub(crate) to: String,

    /// User inside the container, as name, uid, name:group or uid:gid
    #[arg(short = 'u', long, value_name = "USER")]
    pub(crate) user: Option<String>,

    /// Show no progress
    #[arg(short = 'q', long)]
    pub(crate) quiet: bool,
}

/// Write standard input to a file of a session
///
/// The file is replaced at once: a reader sees the old content or the new. Missing directories are
/// made.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  podkit write bob/123 notes.txt < notes.txt
  date | podkit write --append bob/123 /var/log/visits")]
pub(crate) struct WriteArgs {
    /// The session, as USER/SESSION or SESSION
    #[arg(value_name = "SESSION")]
    pub(crate) session: String,

    /// Path in the container, absolute or from /workspace
    #[arg(value_name = "PATH")]
    pub(crate) path: String,

    /// Add to the file instead of replacing it
    #[arg(short = 'a', long)]
    pub(crate) append: bool,

    /// Permission bits of a file that is made, in octal
    #[arg(long, value_name = "MODE", value_parser = mode)]
    pub(crate) mode: Option<u32>,

    /// User inside the container, as name, uid, name:group or uid:gid
    #[arg(short = 'u', long, value_name = "USER")]
    pub(crate) user: Option<String>,

    /// Show no progress
    #[arg(short = 'q', long)]
    pub(crate) quiet: bool,
}

/// Write a file of a session to standard output
#[derive(Debug, Args)]
pub(crate) struct ReadArgs {
    /// The session, as USER/SESSION or SESSION
    #[arg(value_name = "SESSION")]
    pub(crate) session: String,

    /// Path in the container, absolute or from /workspace
    #[arg(value_name = "PATH")]
    pub(crate) path: String,

    /// User inside the container, as name, uid, name:group or uid:gid
    #[arg(short = 'u', long, value_name = "USER")]
    pub(crate) user: Option<String>,

    /// Show no progress
    #[arg(short = 'q', long)]
    pub(crate) quiet: bool,
}

/// Tell what happens to files of a session, until it is interrupted
///
/// One line for each change: what happened, and where, from the directory that is watched. A session
/// that is only watched stops and expires as if nobody looked.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  podkit watch bob/123                              what happens in /workspace itself
  podkit watch -r bob/123 src
  podkit watch -r --json bob/123 | jq -r 'select(.change == \"modified\").path'")]
pub(crate) struct WatchArgs {
    /// The session, as USER/SESSION or SESSION
    #[arg(value_name = "SESSION")]
    pub(crate) session: String,

    /// Directory in the container, absolute or from /workspace
    #[arg(value_name = "PATH", default_value = ".", hide_default_value = true)]
    pub(crate) path: String,

    /// Watch what is below as well
    #[arg(short = 'r', long)]
    pub(crate) recursive: bool,

    /// User inside the container, as name, uid, name:group or uid:gid
    #[arg(short = 'u', long, value_name = "USER")]
    pub(crate) user: Option<String>,

    /// Say nothing about what podkit itself does
    #[arg(short = 'q', long)]
    pub(crate) quiet: bool,
}

/// Show what a file or a directory of a session takes
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  podkit du bob/123                                 what /workspace takes
  podkit du bob/123 /")]
pub(crate) struct DuArgs {
    /// The session, as USER/SESSION or SESSION
    #[arg(value_name = "SESSION")]
    pub(crate) session: String,

    /// Path in the container, absolute or from /workspace
    #[arg(value_name = "PATH", default_value = ".", hide_default_value = true)]
    pub(crate) path: String,

    /// User inside the container, as name, uid, name:group or uid:gid
    #[arg(short = 'u', long, value_name = "USER")]
    pub(crate) user: Option<String>,

    /// Say nothing about what podkit itself does
    #[arg(short = 'q', long)]
    pub(crate) quiet: bool,
}

fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o7777 => Ok(mode),
        _ => Err(format!("{text:?} is not an octal number such as 644")),
    }
}
