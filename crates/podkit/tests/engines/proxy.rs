//! A socket before an engine's own, which counts requests and does harm when it is told to.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
    time::sleep,
};

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Harm {
    /// The answer comes late, but within every deadline.
    Delay,
    /// Nothing ever comes.
    Hang,
    /// The connection breaks before the engine hears of it.
    DropBefore,
    /// The engine does it, and the connection breaks.
    DropAfter,
    /// An error of the engine's.
    Error,
    /// The answer ends in its middle.
    Cut,
    /// The answer ends in its first line.
    HalfHeader,
    /// The answer comes byte by byte.
    Slow,
}

pub(super) const HARMS: [Harm; 8] = [
    Harm::Delay,
    Harm::Hang,
    Harm::DropBefore,
    Harm::DropAfter,
    Harm::Error,
    Harm::Cut,
    Harm::HalfHeader,
    Harm::Slow,
];

#[derive(Default)]
struct State {
    requests: Vec<String>,
    /// Requests that have this in their path, from which number on, and what happens to that one.
    plan: Option<(String, usize, Harm)>,
    /// Whether nothing is answered any more.
    hung: bool,
}

/// The socket, as long as this lives.
pub(super) struct Proxy {
    path: PathBuf,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub(super) fn new(directory: &Path, engine: &'static str) -> Self {
        let path = directory.join("engine.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let task = crate::support::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                crate::support::spawn(async move {
                    let _ = Box::pin(pass(client, engine, &state)).await;
                });
            }
        });
        Self { path, state, task }
    }

    pub(super) fn url(&self) -> String {
        format!("unix://{}", self.path.display())
    }

    /// The requests since the last call of this.
    pub(super) fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }

    /// Does harm to the request number `nth` of those whose path has `mark` in it.
    pub(super) fn plan(&self, mark: &str, nth: usize, harm: Harm) {
        self.state.lock().unwrap().plan = Some((mark.to_owned(), nth, harm));
    }

    /// Answers nothing any more, until it is healed.
    pub(super) fn hang(&self) {
        self.state.lock().unwrap().hung = true;
    }

    /// Whether the planned harm is still to come; it is given up.
    pub(super) fn heal(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        state.hung = false;
        state.plan.take().is_some()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn socket(engine: &str) -> &'static str {
    match engine {
        "docker" => "/run/docker.sock",
        _ => "/run/podman/podman.sock",
    }
}

/// Counts a request: what is to happen to it.
fn judge(state: &Mutex<State>, head: &str) -> Option<Harm> {
    let line = head.lines().next().unwrap_or_default();
    let line = line.trim_end_matches(" HTTP/1.1").to_owned();
    let mut state = state.lock().unwrap();
    let (mark, nth, harm) = state
        .plan
        .clone()
        .unwrap_or((String::new(), 1, Harm::Delay));
    let harmed = state.plan.is_some() && line.contains(&mark);
    state.requests.push(line);
    if state.hung {
        return Some(Harm::Hang);
    }
    if !harmed {
        return None;
    }
    if nth == 0 {
        state.plan = None;
        return Some(harm);
    }
    state.plan = Some((mark, nth - 1, harm));
    None
}

/// One connection holds one request.
async fn pass(mut client: UnixStream, engine: &str, state: &Mutex<State>) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut buffer = [0; 16 * 1024];
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        match client.read(&mut buffer).await? {
            0 => return Ok(()),
            count => head.extend_from_slice(&buffer[..count]),
        }
    }
    let harm = judge(state, &String::from_utf8_lossy(&head));
    match harm {
        Some(Harm::Hang) => {
            // Until the client gives it up.
            while client.read(&mut buffer).await? > 0 {}
            return Ok(());
        }
        Some(Harm::DropBefore) => return Ok(()),
        Some(Harm::Error) => {
            let body = r#"{"message":"injected"}"#;
            let answer = format!(
                "HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\n\
                 Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            return client.write_all(answer.as_bytes()).await;
        }
        Some(Harm::Delay) => sleep(Duration::from_millis(300)).await,
        _ => {}
    }
    let mut server = UnixStream::connect(socket(engine)).await?;
    server.write_all(&head).await?;
    let most = match harm {
        None | Some(Harm::Delay) => {
            copy_bidirectional(&mut client, &mut server).await?;
            return Ok(());
        }
        Some(Harm::DropAfter) => 0,
        Some(Harm::HalfHeader) => 12,
        Some(Harm::Cut) => 250,
        _ => usize::MAX,
    };
    Box::pin(maim(&mut client, &mut server, most)).await
}

/// Passes on so much of an answer, slowly if all of it. The rest of the request goes through.
async fn maim(
    client: &mut UnixStream,
    server: &mut UnixStream,
    most: usize,
) -> std::io::Result<()> {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let requests = async {
        let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
        std::future::pending::<()>().await;
    };
    let answers = async {
        let mut buffer = [0; 16 * 1024];
        let mut passed = 0;
        loop {
            let count = from_server.read(&mut buffer).await?;
            let part = &buffer[..count.min(most - passed)];
            if most == usize::MAX {
                for byte in part.iter().take(20) {
                    to_client.write_all(&[*byte]).await?;
                    sleep(Duration::from_millis(20)).await;
                }
                to_client
                    .write_all(part.get(20..).unwrap_or_default())
                    .await?;
            } else {
                to_client.write_all(part).await?;
            }
            passed += part.len();
            if count == 0 || passed >= most {
                return std::io::Result::Ok(());
            }
        }
    };
    tokio::select! {
        () = requests => Ok(()),
        result = answers => result,
    }
}
