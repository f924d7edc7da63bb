//! Messages, plans, archives and what else goes over the wire.

use std::time::Duration;

use podkit_agent::{
    AgentStatus, Clocks, ExecSpec, ExecStatus, ExecUsage, Failure, FailureKind, FileCall,
    FileChange, FileChangeKind, FileKind, FileStat, FileUsage, FrameBuffer, LogQuery, MemorySource,
    Output, PortCall, ProcessCall, ProcessInfo, ProcessSpec, ProcessState, Reply, Request,
    RestartPolicy, StopReason, Target, TerminalSize,
    archive::{ARCHIVE_END, Member, MemberKind},
    plan::{
        ContainerPlan, Descriptors, ExitMark, FilePlan, IdMaps, IdRange, MountPlan, OwnerMap, Plan,
        ProbePlan, Report, TreePlan,
    },
};

/// Each message by itself, and all of them in one stream.
pub(super) fn wires<T>(messages: &[T], encode: impl Fn(&T, u32, &mut Vec<u8>)) -> Vec<Vec<u8>> {
    let mut all = vec![0];
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    for (message, stream) in messages.iter().zip(0..) {
        let mut seed = vec![0];
        encode(message, stream, &mut seed);
        seeds.push(seed);
        encode(message, stream, &mut all);
    }
    seeds.push(all);
    seeds
}

fn exec() -> ExecSpec {
    ExecSpec {
        argv: vec![b"sh".to_vec(), b"-c".to_vec(), b"echo hello".to_vec()],
        env: vec![b"PATH=/usr/bin:/bin".to_vec()],
        cwd: b"/workspace".to_vec(),
        user: b"bob:staff".to_vec(),
        stdin: true,
        timeout_ms: Some(30_000),
        output_limit_bytes: Some(1 << 20),
        ..ExecSpec::default()
    }
}

pub(super) fn requests() -> Vec<Request> {
    let size = TerminalSize {
        rows: 24,
        columns: 80,
    };
    let file = |call| Request::File {
        call,
        path: b"/workspace/a".to_vec(),
        user: b"root".to_vec(),
        timeout_ms: Some(60_000),
    };
    let process = |call| Request::Process {
        id: b"web".to_vec(),
        call,
    };
    let port = |call| Request::Port {
        call,
        port: 8000,
        timeout_ms: Some(1000),
    };
    let query = LogQuery {
        only: Some(Output::Stderr),
        tail_lines: Some(10),
        since_unix_ms: Some(1),
        follow: true,
    };
    let (mode, parents) = (Some(0o644), true);
    vec![
        Request::Hello {
            version: 2,
            version_min: 1,
        },
        Request::Ping,
        Request::Status,
        Request::Touch,
        Request::SetClocks(Clocks {
            auto_stop_ms: Some(60_000),
            max_lifetime_ms: None,
        }),
        Request::Stop { grace_ms: 10_000 },
        Request::Exec(exec()),
        Request::Exec(ExecSpec {
            terminal: Some(size),
            ..exec()
        }),
        Request::Stdin(b"input".to_vec()),
        Request::StdinEnd,
        Request::Credit(Output::Stdout, 131_072),
        Request::Signal(Target::Tree, 9),
        Request::Resize(size),
        Request::Spawn(ProcessSpec {
            id: b"1".to_vec(),
            name: b"web".to_vec(),
            log_directory: b"/var/log".to_vec(),
            log_limit_bytes: 1 << 20,
            restart: RestartPolicy::OnFailure(Some(3)),
            exec: exec(),
        }),
        Request::Processes,
        process(ProcessCall::Inspect),
        process(ProcessCall::Signal(Target::Group, 15)),
        process(ProcessCall::Stop { grace_ms: 1 }),
        process(ProcessCall::KeepAlive(true)),
        process(ProcessCall::Logs(query)),
        process(ProcessCall::Attach { size: Some(size) }),
        port(PortCall::Dial),
        port(PortCall::List),
        Request::Cancel,
        file(FileCall::Read {
            offset: 1,
            limit: Some(2),
        }),
        file(FileCall::Write { mode, parents }),
        file(FileCall::MakeDir {
            mode: None,
            parents,
        }),
        file(FileCall::Stat { follow: true }),
        file(FileCall::Rename { to: b"/b".to_vec() }),
        file(FileCall::Remove { recursive: true }),
        file(FileCall::Archive),
        file(FileCall::Watch { recursive: true }),
        file(FileCall::Usage),
    ]
}

fn usage() -> ExecUsage {
    ExecUsage {
        wall_us: 1000,
        user_us: 10,
        system_us: 5,
        peak_memory_bytes: 1 << 20,
        peak_memory_source: MemorySource::Cgroup,
    }
}

pub(super) fn replies() -> Vec<Reply> {
    let clocks = Clocks {
        auto_stop_ms: Some(60_000),
        max_lifetime_ms: Some(1),
    };
    let stat = FileStat {
        kind: FileKind::Symlink,
        mode: 0o777,
        uid: 1000,
        gid: 1000,
        size_bytes: 4,
        modified_ns: 1_700_000_000_000_000_000,
        link_target: b"to".to_vec(),
    };
    let info = ProcessInfo {
        id: b"1".to_vec(),
        name: b"web".to_vec(),
        argv: vec![b"server".to_vec()],
        log_directory: b"/var/log".to_vec(),
        pid: Some(42),
        state: ProcessState::Ended(ExecStatus::Signaled(9)),
        restarts: 1,
        started_unix_ms: 1_700_000_000_000,
        ended_unix_ms: Some(1_700_000_000_001),
        terminal: true,
        keep_alive: true,
        usage: usage(),
    };
    let exited = |status| Reply::Exited {
        status,
        stdout_truncated: true,
        stderr_truncated: false,
        tree_survives: false,
        usage: usage(),
    };
    let failure = Failure {
        kind: FailureKind::NotFound,
        errno: 2,
        message: "`/a`: no such file".to_owned(),
    };
    vec![
        Reply::Hello {
            version: 2,
            version_min: 1,
            boot_token: [7; 16],
            kernel_tree_kill: true,
        },
        Reply::Pong,
        Reply::Status(AgentStatus {
            uptime_ms: 5,
            idle_ms: 4,
            running_execs: 1,
            clocks,
        }),
        Reply::Done,
        Reply::Failed(failure),
        Reply::Started(42),
        Reply::Data(Output::Stdout, b"hello\n".to_vec()),
        Reply::Data(Output::Stderr, b"oops\n".to_vec()),
        Reply::Credit(131_072),
        Reply::StdinClosed,
        exited(ExecStatus::Exited(3)),
        exited(ExecStatus::OutOfMemory),
        Reply::Entry {
            name: b"link".to_vec(),
            stat,
        },
        Reply::Process(info),
        Reply::Closing(StopReason::AutoStop),
    ]
}

/// Frames within the output of a file call.
pub(super) fn within() -> Vec<Vec<u8>> {
    let mut changes = vec![0];
    for kind in [
        FileChangeKind::Watching,
        FileChangeKind::Created,
        FileChangeKind::Missed,
    ] {
        FileChange {
            kind,
            directory: true,
            path: b"a/b".to_vec(),
        }
        .encode(&mut changes);
    }
    let mut sums = vec![0];
    FileUsage {
        disk_bytes: 1,
        size_bytes: 2,
        files: 3,
        directories: 4,
        unread: 5,
    }
    .encode(&mut sums);
    vec![changes, sums]
}

pub(super) fn plans() -> Vec<Vec<u8>> {
    let range = IdRange {
        inside: 0,
        outside: 0x7000_0000,
        count: 65_536,
    };
    let maps = IdMaps {
        uids: vec![range],
        gids: vec![range],
        deny_setgroups: false,
        writers: Some((
            b"/usr/bin/newuidmap".to_vec(),
            b"/usr/bin/newgidmap".to_vec(),
        )),
    };
    let container = ContainerPlan {
        descriptors: Descriptors {
            listener: Some(0),
            agent_tasks: vec![1, 2],
            ports: vec![3],
            ..Descriptors::default()
        },
        maps: maps.clone(),
        hostname: b"box".to_vec(),
        mounts: vec![
            MountPlan::Bind {
                source: b"/srv".to_vec(),
                identity: (1, 2),
                directory: true,
                target: b"/workspace".to_vec(),
                read_only: false,
                no_exec: false,
                recursive: true,
                owner: Some(OwnerMap {
                    uid: 0,
                    gid: 0,
                    others: 0x6fff_0000,
                }),
            },
            MountPlan::Tmpfs {
                target: b"/m".to_vec(),
                bytes: 4096,
                mode: 0o1777,
            },
        ],
        files: vec![FilePlan {
            path: b"/etc/hosts".to_vec(),
            bytes: b"127.0.0.1 box\n".to_vec(),
        }],
        masked: vec![b"/proc/kcore".to_vec()],
        main: Some(vec![b"server".to_vec()]),
        env: vec![b"A=1".to_vec()],
        ports: vec![80],
        processes_max: Some(512),
        boot_token: [7; 16],
        ..ContainerPlan::default()
    };
    let tree = TreePlan {
        maps: maps.clone(),
        remove: vec![b"/a".to_vec()],
        copy: vec![(b"/a".to_vec(), b"/b".to_vec())],
    };
    let plans = [
        Plan::Container(Box::new(container)),
        Plan::Tree(tree),
        Plan::Probe(ProbePlan {
            maps,
            overlay: b"/o".to_vec(),
        }),
    ];
    let reports = [
        Report::Pid(42),
        Report::Ready {
            volatile_root: true,
        },
        Report::Done,
        Report::Failed {
            step: "mount /proc".to_owned(),
            errno: 1,
        },
    ];
    let mark = ExitMark {
        reason: StopReason::AutoStop,
        code: 3,
        idle_ms: 60_000,
    };
    let mut seeds = wires(&plans, |plan, _, out| plan.encode(out));
    seeds.extend(wires(&reports, |report, _, out| report.encode(out)));
    seeds.push(mark.encode().into_bytes());
    seeds
}

pub(super) fn archives() -> Vec<Vec<u8>> {
    let member = |path: &str, kind, target: &str, size| Member {
        path: path.into(),
        kind,
        mode: 0o755,
        uid: 1000,
        gid: 1000,
        size,
        modified_s: 1_700_000_000,
        target: target.into(),
    };
    let long = "long/".repeat(30);
    let members = [
        member("./", MemberKind::Directory, "", 0),
        member("a", MemberKind::Directory, "", 0),
        member("a/up", MemberKind::Symlink, "../b", 0),
        member("out", MemberKind::Symlink, "/etc", 0),
        member("b", MemberKind::File, "", 5),
        member("c", MemberKind::HardLink, "b", 0),
        member(&long, MemberKind::Symlink, &long, 0),
    ];
    let mut all = Vec::new();
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    for member in members {
        let mut one = Vec::new();
        member.encode(&mut one);
        if member.size > 0 {
            one.extend_from_slice(b"hello");
            one.resize(one.len().next_multiple_of(512), 0);
        }
        all.extend_from_slice(&one);
        one.extend_from_slice(&ARCHIVE_END);
        seeds.push(one);
    }
    all.extend_from_slice(&ARCHIVE_END);
    seeds.push(all);
    seeds
}

pub(super) fn passwd() -> Vec<Vec<u8>> {
    const LISTS: &str =
        "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1001:Bob,,,:/home/bob:/bin/sh\n77:x:5:6::/:\n";
    const GROUPS: &str = "root:x:0:\nstaff:x:50:alice, bob\nwheel:x:10:bob,root\nbob:x:1001:\n";
    let specs = [
        "",
        "bob",
        "1000",
        "bob:staff",
        "77",
        "0",
        "root:10",
        "eve",
        ":wheel",
        "4294967295",
    ];
    let seed = |spec: &str| {
        [
            spec.as_bytes(),
            b"\xff",
            LISTS.as_bytes(),
            b"\xff",
            GROUPS.as_bytes(),
        ]
        .concat()
    };
    specs.into_iter().map(seed).collect()
}

pub(super) fn terminal() -> Vec<Vec<u8>> {
    let texts = [
        "plain\r\n\x1b[1;31mred\x1b[0m\x1b[2J\x1b[H",
        "a\x1b[cb\x1b[>c\x1b[6n\x1bZ\x1b[>q\x1b[14t\x1b[?u",
        "\x1b]11;?\x07\x1b]0;title\x07\x1b]4;1;?\x1b\\\x1bP+q544e\x1b\\\x1b_Gi=1;AA\x1b\\",
        "\u{9b}c\u{9d}11;?\u{9c}\x05\x1b[1$w\x1b[?1;1S\x1b[?2026$p",
        "\x1b\x1b[c\x1b[\x1b[c\x1b]0;\x18\x1b[c\x1b(B\x1b7\x1b8\x1b]1337;ReportCellSize\x07",
    ];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}

/// Calls, and answers to them.
pub(super) fn client() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let mut answers = Vec::new();
    for reply in replies() {
        reply.encode(1, &mut answers);
    }
    let mut frames = FrameBuffer::new();
    frames.push(&answers);
    let mut rows = Vec::new();
    while let Ok(Some((kind, _, payload))) = frames.next_frame() {
        let length = u8::try_from(payload.len()).unwrap_or(0);
        rows.push((kind, [&[length], &payload[..usize::from(length)]].concat()));
    }
    // Of each kind of a call all that may be answered, one answer and the end.
    for call in 0..16 {
        for (kind, payload) in &rows {
            let stream = u8::from(call != 14);
            let mut seed = vec![0, call, 3, 0];
            for (kind, payload) in [
                (66, vec![4, 42, 0, 0, 0]),
                (*kind, payload.clone()),
                (64, vec![0]),
            ] {
                // Only commands are said to have begun.
                if kind != 66 || matches!(call, 0 | 1 | 12) {
                    seed.extend([kind, stream]);
                    seed.extend(payload);
                }
            }
            seeds.push(seed);
        }
    }
    let mut change = vec![0, 8, 255, 0];
    for within in within() {
        change.extend([67, 1, u8::try_from(within.len() - 1).unwrap_or(0)]);
        change.extend(&within[1..]);
    }
    change.extend([64, 1, 0]);
    seeds.push(change);
    let mut line = b"127.0.0.1 8000 42 server\n".to_vec();
    line.splice(0..0, [0, 13, 1, 0, 67, 1, 25]);
    line.extend([64, 1, 0]);
    seeds.push(line);
    seeds
}

/// Choices of no meaning, the same each time.
pub(super) fn noise() -> Vec<Vec<u8>> {
    let mut state: u32 = 1;
    let mut byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_le_bytes()[3]
    };
    (1..16)
        .map(|length| (0..length * 12).map(|_| byte()).collect())
        .collect()
}
