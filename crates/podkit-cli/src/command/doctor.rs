//! `podkit doctor`: tries what it reports.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use podkit::{
    Error, ErrorKind, ExecOutput, Isolation, Mount, Network, Outcome, Podkit, Result, Session,
    SessionSpec, backend::Capabilities,
};
use serde_json::{Value, json};

use super::Context;
use crate::args::DoctorArgs;
use crate::output::{Exit, Failure, duration_text, error_json, printable};

/// A trial that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(20);

/// One trial with its result.
struct Check {
    name: &'static str,
    /// Whether nothing works without it.
    essential: bool,
    took: Duration,
    result: Result<()>,
}

/// Trials as they come.
#[derive(Default)]
struct Checks(Vec<Check>);

impl Checks {
    /// Makes a trial.
    async fn make(
        &mut self,
        name: &'static str,
        essential: bool,
        trial: impl Future<Output = Result<()>>,
    ) {
        let began = Instant::now();
        let late = || {
            Err(Error::new(
                ErrorKind::TimedOut,
                format!("no result within {}", duration_text(DEADLINE)),
            ))
        };
        let result = tokio::time::timeout(DEADLINE, trial)
            .await
            .unwrap_or_else(|_| late());
        self.0.push(Check {
            name,
            essential,
            took: began.elapsed(),
            result,
        });
    }

    fn works(&self) -> bool {
        self.0
            .iter()
            .all(|check| !check.essential || check.result.is_ok())
    }
}

/// Tries the engine and says what it can do.
pub(super) async fn doctor(
    context: &Context,
    args: &DoctorArgs,
) -> std::result::Result<Exit, Failure> {
    if args.attack {
        #[cfg(target_os = "linux")]
        return super::attack::attack(context, args).await;
        #[cfg(not(target_os = "linux"))]
        return Err(Error::unsupported("the attacks are for Linux").into());
    }
    let mut checks = Checks::default();
    let began = Instant::now();
    let podkit = match context.podkit().await {
        Ok(podkit) => Some(podkit),
        Err(error) => {
            let took = began.elapsed();
            checks.0.push(Check {
                name: "reach the engine",
                essential: true,
                took,
                result: Err(error),
            });
            None
        }
    };
    if let Some(podkit) = &podkit {
        try_engine(&mut checks, podkit).await;
    }
    let capabilities = podkit.as_ref().map(Podkit::capabilities);
    let backend = podkit
        .as_ref()
        .map_or(context.settings.backend_name(), |podkit| {
            podkit.backend_name()
        });
    context.output.result(
        || report_json(context, backend, &checks, capabilities.as_ref()),
        || report_text(context, backend, &checks, capabilities.as_ref()),
    )?;
    Ok(if checks.works() {
        Exit::Success
    } else {
        Exit::Unhealthy
    })
}

async fn try_engine(checks: &mut Checks, podkit: &Podkit) {
    checks.make("reach the engine", true, podkit.ping()).await;
    checks
        .make("list sessions", true, async {
            podkit.list().await.map(drop)
        })
        .await;
    checks
        .make(
            "make, use and remove a container",
            true,
            scoped(podkit, small(), "exit 7", code(7)),
        )
        .await;
    checks
        .make(
            "bytes through a command",
            true,
            podkit.scoped(small(), echo),
        )
        .await;
    checks
        .make("write and read a file", true, podkit.scoped(small(), file))
        .await;
    // An engine that says it keeps no files does not break its word.
    let keeps = podkit.capabilities().stop_keeps_files;
    checks
        .make(
            "stop, and start with the files kept",
            keeps,
            podkit.scoped(small(), async |session: &Session| {
                restart(session, keeps).await
            }),
        )
        .await;
    checks
        .make(
            "end a command and all it started",
            true,
            podkit.scoped(small(), time_out),
        )
        .await;
    let fill = "head -c 64M /dev/zero | tail >/dev/null";
    checks
        .make(
            "limit memory",
            false,
            scoped(podkit, small().memory("32m"), fill, out_of_memory),
        )
        .await;
    // What goes on in the background keeps no output open, which would be waited for.
    let forks =
        "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do sleep 5 & done >/dev/null 2>&1";
    checks
        .make(
            "limit processes",
            false,
            scoped(podkit, small().pids_max(16), forks, failing),
        )
        .await;
    let cpus = small().cpus(0.5);
    checks
        .make(
            "limit processor time",
            false,
            scoped(podkit, cpus, "exit 0", code(0)),
        )
        .await;
    checks
        .make("share a directory with the host", false, share(podkit))
        .await;
    let outbound = small().network(Network::Outbound);
    checks
        .make(
            "network to the outside",
            false,
            scoped(podkit, outbound, "exit 0", code(0)),
        )
        .await;
}

fn small() -> SessionSpec {
    SessionSpec::new()
}

/// Runs a command line in a container of its own.
async fn scoped(
    podkit: &Podkit,
    spec: SessionSpec,
    command: &str,
    judge: impl Fn(ExecOutput) -> Result<()> + Send + Sync,
) -> Result<()> {
    podkit
        .scoped(spec, async |session: &Session| {
            judge(session.shell(command).await?)
        })
        .await
}

fn wrong(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unexpected, what)
}

fn code(code: u8) -> impl Fn(ExecOutput) -> Result<()> + Send + Sync {
    move |output| match output.outcome {
        Outcome::Exited(is) if is == code => Ok(()),
        outcome => Err(wrong(format!(
            "the command {outcome}: {}",
            output.stderr_text().trim()
        ))),
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "a judge takes the whole output"
)]
fn failing(output: ExecOutput) -> Result<()> {
    if output.outcome.is_success() {
        return Err(Error::unsupported("the limit did not hold"));
    }
    Ok(())
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "a judge takes the whole output"
)]
fn out_of_memory(output: ExecOutput) -> Result<()> {
    match output.outcome {
        Outcome::OutOfMemory => Ok(()),
        Outcome::Exited(0) => Err(Error::unsupported("the limit did not hold")),
        outcome => Err(wrong(format!("the command {outcome}"))),
    }
}

async fn echo(session: &Session) -> Result<()> {
    let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(1 << 20).collect();
    let output = session.exec(["cat"]).stdin(bytes.clone()).await?.check()?;
    if output.stdout == bytes {
        Ok(())
    } else {
        Err(wrong("what came back is not what was sent"))
    }
}

async fn file(session: &Session) -> Result<()> {
    session
        .files()
        .write("/workspace/doctor", b"ok".to_vec())
        .await?;
    match session.files().read("/workspace/doctor").await?.as_slice() {
        b"ok" => Ok(()),
        _ => Err(wrong("what was read is not what was written")),
    }
}

async fn restart(session: &Session, keeps: bool) -> Result<()> {
    session.files().write("/kept", b"ok".to_vec()).await?;
    session.stop(Duration::from_secs(1)).await?;
    let output = session.exec(["cat", "/kept"]).await?;
    if keeps {
        return output.check().map(drop);
    }
    Err(
        Error::unsupported("what containers write is lost at each stop here").with_hint(
            "put the state directory on a local disk: `--state-dir`, or in a container a volume at \
             /var/lib/podkit",
        ),
    )
}

async fn time_out(session: &Session) -> Result<()> {
    let command = "trap '' TERM; sleep 600 & setsid sleep 600 & wait";
    let output = session
        .shell(command)
        .timeout(Duration::from_millis(100))
        .await?;
    if output.outcome != Outcome::TimedOut {
        return Err(wrong(format!("the command {}", output.outcome)));
    }
    let rest = session.shell("cat /proc/[0-9]*/comm").await?;
    if rest.stdout_text().lines().any(|name| name == "sleep") {
        return Err(wrong("processes of the command are left"));
    }
    Ok(())
}

/// A container writes into a directory of the host's; the host reads it.
async fn share(podkit: &Podkit) -> Result<()> {
    let shared =
        Shared::new().map_err(|error| wrong("no directory to share").with_source(error))?;
    let spec = small().mount(Mount::bind(&shared.0, "/shared"));
    scoped(podkit, spec, "echo ok > /shared/file", code(0)).await?;
    match fs::read(shared.0.join("file")) {
        Ok(bytes) if bytes == b"ok\n" => Ok(()),
        Ok(_) => Err(wrong("the file is not what was written")),
        Err(error) => Err(wrong("the file cannot be read").with_source(error)),
    }
}

/// A directory that goes with its value.
struct Shared(PathBuf);

impl Shared {
    fn new() -> io::Result<Self> {
        let path = Path::new("/tmp").join(format!("podkit-doctor-{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Nothing more can be done about it.
        fs::remove_dir_all(&self.0).unwrap_or_default();
    }
}

/// What the engine says of itself: name and whether it is so.
fn abilities(can: &Capabilities) -> [(&'static str, bool); 26] {
    [
        ("memory_limit", can.memory_limit),
        ("swap_limit", can.swap_limit),
        ("cpu_limit", can.cpu_limit),
        ("pids_limit", can.pids_limit),
        ("pause", can.pause),
        ("live_limits", can.live_limits),
        ("stats", can.stats),
        ("local_images", can.local_images),
        ("image_references", can.image_references),
        ("bind_mounts", can.bind_mounts),
        ("writable_binds", can.writable_binds),
        ("volumes", can.volumes),
        ("outbound", can.outbound),
        ("parts_sessions", can.parts_sessions),
        ("named_networks", can.named_networks),
        ("ports", can.ports),
        ("dns", can.dns),
        ("ulimits", can.ulimits),
        ("devices", can.devices),
        ("gpus", can.gpus),
        ("platforms", can.platforms),
        ("inherit", can.inherit),
        ("auto_remove", can.auto_remove),
        ("bind_flags", can.bind_flags),
        ("stop_keeps_files", can.stop_keeps_files),
        ("outlives_client", can.outlives_client),
    ]
}

fn directories(context: &Context) -> Value {
    let connect = &context.settings.connect;
    json!({ "state_dir": connect.state_dir, "run_dir": connect.run_dir, "home": connect.home })
}

fn report_json(
    context: &Context,
    backend: &str,
    checks: &Checks,
    can: Option<&Capabilities>,
) -> Value {
    let check = |check: &Check| {
        json!({
            "name": check.name,
            "ok": check.result.is_ok(),
            "essential": check.essential,
            "seconds": check.took.as_secs_f64(),
            "error": check.result.as_ref().err().map(error_json),
        })
    };
    let can = can.map(|can| {
        json!({
            "default_image": can.default_image.to_string(),
            "isolation": can.isolation.map(Isolation::as_str),
            "tree_kill": tree_kill(can),
            "abilities": abilities(can).into_iter().collect::<std::collections::BTreeMap<_, _>>(),
            "runtimes": can.runtimes,
            "limitations": can.limitations,
        })
    });
    json!({
        "works": checks.works(),
        "backend": backend,
        "directories": directories(context),
        "checks": checks.0.iter().map(check).collect::<Vec<_>>(),
        "capabilities": can,
    })
}

const fn tree_kill(can: &Capabilities) -> &'static str {
    match can.tree_kill {
        podkit::backend::TreeKill::Kernel => "kernel",
        _ => "best_effort",
    }
}

fn report_text(
    context: &Context,
    backend: &str,
    checks: &Checks,
    can: Option<&Capabilities>,
) -> String {
    let mut lines = vec![format!("engine: {backend}")];
    for check in &checks.0 {
        let verdict = match (&check.result, check.essential) {
            (Ok(()), _) => "ok    ",
            (Err(error), _) if error.kind() == ErrorKind::Unsupported => "no    ",
            (Err(_), true) => "FAILED",
            (Err(_), false) => "failed",
        };
        lines.push(format!(
            "  {verdict}  {:38} {:>8.1} ms",
            check.name,
            check.took.as_secs_f64() * 1e3
        ));
        if let Err(error) = &check.result {
            lines.extend(explain(error));
        }
    }
    if let Some(can) = can {
        let named = |on: bool| {
            let names = abilities(can)
                .into_iter()
                .filter(|(_, is)| *is == on)
                .map(|(name, _)| name.replace('_', " "));
            names.collect::<Vec<_>>().join(", ")
        };
        lines.push(format!("default image: {}", can.default_image));
        if let Some(isolation) = can.isolation {
            lines.push(format!(
                "isolation of user ids: {}",
                isolation.as_str().replace('_', " ")
            ));
        }
        lines.push(format!(
            "kills process trees by: {}",
            tree_kill(can).replace('_', " ")
        ));
        lines.push(format!("can: {}", named(true)));
        lines.push(format!("cannot: {}", named(false)));
        if !can.limitations.is_empty() {
            lines.push("limitations:".to_owned());
            lines.extend(
                can.limitations
                    .iter()
                    .map(|text| format!("  - {}", printable(text))),
            );
        }
    }
    if let Some(directory) = &context.settings.connect.state_dir {
        lines.push(format!("state: {}", directory.display()));
    }
    lines.push(if checks.works() {
        "podkit works here".to_owned()
    } else {
        "podkit cannot work here".to_owned()
    });
    lines.join("\n") + "\n"
}

fn explain(error: &Error) -> Vec<String> {
    let mut lines = vec![format!("          {}", printable(&error.to_string()))];
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        lines.push(format!(
            "          caused by: {}",
            printable(&cause.to_string())
        ));
        next = cause.source();
    }
    lines.extend(
        error
            .hint()
            .map(|hint| format!("          hint: {}", printable(hint))),
    );
    lines
}
