//! What `podkit` on the command line and programs in Python go by: what was said for one run, the
//! environment, the configuration file and defaults, in this order of precedence (feature `settings`).
//!
//! Nothing here reads the environment; [`Environment`] is filled by who does.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer, de};

use crate::{
    ConnectOptions, DockerOptions, Error, ErrorKind, Isolation, Limit, Mount, Network, Prefix,
    Result, SessionKey, SessionSpec, UserId, Workspace, parse_bytes,
};

/// Largest configuration file that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Name of the engine when none is named: the best one that is there.
const AUTO: &str = "auto";

/// What was said for this run, as by flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Given {
    /// Name of the engine.
    pub backend: Option<String>,
    /// Owner of the sessions.
    pub prefix: Option<String>,
    /// Where the embedded engine keeps its containers.
    pub state_dir: Option<PathBuf>,
    /// The configuration file, which has to be there; the usual one without.
    pub config: Option<PathBuf>,
    /// Where commands are written down.
    pub audit: Option<PathBuf>,
}

/// What the environment says, by the variables named here. Empty values count as not set.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Environment {
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`, when absolute.
    pub xdg_config_home: Option<PathBuf>,
    /// `XDG_DATA_HOME`, when absolute.
    pub xdg_data_home: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`, when absolute.
    pub xdg_runtime_dir: Option<PathBuf>,
    /// `USER`.
    pub login: Option<String>,
    /// `PODKIT_BACKEND`.
    pub backend: Option<String>,
    /// `PODKIT_IMAGE`.
    pub image: Option<String>,
    /// `PODKIT_PREFIX`.
    pub prefix: Option<String>,
    /// `PODKIT_USER`.
    pub user: Option<String>,
    /// `PODKIT_WORKSPACE`.
    pub workspace: Option<PathBuf>,
    /// `PODKIT_WORKSPACE_HOST`.
    pub workspace_host: Option<PathBuf>,
    /// `PODKIT_INHERIT_IMAGE`, as written.
    pub inherit_image: Option<String>,
    /// `PODKIT_INHERIT_NETWORKS`, as written.
    pub inherit_networks: Option<String>,
    /// `PODKIT_STATE_DIR`.
    pub state_dir: Option<PathBuf>,
    /// `PODKIT_RUN_DIR`.
    pub run_dir: Option<PathBuf>,
    /// `PODKIT_AUDIT`.
    pub audit: Option<PathBuf>,
    /// Where Docker and Podman are: `DOCKER_HOST` and so on.
    pub docker: DockerOptions,
}

/// What holds.
///
/// # Examples
/// ```
/// # fn main() -> podkit::Result<()> {
/// use podkit::settings::{Environment, Given, Settings};
///
/// let mut environment = Environment::default();
/// environment.prefix = Some("grader".to_owned());
/// let settings = Settings::read(&Given::default(), &environment)?;
/// assert_eq!(settings.prefix.as_str(), "grader");
/// assert_eq!(settings.backend_name(), "auto");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Name of the engine, where one is named.
    pub backend: Option<String>,
    /// Owner of the sessions, where one is named; `podkit` without.
    pub prefix: Prefix,
    /// User of a session that is given without one.
    pub user: String,
    /// What new sessions are like where nothing else is said.
    pub spec: SessionSpec,
    /// Where commands are written down.
    pub audit: Option<PathBuf>,
    /// Where engines keep and find their things.
    pub connect: ConnectOptions,
}

/// The file, as written; a key that is not here is an error.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    backend: Option<String>,
    image: Option<String>,
    prefix: Option<String>,
    user: Option<String>,
    inherit_image: Option<bool>,
    workspace: Option<PathBuf>,
    workspace_host: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    run_dir: Option<PathBuf>,
    audit: Option<PathBuf>,
    session: Section,
}

/// The `[session]` section: what new sessions are like.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Section {
    memory: Option<Size>,
    swap: Option<Size>,
    shm: Option<Size>,
    cpus: Option<f64>,
    pids_max: Option<u32>,
    network: Option<NetworkText>,
    inherit_networks: Option<bool>,
    mounts: Vec<MountText>,
    host_paths: Vec<PathBuf>,
    env: BTreeMap<String, String>,
    user: Option<String>,
    read_only: Option<bool>,
    isolation: Option<Isolation>,
    auto_stop: Option<LimitText>,
    idle_timeout: Option<LimitText>,
    max_lifetime: Option<LimitText>,
    exec_timeout: Option<LimitText>,
}

/// Text that is checked where it stands, so that an error names its line.
macro_rules! checked_text {
    ($name:ident($type:ty), $parse:expr) => {
        #[derive(Debug)]
        struct $name($type);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                $parse(&text).map(Self).map_err(de::Error::custom)
            }
        }
    };
}

checked_text!(NetworkText(Network), |text: &str| Network::parse(text)
    .map_err(|e| complaint(&e)));
checked_text!(MountText(Mount), |text: &str| Mount::parse(text)
    .map_err(|e| complaint(&e)));
checked_text!(LimitText(Limit), |text: &str| Limit::parse(text)
    .map_err(|e| complaint(&e)));
checked_text!(Size(String), |text: &str| {
    parse_bytes(text)
        .map(|_| text.to_owned())
        .map_err(|e| complaint(&e))
});

impl Settings {
    /// Puts it together; reads the configuration file.
    ///
    /// # Errors
    /// - `InvalidInput` for a file or a variable that cannot be understood, naming it and the line.
    /// - `NotFound` for a file that was asked for and is not there; `PermissionDenied` for one that may
    ///   not be read.
    pub fn read(given: &Given, environment: &Environment) -> Result<Self> {
        settings(given, environment)
    }

    /// Name of the engine, as `Podkit::connect` takes it.
    #[must_use]
    pub fn backend_name(&self) -> &str {
        self.backend.as_deref().unwrap_or(AUTO)
    }

    /// Reads `USER/SESSION`, or `SESSION` of the caller's own.
    ///
    /// # Errors
    /// `InvalidInput`.
    pub fn key(&self, text: &str) -> Result<SessionKey> {
        SessionKey::parse(text, &self.user)
    }
}

fn settings(given: &Given, environment: &Environment) -> Result<Settings> {
    let file = read_file(given, environment)?;
    let prefix = given
        .prefix
        .clone()
        .or_else(|| environment.prefix.clone())
        .or(file.prefix);
    let mut spec = file.session.spec();
    // Of one place, an image that is named wins over the wish to inherit one.
    let inherit = switch("PODKIT_INHERIT_IMAGE", environment.inherit_image.as_deref())?;
    (spec.image, spec.inherit_image) = match (environment.image.clone(), inherit) {
        (Some(image), _) => (Some(image), false),
        (None, Some(true)) => (None, true),
        (None, Some(false)) => (file.image, false),
        (None, None) => {
            let inherits = file.image.is_none() && file.inherit_image == Some(true);
            (file.image, inherits)
        }
    };
    let networks = environment.inherit_networks.as_deref();
    if let Some(on) = switch("PODKIT_INHERIT_NETWORKS", networks)? {
        spec.inherit_networks = on;
        spec.network = spec.network.filter(|_| !on);
    }
    let workspace = environment.workspace.clone().or(file.workspace);
    let workspace_host = environment.workspace_host.clone().or(file.workspace_host);
    spec.workspace = match (workspace, workspace_host) {
        (Some(base), None) => Some(Workspace::new(absolute_path(&base)?)),
        (Some(base), Some(host)) => {
            Some(Workspace::new(absolute_path(&base)?).with_host_base(host))
        }
        (None, None) => None,
        (None, Some(_)) => {
            return Err(
                Error::invalid_input("`workspace_host` is set without `workspace`").with_hint(
                    "set PODKIT_WORKSPACE to the same directory as this machine sees it",
                ),
            );
        }
    };
    let mut connect = ConnectOptions::default();
    connect.home.clone_from(&environment.home);
    connect.xdg_data_home.clone_from(&environment.xdg_data_home);
    connect
        .xdg_runtime_dir
        .clone_from(&environment.xdg_runtime_dir);
    connect.docker.clone_from(&environment.docker);
    connect.state_dir = first_path([&given.state_dir, &environment.state_dir, &file.state_dir])?;
    connect.run_dir = first_path([&None, &environment.run_dir, &file.run_dir])?;
    let audit = first_path([&given.audit, &environment.audit, &file.audit])?;
    Ok(Settings {
        audit,
        backend: given
            .backend
            .clone()
            .or_else(|| environment.backend.clone())
            .or(file.backend),
        prefix: prefix.map_or_else(|| Ok(Prefix::default()), Prefix::new)?,
        user: environment
            .user
            .clone()
            .or(file.user)
            .unwrap_or_else(|| login_name(environment)),
        spec,
        connect,
    })
}

impl Section {
    fn spec(self) -> SessionSpec {
        let limit = |text: Option<LimitText>| text.map(|LimitText(limit)| limit);
        let size = |text: Option<Size>| text.map(|Size(size)| size.into());
        let mut spec = SessionSpec::new();
        spec.memory = size(self.memory);
        spec.swap = size(self.swap);
        spec.shm = size(self.shm);
        spec.cpus = self.cpus;
        spec.pids_max = self.pids_max;
        spec.network = self.network.map(|NetworkText(network)| network);
        spec.inherit_networks = self.inherit_networks.unwrap_or(false);
        spec.mounts = self
            .mounts
            .into_iter()
            .map(|MountText(mount)| mount)
            .collect();
        spec.host_paths = self.host_paths;
        spec.env = self.env;
        spec.user = self.user;
        spec.read_only_root = self.read_only;
        spec.security.isolation = self.isolation;
        spec.auto_stop = limit(self.auto_stop);
        spec.idle_timeout = limit(self.idle_timeout);
        spec.max_lifetime = limit(self.max_lifetime);
        spec.exec_timeout = limit(self.exec_timeout);
        spec
    }
}

/// Reads a variable that is on or off.
fn switch(name: &str, text: Option<&str>) -> Result<Option<bool>> {
    match text {
        None => Ok(None),
        Some("1" | "true" | "yes") => Ok(Some(true)),
        Some("0" | "false" | "no") => Ok(Some(false)),
        Some(other) => {
            Err(Error::invalid_input(format!("{name} is {other:?}")).with_hint("set it to 1 or 0"))
        }
    }
}

fn first_path(paths: [&Option<PathBuf>; 3]) -> Result<Option<PathBuf>> {
    paths
        .into_iter()
        .flatten()
        .next()
        .map(|path| absolute_path(path))
        .transpose()
}

fn read_file(given: &Given, environment: &Environment) -> Result<File> {
    if let Some(path) = &given.config {
        let text = read_text(path).map_err(|error| {
            let kind = match error.kind() {
                io::ErrorKind::NotFound => ErrorKind::NotFound,
                io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
                _ => ErrorKind::InvalidInput,
            };
            unreadable(kind, path, error)
        })?;
        return parse(path, &text);
    }
    let Some(path) = default_path(environment) else {
        return Ok(File::default());
    };
    match read_text(&path) {
        Ok(text) => parse(&path, &text),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(File::default())
        }
        // As under `sudo -E`, or in a service that may not look into HOME: saying nothing would
        // silently ignore settings, so it is an error like the others.
        Err(error) => Err(unreadable(ErrorKind::PermissionDenied, &path, error)),
    }
}

fn unreadable(kind: ErrorKind, path: &Path, error: io::Error) -> Error {
    Error::new(
        kind,
        format!("the configuration file `{}` cannot be read", path.display()),
    )
    .with_source(error)
}

/// `$XDG_CONFIG_HOME/podkit/config.toml`, or the same under `~/.config`.
fn default_path(environment: &Environment) -> Option<PathBuf> {
    let base = environment
        .xdg_config_home
        .clone()
        .or_else(|| environment.home.as_ref().map(|home| home.join(".config")))?;
    Some(base.join("podkit/config.toml"))
}

fn read_text(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > MAX_FILE_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "it is larger than 1 MiB",
        ));
    }
    fs::read_to_string(path)
}

fn parse(path: &Path, text: &str) -> Result<File> {
    toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| {
            text.get(..span.start)
                .unwrap_or_default()
                .matches('\n')
                .count()
                + 1
        });
        Error::invalid_input(format!(
            "`{}`, line {line}: {}",
            path.display(),
            error.message()
        ))
    })
}

/// An error in one value, with what to write instead.
fn complaint(error: &Error) -> String {
    match error.hint() {
        Some(hint) => format!("{}; {hint}", error.message()),
        None => error.message().to_owned(),
    }
}

/// Resolves a path from the working directory, without following links.
fn absolute_path(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| {
        Error::invalid_input(format!("`{}` is not a path", path.display())).with_source(error)
    })
}

/// The caller's login name, or `default` when this machine knows none.
fn login_name(environment: &Environment) -> String {
    let usable = |name: &String| UserId::new(name.as_str()).is_ok();
    known_name()
        .filter(usable)
        .or_else(|| environment.login.clone().filter(usable))
        .unwrap_or_else(|| "default".to_owned())
}

#[cfg(target_os = "linux")]
fn known_name() -> Option<String> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    name_of(&passwd, rustix::process::getuid().as_raw())
}

#[cfg(not(target_os = "linux"))]
fn known_name() -> Option<String> {
    None
}

#[cfg(target_os = "linux")]
fn name_of(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(text: &str) -> String {
        parse(Path::new("/c.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn file_with_every_key_is_understood() {
        let file = parse(
            Path::new("/c.toml"),
            r#"
            backend = "embedded"
            image = "host"
            prefix = "mine"
            user = "bob"
            workspace = "/srv/podkit"
            workspace_host = "/data/podkit"
            inherit_image = true
            state_dir = "/var/lib/other"
            run_dir = "/run/other"
            [session]
            memory = "1g"
            swap = "1g"
            shm = "64m"
            cpus = 1.5
            pids_max = 100
            network = "none"
            inherit_networks = true
            mounts = ["/data:/data:ro"]
            host_paths = ["/opt/tools"]
            env = { A = "1" }
            user = "nobody"
            read_only = true
            isolation = "own_range"
            auto_stop = "off"
            idle_timeout = "1h"
            max_lifetime = "1d"
            exec_timeout = "30s"
            "#,
        )
        .unwrap();
        assert_eq!(file.prefix.as_deref(), Some("mine"));
        let spec = file.session.spec();
        assert_eq!(spec.auto_stop, Some(Limit::Off));
        assert_eq!(spec.network, Some(Network::None));
        assert!(spec.inherit_networks);
        assert_eq!(file.inherit_image, Some(true));
        assert_eq!(spec.mounts, [Mount::bind("/data", "/data").read_only()]);
    }

    #[test]
    fn file_with_a_mistake_names_file_and_line() {
        let text = complaint("backend = \"auto\"\nimmage = \"x\"\n");
        assert!(
            text.starts_with("`/c.toml`, line 2: unknown field `immage`"),
            "{text}"
        );
        let text = complaint("[session]\n\nauto_stop = \"soon\"\n");
        assert!(
            text.starts_with("`/c.toml`, line 3: \"soon\" is not a length of time"),
            "{text}"
        );
        let text = complaint("[session]\nmemory = \"lots\"\n");
        assert!(text.contains("line 2"), "{text}");
        let text = complaint("backend = \n");
        assert!(text.contains("line 1"), "{text}");
    }

    /// What comes of these lines of the file, under this environment.
    fn spec(lines: &str, environment: &Environment) -> Result<SessionSpec> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        fs::write(&path, lines).unwrap();
        let given = Given {
            config: Some(path),
            ..Given::default()
        };
        settings(&given, environment).map(|settings| settings.spec)
    }

    #[test]
    fn inherited_settings_give_way_to_what_is_named_at_the_same_place() {
        let on = || Environment {
            inherit_image: Some("1".to_owned()),
            inherit_networks: Some("true".to_owned()),
            ..Environment::default()
        };
        let file = "image = 'a'\n[session]\nnetwork = 'n'\n";
        let found = spec(file, &on()).unwrap();
        assert!(found.inherit_image && found.inherit_networks);
        assert_eq!((found.image, found.network), (None, None));

        let mut named = on();
        named.image = Some("b".to_owned());
        let found = spec(file, &named).unwrap();
        assert_eq!(
            (found.image.as_deref(), found.inherit_image),
            (Some("b"), false)
        );

        let inherits = "inherit_image = true\n[session]\ninherit_networks = true\n";
        let found = spec(inherits, &Environment::default()).unwrap();
        assert!(found.inherit_image && found.inherit_networks);
        let off = Environment {
            inherit_image: Some("0".to_owned()),
            inherit_networks: Some("no".to_owned()),
            ..Environment::default()
        };
        let found = spec(inherits, &off).unwrap();
        assert!(!found.inherit_image && !found.inherit_networks);

        let wrong = Environment {
            inherit_image: Some("maybe".to_owned()),
            ..Environment::default()
        };
        let error = spec("", &wrong).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.message().contains("PODKIT_INHERIT_IMAGE"), "{error}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn login_name_is_the_first_with_this_uid() {
        let passwd = "root:x:0:0::/root:/bin/sh\nbad\nbob:x:7:7::/:\nrob:x:7:7::/:\n";
        assert_eq!(name_of(passwd, 7).as_deref(), Some("bob"));
        assert_eq!(name_of(passwd, 8), None);
    }
}
