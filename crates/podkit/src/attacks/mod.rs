//! The attacks that podkit is tried with, by `podkit doctor --attack` and by the conformance suite.
//!
//! Each has a control run, where nothing defends, and must succeed there: an attack that never works
//! proves nothing. [`prove`] runs them all against an engine and says of each what became of it.

mod deeds;
mod deeds_files;
mod exhaustion;
mod field;
mod judge;
mod list;
mod list_exhaustion;
mod list_kernel;
mod plain;
mod programs;
mod prove;
mod stage;

use futures::future::BoxFuture;

pub use self::{
    field::{Field, Played},
    judge::{Finding, Run, Verdict, judge},
    plain::Plain,
    programs::{PROGRAMS, Program, build_programs},
    prove::{Proof, prove},
    stage::{Stage, Victim},
};
use crate::{backend::Capabilities, error::Result};

/// All of them, in reading order.
pub fn attacks() -> impl Iterator<Item = &'static Attack> {
    [
        list::ATTACKS,
        list_kernel::ATTACKS,
        list_exhaustion::ATTACKS,
        deeds::ATTACKS,
    ]
    .into_iter()
    .flatten()
}

type Words = &'static [&'static str];

/// One attack.
#[derive(Clone, Copy, Debug)]
pub struct Attack {
    /// What it tries, in a few words.
    pub about: &'static str,
    /// How it is done.
    pub how: How,
    /// The words that it may end with inside.
    pub refused_with: &'static [&'static str],
    /// Whether kernels and machines may be without what it attacks; then the control run fails with
    /// one of [`ABSENT`].
    pub optional: bool,
    /// Whether it aims at files of the host's that the image `host` shows. Another image has files
    /// of its own there, which are the container's.
    pub aims_at_host_image: bool,
    /// Why an engine with these abilities lets it through, where it does.
    pub conceded: fn(&Capabilities) -> Option<&'static str>,
}

/// What the control run of an optional attack may say.
pub const ABSENT: &[&str] = &[
    "ENOSYS",
    "ENOENT",
    "ENODEV",
    "EAFNOSUPPORT",
    "ENETUNREACH",
    "EPERM",
    "EACCES",
];

/// How an attack is done.
#[derive(Clone, Copy, Debug)]
pub enum How {
    /// One of the [`PROGRAMS`] tries it inside.
    Program {
        /// Program, name of the attack in it, arguments. They may hold words that the [`Stage`]
        /// replaces.
        argv: &'static [&'static str],
        /// Where it succeeds.
        control: Control,
    },
    /// The program `exhaust` takes as much as it gets; others must go on having some.
    Exhaustion(Exhaustion),
    /// Something is prepared inside that the client, the engine or the agent stumbles over.
    Deed(for<'a> fn(&'a Field<'a>) -> BoxFuture<'a, Result<Played>>),
}

/// Where an attack must succeed, to show that it is real.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// On the host, as root.
    Host,
    /// On the host in a mount namespace of its own, after this shell text.
    Mounts(&'static str),
    /// On the host, with a terminal as standard input.
    Terminal,
}

/// What is exhausted.
#[derive(Clone, Copy, Debug)]
pub struct Exhaustion {
    /// The program's word for it.
    pub kind: &'static str,
    /// How much is asked for: more than the container may have, and little to the host.
    pub amount: &'static str,
    /// How much of it others ask for at the same time.
    pub little: &'static str,
    /// File or beginning of names that it works with.
    pub place: &'static str,
    /// As whom the control runs, which is short of it then: the user 65534.
    pub as_nobody: bool,
}

impl Attack {
    const fn at_host_image(mut self) -> Self {
        self.aims_at_host_image = true;
        self
    }

    const fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    const fn conceded(mut self, why: fn(&Capabilities) -> Option<&'static str>) -> Self {
        self.conceded = why;
        self
    }

    const fn within(mut self, setup: &'static str) -> Self {
        if let How::Program { argv, .. } = self.how {
            let control = Control::Mounts(setup);
            self.how = How::Program { argv, control };
        }
        self
    }

    const fn on_terminal(mut self) -> Self {
        if let How::Program { argv, .. } = self.how {
            let control = Control::Terminal;
            self.how = How::Program { argv, control };
        }
        self
    }
}

/// An attack by a program, with its control on the host.
const fn attack(about: &'static str, argv: Words, refused_with: Words) -> Attack {
    Attack {
        about,
        how: How::Program {
            argv,
            control: Control::Host,
        },
        refused_with,
        optional: false,
        aims_at_host_image: false,
        conceded: nowhere,
    }
}

const fn nowhere(_: &Capabilities) -> Option<&'static str> {
    None
}

const DENIED: Words = &["EPERM"];
const DENIED_OR_ABSENT: Words = &["EPERM", "ENOSYS", "EACCES"];
const NOT_WRITABLE: Words = &["EROFS", "EACCES", "ENOENT"];
const NOT_READABLE: Words = &["EACCES", "ENOENT", "ENODATA"];
