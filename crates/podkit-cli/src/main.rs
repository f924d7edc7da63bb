//! The podkit command line: parse, call the library, print.
#![forbid(unsafe_code)]

mod args;
mod command;
mod command_args;
mod engine_args;
mod file_args;
mod image_args;
mod output;
mod port_args;
mod process_args;
mod pump;
mod resource_args;
mod signals;
mod spec;
mod terminal;

use std::{env, ffi::OsString, process::ExitCode};

use clap::Parser;

use crate::{
    args::{Cli, Environment, Format},
    output::Output,
};

fn main() -> ExitCode {
    let environment = Environment::read();
    let words: Vec<OsString> = env::args_os().collect();
    let exit = match Cli::try_parse_from(&words) {
        Ok(cli) => {
            let output = Output::new(cli.global.format(), environment.no_color);
            command::run(cli, &environment, output).unwrap_or_else(|failure| {
                if let Some(error) = &failure.error {
                    output.error(error);
                }
                failure.exit
            })
        }
        Err(error) => {
            let format = if args::wants_json(&words) {
                Format::Json
            } else {
                Format::Text
            };
            Output::new(format, environment.no_color).clap(&error)
        }
    };
    exit.into()
}
