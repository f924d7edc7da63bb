//! Commands: what they get, and what comes of them.

use podkit_agent::{ExecSpec, ExecStatus, FailureKind, MemorySource, Reply, Request, Target};

use crate::{
    client::{shell, spec, words},
    container::{Container, wait_for},
};

#[test]
fn greeting_of_two_clients_has_the_same_token() {
    let container = Container::start(&[]);
    let (one, other) = (container.client(), container.client());
    assert_eq!(one.boot_token, other.boot_token);
    assert_ne!(one.boot_token, [0; 16]);
}

#[test]
fn command_has_its_output_apart_and_its_code() {
    let container = Container::start(&[]);
    let mut client = container.client();
    let ended = client.run(shell("echo out; echo err >&2; exit 3"));
    assert_eq!(ended.status, ExecStatus::Exited(3));
    assert_eq!(
        (ended.out().as_str(), ended.err().as_str()),
        ("out\n", "err\n")
    );
    assert!(!ended.tree_survives && ended.truncated == [false; 2] && ended.pid > 1);
    assert_eq!(ended.usage.peak_memory_source, MemorySource::LargestProcess);
    assert!(ended.usage.peak_memory_bytes > 100_000 && ended.usage.wall_us > 100);
    let merged = ExecSpec {
        merge_output: true,
        ..shell("echo 1; echo 2 >&2; echo 3")
    };
    assert_eq!(client.run(merged).out(), "1\n2\n3\n");
    let killed = client.run(shell("kill -9 $$"));
    assert_eq!(killed.status, ExecStatus::Signaled(9));
}

#[test]
fn command_that_cannot_be_executed_has_the_code_of_a_shell() {
    let container = Container::start(&[]);
    let mut client = container.client();
    for (program, code, why) in [
        ("no-such-program", 127, "not found"),
        ("/no/such/program", 127, "no such file"),
        ("/etc", 126, "directory"),
        ("/etc/passwd", 126, "permission denied"),
    ] {
        let ended = client.run(spec(&[program]));
        assert_eq!(ended.status, ExecStatus::Exited(code), "{program}");
        assert!(
            ended.err().starts_with(&format!("podkit: {program}: ")),
            "{}",
            ended.err()
        );
        assert!(ended.err().contains(why), "{}", ended.err());
    }
}

#[test]
fn command_with_bad_input_fails_and_names_it() {
    let container = Container::start(&[]);
    let mut client = container.client();
    let bad = [
        (ExecSpec::default(), "empty"),
        (spec(&["true\0"]), "NUL"),
        (
            ExecSpec {
                env: words(&["nothing"]),
                ..spec(&["true"])
            },
            "environment",
        ),
        (
            ExecSpec {
                cwd: b"/no/such/place".to_vec(),
                ..spec(&["true"])
            },
            "/no/such/place",
        ),
        (
            ExecSpec {
                user: b"no-such-user".to_vec(),
                ..spec(&["true"])
            },
            "no-such-user",
        ),
    ];
    for (spec, subject) in bad {
        let failure = client.fail(spec);
        assert_eq!(failure.kind, FailureKind::InvalidInput, "{failure:?}");
        assert!(failure.message.contains(subject), "{failure:?}");
    }
    assert_eq!(client.run(spec(&["true"])).status, ExecStatus::Exited(0));
    container.wait_until_empty();
}

#[test]
fn command_has_the_base_environment_and_its_own() {
    let container = Container::start(&[]);
    let mut client = container.client();
    let ended = client.run(ExecSpec {
        env: words(&["OWN=a=b", "BASE=2"]),
        cwd: b"/tmp".to_vec(),
        ..shell("echo $OWN $BASE $HOME $USER $PATH $PWD")
    });
    assert_eq!(
        ended.out(),
        "a=b 2 /root root /usr/sbin:/usr/bin:/sbin:/bin /tmp\n"
    );
    // The program is looked up in the path that the command itself has.
    let ended = client.run(ExecSpec {
        env: words(&["PATH=/nowhere"]),
        ..spec(&["true"])
    });
    assert_eq!(ended.status, ExecStatus::Exited(127));
}

#[test]
fn command_gets_nothing_of_the_agent() {
    let container = Container::start(&[]);
    let mut client = container.client();
    let text = "readlink /proc/self/fd/0; cut -d' ' -f5,6 /proc/$$/stat; echo $$";
    let ended = client.run(shell(text));
    let out = ended.out();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "/dev/null", "{out}");
    let pid = ended.pid;
    assert!(out.contains(&format!("{pid} {pid}\n{pid}\n")), "{out}");
    // The last one is what it reads.
    let ended = client.run(ExecSpec {
        argv: ["ls", "/proc/self/fd"].map(Into::into).to_vec(),
        ..shell("")
    });
    assert_eq!(ended.out(), "0\n1\n2\n3\n");
    // Not through a shell, which blocks signals itself while it starts something.
    let ended = client.run(ExecSpec {
        argv: ["grep", "-E", "^(SigBlk|SigIgn)", "/proc/self/status"]
            .map(Into::into)
            .to_vec(),
        ..shell("")
    });
    let out = ended.out();
    assert_eq!(out.matches("\t0000000000000000").count(), 2, "{out}");
}

#[test]
fn command_of_another_user_has_no_rights() {
    let container = Container::start(&[]);
    let mut client = container.client();
    for user in ["nobody", "65534", "nobody:nogroup", "65534:65534"] {
        let text = "id -u; id -g; id -G; grep -E '^Cap(Prm|Eff|Inh|Amb)' /proc/self/status";
        let ended = client.run(ExecSpec {
            user: user.into(),
            ..shell(text)
        });
        let none =
            ["CapInh", "CapPrm", "CapEff", "CapAmb"].map(|name| format!("{name}:\t{:016}\n", 0));
        assert_eq!(
            ended.out(),
            format!("65534\n65534\n65534\n{}", none.concat()),
            "{user}"
        );
    }
}

#[test]
fn signal_reaches_the_group_or_the_tree() {
    let container = Container::start(&[]);
    let mut client = container.client();
    let text =
        "trap 'exit 5' USR1; setsid sleep 1001 & echo ready; while :; do sleep 1002 & wait; done";
    let (stream, pid) = client.start(shell(text));
    assert_eq!(client.data(stream), b"ready\n");
    container.wait_for_argument("1002");
    // Until it has executed its program, it may still be in the group.
    wait_for("the one that leaves the group", || {
        let all = container.processes();
        let has_left = |(_, words): &(u32, Vec<String>)| *words == ["sleep", "1001"];
        all.iter().any(has_left).then_some(())
    });
    client.send(stream, &Request::Signal(Target::Group, 10));
    assert_eq!(
        client.finish_started(stream, pid).status,
        ExecStatus::Exited(5)
    );
    // The one that left the group lives on.
    container.wait_for_argument("1001");
    let (stream, pid) = client.start(shell("setsid sleep 1003 & exec sleep 1004"));
    container.wait_for_argument("1003");
    container.wait_for_argument("1004");
    client.send(stream, &Request::Signal(Target::Tree, 15));
    assert_eq!(
        client.finish_started(stream, pid).status,
        ExecStatus::Signaled(15)
    );
    wait_for("the end of the tree", || {
        let left = container.processes();
        let is_left = |(_, words): &(u32, Vec<String>)| words.iter().any(|word| word == "1003");
        (!left.iter().any(is_left)).then_some(())
    });
}

#[test]
fn command_that_is_given_up_is_killed_with_its_tree() {
    let container = Container::start(&[]);
    let mut client = container.client();
    let (stream, pid) = client.start(shell(
        "trap '' TERM; setsid sleep 1001 & echo x; exec sleep 1002",
    ));
    assert_eq!(client.data(stream), b"x\n");
    client.send(stream, &Request::Cancel);
    assert_eq!(
        client.finish_started(stream, pid).status,
        ExecStatus::Signaled(9)
    );
    container.wait_until_empty();
}

#[test]
fn connection_that_ends_takes_its_commands_along_but_detached_ones() {
    let container = Container::start(&[]);
    let mut client = container.client();
    client.start(shell("setsid sleep 1001 & exec sleep 1002"));
    client.start(ExecSpec {
        detached: true,
        ..spec(&["sleep", "1003"])
    });
    for argument in ["1001", "1002", "1003"] {
        container.wait_for_argument(argument);
    }
    client.hang_up();
    wait_for("the end of the others", || {
        let left = container.processes();
        let is_left = |(_, words): &(u32, Vec<String>)| {
            words.iter().any(|word| word == "1001" || word == "1002")
        };
        (!left.iter().any(is_left)).then_some(())
    });
    container.wait_for_argument("1003");
}

#[test]
fn command_that_ended_leaves_its_background_alive_and_no_zombies() {
    let container = Container::start(&[]);
    let mut client = container.client();
    let ended = client.run(shell(
        "sleep 1001 >/dev/null 2>&1 & (setsid true &) ; exit 0",
    ));
    assert_eq!(ended.status, ExecStatus::Exited(0));
    container.wait_for_argument("1001");
    wait_for("an end of all others", || {
        let others = container.processes();
        // The supervisor stays with what it watches over.
        (others.len() == 2).then_some(())
    });
    assert!(matches!(client.ask(&Request::Ping), Reply::Pong));
}

#[test]
fn commands_of_one_connection_run_side_by_side() {
    let container = Container::start(&[]);
    let mut client = container.client();
    let streams: Vec<u32> = (0..50)
        .map(|_| client.begin(shell("read x; echo done")))
        .collect();
    assert_eq!(streams.len(), 50);
    for stream in streams {
        let Some(Reply::Started(pid)) = client.next_of(stream) else {
            panic!("command {stream} did not start");
        };
        // Its input is empty, so that it ends.
        assert_eq!(client.finish_started(stream, pid).out(), "done\n");
    }
    container.wait_until_empty();
}
