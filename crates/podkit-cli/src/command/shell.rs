//! `podkit shell` and `podkit attach`.

use std::os::unix::ffi::OsStrExt as _;

use podkit::{ErrorKind, ExecRequest, Process, Session, SessionKey, SpawnRequest};

use super::{
    Context, exec,
    process::{HANG_UP_GRACE, find, split},
};
use crate::{
    output::{Exit, Failure},
    process_args::{AttachArgs, Keys, ShellArgs},
    pump,
    signals::Signals,
    terminal::{self, End},
};

/// Runs the best shell that there is.
const SHELL: &str = "command -v bash >/dev/null 2>&1 && exec bash -i; exec /bin/sh -i";

/// SIGHUP: the terminal was closed.
const HANG_UP: i32 = 1;

/// Shells of one session that are named.
const MOST_NAMES: u32 = 1000;

/// Opens a shell with a terminal that is kept.
pub(super) async fn shell(context: &Context, args: ShellArgs) -> Result<Exit, Failure> {
    refuse_json(context)?;
    let key = context.key(&args.session)?;
    let mut command = if args.argv.is_empty() {
        ExecRequest::shell(SHELL)
    } else {
        ExecRequest::new(args.argv.iter().map(|word| word.as_bytes()))
    };
    for entry in &args.env {
        let variable = exec::env_entry(entry).map_err(Failure::usage)?;
        command.env.extend(variable);
    }
    command.cwd.clone_from(&args.workdir);
    command.user.clone_from(&args.user);
    command.terminal = Some(terminal::size());
    let mut request = SpawnRequest::new(command);
    // Whoever leaves it wants to find it again.
    request.keep_alive = true;
    request.name.clone_from(&args.name);
    request.check().map_err(Failure::usage)?;
    let mut signals = Signals::listen()?;
    let open = context.session(&key, args.quiet);
    let session = pump::unless_signalled(&mut signals, open).await?;
    let (process, name) = begin(&session, request).await?;
    let shown = Shown {
        key: &key,
        name: &name,
        quiet: args.quiet,
    };
    let end = attend(
        context,
        &process,
        &args.detach.detach_keys,
        &shown,
        &mut signals,
    )
    .await;
    // As a terminal that is closed ends what runs in it; one that was left stays.
    let stays = matches!(end, Ok(Exit::Success))
        && process.info().await.is_ok_and(|info| info.state.is_alive());
    if !stays {
        // A shell at its prompt passes SIGTERM over.
        process.signal(HANG_UP).await?;
        process.stop(HANG_UP_GRACE).await?;
        process.forget().await?;
    }
    end
}

/// Begins a shell under a name that is free.
async fn begin(session: &Session, mut request: SpawnRequest) -> Result<(Process, String), Failure> {
    let asked = request.name.clone();
    for number in 1..=MOST_NAMES {
        let name = match (&asked, number) {
            (Some(name), _) => name.clone(),
            (None, 1) => "shell".to_owned(),
            (None, number) => format!("shell-{number}"),
        };
        request.name = Some(name.clone());
        match session.spawn_request(request.clone()).await {
            Ok(process) => return Ok((process, name)),
            Err(error) if asked.is_none() && error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(podkit::Error::new(ErrorKind::LimitExceeded, "the session has 1000 shells").into())
}

/// Joins in with a process.
pub(super) async fn attach(context: &Context, args: AttachArgs) -> Result<Exit, Failure> {
    refuse_json(context)?;
    let (key, name) = split(context, &args.process)?;
    let mut signals = Signals::listen()?;
    let podkit = context.podkit().await?;
    let process = find(&podkit, &key, &name).await?;
    let shown = Shown {
        key: &key,
        name: &name,
        quiet: args.quiet,
    };
    attend(
        context,
        &process,
        &args.detach.detach_keys,
        &shown,
        &mut signals,
    )
    .await
}

/// What is said when a terminal is left.
struct Shown<'a> {
    key: &'a SessionKey,
    name: &'a str,
    quiet: bool,
}

async fn attend(
    context: &Context,
    process: &Process,
    keys: &Keys,
    shown: &Shown<'_>,
    signals: &mut Signals,
) -> Result<Exit, Failure> {
    let size = terminal::has_terminal().then(terminal::size);
    let handle = process.attach(size).await?;
    match terminal::join(handle, &keys.0, signals).await? {
        End::Exited(result) => {
            if !shown.quiet {
                context.output.outcome(result.outcome);
            }
            Ok(Exit::Command(result.outcome.code()))
        }
        End::Left => {
            if !shown.quiet {
                let (key, name) = (shown.key, shown.name);
                context
                    .output
                    .note(&format!("left; `podkit attach {key}#{name}` comes back"));
            }
            Ok(Exit::Success)
        }
        End::Signal(number) => Err(Failure::quiet(Exit::Signal(number))),
    }
}

fn refuse_json(context: &Context) -> Result<(), Failure> {
    if context.output.is_json() {
        let error = podkit::Error::invalid_input("a terminal is for people, and has no JSON");
        return Err(Failure::usage(error));
    }
    Ok(())
}
