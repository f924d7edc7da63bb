//! `podkit completions`.

use clap::CommandFactory;

use crate::{
    args::{Cli, CompletionsArgs},
    output::{Exit, Failure, Output},
};

/// Writes a completion script.
pub(super) fn completions(args: &CompletionsArgs, output: Output) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "podkit", &mut script);
    output.text(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Success)
}
