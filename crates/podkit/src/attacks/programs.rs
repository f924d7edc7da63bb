//! The programs that attack, and how they are built.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::error::{Error, ErrorKind, Result};

/// One C source; it builds to one static program with several attacks in it.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Name of the program, and of its source without `.c`.
    pub name: &'static str,
    /// The source.
    pub source: &'static str,
}

macro_rules! programs {
    ($($name:literal),*) => {
        /// The programs.
        pub const PROGRAMS: &[Program] = &[$(Program {
            name: $name,
            source: include_str!(concat!("../../attacks/", $name, ".c")),
        }),*];
    };
}

programs![
    "mounts",
    "processes",
    "kernel",
    "reach",
    "exhaust",
    "became",
    "escape_timeout"
];

/// What the programs include.
const HEADER: &str = include_str!("../../attacks/attack.h");

/// Builds the attack programs into a directory, with `cc` as static programs.
///
/// # Errors
/// `Unavailable` when there is no `cc` that can, with what it said.
pub fn build_programs(directory: &Path) -> Result<()> {
    let written = || -> io::Result<()> {
        fs::create_dir_all(directory)?;
        fs::write(directory.join("attack.h"), HEADER)?;
        PROGRAMS
            .iter()
            .try_for_each(|program| fs::write(source(directory, program), program.source))
    };
    written().map_err(|error| {
        Error::new(
            ErrorKind::Unexpected,
            "the attack programs cannot be written",
        )
        .with_source(error)
    })?;
    let builds: Vec<io::Result<Child>> = PROGRAMS
        .iter()
        .map(|program| compile(directory, program))
        .collect();
    // All of them are waited for, whatever becomes of one.
    let ended: Vec<Result<()>> = builds.into_iter().map(finish).collect();
    ended.into_iter().collect()
}

fn source(directory: &Path, program: &Program) -> PathBuf {
    directory.join(program.name).with_extension("c")
}

fn compile(directory: &Path, program: &Program) -> io::Result<Child> {
    Command::new("cc")
        .args(["-static", "-O1", "-Wall", "-Wextra", "-Werror", "-o"])
        .args([&directory.join(program.name), &source(directory, program)])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
}

fn finish(build: io::Result<Child>) -> Result<()> {
    let hint =
        "install a C compiler with the static C library (Debian: `apt install gcc libc6-dev`)";
    let missing = |why: &str| {
        Error::new(
            ErrorKind::Unavailable,
            format!("the attack programs cannot be built: {why}"),
        )
        .with_hint(hint)
    };
    let output = build
        .and_then(Child::wait_with_output)
        .map_err(|error| missing("no `cc` can be run").with_source(error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(missing(said.lines().next().unwrap_or("`cc` failed")))
}
