//! That the attacks of the conformance suite are real, and what containers leave on the host is
//! harmless there.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]
#![expect(clippy::print_stdout, reason = "a test says what this kernel lacks")]

mod support;

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::Path,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use podkit::{
    Isolation, Mount, Outcome, Port, Session, SessionSpec, Workspace,
    attacks::{ABSENT, How, Run, Stage, attacks, build_programs},
};
use support::{Place, block_on, host, wait_for};

/// Controls that must have shown their attack, whatever the kernel was built without.
const LEAST_SHOWN: usize = 80;

fn attacks_succeed_in_their_control_runs() {
    let place = Place::new();
    let programs = place.path().join("attacks");
    build_programs(&programs).unwrap();
    let stage = Stage::new(place.path(), &programs).unwrap();
    let (mut shown, mut wrong) = (0, Vec::new());
    // Those of deeds are made with their runs inside.
    for attack in attacks().filter(|attack| !matches!(attack.how, How::Deed(_))) {
        match stage.control(&attack.how).unwrap() {
            Run::Said(word) if word == "ok" => shown += 1,
            Run::Said(word) if attack.optional && ABSENT.contains(&word.as_str()) => {
                println!(
                    "{}: this machine has nothing to attack: {word}",
                    attack.about
                );
            }
            said => wrong.push(format!("{}: {said:?}", attack.about)),
        }
    }
    assert!(
        wrong.is_empty(),
        "attacks that show nothing:\n{}",
        wrong.join("\n")
    );
    assert!(shown >= LEAST_SHOWN, "{shown} attacks were shown");
}

/// A session with the attack programs at `/attacks`.
async fn armed(place: &Place, spec: SessionSpec) -> Session {
    let programs = place.path().join("attacks");
    build_programs(&programs).unwrap();
    let spec = spec.mount(Mount::bind(programs, "/attacks").read_only());
    place
        .podkit()
        .await
        .session("u", "armed")
        .spec(spec)
        .await
        .unwrap()
}

/// Runs a program of the host's as an ordinary user, and tells what it printed.
fn as_ordinary_user(program: &Path, argument: &str) -> String {
    let output = Command::new(program)
        .arg(argument)
        .uid(65534)
        .gid(65534)
        .output();
    match output {
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Err(error) => format!("{:?}", error.kind()),
    }
}

/// Container root leaves a set-id program in a directory of the host's that it may write.
fn set_id_file_in_a_writable_bind_is_harmless_on_the_host() {
    let place = Place::new();
    let data = place.path().join("data");
    fs::create_dir(&data).unwrap();
    block_on(async {
        let spec = SessionSpec::new()
            .mount(Mount::bind(&data, "/data"))
            .workspace(Workspace::new(place.path()));
        let session = armed(&place, spec).await;
        let plant = "for d in /data /workspace; do cp /attacks/became $d/planted; \
            chown 0:0 $d/planted; chmod 6755 $d/planted; done; :";
        session.shell(plant).await.unwrap().check().unwrap();
        for planted in [
            data.join("planted"),
            place.path().join("workspaces/u/armed/planted"),
        ] {
            assert!(planted.exists(), "{}", planted.display());
            let said = as_ordinary_user(&planted, "root");
            assert_ne!(said, "ok", "{} gives root on the host", planted.display());
        }
        session.close().await.unwrap();
    });
    // The control: where a set-id file of root's is followed, the program says so.
    let control = place.path().join("control");
    fs::copy(place.path().join("attacks/became"), &control).unwrap();
    fs::set_permissions(&control, fs::Permissions::from_mode(0o4755)).unwrap();
    assert_eq!(as_ordinary_user(&control, "root"), "ok");
}

/// Files in a bind belong to the source's owner, whoever that is on the host.
fn files_made_in_a_bind_belong_to_its_owner() {
    let place = Place::new();
    let data = place.path().join("data");
    fs::create_dir(&data).unwrap();
    chown(&data, Some(4321), Some(4321)).unwrap();
    block_on(async {
        let podkit = place.podkit().await;
        let spec = SessionSpec::new().mount(Mount::bind(&data, "/data"));
        let session = podkit.session("u", "s").spec(spec).await.unwrap();
        let output = session
            .shell("echo x >/data/file && stat -c %u /data/file")
            .await
            .unwrap();
        assert_eq!(output.check().unwrap().stdout, b"0\n");
        session.close().await.unwrap();
    });
    assert_eq!(fs::metadata(data.join("file")).unwrap().uid(), 4321);
}

/// The container's files on disk belong to its own range and are closed to other users.
fn storage_is_closed_to_other_users_of_the_host() {
    let place = Place::new();
    block_on(async {
        let podkit = place.podkit().await;
        let session = podkit.session("u", "s").await.unwrap();
        session
            .files()
            .write("/workspace/secret", "x")
            .await
            .unwrap();
        let state = place.path().join("state");
        let found = Command::new("find")
            .arg(&state)
            .args(["-name", "secret"])
            .output()
            .unwrap();
        let found = String::from_utf8(found.stdout).unwrap();
        let secret = Path::new(
            found
                .lines()
                .next()
                .expect("the file is in the state directory"),
        );
        if podkit.capabilities().isolation == Some(Isolation::OwnRange) {
            assert!(fs::metadata(secret).unwrap().uid() >= 65_536);
        }
        let said = as_ordinary_user(Path::new("/bin/cat"), secret.to_str().unwrap());
        assert_eq!(said, "", "another user read it");
        session.close().await.unwrap();
    });
}

/// A command that does all it can to outlive its deadline: judged from the host.
fn timeout_ends_every_process_of_a_stubborn_command() {
    let place = Place::new();
    block_on(async {
        let session = armed(&place, SessionSpec::new()).await;
        let token = session.boot_token().await.unwrap();
        let podkit = place.podkit().await;
        let init = podkit
            .containers()
            .inspect(session.container())
            .await
            .unwrap()
            .pid
            .unwrap();
        session.exec(["true"]).await.unwrap();
        let settled = || {
            let processes = host::processes_of(init);
            if processes.len() == 1 {
                Ok(processes)
            } else {
                Err(format!("{processes:?}"))
            }
        };
        assert_eq!(wait_for(Duration::from_secs(5), settled), [init]);
        for round in 0..5 {
            let start = Instant::now();
            let output = session
                .exec(["/attacks/escape_timeout"])
                .timeout(Duration::from_secs(1))
                .await
                .unwrap();
            let elapsed = start.elapsed();
            assert_eq!(output.outcome, Outcome::TimedOut, "round {round}");
            assert_eq!(output.stdout, b"partial\n", "round {round}");
            assert!(
                elapsed < Duration::from_millis(1500),
                "round {round}: {elapsed:?}"
            );
            // Nothing of it is left at the very moment of the result.
            assert_eq!(host::processes_of(init), [init], "round {round}");
            assert!(!output.result.container_restarted);
        }
        assert_eq!(session.exec(["echo", "on"]).await.unwrap().stdout, b"on\n");
        assert_eq!(
            session.boot_token().await.unwrap(),
            token,
            "the session goes on"
        );
        session.close().await.unwrap();
    });
}

/// Says which of the given processes it could take something from.
const TAKE: &str = r#"
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
ATTACH, DETACH, PIDFD_OPEN, PIDFD_GETFD = 16, 17, 434, 438
for pid in map(int, sys.argv[1:]):
    try:
        print(pid, "fds", os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        pass
    try:
        open(f"/proc/{pid}/mem", "rb").close()
        print(pid, "mem")
    except OSError:
        pass
    pidfd = libc.syscall(PIDFD_OPEN, pid, 0)
    for fd in range(32):
        if libc.syscall(PIDFD_GETFD, pidfd, fd, 0) >= 0:
            print(pid, "getfd", fd)
    if libc.ptrace(ATTACH, pid, 0, 0) == 0:
        os.waitpid(pid, 0)
        libc.ptrace(DETACH, pid, 0, 0)
        print(pid, "ptrace")
"#;

/// PID 1 and its children hold sockets of the host's network where a port is published.
fn sockets_of_published_ports_cannot_be_taken_from_inside() {
    let place = Place::new();
    block_on(async {
        let podkit = place.podkit().await;
        let mut spec = SessionSpec::new()
            .image("host")
            .port(Port::new(8000).anywhere());
        // Also where commands may trace each other.
        spec.security.add_capabilities.push("SYS_PTRACE".to_owned());
        let session = podkit.session("u", "a").spec(spec).await.unwrap();
        let server = "import socket, time\ns = socket.create_server(('0.0.0.0', 8000))\n\
                      c = s.accept()\ntime.sleep(1000)";
        session.spawn(["python3", "-c", server]).await.unwrap();
        let patience = Duration::from_secs(10);
        session.wait_for_port(8000, patience).await.unwrap();
        let port = *session.ports().await.unwrap().first().unwrap();
        let caller = std::net::TcpStream::connect((port.address, port.host)).unwrap();
        // Whatever PID 1 has started and is not itself a command.
        let find = "while [ -z \"$all\" ]; do for s in /proc/[0-9]*/stat; do \
                    read -r pid name state parent rest < $s; \
                    case $parent$name in '1(podkit-agent)') all=\"$all $pid\";; esac; \
                    done 2>/dev/null; done; echo $all";
        let found = session.shell(find).timeout(patience).await.unwrap();
        let found = found.check().unwrap().stdout_text();
        let mut victims: Vec<String> = found.split_whitespace().map(str::to_owned).collect();
        let control = session
            .exec(["sh", "-c", "sleep 1000 & echo $!"])
            .detached();
        let mut control = control.stream().await.unwrap();
        let sleeper = loop {
            if let podkit::ExecEvent::Stdout(bytes) = control.next().await.unwrap().unwrap() {
                break String::from_utf8(bytes.to_vec()).unwrap().trim().to_owned();
            }
        };
        let take = async |pids: &[String]| {
            let mut argv = vec!["python3".to_owned(), "-c".to_owned(), TAKE.to_owned()];
            argv.extend_from_slice(pids);
            let output = session.exec(argv).await.unwrap();
            assert!(output.outcome.is_success(), "{}", output.stderr_text());
            output.stdout_text()
        };
        let taken = take(&[sleeper]).await;
        for way in ["fds", "mem", "getfd", "ptrace"] {
            assert!(taken.contains(way), "the attack shows nothing: {taken}");
        }
        victims.push("1".to_owned());
        assert_eq!(take(&victims).await, "", "{victims:?}");
        drop(caller);
        session.close().await.unwrap();
    });
}

/// Ticks of the processor that a process has used.
fn ticks_of(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(')').unwrap();
    let words: Vec<&str> = rest.split_whitespace().collect();
    words[11].parse::<u64>().unwrap() + words[12].parse::<u64>().unwrap()
}

/// Sets how many descriptors a process may have, with the rights of its own namespace.
fn set_descriptors_of(pid: u32, most: usize) {
    let status = Command::new("nsenter")
        .args(["--user", "--target", &pid.to_string(), "prlimit"])
        .args(["--pid", &pid.to_string(), &format!("--nofile={most}:")])
        .status()
        .unwrap();
    assert!(status.success());
}

/// PID 1 is told again and again of callers that it cannot take: it must not spin on that, and must
/// serve them once it can.
fn callers_that_find_no_descriptor_wait_and_cost_nothing() {
    let place = Place::new();
    block_on(async {
        let podkit = place.podkit().await;
        let spec = SessionSpec::new().port(Port::new(8000).anywhere());
        let session = podkit.session("u", "a").spec(spec).await.unwrap();
        let server = "import socket\ns = socket.create_server(('0.0.0.0', 8000))\n\
                      while True:\n  c = s.accept()[0]\n  c.sendall(b'served')\n  c.close()";
        session.spawn(["python3", "-c", server]).await.unwrap();
        let patience = Duration::from_secs(10);
        session.wait_for_port(8000, patience).await.unwrap();
        let port = *session.ports().await.unwrap().first().unwrap();
        let init = podkit.containers().inspect(session.container()).await;
        let init = init.unwrap().pid.unwrap();
        let open = fs::read_dir(format!("/proc/{init}/fd")).unwrap().count();
        set_descriptors_of(init, open);
        let call = || std::net::TcpStream::connect((port.address, port.host)).unwrap();
        let mut callers: Vec<_> = (0..4).map(|_| call()).collect();
        let (before, begin) = (ticks_of(init), Instant::now());
        wait_for(patience, || {
            let elapsed = begin.elapsed();
            if elapsed > Duration::from_secs(2) {
                return Ok(());
            }
            Err(format!("it is watched for two seconds: {elapsed:?}"))
        });
        let used = ticks_of(init) - before;
        assert!(
            used < 20,
            "PID 1 used {used} ticks while nobody could be served"
        );
        set_descriptors_of(init, 1024);
        for caller in &mut callers {
            let mut said = String::new();
            caller.set_read_timeout(Some(patience)).unwrap();
            std::io::Read::read_to_string(caller, &mut said).unwrap();
            assert_eq!(said, "served");
        }
        session.close().await.unwrap();
    });
}

fn main() -> ExitCode {
    let tests: &[(&str, fn())] = &[
        (
            "attacks_succeed_in_their_control_runs",
            attacks_succeed_in_their_control_runs,
        ),
        (
            "set_id_file_in_a_writable_bind_is_harmless_on_the_host",
            set_id_file_in_a_writable_bind_is_harmless_on_the_host,
        ),
        (
            "files_made_in_a_bind_belong_to_its_owner",
            files_made_in_a_bind_belong_to_its_owner,
        ),
        (
            "storage_is_closed_to_other_users_of_the_host",
            storage_is_closed_to_other_users_of_the_host,
        ),
        (
            "sockets_of_published_ports_cannot_be_taken_from_inside",
            sockets_of_published_ports_cannot_be_taken_from_inside,
        ),
        (
            "callers_that_find_no_descriptor_wait_and_cost_nothing",
            callers_that_find_no_descriptor_wait_and_cost_nothing,
        ),
        (
            "timeout_ends_every_process_of_a_stubborn_command",
            timeout_ends_every_process_of_a_stubborn_command,
        ),
    ];
    support::run(tests)
}
