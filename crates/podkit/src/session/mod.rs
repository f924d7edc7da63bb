//! Sessions: who owns which container, for how long; create or reconnect; expiry; recovery.
//!
//! Invariant: no engine is known here, and nothing is remembered that the engine does not know:
//! the state of this module can be lost at any time.

mod actions;
mod close;
mod exec;
mod files;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod gc;
mod handle;
mod health;
mod info;
mod labels;
mod logs;
mod manager;
mod open;
mod opening;
mod ports;
mod process;
mod ready;
mod resources;
mod run_once;
mod scoped;
mod slot;
mod spec;
mod tasks;
mod tree;

pub(crate) use self::manager::SessionManager;
#[cfg(feature = "attacks")]
pub(crate) use self::scoped::LEFT_BEHIND;
#[cfg(feature = "blocking")]
pub(crate) use self::scoped::{throw_away_key, throw_away_spec};
pub use self::{
    close::CloseReport,
    exec::Exec,
    files::{Files, WriteOptions},
    gc::{GcOptions, GcReport},
    handle::Session,
    health::HealthOptions,
    info::{Expiry, ListSessions, SessionInfo},
    logs::{LogEvents, Logs},
    open::{OnConflict, OpenSession, Opened},
    ports::PortForward,
    process::{Process, Spawn},
    ready::{Readiness, StartupCheck},
    resources::StatsStream,
    run_once::RunOnce,
    tree::{TransferProgress, TransferReport},
};
