//! Very many sessions one after the other through one client: nothing of the client's and nothing on
//! the host grows with their number. The client is looked at from outside, at points where it rests
//! with as many sessions open, in the same states, as at every other such point.

mod client;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

pub(crate) use client::main as client;

use crate::{CHURN_CLIENT, host, number, say};

/// How often the client is looked at.
const LOOKS: usize = 10;

/// How long what is passing may take to pass: threads without work end after ten seconds.
const SETTLING: Duration = Duration::from_secs(30);

/// Memory, in KiB, that an allocator may hold more or less.
const SLACK_KIB: u64 = 2048;

/// What is asked for on the command line.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) backend: String,
    /// Sessions in all.
    pub(crate) total: usize,
    /// Sessions at a time.
    pub(crate) alive: usize,
}

/// What there is at one point: of the client's, and on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Look {
    counts: BTreeMap<String, usize>,
    memory_kib: u64,
}

/// The client, in a process of its own.
struct Client {
    process: Child,
    input: ChildStdin,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Client {
    fn start(options: &Options, place: &Path, prefix: &str) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| format!("own program: {error}"))?;
        let mut process = Command::new(program)
            .args([CHURN_CLIENT, &options.backend])
            .arg(place)
            .arg(prefix)
            .args([options.total, options.alive, LOOKS].map(|number| number.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start the client: {error}"))?;
        let pipes = (process.stdin.take(), process.stdout.take());
        let (Some(input), Some(output)) = pipes else {
            return Err("the client has no pipes".to_owned());
        };
        let lines = BufReader::new(output).lines();
        Ok(Self {
            process,
            input,
            lines,
        })
    }

    /// The next line with a word before it.
    fn answer(&mut self, word: &str) -> Result<String, String> {
        let line = match self.lines.next() {
            Some(Ok(line)) => line,
            other => return Err(format!("the client ended, or broke off: {other:?}")),
        };
        let rest = line.strip_prefix(word).map(str::trim);
        rest.map(str::to_owned)
            .ok_or_else(|| format!("the client said `{line}`"))
    }

    fn ask(&mut self, word: &str, answer: &str) -> Result<String, String> {
        writeln!(self.input, "{word}").map_err(|error| format!("the client is gone: {error}"))?;
        self.answer(answer)
    }
}

/// The whole test.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let prefix = format!("churn{:06x}", std::process::id());
    let place = PathBuf::from("/var/tmp").join(&prefix);
    std::fs::create_dir(&place).map_err(|error| format!("{}: {error}", place.display()))?;
    let (total, alive, backend) = (options.total, options.alive, options.backend.as_str());
    say(&format!(
        "churn: {total} sessions on {backend}, {alive} at a time"
    ));
    let before = host::snapshot(backend, &place, &prefix);
    let begun = Instant::now();
    let mut client = Client::start(options, &place, &prefix)?;
    client.answer("hello")?;
    let mut looks: Vec<Look> = Vec::new();
    for number in 1..=LOOKS {
        let sessions = client.answer("quiet")?;
        let look = settle(&mut client, backend, &place, &prefix, looks.first())?;
        say(&format!(
            "churn: {:>4} s: {sessions} sessions: {} KiB, {}",
            begun.elapsed().as_secs(),
            look.memory_kib,
            counts(&look)
        ));
        looks.push(look);
        if number < LOOKS {
            writeln!(client.input, "go").map_err(|error| format!("the client is gone: {error}"))?;
        }
    }
    let took = client.ask("finish", "bye")?;
    let _ = client.process.wait();
    say(&format!("churn: {took}"));
    let mut wrong = judge(&looks);
    wrong.extend(left(backend, &place, &prefix, &before));
    if !wrong.is_empty() {
        let place = place.display();
        return Err(format!("in {place}:\n{}", wrong.join("\n")));
    }
    std::fs::remove_dir_all(&place).map_err(|error| format!("{}: {error}", place.display()))?;
    say("churn: nothing grew, and nothing is left");
    Ok(())
}

fn counts(look: &Look) -> String {
    let words = look.counts.iter();
    let words: Vec<String> = words
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    words.join(", ")
}

/// Looks until everything is as it was at the first point, or does not become so. At the first one,
/// until nothing changes any more.
fn settle(
    client: &mut Client,
    backend: &str,
    place: &Path,
    prefix: &str,
    first: Option<&Look>,
) -> Result<Look, String> {
    let begun = Instant::now();
    let mut last = look(client, backend, place, prefix)?;
    let mut unchanged = Instant::now();
    loop {
        std::thread::park_timeout(Duration::from_millis(500));
        let now = look(client, backend, place, prefix)?;
        if now.counts != last.counts {
            unchanged = Instant::now();
        }
        last = now;
        let settled = match first {
            Some(first) => last.counts == first.counts,
            None => unchanged.elapsed() > SETTLING / 2,
        };
        if settled || begun.elapsed() > SETTLING {
            return Ok(last);
        }
    }
}

fn look(client: &mut Client, backend: &str, place: &Path, prefix: &str) -> Result<Look, String> {
    let tasks = client.ask("tasks", "tasks")?;
    let pid = client.process.id();
    let sample = host::sample(pid).ok_or("the client is gone")?;
    let mut counts = BTreeMap::from([
        ("tasks".to_owned(), number("tasks", &tasks)?),
        ("descriptors".to_owned(), sample.descriptors),
        ("threads".to_owned(), sample.threads),
    ]);
    for line in host::snapshot(backend, place, prefix) {
        // The client itself has the mark on its command line.
        if line.starts_with(&format!("process {pid} ")) {
            continue;
        }
        let kind = line.split(' ').next().unwrap_or_default();
        let kind = match kind {
            "uid" => "ranges of ids",
            "process" => "processes",
            kind => kind,
        };
        *counts.entry(kind.to_owned()).or_default() += 1;
    }
    Ok(Look {
        counts,
        memory_kib: sample.memory_kib,
    })
}

/// Nothing is more, or less, than at the first point; memory stands still from the second on.
fn judge(looks: &[Look]) -> Vec<String> {
    let mut wrong = Vec::new();
    let Some(first) = looks.first() else {
        return vec!["the client was never looked at".to_owned()];
    };
    for (number, look) in looks.iter().enumerate() {
        for (name, count) in &look.counts {
            let at_first = first.counts.get(name).copied().unwrap_or_default();
            if *count != at_first {
                wrong.push(format!(
                    "{count} {name} at look {}, {at_first} at the first one",
                    number + 1
                ));
            }
        }
    }
    let mut memory = looks.iter().skip(1).map(|look| look.memory_kib);
    if let (Some(early), Some(last)) = (memory.clone().take(2).max(), memory.next_back())
        && last > early * 105 / 100 + SLACK_KIB
    {
        wrong.push(format!("memory grew from {early} to {last} KiB"));
    }
    wrong
}

/// What is on the host that was not there before.
fn left(backend: &str, place: &Path, prefix: &str, before: &BTreeSet<String>) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let after = host::snapshot(backend, place, prefix);
        let left: Vec<String> = after
            .difference(before)
            .map(|line| format!("left behind: {line}"))
            .collect();
        if left.is_empty() || begun.elapsed() > SETTLING {
            return left;
        }
        std::thread::park_timeout(Duration::from_millis(500));
    }
}
