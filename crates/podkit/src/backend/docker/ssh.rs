//! An engine at the other end of ssh, reached as the docker command line does: for each connection
//! `ssh HOST docker system dial-stdio`, which passes bytes to the engine's socket there.

use std::{process::Stdio, sync::Arc};

use bollard::{BollardRequest, errors::Error as EngineError};
use hyper::{Response, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::process::Command;

use crate::error::{Error, Result};

/// Where and how ssh connects.
#[derive(Debug, PartialEq, Eq)]
struct Destination {
    host: String,
    port: Option<u16>,
    /// Path of the engine's socket there, if it is not the default one.
    socket: Option<String>,
}

impl Destination {
    fn parse(url: &str) -> Option<Self> {
        let rest = url.strip_prefix("ssh://")?;
        let (host, socket) = match rest.split_once('/') {
            Some((host, path)) => (host, (!path.is_empty()).then(|| format!("/{path}"))),
            None => (rest, None),
        };
        let (host, port) = match host.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (host, None),
        };
        // A host that began with a dash would be an option.
        let good = |c: char| c.is_ascii_alphanumeric() || "@._-[]:".contains(c);
        if host.is_empty() || host.starts_with('-') || !host.chars().all(good) {
            return None;
        }
        Some(Self {
            host: host.to_owned(),
            port,
            socket,
        })
    }

    fn command(&self) -> Command {
        let mut command = Command::new("ssh");
        command.args(["-o", "ConnectTimeout=30", "-o", "BatchMode=yes", "-T"]);
        if let Some(port) = self.port {
            command.arg("-p").arg(port.to_string());
        }
        command.args(["--", &self.host, "docker"]);
        if let Some(socket) = &self.socket {
            command.arg("--host").arg(format!("unix://{socket}"));
        }
        command.args(["system", "dial-stdio"]);
        command
    }
}

/// Sends each request over an ssh of its own.
///
/// # Errors
/// `InvalidInput` for a URL that names no host.
pub(super) fn transport(
    url: &str,
) -> Result<
    impl Fn(
        BollardRequest,
    ) -> futures::future::BoxFuture<'static, Result<Response<Incoming>, EngineError>>
    + Send
    + Sync
    + 'static,
> {
    let destination = Destination::parse(url).ok_or_else(|| {
        Error::invalid_input(format!("{url:?} names no host"))
            .with_hint("write `ssh://user@host` or `ssh://user@host:port`")
    })?;
    let destination = Arc::new(destination);
    Ok(move |request: BollardRequest| {
        let destination = Arc::clone(&destination);
        Box::pin(async move { send(&destination, request).await }) as _
    })
}

async fn send(
    destination: &Destination,
    request: BollardRequest,
) -> Result<Response<Incoming>, EngineError> {
    let mut child = destination
        .command()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let missing = || EngineError::from(std::io::Error::other("ssh has no standard streams"));
    let output = child.stdout.take().ok_or_else(missing)?;
    let input = child.stdin.take().ok_or_else(missing)?;
    let stream = TokioIo::new(tokio::io::join(output, input));
    let (mut sender, connection) = http1::handshake(stream).await.map_err(io)?;
    #[expect(
        clippy::disallowed_methods,
        reason = "it lives as long as its request, whose end closes the pipes; nothing waits for it"
    )]
    tokio::spawn(async move {
        let _ = connection.with_upgrades().await;
        let _ = child.kill().await;
    });
    sender.send_request(request).await.map_err(|error| {
        io(std::io::Error::other(format!(
            "ssh to `{}` gave no answer: {error}",
            destination.host
        )))
    })
}

fn io(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> EngineError {
    EngineError::from(std::io::Error::other(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destination_is_a_host_and_never_an_option() {
        let parsed = Destination::parse("ssh://root@10.0.0.1:2222/run/podman.sock").unwrap();
        assert_eq!(
            (parsed.host.as_str(), parsed.port),
            ("root@10.0.0.1", Some(2222))
        );
        assert_eq!(parsed.socket.as_deref(), Some("/run/podman.sock"));
        assert!(Destination::parse("ssh://host").is_some());
        for bad in [
            "ssh://",
            "ssh://-oProxyCommand=x",
            "ssh://a b",
            "tcp://x",
            "ssh://h:x",
        ] {
            assert_eq!(Destination::parse(bad), None, "{bad}");
        }
    }
}
