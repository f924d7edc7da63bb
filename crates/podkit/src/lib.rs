//! Isolated, lasting containers for untrusted code: create or reconnect, execute, expire, recover.
//!
//! Every session of every user has a container of its own. [`Podkit::session`] makes it on first
//! use and finds it again afterwards, from any process; commands and file calls go to a tiny agent
//! inside, so that they behave the same on every engine. On Linux no daemon is needed: podkit
//! makes the container itself.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> podkit::Result<()> {
//! use podkit::Podkit;
//!
//! let podkit = Podkit::connect("memory").await?; // "auto" runs real containers
//! let session = podkit.session("bob", "123").await?;
//! let output = session.exec(["echo", "hi"]).await?;
//! assert_eq!(output.stdout, b"hi\n");
//! session.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Where to look
//! - [`Podkit`]: the front door; [`session()`] is the shortest way in.
//! - [`Session`]: one user's container: [`exec`](Session::exec), [`shell`](Session::shell),
//!   [`files`](Session::files), [`close`](Session::close).
//! - [`SessionSpec`]: image, limits, mounts, network, clocks, hardening.
//! - [`Outcome`]: how a command ended. A command that fails or runs out of time is a result;
//!   [`Error`] means that podkit or the engine failed.
//! - [`blocking`]: the same for programs without async.
//! - [`backend`]: the contract for engines.
//!
//! # What lasts
//! A container stops by itself [`auto_stop`](SessionSpec::auto_stop) after its last activity (60 s
//! unless set); its files stay and the next use starts it again. [`Session::close`] removes it.
//! Nothing else removes it but [`Podkit::gc`], and that only when an idle time was given. What is
//! in a [`Workspace`] outlives the container.
//!
//! The engine is the database: a session's identity and configuration are labels of its container,
//! so any process can take over at any time.
//!
//! # Features
//! | feature | default | what it adds |
//! | --- | --- | --- |
//! | `embedded` | yes | the engine that needs no daemon (Linux) |
//! | `docker` | yes | Docker and Podman |
//! | `blocking` | yes | [`blocking`] |
//! | `settings` | no | `settings`: what environment and configuration file say, as the command line goes by it |
//! | `attacks` | no | `attacks`, which try what a container withstands (Linux) |
//! | `conformance` | no | the contract tests, for authors of backends |
#![forbid(unsafe_code)]

mod agent;
#[cfg(all(feature = "attacks", target_os = "linux"))]
pub mod attacks;
pub mod backend;
#[cfg(feature = "blocking")]
pub mod blocking;
mod config;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod container;
mod error;
mod event;
mod exec;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod id;
mod podkit;
mod port_pool;
mod process;
mod session;
#[cfg(feature = "settings")]
pub mod settings;
mod sync;

pub use crate::{
    agent::{
        ArchiveReader, DiskUsage, ExecHandle, ExecStdin, FileChange, FileChangeKind, FileEntry,
        FileKind, FileReader, FileWatch, ListeningPort, PortStream,
    },
    backend::{
        Capabilities, ContainerState, StopCause, SweepReport,
        connect::{ConnectOptions, DockerOptions},
    },
    config::{
        Bytes, DEFAULT_AUTO_STOP, DEFAULT_CPU_MILLIS, DEFAULT_MEMORY_BYTES, DEFAULT_PIDS_MAX,
        DEFAULT_SHM_BYTES, DEFAULT_USER, Device, Gpus, HostPort, Image, Isolation, Limit,
        LimitChange, Mount, MountSource, Network, Port, Protocol, PublishedPort, PullPolicy,
        Security, SessionSpec, Ulimit, WORKSPACE_PATH, Workspace, parse_bytes, parse_duration,
    },
    container::{
        ContainerManager, ContainerStats, Deadlines, ImageInfo, MountStrategy, ParentInfo,
        PullProgress, PullRequest, VolumeWorkspaces,
    },
    error::{Error, ErrorKind, Result},
    event::{
        AuditLog, CommandEnd, CommandInfo, Event, EventHandler, EventKind, EventStream, Illness,
        ProcessRef, Reason, Symptom, rfc3339,
    },
    exec::{
        DEFAULT_OUTPUT_LIMIT_BYTES, ExecEvent, ExecOutput, ExecRequest, ExecResult, MemorySource,
        Outcome, Stdin, TerminalSize, Usage,
    },
    id::{ContainerId, Prefix, SessionId, SessionKey, UserId},
    podkit::{Podkit, PodkitBuilder, session},
    port_pool::PortPool,
    process::{
        DEFAULT_LOG_LIMIT_BYTES, LogChunk, LogOptions, LogStream, ProcessInfo, ProcessState,
        RestartPolicy, SpawnRequest,
    },
    session::{
        CloseReport, Exec, Expiry, Files, GcOptions, GcReport, HealthOptions, ListSessions,
        LogEvents, Logs, OnConflict, OpenSession, Opened, PortForward, Process, Readiness, RunOnce,
        Session, SessionInfo, Spawn, StartupCheck, StatsStream, TransferProgress, TransferReport,
        WriteOptions,
    },
};

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
mod readme {}
