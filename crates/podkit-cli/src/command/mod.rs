//! One file for each command.

#[cfg(target_os = "linux")]
mod attack;
mod close;
mod completions;
mod cp;
mod doctor;
mod exec;
mod files;
mod gc;
mod image;
mod inspect;
mod ls;
mod monitor;
mod port;
mod process;
mod progress;
mod pull_bars;
mod resources;
mod run;
mod shell;
mod stop;

use std::sync::OnceLock;

use self::pull_bars::PullBars;
use podkit::{
    AuditLog, Error, ErrorKind, Podkit, PodkitBuilder, Session, SessionKey, settings::Settings,
};

use crate::{
    args::{Cli, Command, Environment},
    output::{Exit, Failure, Output},
};

/// What every command gets.
#[derive(Debug)]
struct Context {
    settings: Settings,
    output: Output,
    /// The one that has to be told of the end, so that everything is written down.
    audited: OnceLock<Podkit>,
}

/// Does what the command line says.
///
/// # Errors
/// What is to be shown, and the code to exit with.
pub(crate) fn run(cli: Cli, environment: &Environment, output: Output) -> Result<Exit, Failure> {
    if let Command::Completions(args) = &cli.command {
        return completions::completions(args, output);
    }
    let settings =
        Settings::read(&cli.global.given(), &environment.settings).map_err(Failure::usage)?;
    let context = Context {
        settings,
        output,
        audited: OnceLock::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Error::new(ErrorKind::LimitExceeded, "podkit cannot start").with_source(error)
        })?;
    let result = runtime.block_on(dispatch(&context, cli.command));
    if let Some(podkit) = context.audited.get() {
        runtime.block_on(podkit.shutdown());
    }
    // A thread may still wait for standard input, which nobody needs any more.
    runtime.shutdown_background();
    result
}

async fn dispatch(context: &Context, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Exec(args) => exec::exec(context, args).await,
        Command::Run(args) => run::run(context, args).await,
        Command::Shell(args) => shell::shell(context, args).await,
        Command::Attach(args) => shell::attach(context, args).await,
        Command::Spawn(args) => process::spawn(context, args).await,
        Command::Ps(args) => process::ps(context, args).await,
        Command::Logs(args) => process::logs(context, args).await,
        Command::Kill(args) => process::kill(context, args).await,
        Command::Wait(args) => process::wait(context, args).await,
        Command::Ls(args) => ls::ls(context, args).await,
        Command::Inspect(args) => inspect::inspect(context, args).await,
        Command::Port(args) => port::port(context, args).await,
        Command::Forward(args) => port::forward(context, args).await,
        Command::Stats(args) => resources::stats(context, args).await,
        Command::Limit(args) => resources::limit(context, args).await,
        Command::Pause(args) => resources::pause(context, args).await,
        Command::Resume(args) => resources::resume(context, args).await,
        Command::Stop(args) => stop::stop(context, args).await,
        Command::Close(args) => close::close(context, args).await,
        Command::Monitor(args) => monitor::monitor(context, args).await,
        Command::Gc(args) => gc::gc(context, args).await,
        Command::Cp(args) => cp::cp(context, args).await,
        Command::Write(args) => files::write(context, args).await,
        Command::Read(args) => files::read(context, args).await,
        Command::Watch(args) => files::watch(context, args).await,
        Command::Du(args) => files::du(context, args).await,
        Command::Image(args) => image::image(context, args).await,
        Command::Doctor(args) => doctor::doctor(context, &args).await,
        Command::Completions(args) => completions::completions(&args, context.output),
    }
}

impl Context {
    /// Connects to the engine that the settings name.
    async fn podkit(&self) -> Result<Podkit, Error> {
        self.podkit_with(false).await
    }

    /// Connects to the engine, and shows no progress of pulls when it is to be quiet.
    async fn podkit_with(&self, quiet: bool) -> Result<Podkit, Error> {
        let mut builder = self.builder(quiet);
        let audit = self.settings.audit.as_ref();
        if let Some(path) = audit {
            let output = self.output;
            let log = AuditLog::append(path)?;
            builder = builder.audit(log.on_failure(move |error| output.warning(error)));
        }
        let podkit = builder.build().await?;
        if audit.is_some() {
            // A command connects once.
            let _ = self.audited.set(podkit.clone());
        }
        Ok(podkit)
    }

    /// What the settings say.
    fn builder(&self, quiet: bool) -> PodkitBuilder {
        let mut builder = Podkit::builder()
            .backend(self.settings.backend_name())
            .prefix(self.settings.prefix.clone())
            .connect_options(self.settings.connect.clone())
            .default_spec(self.settings.spec.clone());
        if !quiet && !self.output.is_json() {
            let bars = PullBars::new(self.output);
            builder = builder.on_pull(move |progress| bars.tell(progress));
        }
        builder
    }

    /// Reads a session's name; a mistake in it is one of usage.
    fn key(&self, text: &str) -> Result<SessionKey, Failure> {
        self.settings.key(text).map_err(Failure::usage)
    }

    /// Opens a session for a file command: made on first use, as by exec.
    async fn session(&self, key: &SessionKey, quiet: bool) -> Result<Session, Error> {
        let podkit = self.podkit().await?;
        let session = podkit.open(key).await?;
        exec::note_opened(self, &podkit, &session, None, quiet);
        Ok(session)
    }
}
