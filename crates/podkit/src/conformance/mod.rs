//! The contract tests: run them against a backend to know whether it keeps the promises of
//! [`Backend`](crate::backend::Backend).
//!
//! Each [`Case`] is one behaviour. It gets a [`Target`] – a backend, a private directory – makes its
//! own sessions under a prefix of its own, and removes them also after a panic.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> podkit::Result<()> {
//! use podkit::{backend::connect::{ConnectOptions, connect}, conformance::{Target, cases}};
//!
//! let directory = std::env::temp_dir();
//! let backend = connect("memory", &ConnectOptions::default()).await?;
//! let target = Target::new(backend, directory).simulated();
//! for case in cases().filter(|case| case.runs_on(&target)).take(3) {
//!     case.run(target.clone()).await; // panics when the contract is broken
//! }
//! # Ok(())
//! # }
//! ```
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a case panics when the contract is broken; that is its result"
)]

mod deeds;
mod events;
mod exec;
mod exec_end;
mod exec_stream;
mod fault_backend;
mod faults;
mod faults_later;
mod files;
mod files_bounds;
mod full_disk;
mod health;
mod input;
mod isolation;
mod lab;
mod lifecycle;
mod nested;
mod ports;
mod process_logs;
mod processes;
mod ready;
mod resources;
mod sessions;
mod sessions_shared;
mod terminals;
mod trees;
mod trees_bounds;
mod trees_watch;
mod volumes;

use std::{
    fmt,
    panic::{AssertUnwindSafe, resume_unwind},
    path::{Path, PathBuf},
};

use futures::{FutureExt, future::BoxFuture};

use self::lab::Lab;
pub use self::{
    deeds::{DEEDS, Deed, Doing},
    fault_backend::{Fault, FaultBackend, Method},
};
use crate::{
    backend::BackendRef,
    config::{PullPolicy, SessionSpec},
};

/// A backend to test, and what the cases need beside it.
#[derive(Clone, Debug)]
pub struct Target {
    backend: BackendRef,
    directory: PathBuf,
    programs: Option<PathBuf>,
    image: Option<String>,
    real: bool,
}

impl Target {
    /// Tests `backend`; cases keep their files in directories of their own under `directory`,
    /// which the engine must see at the same path.
    pub fn new(backend: BackendRef, directory: impl Into<PathBuf>) -> Self {
        Self {
            backend,
            directory: directory.into(),
            programs: None,
            image: None,
            real: true,
        }
    }

    /// Says that the backend runs no real programs: cases that need them do not
    /// [run on it](Case::runs_on).
    #[must_use]
    pub fn simulated(mut self) -> Self {
        self.real = false;
        self
    }

    /// Says which image cases work in that name none: one with a shell and the ordinary programs of
    /// a Debian. The engine's default one without.
    #[must_use]
    pub fn with_image(mut self, image: impl Into<String>) -> Self {
        self.image = Some(image.into());
        self
    }

    /// What cases begin with that say nothing else.
    pub(crate) fn default_spec(&self) -> SessionSpec {
        SessionSpec {
            image: self.image.clone(),
            // No case is about registries, and none waits for one.
            pull: self.image.as_ref().map(|_| PullPolicy::Never),
            ..SessionSpec::new()
        }
    }

    /// Says where the built attack [`PROGRAMS`](crate::attacks::PROGRAMS) are; the isolation cases need them.
    #[must_use]
    pub fn with_programs(mut self, programs: impl Into<PathBuf>) -> Self {
        self.programs = Some(programs.into());
        self
    }

    /// Where the attack programs are.
    #[must_use]
    pub fn programs(&self) -> Option<&Path> {
        self.programs.as_deref()
    }
}

/// What a case needs of its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Containers whose commands may be simulated.
    Containers,
    /// Containers that run real programs.
    Programs,
    /// Real programs, and the attack [`PROGRAMS`](crate::attacks::PROGRAMS).
    Attacks,
}

/// One behaviour of the contract.
pub struct Case {
    /// What it is about: `lifecycle`, `exec`, `files`, `sessions`, `processes`,
    /// `terminals`, `isolation` or `faults`.
    pub theme: &'static str,
    /// Subject, condition, result.
    pub name: &'static str,
    /// What it needs.
    pub needs: Needs,
    body: fn(Lab) -> BoxFuture<'static, ()>,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}", self.theme, self.name)
    }
}

impl Case {
    /// Whether the target has what the case needs.
    #[must_use]
    pub const fn runs_on(&self, target: &Target) -> bool {
        match self.needs {
            Needs::Containers => true,
            Needs::Programs => target.real,
            Needs::Attacks => target.real && target.programs.is_some(),
        }
    }

    /// Runs the case, and removes what it made, also when it failed.
    ///
    /// # Panics
    /// When the backend breaks the contract.
    pub async fn run(&self, target: Target) {
        let lab = Lab::new(&target, self.name).await;
        let result = AssertUnwindSafe((self.body)(lab.clone()))
            .catch_unwind()
            .await;
        let left = lab.clean().await;
        if let Err(panic) = result {
            resume_unwind(panic);
        }
        assert!(left.is_empty(), "the case left {left:?}");
    }
}

/// Every case, in reading order.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    [
        lifecycle::CASES,
        exec::CASES,
        exec_stream::CASES,
        exec_end::CASES,
        input::CASES,
        files::CASES,
        files_bounds::CASES,
        sessions::CASES,
        sessions_shared::CASES,
        processes::CASES,
        process_logs::CASES,
        resources::CASES,
        trees::CASES,
        trees_bounds::CASES,
        trees_watch::CASES,
        volumes::CASES,
        ports::CASES,
        ready::CASES,
        events::CASES,
        health::CASES,
        terminals::CASES,
        nested::CASES,
        isolation::CASES,
        faults::CASES,
        faults_later::CASES,
        full_disk::CASES,
    ]
    .into_iter()
    .flatten()
}

/// A table of cases: what each needs, and the function that is its body and its name.
macro_rules! table {
    ($theme:literal: $($needs:ident $case:ident),* $(,)?) => {
        pub(super) const CASES: &[super::Case] = &[$(super::Case {
            theme: $theme,
            name: stringify!($case),
            needs: super::Needs::$needs,
            body: |lab| Box::pin($case(lab)),
        }),*];
    };
}
use table;
