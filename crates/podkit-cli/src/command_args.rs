//! Flags of all that runs a command.

use std::{ffi::OsString, time::Duration};

use clap::{Args, ValueHint};

/// The command of exec and run.
#[derive(Debug, Args)]
pub(crate) struct CommandArgs {
    #[command(flatten)]
    pub(crate) words: WordsArgs,

    /// Pass standard input on, also when it is a terminal
    #[arg(short = 'i', long, conflicts_with = "no_stdin")]
    pub(crate) stdin: bool,

    /// Give the command a terminal: your own, with -i, else one that nobody types on
    #[arg(short = 't', long)]
    pub(crate) terminal: bool,

    /// Do not read standard input; the command reads the end of file at once
    #[arg(short = 'n', long)]
    pub(crate) no_stdin: bool,

    #[command(flatten)]
    pub(crate) around: AroundArgs,

    /// Kill the command with all its processes after this long, and exit with 124
    #[arg(long, value_name = "TIME", value_parser = crate::args::duration)]
    pub(crate) timeout: Option<Duration>,

    /// Say nothing about what podkit itself does
    #[arg(short = 'q', long)]
    pub(crate) quiet: bool,
}

/// A program, or a text for a shell.
#[derive(Debug, Args)]
pub(crate) struct WordsArgs {
    /// Program and arguments; they are not seen by a shell
    #[arg(value_name = "COMMAND", trailing_var_arg = true, value_hint = ValueHint::CommandWithArguments,
          required_unless_present = "shell", conflicts_with = "shell")]
    pub(crate) argv: Vec<OsString>,

    /// Run TEXT with /bin/sh -c
    #[arg(short = 'c', long = "shell", value_name = "TEXT")]
    pub(crate) shell: Option<OsString>,
}

/// What a command finds around it.
#[derive(Debug, Args)]
pub(crate) struct AroundArgs {
    /// Set a variable of the command's environment; NAME alone passes your own value on
    #[arg(short = 'e', long = "env", value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,

    /// Working directory, absolute or from /workspace
    #[arg(short = 'w', long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,

    /// User inside the container, as name, uid, name:group or uid:gid
    #[arg(short = 'u', long, value_name = "USER")]
    pub(crate) user: Option<String>,
}
