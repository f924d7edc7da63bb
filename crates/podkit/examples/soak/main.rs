//! Hours of use with everything that can go wrong: clients that are killed, containers that are
//! killed, commands that run out of time. A parent process keeps account of every write and
//! compares the host before and after; clients are this program started again.
//!
//! `cargo run --release --example soak -- [--backend embedded|docker] [--minutes N] [--sessions N]
//! [--seed N]`, as root; `scripts/soak.sh` does it. With `--churn N` so many sessions instead, one after
//! the other, `--sessions` (100) at a time: nothing may grow with their number.

mod churn;
mod client;
mod host;
mod model;
mod oracle;
mod random;

use std::{io::Write, process::ExitCode, str::FromStr, time::Duration};

use oracle::Options;

/// Argument that makes this program a client.
const CLIENT: &str = "client";

/// Argument that makes this program a client of very many sessions.
const CHURN_CLIENT: &str = "churn-client";

/// Image of sessions on Docker, as `scripts/engines.sh` makes it.
const DOCKER_IMAGE: &str = "podkit-test/debian:1";

/// Writes a line at once: the other end may be killed or read it at any time.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // A pipe takes lines of this length whole or not at all.
    let _ = out.write_all(format!("{line}\n").as_bytes());
    let _ = out.flush();
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let result = match words.split_first() {
        Some((first, rest)) if first == CLIENT => client::main(rest),
        Some((first, rest)) if first == CHURN_CLIENT => churn::client(rest),
        _ => options(&words).and_then(|(options, churn)| match churn {
            Some(total) => churn::run(&churn::Options {
                backend: options.backend,
                total,
                alive: options.sessions,
            }),
            None => oracle::run(options),
        }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            let _ = writeln!(std::io::stderr(), "soak: error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// What is asked for, and how many sessions one after the other, if that.
fn options(words: &[String]) -> Result<(Options, Option<usize>), String> {
    let mut churn = None;
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let mut options = Options {
        backend: "embedded".to_owned(),
        time: Duration::from_secs(10 * 60),
        sessions: 100,
        seed: clock.map_or(1, |since| since.as_secs()),
    };
    for pair in words.chunks(2) {
        let [name, value] = pair else {
            return Err(format!("`{}` needs a value", pair.concat()));
        };
        match name.as_str() {
            "--backend" if matches!(value.as_str(), "embedded" | "docker") => {
                options.backend.clone_from(value);
            }
            "--backend" => return Err(format!("`{value}` is not embedded or docker")),
            "--minutes" => options.time = Duration::from_secs(60 * number::<u64>(name, value)?),
            "--sessions" => options.sessions = number(name, value)?,
            "--churn" => churn = Some(number(name, value)?),
            "--seed" => options.seed = number(name, value)?,
            _ => return Err(format!("there is no `{name}`")),
        }
    }
    if options.sessions < 2 || options.time.is_zero() {
        return Err("at least 2 sessions and 1 minute are needed".to_owned());
    }
    if churn.is_some_and(|total| total / options.sessions < 10) {
        return Err(
            "each of the sessions at a time is followed by nine others at least".to_owned(),
        );
    }
    Ok((options, churn))
}

/// A number out of a text that somebody else wrote.
pub(crate) fn number<T: FromStr>(what: &str, text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("{what}: `{text}` is not a number"))
}
