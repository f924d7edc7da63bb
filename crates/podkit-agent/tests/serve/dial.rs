//! Clients that the agent calls: who is served, how, and what cannot disturb it.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read, Write},
    mem,
    os::unix::{
        fs::symlink,
        net::{UnixListener, UnixStream},
    },
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use podkit_agent::{
    ExecStatus, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN, Reply, Request, StopReason,
};

use crate::{
    client::{Client, shell, spec},
    container::{Around, Container, wait_for},
    engine::{answer, call, directory, wait_at},
};

/// Most connections that the agent has at once.
const MAX_CONNECTIONS: usize = 256;

/// Processor time that an agent may use in half a second in which nothing happens.
const IDLE: Duration = Duration::from_millis(50);

fn start(place: &Path) -> Container {
    Container::start(&["--dial", place.to_str().unwrap()])
}

/// Checks that the agent has not called, or not again.
fn check_no_call(listener: &UnixListener) {
    listener.set_nonblocking(true).unwrap();
    let called = listener.accept().map(|_| ());
    assert_eq!(called.unwrap_err().kind(), ErrorKind::WouldBlock);
}

/// Lets a socket of this name appear again.
fn appear(place: &Path, name: &str) {
    let (seen, hidden) = (place.join(name), place.join(".again"));
    fs::rename(&seen, &hidden).unwrap();
    fs::rename(hidden, seen).unwrap();
}

/// Whether the agent answers a greeting on this connection.
fn is_served(mut stream: &UnixStream) -> bool {
    let mut frame = Vec::new();
    Request::Hello {
        version: PROTOCOL_VERSION,
        version_min: PROTOCOL_VERSION_MIN,
    }
    .encode(0, &mut frame);
    // The agent may have hung up, which is an end or an error.
    stream.write_all(&frame).is_ok() && matches!(stream.read(&mut [0]), Ok(1))
}

/// Checks that the agent rests while a command sleeps.
fn check_idle(container: &Container, client: &mut Client) {
    let before = container.processor_time();
    client.run(shell("sleep 0.5"));
    let used = container.processor_time() - before;
    assert!(used <= IDLE, "{used:?}");
}

#[test]
fn called_client_is_served_like_others_and_can_stop_the_container() {
    let place = directory();
    let listener = wait_at(place.path(), "client");
    let mut container = start(place.path());
    let mut client = answer(&listener);
    let ended = client.run(shell("head -c 1000000 /dev/zero"));
    assert_eq!(ended.stdout.len(), 1_000_000);
    let (stream, pid) = client.start(spec(&["sleep", "1001"]));
    client.send(0, &Request::Stop { grace_ms: 0 });
    let ended = client.finish_started(stream, pid);
    assert_eq!(ended.status, ExecStatus::SessionClosed);
    let closing = client.next_of(0);
    assert!(
        matches!(closing, Some(Reply::Closing(StopReason::Requested))),
        "{closing:?}"
    );
    assert!(client.next_of(0).is_none());
    assert_eq!(container.end().code(), Some(226));
}

#[test]
fn called_client_and_client_inside_both_hear_of_the_end() {
    let place = directory();
    let listener = wait_at(place.path(), "client");
    let mut container = start(place.path());
    let (mut called, mut inside) = (answer(&listener), container.client());
    container.signal("-TERM");
    for client in [&mut called, &mut inside] {
        let closing = client.next_of(0);
        assert!(
            matches!(closing, Some(Reply::Closing(StopReason::Requested))),
            "{closing:?}"
        );
    }
    assert_eq!(container.end().code(), Some(226));
}

#[test]
fn commands_of_a_called_client_end_with_its_connection() {
    let place = directory();
    let listener = wait_at(place.path(), "client");
    let container = start(place.path());
    let mut client = answer(&listener);
    client.start(shell("sleep 1002 & sleep 1003"));
    container.wait_for_argument("1002");
    client.hang_up();
    container.wait_until_empty();
}

#[test]
fn each_of_many_appearances_is_called_once() {
    let place = directory();
    let container = start(place.path());
    // The agent watches from here on.
    container.client();
    let mut before: Option<UnixListener> = None;
    for number in 0..500 {
        let listener = wait_at(place.path(), &number.to_string());
        drop(answer(&listener));
        if let Some(before) = before.replace(listener) {
            check_no_call(&before);
        }
    }
    let mut client = container.client();
    check_idle(&container, &mut client);
}

#[test]
fn socket_is_called_again_when_it_appears_again() {
    let place = directory();
    let listener = wait_at(place.path(), "client");
    let _container = start(place.path());
    let mut first = answer(&listener);
    appear(place.path(), "client");
    let mut second = answer(&listener);
    for client in [&mut first, &mut second] {
        assert!(matches!(client.ask(&Request::Ping), Reply::Pong));
    }
}

#[test]
fn what_is_hidden_or_has_too_long_a_name_is_not_called() {
    let place = directory();
    // A path of its length does not fit into the address of a socket.
    let long = "x".repeat(200);
    let hidden = wait_at(place.path(), ".early");
    let far = wait_at(place.path(), &format!("{long}-early"));
    let early = wait_at(place.path(), "early");
    let _container = start(place.path());
    let _first = answer(&early);
    let hidden_late = wait_at(place.path(), ".late");
    let far_late = wait_at(place.path(), &format!("{long}-late"));
    let late = wait_at(place.path(), "late");
    let _last = answer(&late);
    for listener in [&hidden, &far, &hidden_late, &far_late] {
        check_no_call(listener);
    }
}

#[test]
fn things_that_are_no_sockets_cost_nothing() {
    let place = directory();
    let things = |when: &str| {
        let name = |kind: &str| place.path().join(format!("{kind}-{when}"));
        fs::write(name("file"), "x").unwrap();
        fs::create_dir(name("directory")).unwrap();
        symlink("/dev/zero", name("device")).unwrap();
        symlink(name("loop"), name("loop")).unwrap();
        let fifo = Command::new("mkfifo").arg(name("fifo")).status();
        assert!(fifo.unwrap().success());
        drop(wait_at(place.path(), &format!("stale-{when}")));
    };
    things("early");
    let container = start(place.path());
    let mut client = container.client();
    things("late");
    for entry in fs::read_dir(place.path()).unwrap() {
        appear(place.path(), entry.unwrap().file_name().to_str().unwrap());
    }
    let listener = wait_at(place.path(), "client");
    let _called = answer(&listener);
    check_idle(&container, &mut client);
}

#[test]
fn no_more_are_served_than_there_is_room_for_until_one_leaves() {
    let place = directory();
    let listener = wait_at(place.path(), "client");
    let _container = start(place.path());
    let mut served = vec![call(&listener)];
    while served.len() < MAX_CONNECTIONS {
        appear(place.path(), "client");
        served.push(call(&listener));
    }
    assert!(served.iter().all(is_served));
    for _ in 0..3 {
        appear(place.path(), "client");
        assert!(!is_served(&call(&listener)));
    }
    served.pop();
    wait_for("a free place", || {
        appear(place.path(), "client");
        is_served(&call(&listener)).then_some(())
    });
}

#[test]
fn client_that_appeared_when_too_much_happened_is_called() {
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    let place = directory();
    let container = start(place.path());
    let mut client = container.client();
    container.signal("-STOP");
    wait_for("the agent's stop", || {
        let status = fs::read_to_string(format!("/proc/{}/status", container.init)).unwrap();
        status.contains("State:\tT").then_some(())
    });
    let (mut from, mut to) = (place.path().join("a"), place.path().join("b"));
    File::create(&from).unwrap();
    // Two names in turn: what is told twice in a row is told once.
    for _ in 0..limit + 10 {
        fs::rename(&from, &to).unwrap();
        mem::swap(&mut from, &mut to);
    }
    let listener = wait_at(place.path(), "client");
    container.signal("-CONT");
    let _called = answer(&listener);
    assert!(matches!(client.ask(&Request::Ping), Reply::Pong));
    check_idle(&container, &mut client);
    let late = wait_at(place.path(), "late");
    let _last = answer(&late);
}

#[test]
fn client_that_takes_no_connection_holds_nobody_up() {
    // With room for a single connection that waits.
    const SCRIPT: &str = "import socket,os,sys\ns=socket.socket(socket.AF_UNIX)\ns.bind('.x')\n\
                          s.listen(0)\nos.rename('.x','crowded')\nprint('up',flush=True)\nsys.stdin.read()";
    let place = directory();
    let container = start(place.path());
    let mut client = container.client();
    let mut crowded = Command::new("python3")
        .args(["-c", SCRIPT])
        .current_dir(place.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut up = [0; 3];
    crowded.stdout.take().unwrap().read_exact(&mut up).unwrap();
    for _ in 0..20 {
        appear(place.path(), "crowded");
    }
    let listener = wait_at(place.path(), "client");
    let _called = answer(&listener);
    check_idle(&container, &mut client);
    // Its input ends, and so does it.
    drop(crowded.stdin.take());
    crowded.wait().unwrap();
    assert!(matches!(client.ask(&Request::Ping), Reply::Pong));
}

#[test]
fn directory_that_goes_or_is_none_turns_nothing_else_off() {
    let place = directory();
    let container = start(place.path());
    let mut client = container.client();
    drop(place);
    check_idle(&container, &mut client);
    let file = Container::start(&["--dial", "/etc/passwd"]);
    let mut client = file.client();
    check_idle(&file, &mut client);
}

#[test]
fn agent_does_not_call_a_listener_inside_whose_maker_has_ended() {
    let place = directory();
    let container = start(place.path());
    let mut client = container.client();
    let script = format!(
        "cd {}; python3 -c \"import socket,os\ns=socket.socket(socket.AF_UNIX)\ns.bind('.x')\n\
         child=os.fork()\nif child==0:\n s.listen()\n os._exit(0)\nos.waitpid(child,0)\n\
         os.rename('.x','x')\ns.settimeout(5)\nc,_=s.accept()\nc.settimeout(5)\n\
         print(len(c.recv(10)))\"",
        place.path().display()
    );
    let ended = client.run(shell(&script));
    assert_eq!(ended.out(), "0\n", "{}", ended.err());
}

/// Starts an agent where no descriptor can be had that tells the names of new files.
fn start_without_inotify(place: &Path) -> Container {
    let limit = "echo 0 > /proc/sys/user/max_inotify_instances && exec \"$0\" \"$@\"";
    let around = Around {
        wrapper: &["unshare", "--user", "--map-root-user", "sh", "-c", limit],
        ..Around::default()
    };
    Container::start_in(&["--dial", place.to_str().unwrap()], around)
}

#[test]
fn agent_that_may_not_watch_is_told_by_signal_and_calls_each_once() {
    let place = directory();
    let early = wait_at(place.path(), "early");
    let container = start_without_inotify(place.path());
    let mut first = answer(&early);
    for number in 0..100 {
        let name = format!("client-{number}");
        let listener = wait_at(place.path(), &name);
        let mut client = answer(&listener);
        assert_eq!(client.run(shell("echo hi")).out(), "hi\n");
        check_no_call(&listener);
        fs::remove_file(place.path().join(&name)).unwrap();
    }
    check_no_call(&early);
    // What is sent from inside is no news, and ends nothing.
    first.run(shell("kill -IO 1; kill -29 1"));
    check_idle(&container, &mut first);
}
