//! `podkit shell` and `podkit attach`.

use std::time::Duration;

use podkit::{ErrorKind, ExecRequest, Process, Session, SessionKey, SpawnRequest};

use super::{
    Context, exec,
    process::{find, split},
};
use crate::{
    output::{Exit, Failure},
    process_args::{AttachArgs, ShellArgs},
    pump,
    signals::Signals,
    terminal::{self, End},
};

/// Runs the best shell that there is.
const SHELL: &str = "command -v bash >/dev/null 2>&1 && exec bash -i; exec /bin/sh -i";

/// SIGHUP: the terminal was closed.
const HANG_UP: i32 = 1;

/// Time that a shell has to end when the terminal of its user was closed.
const HANG_UP_GRACE: Duration = Duration::from_secs(1);

/// Shells of one session that are named.
const MOST_NAMES: u32 = 1000;

/// Opens a shell with a terminal that is kept.
pub(super) async fn shell(context: &Context, args: ShellArgs) -> Result<Exit, Failure> {
    refuse_json(context)?;
    let key = context.key(&args.session)?;
    let command = match args.argv.is_empty() {
        true => ExecRequest::shell(SHELL),
        false => exec::program(&args.argv),
    };
    let mut command = exec::surrounded(command, &args.around)?;
    command.terminal = Some(terminal::size());
    let mut request = SpawnRequest::new(command);
    request.name.clone_from(&args.name);
    request.check().map_err(Failure::usage)?;
    let mut signals = Signals::listen()?;
    let open = context.session(&key, args.quiet);
    let session = pump::unless_signalled(&mut signals, open).await?;
    let (process, name) = begin(&session, request).await?;
    let handle = process.attach(Some(terminal::size())).await?;
    let end = terminal::join(handle, &args.detach.detach_keys.0, &mut signals).await?;
    match end {
        End::Exited(_) => forget(context, &process).await,
        // Whoever leaves it wants to find it again; when podkit is killed, nobody does.
        End::Left => {
            process.set_keep_alive(true).await?;
            note_left(context, &key, &name, args.quiet);
        }
        // As a terminal that is closed ends what runs in it. A shell at its prompt passes SIGTERM
        // over.
        End::Signal(_) => {
            process.signal(HANG_UP).await?;
            process.stop(HANG_UP_GRACE).await?;
            forget(context, &process).await;
        }
    }
    exec::ended(context, &end, args.quiet)
}

/// Takes a shell that has ended off the list. It may be gone with its container, and what the shell
/// ended with matters more.
async fn forget(context: &Context, process: &Process) {
    match process.forget().await {
        Err(error) if error.kind() != ErrorKind::NotFound => context.output.warning(&error),
        _ => {}
    }
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
    let size = terminal::has_terminal().then(terminal::size);
    let handle = process.attach(size).await?;
    let end = terminal::join(handle, &args.detach.detach_keys.0, &mut signals).await?;
    if matches!(end, End::Left) {
        note_left(context, &key, &name, args.quiet);
    }
    exec::ended(context, &end, args.quiet)
}

fn note_left(context: &Context, key: &SessionKey, name: &str, quiet: bool) {
    if !quiet {
        context
            .output
            .note(&format!("left; `podkit attach {key}#{name}` comes back"));
    }
}

fn refuse_json(context: &Context) -> Result<(), Failure> {
    if context.output.is_json() {
        let error = podkit::Error::invalid_input("a terminal is for people, and has no JSON");
        return Err(Failure::usage(error));
    }
    Ok(())
}
