//! Credentials of registries, as the docker command line keeps them: in its configuration, or with
//! a helper program.

use std::{collections::HashMap, path::PathBuf, process::Stdio, time::Duration};

use bollard::auth::DockerCredentials;
use data_encoding::BASE64;
use serde::Deserialize;
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use super::{Flavor, endpoint, reference::Reference};
use crate::{
    backend::connect::ConnectOptions,
    error::{Error, ErrorKind, Result},
};

/// How long a helper has to answer; it may ask its user.
const HELPER: Duration = Duration::from_secs(60);

/// Longest answer of a helper.
const MAX_ANSWER: usize = 64 << 10;

/// Where credentials may be.
#[derive(Clone, Debug, Default)]
pub(super) struct Credentials {
    files: Vec<PathBuf>,
}

/// The part of the configuration that is about credentials.
#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    auths: HashMap<String, Auth>,
    #[serde(rename = "credHelpers")]
    helpers: HashMap<String, String>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: Option<String>,
    identitytoken: Option<String>,
}

/// What a helper answers.
#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

impl Credentials {
    /// The files that an engine's own command line reads.
    pub(super) fn new(flavor: Flavor, options: &ConnectOptions) -> Self {
        let docker = endpoint::config_dir(options).map(|directory| directory.join("config.json"));
        let runtime = options.xdg_runtime_dir.as_ref();
        let runtime = runtime.map(|directory| directory.join("containers/auth.json"));
        let home = options.home.as_ref();
        let home = home.map(|home| home.join(".config/containers/auth.json"));
        let files = match flavor {
            Flavor::Docker => vec![docker],
            Flavor::Podman => vec![runtime, home, docker],
        };
        Self {
            files: files.into_iter().flatten().collect(),
        }
    }

    /// The credentials for an image's registry; none where there are none.
    ///
    /// # Errors
    /// `InvalidInput` for a file that cannot be understood; what keeps a helper from answering.
    pub(super) async fn find(&self, reference: &Reference) -> Result<Option<DockerCredentials>> {
        for path in &self.files {
            let Some(bytes) = endpoint::read(path)? else {
                continue;
            };
            let file: File = endpoint::parse(path, &bytes)?;
            if let Some(found) = file.find(&reference.credential_keys()).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

impl File {
    async fn find(&self, keys: &[String]) -> Result<Option<DockerCredentials>> {
        for key in keys {
            if let Some(helper) = self.helpers.get(key) {
                return ask(helper, key).await;
            }
        }
        for key in keys {
            if let Some(found) = self.auths.get(key).and_then(|auth| auth.decode(key)) {
                return Ok(Some(found));
            }
        }
        let Some(store) = &self.store else {
            return Ok(None);
        };
        for key in keys {
            if let Some(found) = ask(store, key).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

impl Auth {
    fn decode(&self, registry: &str) -> Option<DockerCredentials> {
        let mut found = DockerCredentials {
            serveraddress: Some(registry.to_owned()),
            ..DockerCredentials::default()
        };
        if let Some(token) = self
            .identitytoken
            .as_ref()
            .filter(|token| !token.is_empty())
        {
            found.identitytoken = Some(token.clone());
        }
        let auth = self.auth.as_deref().filter(|auth| !auth.is_empty());
        if let Some(auth) = auth {
            let bytes = BASE64.decode(auth.as_bytes()).ok()?;
            let text = String::from_utf8(bytes).ok()?;
            let (username, password) = text.split_once(':')?;
            found.username = Some(username.to_owned());
            // Some write an end of line or a zero after it.
            found.password = Some(password.trim_end_matches(['\0', '\n']).to_owned());
        }
        (found.username.is_some() || found.identitytoken.is_some()).then_some(found)
    }
}

/// Asks `docker-credential-<helper>`: none when it has none for this registry.
async fn ask(helper: &str, registry: &str) -> Result<Option<DockerCredentials>> {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if helper.is_empty() || !helper.chars().all(good) {
        return Err(Error::invalid_input(format!(
            "{helper:?} is not the name of a helper for credentials"
        )));
    }
    let program = format!("docker-credential-{helper}");
    let failed = |why: String| {
        Error::new(
            ErrorKind::PermissionDenied,
            format!("`{program}` gave no credentials for `{registry}`: {why}"),
        )
        .with_hint("check the helper, or remove it from the docker configuration")
    };
    let run = async {
        let mut child = Command::new(&program)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut input) = child.stdin.take() {
            // One that reads nothing answers all the same.
            let _ = input.write_all(registry.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let output = match timeout(HELPER, run).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(failed(error.to_string())),
        Err(_) => return Err(failed(format!("no answer within {HELPER:?}"))),
    };
    let said = output.stdout.get(..MAX_ANSWER.min(output.stdout.len()));
    let said = said.unwrap_or_default();
    if !output.status.success() {
        let text = String::from_utf8_lossy(said).to_lowercase();
        if text.contains("not found") {
            return Ok(None);
        }
        // What it says may hold a secret.
        return Err(failed(format!("it ended with {}", output.status)));
    }
    let answer: Answer = serde_json::from_slice(said)
        .map_err(|_| failed("its answer cannot be understood".to_owned()))?;
    let mut found = DockerCredentials {
        serveraddress: Some(registry.to_owned()),
        ..DockerCredentials::default()
    };
    if answer.username == "<token>" {
        found.identitytoken = Some(answer.secret);
    } else {
        found.username = Some(answer.username);
        found.password = Some(answer.secret);
    }
    Ok(Some(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(config: &str) -> (tempfile::TempDir, Credentials) {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".docker")).unwrap();
        std::fs::write(home.path().join(".docker/config.json"), config).unwrap();
        let options = ConnectOptions::for_home(home.path());
        let credentials = Credentials::new(Flavor::Docker, &options);
        (home, credentials)
    }

    async fn found(config: &str, image: &str) -> Result<Option<DockerCredentials>> {
        let (_home, credentials) = home(config);
        credentials.find(&Reference::parse(image).unwrap()).await
    }

    #[tokio::test]
    async fn credentials_in_the_configuration_are_found_by_registry() {
        let auth = BASE64.encode(b"bob:pass:word");
        let config = format!(
            r#"{{"auths":{{"r:5000":{{"auth":"{auth}"}},
                "https://index.docker.io/v1/":{{"identitytoken":"t"}},"empty":{{}}}}}}"#
        );
        let here = found(&config, "r:5000/a/b:1").await.unwrap().unwrap();
        assert_eq!(here.username.as_deref(), Some("bob"));
        assert_eq!(here.password.as_deref(), Some("pass:word"));
        let hub = found(&config, "python").await.unwrap().unwrap();
        assert_eq!(hub.identitytoken.as_deref(), Some("t"));
        assert!(found(&config, "other.io/a").await.unwrap().is_none());
    }

    #[tokio::test]
    async fn credentials_of_a_missing_or_bad_helper_are_an_error_without_secrets() {
        let config = r#"{"credHelpers":{"r:5000":"podkit-none"}}"#;
        let error = found(config, "r:5000/a").await.unwrap_err();
        assert!(
            error.message().contains("docker-credential-podkit-none"),
            "{error}"
        );
        let config = r#"{"credsStore":"../../x"}"#;
        let error = found(config, "r:5000/a").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(found("{", "r:5000/a").await.is_err());
    }
}
