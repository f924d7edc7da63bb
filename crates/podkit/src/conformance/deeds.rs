//! Calls that go on until something ends them: one for each kind of call that lasts.

use std::{
    fmt, fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;
use podkit_agent::archive::{Member, MemberKind};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    net::TcpStream,
    select,
    sync::Notify,
};

use crate::{
    Error, ErrorKind, ExecEvent, LimitChange, Outcome, Result, Session, TerminalSize, WriteOptions,
};

/// The rest of a deed: it comes to its end when something ends the deed, with how it ended, where
/// that has a name.
pub type Doing = BoxFuture<'static, Result<Option<Outcome>>>;

/// A call that goes on until something ends it.
pub struct Deed {
    /// What is done.
    pub name: &'static str,
    begin: for<'a> fn(&'a Session, &'a Path) -> BoxFuture<'a, Result<Doing>>,
}

impl fmt::Debug for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Deed({})", self.name)
    }
}

impl Deed {
    /// Begins it, with files in a directory of this machine, and returns when it is under way.
    ///
    /// # Errors
    /// Whatever keeps it from being begun.
    pub async fn begin(&self, session: &Session, directory: &Path) -> Result<Doing> {
        let begun = (self.begin)(session, directory).await;
        begun.map_err(|error| error.with_operation(self.name))
    }
}

macro_rules! deeds {
    ($($deed:ident),* $(,)?) => {
        /// Every deed, each once; all of them may be done in one session at the same time. They need
        /// Python in the image.
        pub const DEEDS: &[Deed] = &[$(Deed {
            name: stringify!($deed),
            begin: |session, directory| Box::pin($deed(session, directory)),
        }),*];
    };
}

deeds![
    command,
    input,
    terminal,
    reading,
    writing,
    appending,
    renaming,
    uploading,
    downloading,
    archiving,
    extracting,
    watching,
    waiting,
    following,
    attaching,
    port,
    forwarding,
    measuring,
    limiting,
];

/// A size that nobody gets to the end of, and that takes no room.
const HUGE: u64 = 64 << 30;

const SIZE: TerminalSize = TerminalSize::new(24, 80);

fn doing(rest: impl Future<Output = Result<Option<Outcome>>> + Send + 'static) -> Doing {
    Box::pin(rest)
}

fn ended_early() -> Error {
    Error::new(ErrorKind::Unexpected, "it ended before it was under way")
}

fn of_io(error: std::io::Error) -> Error {
    error.downcast::<Error>().unwrap_or_else(|error| {
        Error::new(ErrorKind::Unexpected, "input or output failed").with_source(error)
    })
}

async fn command(session: &Session, _: &Path) -> Result<Doing> {
    let mut handle = session.exec(["sleep", "1000"]).stream().await?;
    match handle.next().await.transpose()? {
        Some(ExecEvent::Started(_)) => {}
        other => panic!("not begun: {other:?}"),
    }
    Ok(doing(async move { Ok(Some(handle.wait().await?.outcome)) }))
}

async fn input(session: &Session, _: &Path) -> Result<Doing> {
    let mut handle = session.exec(["cat"]).stdin_stream().stream().await?;
    handle.write_stdin("x".into()).await?;
    while !matches!(handle.next().await.transpose()?, Some(ExecEvent::Stdout(_))) {}
    Ok(doing(async move {
        loop {
            // What ended it is told by what comes next.
            let _ = handle.write_stdin(vec![7; 1000].into()).await;
            match handle.next().await.transpose()? {
                Some(ExecEvent::Exited(result)) => return Ok(Some(result.outcome)),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }))
}

async fn terminal(session: &Session, _: &Path) -> Result<Doing> {
    let command = session.exec(["cat"]).terminal(SIZE).stdin_stream();
    let mut handle = command.stream().await?;
    handle.write_stdin("x\n".into()).await?;
    while !matches!(handle.next().await.transpose()?, Some(ExecEvent::Stdout(_))) {}
    // Waiting for its end would end its input.
    Ok(doing(async move {
        while let Some(event) = handle.next().await.transpose()? {
            if let ExecEvent::Exited(result) = event {
                return Ok(Some(result.outcome));
            }
        }
        Ok(None)
    }))
}

/// A file in the container without end.
async fn huge(session: &Session, path: &str) -> Result<()> {
    let made = session.exec(["truncate", "-s", &HUGE.to_string(), path]);
    made.await?.check().map(drop)
}

/// Reads until there is nothing more.
async fn drain(mut from: impl AsyncRead + Send + Unpin) -> Result<Option<Outcome>> {
    let mut chunk = vec![0; 64 * 1024];
    while from.read(&mut chunk).await.map_err(of_io)? > 0 {}
    Ok(None)
}

async fn reading(session: &Session, _: &Path) -> Result<Doing> {
    huge(session, "/workspace/read").await?;
    let mut reader = session.files().reader("/workspace/read").await?;
    reader.read_u8().await.map_err(of_io)?;
    Ok(doing(drain(reader)))
}

/// Sends some bytes by a call that reads from the other end, and leaves it waiting for more.
async fn sending(
    call: impl Future<Output = Result<()>> + Send + 'static,
    mut bytes: DuplexStream,
    first: Vec<u8>,
) -> Result<Doing> {
    let mut call = Box::pin(call);
    select! {
        ended = &mut call => return Err(ended.err().unwrap_or_else(ended_early)),
        sent = bytes.write_all(&first) => sent.map_err(of_io)?,
    }
    Ok(doing(async move {
        let ended = call.await;
        drop(bytes);
        ended.map(|()| None)
    }))
}

async fn write_to(session: &Session, path: &'static str, append: bool) -> Result<Doing> {
    let (ours, theirs) = duplex(1024);
    let files = session.files();
    let options = WriteOptions::new().with_append(append);
    let call = async move { files.write_with(path, options, theirs).await.map(drop) };
    sending(call, ours, vec![7; 300_000]).await
}

async fn writing(session: &Session, _: &Path) -> Result<Doing> {
    write_to(session, "written", false).await
}

async fn appending(session: &Session, _: &Path) -> Result<Doing> {
    write_to(session, "appended", true).await
}

async fn renaming(session: &Session, _: &Path) -> Result<Doing> {
    let (session, files) = (session.clone(), session.files());
    files.write("name", "x").await?;
    let opened = session.opened();
    Ok(doing(async move {
        // Each call brings a container back that has stopped; this is about the one life.
        while session.opened() == opened {
            files.rename("name", "other").await?;
            files.rename("other", "name").await?;
        }
        Ok(None)
    }))
}

async fn uploading(session: &Session, directory: &Path) -> Result<Doing> {
    let from = directory.join("up");
    let made = fs::create_dir_all(&from).and_then(|()| {
        fs::write(from.join("first"), "x")?;
        fs::File::create(from.join("huge"))?.set_len(HUGE)
    });
    made.map_err(of_io)?;
    let (files, begun) = (session.files(), Arc::new(Notify::new()));
    let tell = Arc::clone(&begun);
    let mut call = Box::pin(async move {
        let told = move |_| tell.notify_one();
        files.upload_with(from, "/workspace/up", told).await
    });
    select! {
        ended = &mut call => return Err(ended.err().unwrap_or_else(ended_early)),
        () = begun.notified() => {}
    }
    Ok(doing(async move { call.await.map(|_| None) }))
}

async fn downloading(session: &Session, directory: &Path) -> Result<Doing> {
    session.files().make_dir_all("/workspace/down").await?;
    huge(session, "/workspace/down/huge").await?;
    let (files, begun) = (session.files(), Arc::new(Notify::new()));
    let (to, tell) = (directory.join("down"), Arc::clone(&begun));
    let mut call = Box::pin(async move {
        let told = move |_| tell.notify_one();
        files.download_with("/workspace/down", to, told).await
    });
    select! {
        ended = &mut call => return Err(ended.err().unwrap_or_else(ended_early)),
        () = begun.notified() => {}
    }
    Ok(doing(async move { call.await.map(|_| None) }))
}

async fn archiving(session: &Session, _: &Path) -> Result<Doing> {
    huge(session, "/workspace/archived").await?;
    let mut archive = session.files().archive("/workspace/archived").await?;
    archive.read_u8().await.map_err(of_io)?;
    Ok(doing(drain(archive)))
}

async fn extracting(session: &Session, _: &Path) -> Result<Doing> {
    let (ours, theirs) = duplex(1024);
    let files = session.files();
    let call = async move {
        files
            .extract("/workspace/extracted", theirs)
            .await
            .map(drop)
    };
    let mut bytes = Vec::new();
    let half = Member {
        path: "half".into(),
        kind: MemberKind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        size: 1 << 20,
        modified_s: 0,
        target: "".into(),
    };
    half.encode(&mut bytes);
    bytes.resize(512 * 1024, 7);
    sending(call, ours, bytes).await
}

async fn watching(session: &Session, _: &Path) -> Result<Doing> {
    let files = session.files();
    files.make_dir_all("/workspace/watched").await?;
    let mut watch = files.watch("/workspace/watched", true).await?;
    Ok(doing(async move {
        while watch.next().await.transpose()?.is_some() {}
        Ok(None)
    }))
}

async fn waiting(session: &Session, _: &Path) -> Result<Doing> {
    let process = session.spawn(["sleep", "1000"]).await?;
    Ok(doing(async move {
        process.wait().await?;
        Ok(None)
    }))
}

async fn following(session: &Session, _: &Path) -> Result<Doing> {
    let process = session.spawn_shell("echo up; exec sleep 1000").await?;
    let mut logs = process.logs().follow().stream().await?;
    logs.next().await?;
    Ok(doing(async move {
        while logs.next().await?.is_some() {}
        Ok(None)
    }))
}

async fn attaching(session: &Session, _: &Path) -> Result<Doing> {
    let process = session.spawn(["sleep", "1000"]).terminal(SIZE).await?;
    let handle = process.attach(None).await?;
    Ok(doing(async move { Ok(Some(handle.wait().await?.outcome)) }))
}

/// Takes connections, and is silent.
async fn listen(session: &Session, port: u16) -> Result<()> {
    const SILENT: &str = "
import socket, sys
server = socket.create_server(('127.0.0.1', int(sys.argv[1])))
taken = []
while True: taken.append(server.accept())
";
    let argv = ["python3", "-c", SILENT, &port.to_string()];
    session.spawn(argv).await?;
    session.wait_for_port(port, Duration::from_secs(10)).await
}

async fn port(session: &Session, _: &Path) -> Result<Doing> {
    listen(session, 8001).await?;
    let stream = session.connect_port(8001).await?;
    Ok(doing(drain(stream)))
}

async fn forwarding(session: &Session, _: &Path) -> Result<Doing> {
    listen(session, 8002).await?;
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let forward = session.forward_port(local, 8002).await?;
    let stream = TcpStream::connect(forward.address()).await.map_err(of_io)?;
    Ok(doing(async move {
        // A caller's connection is reset, or ends; the forward itself goes on.
        let _ = drain(stream).await;
        drop(forward);
        Ok(None)
    }))
}

async fn measuring(session: &Session, directory: &Path) -> Result<Doing> {
    let mut stats = match session.watch_stats(Duration::from_millis(10)) {
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            return waiting(session, directory).await;
        }
        stats => stats?,
    };
    stats.next().await?;
    let (session, opened) = (session.clone(), session.opened());
    Ok(doing(async move {
        while session.opened() == opened && stats.next().await?.is_some() {}
        Ok(None)
    }))
}

async fn limiting(session: &Session, directory: &Path) -> Result<Doing> {
    match session.set_limits(LimitChange::new().pids_max(400)).await {
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            return waiting(session, directory).await;
        }
        changed => changed?,
    }
    let (session, opened) = (session.clone(), session.opened());
    Ok(doing(async move {
        let mut pids = (400..500).cycle();
        while session.opened() == opened {
            let change = LimitChange::new().pids_max(pids.next().unwrap_or(400));
            session.set_limits(change).await?;
        }
        Ok(None)
    }))
}
