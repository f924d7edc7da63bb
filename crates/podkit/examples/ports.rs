//! Seed example 3: a server in a session, offered at a port of this machine.
//!
//! `cargo run --example ports`

use std::{io::Write, time::Duration};

use podkit::{Error, ErrorKind, Podkit, Port, Readiness, SessionSpec};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Answers each caller with a greeting.
const SERVER: &str = "
import socket
server = socket.create_server(('0.0.0.0', 8000))
while True:
    caller, _ = server.accept()
    caller.recv(4096)
    caller.sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\nhello from the session\\n')
    caller.close()
";

/// Serves, asks once from outside, and gives the answer.
pub(crate) async fn run(podkit: &Podkit) -> podkit::Result<String> {
    // Any free port of this machine; `Port::new(8000)` alone would be 8000 here as well.
    let spec = SessionSpec::new().port(Port::new(8000).anywhere());
    let session = podkit.session("bob", "web-server").spec(spec).await?;
    session
        .spawn(["python3", "-c", SERVER])
        .name("web")
        .keep_alive()
        .await?;
    session.wait_for_port(8000, Duration::from_secs(10)).await?;

    let url = session.url(8000).await?;
    let address = url.trim_start_matches("http://");
    let answer = ask(address).await.map_err(|error| {
        Error::new(ErrorKind::Unexpected, format!("{url} does not answer")).with_source(error)
    })?;

    // One whose server is the image's own program is ready when that answers.
    let opened = podkit.session("bob", "web-server");
    opened
        .ready_when(Readiness::http(8000, "/"), Duration::from_secs(10))
        .await?;
    session.close().await?;
    Ok(answer)
}

async fn ask(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::main]
async fn main() -> podkit::Result<()> {
    let answer = run(&Podkit::connect("auto").await?).await?;
    std::io::stdout()
        .write_all(answer.as_bytes())
        .map_err(|error| {
            Error::new(ErrorKind::Unexpected, "standard output is closed").with_source(error)
        })
}
