//! The command line and the environment: the only place that reads either.

use std::{env, ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use podkit::{DockerOptions, settings::Given};

use crate::{
    command_args::CommandArgs,
    file_args::{CpArgs, DuArgs, ReadArgs, WatchArgs, WriteArgs},
    image_args::ImageArgs,
    port_args::{ForwardArgs, PortArgs},
    process_args::{AttachArgs, KillArgs, LogsArgs, PsArgs, ShellArgs, SpawnArgs, WaitArgs},
    resource_args::{LimitArgs, MonitorArgs, PauseArgs, ResumeArgs, StatsArgs},
    spec::SpecArgs,
};

const AFTER_HELP: &str = "\
A session is written USER/SESSION, or just SESSION for your own. A `/` inside an id is written %2F.

Settings come from flags, then PODKIT_BACKEND, PODKIT_IMAGE, PODKIT_PREFIX, PODKIT_USER,
PODKIT_WORKSPACE, PODKIT_WORKSPACE_HOST, PODKIT_INHERIT_IMAGE, PODKIT_INHERIT_NETWORKS (1 or 0),
PODKIT_STATE_DIR, PODKIT_RUN_DIR and PODKIT_AUDIT, then the file ~/.config/podkit/config.toml, then
the defaults. Docker and Podman are found as by their own command lines: DOCKER_HOST,
DOCKER_CONTEXT, DOCKER_CONFIG, DOCKER_CERT_PATH, DOCKER_TLS_VERIFY, CONTAINER_HOST, the docker
context in use, and the usual sockets.

Exit codes: exec and run exit as their command did (128+N when signal N ended it, 124 when its time
was over, 137 when its memory was over, 126 and 127 when it could not be started). 2 is a mistake on
the command line, 125 a failure of podkit itself, 141 an output that nobody reads any more.";

const EXAMPLES: &str = "\
Examples:
  podkit exec bob/123 -- pwd                       make or find bob's session 123, run a command
  podkit exec bob/123 -c 'ls | wc -l'              the same through /bin/sh
  podkit shell bob/123                             a shell in it, which can be left and found again
  podkit run host -- python3 -c 'print(6*7)'       a container for one command
  podkit cp ./data bob/123:/workspace/data         copy files in; the other way round copies out
  podkit ls                                        what there is
  podkit close bob/123                             remove it";

/// Gives every session its own isolated, lasting container.
///
/// `podkit exec USER/SESSION -- COMMAND` makes the session's container on first use and finds it
/// again ever after, with its files. The container stops by itself when it is not used, and starts
/// again at the next use. No daemon is needed on Linux.
#[derive(Debug, Parser)]
#[command(
    name = "podkit",
    version,
    arg_required_else_help = true,
    subcommand_required = true,
    max_term_width = 100,
    before_long_help = "podkit: isolated, lasting containers for untrusted code",
    after_help = EXAMPLES,
    after_long_help = format!("{EXAMPLES}\n\n{AFTER_HELP}"),
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Engine to use: auto, embedded, docker, podman, or a URL of an engine [default: auto, which
    /// is embedded on Linux and docker elsewhere]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) backend: Option<String>,

    /// Owner of the sessions on the engine; other prefixes' are never touched [default: podkit]
    #[arg(long, global = true, value_name = "PREFIX")]
    pub(crate) prefix: Option<String>,

    /// Where the embedded engine keeps its containers
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) state_dir: Option<PathBuf>,

    /// Configuration file [default: ~/.config/podkit/config.toml, if there is one]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,

    /// Append a line of JSON for each command that is run, with how it ended, to this file
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) audit: Option<PathBuf>,

    /// How results and errors are written
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        default_value = "text",
        hide_default_value = true
    )]
    pub(crate) format: Format,

    /// Short for --format json
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

impl Global {
    /// What the flags say of settings.
    pub(crate) fn given(&self) -> Given {
        let mut given = Given::default();
        given.backend.clone_from(&self.backend);
        given.prefix.clone_from(&self.prefix);
        given.state_dir.clone_from(&self.state_dir);
        given.config.clone_from(&self.config);
        given.audit.clone_from(&self.audit);
        given
    }

    /// How results and errors are written.
    pub(crate) fn format(&self) -> Format {
        if self.json { Format::Json } else { self.format }
    }
}

/// How results and errors are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs: one JSON value on stdout, errors as JSON on stderr.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Exec(ExecArgs),
    Run(RunArgs),
    Shell(ShellArgs),
    Attach(AttachArgs),
    Spawn(SpawnArgs),
    Ps(PsArgs),
    Logs(LogsArgs),
    Kill(KillArgs),
    Wait(WaitArgs),
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    Inspect(InspectArgs),
    Port(PortArgs),
    Forward(ForwardArgs),
    Stats(StatsArgs),
    Limit(LimitArgs),
    Pause(PauseArgs),
    Resume(ResumeArgs),
    Stop(StopArgs),
    Close(CloseArgs),
    Gc(GcArgs),
    Monitor(MonitorArgs),
    Cp(CpArgs),
    Write(WriteArgs),
    Read(ReadArgs),
    Watch(WatchArgs),
    Du(DuArgs),
    Image(ImageArgs),
    Doctor(DoctorArgs),
    Completions(CompletionsArgs),
}

/// Run a command in a session's container, which is made on first use
///
/// Standard output and standard error are the command's own bytes, and podkit exits as the command
/// did. Standard input is passed on unless it is a terminal; say -i to pass a terminal's lines, or
/// -n inside a loop that reads its own input. SIGINT, SIGTERM, SIGHUP and SIGQUIT are passed on to
/// the command; a second SIGINT within a second kills it. When podkit itself is killed, so is the
/// command.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  podkit exec bob/123 -- python3 main.py
  podkit exec bob/123 -c 'make 2>&1 | tail -n 20'
  tar c src | podkit exec bob/123 -w /workspace -- tar x
  podkit exec --timeout 30s -e DEBUG=1 bob/123 -- ./solve < input > output
  podkit exec --memory 1g --network none bob/124 -- ./untrusted
  while read -r name; do podkit exec -n bob/123 -- ./check \"$name\"; done < names")]
pub(crate) struct ExecArgs {
    /// The session, as USER/SESSION or SESSION
    #[arg(value_name = "SESSION")]
    pub(crate) session: String,

    #[command(flatten)]
    pub(crate) command: CommandArgs,

    /// Fail when there is no such session instead of making one
    #[arg(long, conflicts_with_all = ["replace", "reuse"])]
    pub(crate) no_create: bool,

    /// When the session was made with other settings: remove its container and make a new one
    #[arg(long, conflicts_with = "reuse")]
    pub(crate) replace: bool,

    /// When the session was made with other settings: use it as it is
    #[arg(long)]
    pub(crate) reuse: bool,

    /// Image of a session that is made: host, dir:/path, tar:/path, or a reference
    #[arg(
        long,
        value_name = "IMAGE",
        help_heading = "Options for a session that is made"
    )]
    pub(crate) image: Option<String>,

    /// Take the image of the container that podkit itself runs in
    #[arg(
        long,
        conflicts_with = "image",
        help_heading = "Options for a session that is made"
    )]
    pub(crate) inherit_image: bool,

    #[command(flatten)]
    pub(crate) spec: SpecArgs,
}

/// Run a command in a container of its own, which is removed afterwards
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  podkit run host -- python3 -c 'print(6*7)'
  podkit run --network none --memory 256m --timeout 10s host -- ./untrusted < input
  podkit run --file main.py host -- python3 main.py
  podkit run dir:/srv/rootfs -c 'cat /etc/os-release'")]
pub(crate) struct RunArgs {
    /// host, dir:/path, tar:/path, or a reference
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,

    /// Put a file of this machine into the container before, at PATH or under its own name in
    /// /workspace
    #[arg(long = "file", value_name = "FILE[:PATH]")]
    pub(crate) files: Vec<String>,

    #[command(flatten)]
    pub(crate) command: CommandArgs,

    #[command(flatten)]
    pub(crate) spec: SpecArgs,
}

/// List sessions
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Only this user's sessions
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,

    /// Also sessions that are half made, being removed, or broken
    #[arg(short = 'a', long)]
    pub(crate) all: bool,

    /// Only names, one a line
    #[arg(short = 'q', long)]
    pub(crate) quiet: bool,
}

/// Show all that is known of a session
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The session, as USER/SESSION or SESSION
    #[arg(value_name = "SESSION")]
    pub(crate) session: String,
}

/// Stop a session's container; its files stay, and the next use starts it again
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// The session, as USER/SESSION or SESSION
    #[arg(value_name = "SESSION")]
    pub(crate) session: String,

    /// Time between SIGTERM and SIGKILL
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) grace: Duration,
}

/// Remove sessions with their containers; workspaces on the host stay
///
/// Commands that run are ended. Closing a session that does not exist is no failure.
#[derive(Debug, Args)]
pub(crate) struct CloseArgs {
    /// The sessions, as USER/SESSION or SESSION
    #[arg(value_name = "SESSION", required = true)]
    pub(crate) sessions: Vec<String>,
}

/// Remove sessions whose time is over, and what crashed programs left
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  podkit gc                      remove only leftovers and sessions past their own idle timeout
  podkit gc --idle 1h --dry-run  show what has not been used for an hour")]
pub(crate) struct GcArgs {
    /// Also remove every session that was not used for this long
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) idle: Option<Duration>,

    /// Remove nothing, and say what would be removed
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Try what podkit needs on this machine, and say how to get what is missing
///
/// Each line is a trial that was made just now, most of them in a throw-away container. Exits with 1
/// when the engine cannot work.
///
/// With --attack, programs in a container attack it, the host, the engine and other sessions. Each
/// attack has a control run on this machine, as root and where nothing defends, in which it must
/// succeed. Verdicts: held; unproven (refused, and the control was not run); absent (this machine has
/// nothing to attack); conceded (this engine is known to let it through, and why); succeeded; unclear;
/// not run. Exits with 1 on any of the last three. Needs a C compiler; the control runs need root.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  podkit doctor
  podkit doctor --attack
  podkit doctor --attack --format json --beside docker:debian:12 > attacks.json")]
pub(crate) struct DoctorArgs {
    /// Attack the engine, and say what held
    #[arg(long)]
    pub(crate) attack: bool,

    /// Also attack a container that this command line makes with its own defaults
    #[arg(long, value_name = "docker:IMAGE", requires = "attack", value_parser = beside)]
    pub(crate) beside: Option<(String, String)>,
}

fn beside(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((engine @ ("docker" | "podman"), image)) if !image.is_empty() => {
            Ok((engine.to_owned(), image.to_owned()))
        }
        _ => Err("write docker:IMAGE or podman:IMAGE".to_owned()),
    }
}

/// Write a script that completes podkit's commands and flags
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  podkit completions bash > ~/.local/share/bash-completion/completions/podkit
  podkit completions zsh > ~/.zfunc/_podkit
  podkit completions fish > ~/.config/fish/completions/podkit.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    podkit::parse_duration(text).map_err(|error| crate::spec::complaint(&error))
}

/// What podkit reads of the environment. Empty values count as not set.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    /// What settings come from.
    pub(crate) settings: podkit::settings::Environment,
    /// Whether `NO_COLOR` is set or `TERM` is `dumb`.
    pub(crate) no_color: bool,
}

impl Environment {
    /// Reads this process's environment.
    pub(crate) fn read() -> Self {
        let text = |name| variable(name).and_then(|value| value.into_string().ok());
        let path = |name| variable(name).map(PathBuf::from);
        // The XDG base directory specification has relative paths ignored.
        let xdg = |name| path(name).filter(|path| path.is_absolute());
        let mut settings = podkit::settings::Environment::default();
        settings.home = path("HOME");
        settings.xdg_config_home = xdg("XDG_CONFIG_HOME");
        settings.xdg_data_home = xdg("XDG_DATA_HOME");
        settings.xdg_runtime_dir = xdg("XDG_RUNTIME_DIR");
        settings.login = text("USER");
        settings.backend = text("PODKIT_BACKEND");
        settings.image = text("PODKIT_IMAGE");
        settings.prefix = text("PODKIT_PREFIX");
        settings.user = text("PODKIT_USER");
        settings.workspace = path("PODKIT_WORKSPACE");
        settings.workspace_host = path("PODKIT_WORKSPACE_HOST");
        settings.inherit_image = text("PODKIT_INHERIT_IMAGE");
        settings.inherit_networks = text("PODKIT_INHERIT_NETWORKS");
        settings.state_dir = path("PODKIT_STATE_DIR");
        settings.run_dir = path("PODKIT_RUN_DIR");
        settings.audit = path("PODKIT_AUDIT");
        settings.docker = docker();
        Self {
            settings,
            no_color: variable("NO_COLOR").is_some()
                || variable("TERM").is_some_and(|term| term == "dumb"),
        }
    }
}

/// What Docker's and Podman's own command lines read.
fn docker() -> DockerOptions {
    let text = |name| variable(name).and_then(|value| value.into_string().ok());
    let path = |name| variable(name).map(PathBuf::from);
    let mut docker = DockerOptions::default();
    docker.host = text("DOCKER_HOST");
    docker.context = text("DOCKER_CONTEXT");
    docker.config_dir = path("DOCKER_CONFIG");
    docker.cert_path = path("DOCKER_CERT_PATH");
    docker.tls = variable("DOCKER_TLS_VERIFY").is_some();
    docker.container_host = text("CONTAINER_HOST");
    docker
}

/// A variable of the caller's, for `-e NAME`.
pub(crate) fn caller_variable(name: &str) -> Option<OsString> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return None;
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the module that reads the environment"
    )]
    env::var_os(name)
}

fn variable(name: &str) -> Option<OsString> {
    caller_variable(name).filter(|value| !value.is_empty())
}

/// Whether the words ask for JSON, for errors in the words themselves.
pub(crate) fn wants_json(words: &[OsString]) -> bool {
    let podkit_words = words.iter().take_while(|word| *word != "--");
    let pairs = words
        .windows(2)
        .take_while(|pair| pair.first().is_some_and(|word| word != "--"));
    podkit_words
        .into_iter()
        .any(|word| word == "--json" || word == "--format=json")
        || pairs.into_iter().any(|pair| pair == ["--format", "json"])
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(words: &[&str]) -> Cli {
        Cli::try_parse_from([&["podkit"], words].concat()).unwrap()
    }

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn exec_words_after_the_command_are_the_commands() {
        for words in [
            &["exec", "s", "ls", "-w", "x", "--json"][..],
            &["exec", "s", "--", "ls", "-w", "x", "--json"],
            &["exec", "-q", "s", "ls", "-w", "x", "--json"],
            &["exec", "s", "-q", "ls", "-w", "x", "--json"],
        ] {
            let cli = parse(words);
            let Command::Exec(exec) = cli.command else {
                panic!("{words:?}")
            };
            assert_eq!(
                exec.command.words.argv,
                ["ls", "-w", "x", "--json"],
                "{words:?}"
            );
            assert_eq!(exec.command.around.workdir, None);
            assert!(!cli.global.json);
        }
    }

    #[test]
    fn json_is_found_only_before_the_commands_own_words() {
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        assert!(wants_json(&words(&["ls", "--format", "json", "--bad"])));
        assert!(wants_json(&words(&["--json", "ls"])));
        assert!(!wants_json(&words(&["exec", "s", "--", "x", "--json"])));
        assert!(!wants_json(&words(&[
            "exec", "s", "--", "--format", "json"
        ])));
    }
}
