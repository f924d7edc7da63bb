//! `podkit exec`, and the part of it that `podkit run` shares.

use std::{ffi::OsString, os::unix::ffi::OsStrExt as _};

use podkit::{
    DEFAULT_OUTPUT_LIMIT_BYTES, Error, ExecRequest, ExecResult, MemorySource, OnConflict, Opened,
    Outcome, Podkit, Session, Stdin,
};
use serde_json::{Map, Value, json};

use super::Context;
use crate::{
    args::{self, ExecArgs},
    command_args::{AroundArgs, CommandArgs, WordsArgs},
    output::{BytesJson, Exit, Failure},
    pump::{self, Sink},
    signals::Signals,
    terminal::{self, End},
};

/// What an image is called that is the one podkit itself runs in.
const INHERITED: &str = "of podkit's own container";

/// Runs a command in a session's container.
pub(super) async fn exec(context: &Context, args: ExecArgs) -> Result<Exit, Failure> {
    let key = context.key(&args.session)?;
    let request = request(&args.command)?;
    let mut spec = args.spec.spec().map_err(Failure::usage)?;
    spec.image.clone_from(&args.image);
    spec.inherit_image = args.inherit_image;
    let conflict = match (args.replace, args.reuse) {
        (true, _) => OnConflict::Replace,
        (_, true) => OnConflict::Reuse,
        _ => OnConflict::Fail,
    };
    let mut signals = Signals::listen()?;
    let open = async {
        let podkit = context.podkit().await?;
        let open = podkit
            .open(&key)
            .spec(spec)
            .on_conflict(conflict)
            .create(!args.no_create);
        let session = open.await?;
        podkit::Result::Ok((podkit, session))
    };
    let (podkit, session) = pump::unless_signalled(&mut signals, open).await?;
    let image = args.image.as_deref();
    let image = image.or(args.inherit_image.then_some(INHERITED));
    note_opened(context, &podkit, &session, image, args.command.quiet);
    attend(context, &session, request, args.command.quiet, &mut signals).await
}

/// What the flags ask for, checked as far as that goes without a container.
pub(super) fn request(args: &CommandArgs) -> Result<ExecRequest, Failure> {
    let mut request = surrounded(words(&args.words), &args.around)?;
    request.timeout = args.timeout;
    request.check().map_err(Failure::usage)?;
    if pump::has_input(args.stdin, args.no_stdin)? {
        request.stdin = Stdin::Stream;
    }
    request.terminal = args.terminal.then(terminal::size);
    Ok(request)
}

/// Runs a program, or a text in a shell.
pub(super) fn words(args: &WordsArgs) -> ExecRequest {
    match &args.shell {
        Some(text) => ExecRequest::shell(text.as_bytes()),
        None => program(&args.argv),
    }
}

/// Runs a program.
pub(super) fn program(argv: &[OsString]) -> ExecRequest {
    ExecRequest::new(argv.iter().map(|word| word.as_bytes()))
}

/// Gives a command the environment, directory and user that the flags ask for.
pub(super) fn surrounded(
    mut request: ExecRequest,
    args: &AroundArgs,
) -> Result<ExecRequest, Failure> {
    for entry in &args.env {
        request
            .env
            .extend(env_entry(entry).map_err(Failure::usage)?);
    }
    request.cwd.clone_from(&args.workdir);
    request.user.clone_from(&args.user);
    Ok(request)
}

/// `NAME=VALUE`, or the caller's own value of `NAME`, if there is one.
fn env_entry(entry: &str) -> Result<Option<(String, String)>, Error> {
    if let Some((name, value)) = entry.split_once('=') {
        return Ok(Some((name.to_owned(), value.to_owned())));
    }
    match args::caller_variable(entry).map(OsString::into_string) {
        None => Ok(None),
        Some(Ok(value)) => Ok(Some((entry.to_owned(), value))),
        Some(Err(_)) => Err(Error::invalid_input(format!(
            "the value of `{entry}` is not UTF-8"
        ))),
    }
}

/// Runs a command to its end, and shows its result.
pub(super) async fn attend(
    context: &Context,
    session: &Session,
    mut request: ExecRequest,
    quiet: bool,
    signals: &mut Signals,
) -> Result<Exit, Failure> {
    let json = context.output.is_json();
    if request.terminal.is_some() && !json {
        return attend_terminal(context, session, request, quiet, signals).await;
    }
    let mut sink = if json {
        request.output_limit_bytes = Some(DEFAULT_OUTPUT_LIMIT_BYTES);
        Sink::Memory {
            stdout: Vec::new(),
            stderr: Vec::new(),
        }
    } else {
        Sink::Streams
    };
    let begin = session.execute(request).stream();
    let mut handle = pump::unless_signalled(signals, begin).await?;
    let input = handle.take_stdin();
    let result = pump::run(input, handle, &mut sink, signals).await?;
    if let Sink::Memory { stdout, stderr } = sink {
        let value = result_json(session, &result, &stdout, &stderr);
        context.output.text(&format!("{value:#}\n"))?;
    } else if !quiet {
        context.output.outcome(result.outcome);
        if result.container_restarted {
            context
                .output
                .note("processes resisted being killed; the container was restarted");
        }
    }
    Ok(Exit::Command(result.outcome.code()))
}

/// Runs a command with a terminal, joined with podkit's own.
async fn attend_terminal(
    context: &Context,
    session: &Session,
    request: ExecRequest,
    quiet: bool,
    signals: &mut Signals,
) -> Result<Exit, Failure> {
    let handle = pump::unless_signalled(signals, session.execute(request).stream()).await?;
    let end = terminal::join(handle, &[], signals).await?;
    ended(context, &end, quiet)
}

/// Says how what ran in a terminal ended, and how podkit does.
pub(super) fn ended(context: &Context, end: &End, quiet: bool) -> Result<Exit, Failure> {
    match end {
        End::Exited(result) => {
            if !quiet {
                context.output.outcome(result.outcome);
            }
            Ok(Exit::Command(result.outcome.code()))
        }
        End::Left => Ok(Exit::Success),
        End::Signal(number) => Err(Failure::quiet(Exit::Signal(*number))),
    }
}

/// Says on standard error when a container was made.
pub(super) fn note_opened(
    context: &Context,
    podkit: &Podkit,
    session: &Session,
    image_asked: Option<&str>,
    quiet: bool,
) {
    if quiet || context.output.is_json() {
        return;
    }
    let (container, key, backend) = (session.container(), session.key(), podkit.backend_name());
    let image = podkit.capabilities().default_image.to_string();
    let defaults = &context.settings.spec;
    let image = image_asked
        .or(defaults.image.as_deref())
        .or(defaults.inherit_image.then_some(INHERITED))
        .unwrap_or(&image);
    match session.opened() {
        Opened::Created => context
            .output
            .note(&format!("created container {container} for {key} ({backend}, image {image})")),
        Opened::Recovered => context.output.note(&format!(
            "created container {container} for {key} anew ({backend}, image {image}): the earlier one was lost"
        )),
        _ => {}
    }
}

fn result_json(session: &Session, result: &ExecResult, stdout: &[u8], stderr: &[u8]) -> Value {
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
    put("session", session.key().to_string().into());
    put("container", session.container().as_str().into());
    put("opened", session.opened().as_str().into());
    put("outcome", result.outcome.as_str().into());
    put("code", result.outcome.code().into());
    put(
        "signal",
        match result.outcome {
            Outcome::Signaled(number) => number.into(),
            _ => Value::Null,
        },
    );
    put(
        "truncated",
        json!({
            "stdout": result.stdout_truncated,
            "stderr": result.stderr_truncated,
        }),
    );
    put("container_restarted", result.container_restarted.into());
    let usage = &result.usage;
    put(
        "usage",
        json!({
            "wall_seconds": usage.wall.as_secs_f64(),
            "cpu_user_seconds": usage.cpu_user.as_secs_f64(),
            "cpu_system_seconds": usage.cpu_system.as_secs_f64(),
            "peak_memory_bytes": usage.peak_memory_bytes,
            "peak_memory_source": match usage.peak_memory_source {
                MemorySource::Cgroup => "cgroup",
                _ => "largest_process",
            },
        }),
    );
    BytesJson::from(stdout).put("stdout", &mut object);
    BytesJson::from(stderr).put("stderr", &mut object);
    Value::Object(object)
}
