//! What only other engines have the agent do: dial out, write the log, say by its exit code why it
//! ended, and hold commands back.

use std::{
    fs,
    io::Read,
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    process::Stdio,
    thread,
    time::Duration,
};

use crate::{
    client::{Client, shell, spec},
    container::{Container, PATIENCE, wait_for},
};

/// A directory for clients' sockets, which goes with this value.
pub(crate) fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/var/tmp").unwrap()
}

/// A socket that listens before it is seen.
pub(crate) fn wait_at(directory: &Path, name: &str) -> UnixListener {
    let hidden = directory.join(".hidden");
    let listener = UnixListener::bind(&hidden).unwrap();
    fs::rename(hidden, directory.join(name)).unwrap();
    listener
}

/// The agent's call.
pub(crate) fn call(listener: &UnixListener) -> UnixStream {
    listener.set_nonblocking(true).unwrap();
    let (stream, _) = wait_for("the agent's call", || listener.accept().ok());
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// The agent's call, which is greeted.
pub(crate) fn answer(listener: &UnixListener) -> Client {
    let mut client = Client::called(call(listener));
    client.greet();
    client
}

#[test]
fn agent_calls_those_who_wait_and_those_who_come() {
    let place = directory();
    let path = place.path().to_str().unwrap().to_owned();
    let early = wait_at(place.path(), "early");
    // Nobody waits here any more; this is no socket.
    drop(wait_at(place.path(), "stale"));
    fs::write(place.path().join("file"), "x").unwrap();
    let container = Container::start(&["--dial", &path]);
    let _first = answer(&early);
    let (one, two) = (wait_at(place.path(), "one"), wait_at(place.path(), "two"));
    let _both = (answer(&one), answer(&two));
    for number in 0..500 {
        drop(wait_at(place.path(), &format!("gone-{number}")));
    }
    let late = wait_at(place.path(), "late");
    let _last = answer(&late);
    // The other way in is open as well.
    let mut client = container.client();
    assert_eq!(client.run(spec(&["echo", "hi"])).out(), "hi\n");
}

#[test]
fn agent_calls_nobody_inside() {
    let place = directory();
    let path = place.path().to_str().unwrap().to_owned();
    let container = Container::start(&["--dial", &path]);
    let mut client = container.client();
    let script = format!(
        "cd {path}; python3 -c \"import socket,os\ns=socket.socket(socket.AF_UNIX)\n\
         s.bind('.x')\ns.listen()\nos.rename('.x','x')\ns.settimeout(5)\nc,_=s.accept()\n\
         c.settimeout(5)\nprint(len(c.recv(10)))\""
    );
    let ended = client.run(shell(&script));
    assert_eq!(ended.out(), "0\n", "{}", ended.err());
}

#[test]
fn agent_without_the_directory_serves_the_other_way() {
    let container = Container::start(&["--dial", "/nonexistent"]);
    let mut client = container.client();
    assert_eq!(client.run(spec(&["echo", "hi"])).out(), "hi\n");
}

#[test]
fn log_waits_for_its_reader_and_loses_nothing() {
    const BYTES: usize = 3_000_000;
    let text = format!("head -c {BYTES} /dev/zero; exit 3");
    let mut container = Container::start_writing(&["--", "sh", "-c", &text], Stdio::piped());
    let mut log = container.log();
    // The program is held back, the agent is not.
    let mut client = container.client();
    for _ in 0..20 {
        assert_eq!(client.run(spec(&["echo", "hi"])).out(), "hi\n");
    }
    let reader = thread::spawn(move || {
        let mut all = Vec::new();
        log.read_to_end(&mut all).map(|_| all.len())
    });
    assert_eq!(container.end().code(), Some(3));
    assert_eq!(reader.join().unwrap().unwrap(), BYTES);
}

#[test]
fn log_that_nobody_reads_holds_the_end_off_for_a_while_only() {
    let text = "head -c 3000000 /dev/zero & echo done > /dev/null";
    let mut container = Container::start_writing(&["--", "sh", "-c", text], Stdio::piped());
    let _unread = container.log();
    let began = std::time::Instant::now();
    assert_eq!(container.end().code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(15));
}

#[test]
fn log_that_is_closed_is_dropped() {
    let text = "head -c 3000000 /dev/zero; exit 4";
    let mut container = Container::start_writing(&["--", "sh", "-c", text], Stdio::piped());
    drop(container.log());
    assert_eq!(container.end().code(), Some(4));
}

#[test]
fn program_cannot_say_that_a_clock_ended_it() {
    for code in [224, 225, 226, 227] {
        let mut container = Container::start(&["--", "sh", "-c", &format!("exit {code}")]);
        assert_eq!(container.end().code(), Some(227), "{code}");
    }
}

#[test]
fn lifetime_counts_from_the_birth() {
    let born = std::time::SystemTime::now() - Duration::from_secs(100);
    let born = born.duration_since(std::time::UNIX_EPOCH).unwrap();
    let born = born.as_millis().to_string();
    let mut container = Container::start(&["--max-lifetime", "101000", "--born", &born]);
    assert_eq!(container.end().code(), Some(225));
}

#[test]
fn program_and_commands_have_their_own_users_and_directories() {
    let arguments = [
        "--cwd",
        "/usr",
        "--main-user",
        "65534",
        "--main-cwd",
        "/etc",
        "--",
        "sh",
        "-c",
        "pwd; id -u; sleep 1000",
    ];
    let mut container = Container::start_writing(&arguments, Stdio::piped());
    let mut log = container.log();
    let mut said = [0; 11];
    log.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"/etc\n65534\n");
    let mut client = container.client();
    assert_eq!(client.run(shell("pwd; id -u")).out(), "/usr\n0\n");
}

#[test]
fn commands_hold_no_more_than_they_may() {
    // CHOWN, SETGID and SETUID.
    let container = Container::start(&["--capabilities", "c1"]);
    let mut client = container.client();
    let status = "grep '^Cap' /proc/self/status | cut -f2 | tr '\\n' ' '";
    let (none, some) = ("0000000000000000", "00000000000000c1");
    let root = client.run(shell(status)).out();
    assert_eq!(root, format!("{none} {some} {some} {some} {none} "));
    let mut nobody = shell(status);
    nobody.user = b"65534".to_vec();
    let user = client.run(nobody).out();
    assert_eq!(user, format!("{none} {none} {none} {some} {none} "));
    // The agent itself still ends what is another user's.
    let mut stubborn = spec(&["sleep", "1003"]);
    stubborn.user = b"65534".to_vec();
    stubborn.timeout_ms = Some(200);
    let ended = client.run(stubborn);
    assert_eq!(ended.status, podkit_agent::ExecStatus::TimedOut);
}
