//! An engine at the other end of ssh, reached as the docker command line does: for each connection
//! `ssh HOST docker system dial-stdio`, which passes bytes to the engine's socket there.

use std::{
    io,
    pin::Pin,
    process::Stdio,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bollard::{BollardRequest, errors::Error as EngineError};
use hyper::{
    Response, Uri,
    body::Incoming,
    client::conn::http1,
    header::{HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    task::JoinHandle,
    time::timeout,
};

use crate::error::{Error, Result};

/// Bytes of what ssh complains of that are shown.
const COMPLAINT_BYTES: usize = 1024;

/// Time that ssh has to say why it ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

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
    mut request: BollardRequest,
) -> Result<Response<Incoming>, EngineError> {
    let mut child = destination
        .command()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let missing = || EngineError::from(io::Error::other("ssh has no standard streams"));
    let output = child.stdout.take().ok_or_else(missing)?;
    let input = child.stdin.take().ok_or_else(missing)?;
    let complaints = child.stderr.take().ok_or_else(missing)?;
    let stream = TokioIo::new(Ssh {
        output,
        input,
        _child: child,
    });
    let (mut sender, connection) = http1::handshake(stream).await.map_err(failed)?;
    let said = beside(read_complaints(complaints));
    beside(async move {
        let _ = connection.with_upgrades().await;
    });
    // A connection of its own takes a path alone, and wants the host beside it.
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map(Uri::from).unwrap_or_default();
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_static("docker"));
    match sender.send_request(request).await {
        Ok(response) => Ok(response),
        Err(error) => {
            let said = timeout(LAST_WORDS, said).await;
            let said = said.ok().and_then(Result::ok).unwrap_or_default();
            let why = match said.trim() {
                "" => error.to_string(),
                said => said.to_owned(),
            };
            let host = &destination.host;
            Err(failed(io::Error::other(format!(
                "ssh to `{host}` gave no answer: {why}"
            ))))
        }
    }
}

/// Lets something go on that lives as long as its request, whose end closes the pipes.
fn beside<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    #[expect(clippy::disallowed_methods, reason = "it ends with its request")]
    tokio::spawn(work)
}

/// All that ssh complains of; the beginning of it is kept.
async fn read_complaints(mut from: ChildStderr) -> String {
    let (mut kept, mut buffer) = (Vec::new(), [0; 1024]);
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let room = COMPLAINT_BYTES.saturating_sub(kept.len()).min(count);
        kept.extend_from_slice(&buffer[..room]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// The streams of an ssh, which ends with them.
struct Ssh {
    output: ChildStdout,
    input: ChildStdin,
    _child: Child,
}

impl AsyncRead for Ssh {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_read(context, buffer)
    }
}

impl AsyncWrite for Ssh {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.input).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_shutdown(context)
    }
}

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> EngineError {
    EngineError::from(io::Error::other(error))
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
