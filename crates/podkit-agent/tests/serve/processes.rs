//! Processes: what is kept of them, what is not, and what clients may not do.

use std::fs;

use podkit_agent::{
    ExecStatus, FailureKind, INITIAL_WINDOW_BYTES, LogQuery, MAX_DATA_BYTES, ProcessCall,
    ProcessInfo, ProcessSpec, ProcessState, Reply, Request, StopReason, Target, TerminalSize,
};

use crate::{
    client::{Client, shell, spec},
    container::{Around, Container, wait_for},
};

/// Processes that have ended and are remembered.
const MOST_ENDED: usize = 256;

/// An agent with a `/var/log` of its own.
fn start() -> Container {
    let mount = "mount -t tmpfs none /var/log && exec \"$0\" \"$@\"";
    let around = Around {
        wrapper: &["sh", "-c", mount],
        ..Around::default()
    };
    Container::start_in(&[], around)
}

fn process(id: &str, script: &str) -> ProcessSpec {
    ProcessSpec {
        id: id.as_bytes().to_vec(),
        log_limit_bytes: 1 << 20,
        exec: shell(script),
        ..ProcessSpec::default()
    }
}

fn about(id: &str, call: ProcessCall) -> Request {
    Request::Process {
        id: id.as_bytes().to_vec(),
        call,
    }
}

/// Asks on a stream of its own, and gives what comes up to the last message.
fn ask(client: &mut Client, stream: u32, request: &Request) -> (Vec<ProcessInfo>, Reply) {
    client.send(stream, request);
    let mut infos = Vec::new();
    loop {
        match client.next_of(stream).expect("an answer") {
            Reply::Process(info) => {
                infos.push(info);
                if matches!(request, Request::Spawn(_)) {
                    client.send(stream, &Request::StdinEnd);
                }
            }
            last => return (infos, last),
        }
    }
}

fn refusal(client: &mut Client, stream: u32, request: &Request) -> FailureKind {
    match ask(client, stream, request) {
        (infos, Reply::Failed(failure)) if infos.is_empty() => failure.kind,
        other => panic!("it was not refused: {other:?}"),
    }
}

fn descriptors(container: &Container) -> usize {
    fs::read_dir(format!("/proc/{}/fd", container.init))
        .unwrap()
        .count()
}

fn log_files(container: &Container) -> usize {
    let place = format!("/proc/{}/root/var/log/podkit", container.init);
    let lives = fs::read_dir(place).unwrap();
    lives
        .map(|life| fs::read_dir(life.unwrap().path()).unwrap().count())
        .sum()
}

#[test]
fn processes_that_have_ended_leave_nothing_but_what_is_remembered() {
    let container = start();
    let mut client = container.client();
    let before = descriptors(&container);
    let count = u32::try_from(MOST_ENDED).unwrap() + 40;
    for number in 1..=count {
        let id = format!("p{number}");
        let begun = ask(
            &mut client,
            number,
            &Request::Spawn(process(&id, "echo hi")),
        );
        assert!(matches!(begun, (_, Reply::Done)), "{begun:?}");
        let (infos, _) = ask(&mut client, number, &about(&id, ProcessCall::Wait));
        assert_eq!(infos[0].state, ProcessState::Ended(ExecStatus::Exited(0)));
    }
    // One has ended before its client says that it knows of it.
    client.send(1, &Request::Spawn(process("quick", "true")));
    let told = client.next_of(1);
    assert!(matches!(told, Some(Reply::Process(_))), "{told:?}");
    container.wait_until_empty();
    client.send(1, &Request::StdinEnd);
    assert_eq!(client.next_of(1), Some(Reply::Done));
    let (infos, _) = ask(&mut client, 1, &Request::Processes);
    assert_eq!(infos.len(), MOST_ENDED);
    let oldest = about("p1", ProcessCall::Inspect);
    assert_eq!(refusal(&mut client, 1, &oldest), FailureKind::NotFound);
    container.wait_until_empty();
    assert_eq!(descriptors(&container), before);
    // Three files each, and those of the forgotten ones are gone.
    wait_for("the logs to go", || {
        (log_files(&container) == 3 * MOST_ENDED).then_some(())
    });
}

#[test]
fn process_that_nobody_has_been_told_of_is_found_by_nobody() {
    let container = start();
    let mut client = container.client();
    let without_name = process("one", "sleep 1001");
    ask(&mut client, 1, &Request::Spawn(without_name));
    for id in ["", "two"] {
        let request = about(id, ProcessCall::Stop { grace_ms: 0 });
        assert_eq!(refusal(&mut client, 2, &request), FailureKind::NotFound);
    }
    // Asked for and given up in one breath.
    client.send(3, &Request::Spawn(process("three", "sleep 1003")));
    client.send(3, &Request::Cancel);
    client.send(4, &about("three", ProcessCall::Wait));
    let last = client.next_of(4);
    assert!(matches!(last, Some(Reply::Failed(_))), "{last:?}");
    // Told, and then nobody says that it is wanted.
    client.send(5, &Request::Spawn(process("five", "sleep 1005")));
    let told = client.next_of(5);
    assert!(matches!(told, Some(Reply::Process(_))), "{told:?}");
    container.wait_for_argument("1005");
    let hidden = about("five", ProcessCall::Inspect);
    assert_eq!(refusal(&mut client, 6, &hidden), FailureKind::NotFound);
    client.hang_up();
    // The one that runs needs nobody.
    let mut later = container.client();
    let (infos, _) = ask(&mut later, 1, &Request::Processes);
    assert_eq!(infos.len(), 1, "{infos:?}");
    ask(
        &mut later,
        1,
        &about("one", ProcessCall::Stop { grace_ms: 0 }),
    );
    container.wait_until_empty();
    // Whoever says so before it can know breaks the protocol.
    let mut both = Vec::new();
    Request::Spawn(process("six", "sleep 1006")).encode(2, &mut both);
    Request::StdinEnd.encode(2, &mut both);
    later.send_bytes(&both);
    later.expect_end();
    container.wait_until_empty();
}

#[test]
fn bad_specs_are_refused_and_nothing_runs() {
    let container = start();
    let mut client = container.client();
    let mut stream = 0;
    let mut refuse = |spec: ProcessSpec| {
        stream += 1;
        refusal(&mut client, stream, &Request::Spawn(spec))
    };
    for id in ["", ".hidden", "a/b", "a b", &"x".repeat(65)] {
        assert_eq!(
            refuse(process(id, "true")),
            FailureKind::InvalidInput,
            "{id:?}"
        );
    }
    let mut named = process("named", "true");
    named.name = vec![b'x'; 129];
    assert_eq!(refuse(named), FailureKind::InvalidInput);
    let mut nowhere = process("nowhere", "true");
    nowhere.log_directory = b"relative/logs".to_vec();
    assert_eq!(refuse(nowhere), FailureKind::InvalidInput);
    let mut nothing = process("nothing", "true");
    nothing.exec = spec(&[]);
    assert_eq!(refuse(nothing), FailureKind::InvalidInput);
    let mut forbidden = process("forbidden", "true");
    forbidden.log_directory = b"/proc/none".to_vec();
    assert_eq!(refuse(forbidden), FailureKind::NotFound);
    container.wait_until_empty();
    let (infos, _) = ask(&mut client, 1000, &Request::Processes);
    assert!(infos.is_empty(), "{infos:?}");
}

#[test]
fn waiting_is_given_up_and_told_so() {
    let container = start();
    let mut client = container.client();
    ask(
        &mut client,
        1,
        &Request::Spawn(process("one", "sleep 1001")),
    );
    for call in [
        ProcessCall::Wait,
        ProcessCall::Logs(LogQuery {
            follow: true,
            ..LogQuery::default()
        }),
    ] {
        client.send(2, &about("one", call));
        client.send(2, &Request::Cancel);
        let last = client.next_of(2);
        let Some(Reply::Failed(failure)) = last else {
            panic!("{last:?}")
        };
        assert_eq!(failure.kind, FailureKind::Cancelled);
    }
    let signal = about("one", ProcessCall::Signal(Target::Tree, 9));
    assert!(matches!(ask(&mut client, 3, &signal), (_, Reply::Done)));
    let (infos, _) = ask(&mut client, 4, &about("one", ProcessCall::Wait));
    assert_eq!(infos[0].state, ProcessState::Ended(ExecStatus::Signaled(9)));
}

#[test]
fn container_that_stops_ends_processes_their_logs_and_those_who_wait() {
    let mut container = start();
    let mut client = container.client();
    ask(
        &mut client,
        1,
        &Request::Spawn(process("one", "sleep 1001")),
    );
    client.send(2, &about("one", ProcessCall::Wait));
    // One that is asked for just before the end is told, too, one way or the other.
    client.send(3, &Request::Spawn(process("late", "sleep 1002")));
    client.send(0, &Request::Stop { grace_ms: 2000 });
    let closing = client.next_of(0);
    assert!(
        matches!(closing, Some(Reply::Closing(StopReason::Requested))),
        "{closing:?}"
    );
    let waited = client.next_of(2);
    let Some(Reply::Process(info)) = waited else {
        panic!("{waited:?}")
    };
    assert_eq!(info.state, ProcessState::Ended(ExecStatus::SessionClosed));
    let late = client.next_of(3);
    match late {
        Some(Reply::Failed(failure)) => assert_eq!(failure.kind, FailureKind::Closing),
        Some(Reply::Process(_)) => {}
        other => panic!("{other:?}"),
    }
    client.expect_end();
    assert_eq!(container.end().code(), Some(226));
}

#[test]
fn who_types_more_than_was_granted_is_cut_off_and_nobody_else() {
    let container = start();
    let (mut typist, mut other) = (container.client(), container.client());
    let mut deaf = process("deaf", "stty raw -echo; echo ready; sleep 1001");
    deaf.exec.terminal = Some(TerminalSize {
        rows: 24,
        columns: 80,
    });
    let begun = ask(&mut typist, 1, &Request::Spawn(deaf));
    assert!(matches!(begun, (_, Reply::Done)), "{begun:?}");
    typist.send(2, &about("deaf", ProcessCall::Attach { size: None }));
    let mut shown = Vec::new();
    while !String::from_utf8_lossy(&shown).contains("ready") {
        match typist.next_of(2) {
            Some(Reply::Data(_, data)) => shown.extend(data),
            Some(Reply::Started(_)) => {}
            reply => panic!("{reply:?}"),
        }
    }
    // The kernel takes a part of it; for the rest there is no grant as long as nobody reads.
    let window = INITIAL_WINDOW_BYTES as usize;
    for _ in 0..=(window / MAX_DATA_BYTES) + 1 {
        typist.send(2, &Request::Stdin(vec![b'x'; MAX_DATA_BYTES]));
    }
    typist.expect_end();
    let (infos, _) = ask(&mut other, 1, &Request::Processes);
    assert_eq!(infos[0].state, ProcessState::Running);
    assert_eq!(other.run(shell("echo fine")).out(), "fine\n");
}
