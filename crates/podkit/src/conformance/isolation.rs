//! What the code in a container must not be able to do.

use std::collections::BTreeMap;

use super::{
    exec_stream::wait_for_output,
    lab::{Lab, assert_no_such_id, shell, text},
    table,
};
use crate::{
    ExecOutput, Isolation, Mount, Network, Outcome, Session, SessionSpec,
    attacks::{Field, How, Proof, Stage, Verdict, prove},
};

table!["isolation":
    Attacks isolation_attacks_are_refused,
    Attacks isolation_exhaustion_is_bounded,
    Attacks isolation_deeds_are_refused,
    Programs isolation_status_of_a_command_is_hardened,
    Programs isolation_relaxations_are_named_and_work,
    Programs isolation_ids_are_of_an_own_range,
    Programs isolation_namespaces_are_the_containers_own,
    Programs isolation_root_shows_only_what_it_should,
    Programs isolation_kernel_files_are_masked_or_read_only,
    Attacks isolation_two_users_cannot_reach_each_other,
    Programs isolation_init_cannot_be_reached_from_inside,
    Programs isolation_agent_answers_to_nobody_inside,
];

/// The last word of a program of an attack's.
fn said(output: &ExecOutput) -> String {
    let text = output.stdout_text();
    text.split_whitespace()
        .next_back()
        .unwrap_or_default()
        .to_owned()
}

/// Every attack of one kind is refused, in the words that are known, or conceded by name.
async fn assert_refused(lab: &Lab, kind: fn(&How) -> bool) {
    let stage = Stage::new(lab.directory(), lab.programs()).unwrap();
    let mut wrong = Vec::new();
    let proof = Proof {
        field: Field::new(lab.podkit(), &stage, lab.default_spec()),
        plain: None,
        only: kind,
    };
    let findings = prove(&proof, |_| {}).await.unwrap();
    assert!(findings.len() > 10, "{}", findings.len());
    for finding in findings {
        let is_good = matches!(
            finding.verdict,
            Verdict::Held | Verdict::Absent | Verdict::Conceded
        );
        if !is_good {
            wrong.push(format!("{finding:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

async fn isolation_attacks_are_refused(lab: Lab) {
    if !lab.podkit().capabilities().local_images {
        assert_own_files(&lab.open("own").await).await;
    }
    assert_refused(&lab, |how| matches!(how, How::Program { .. })).await;
}

async fn isolation_exhaustion_is_bounded(lab: Lab) {
    assert_refused(&lab, |how| matches!(how, How::Exhaustion(_))).await;
}

async fn isolation_deeds_are_refused(lab: Lab) {
    assert_refused(&lab, |how| matches!(how, How::Deed(_))).await;
}

/// What is written where the host has its programs stays in the container.
async fn assert_own_files(session: &Session) {
    for directory in ["/usr", "/etc", "/root"] {
        let name = format!("{directory}/podkit-attack-{}", std::process::id());
        text(session, &format!("echo mark > {name}; cat {name}")).await;
        assert!(!std::path::Path::new(&name).exists(), "{name}");
    }
}

async fn status(session: &Session, user: &str) -> BTreeMap<String, String> {
    let output = session
        .exec(["cat", "/proc/self/status"])
        .user(user)
        .await
        .unwrap();
    let text = output.check().unwrap().stdout_text();
    let pair = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_owned(), value.trim().to_owned()))
    };
    text.lines().filter_map(pair).collect()
}

fn assert_field(status: &BTreeMap<String, String>, field: &str, value: &str, about: &str) {
    assert_eq!(
        status.get(field).map(String::as_str),
        Some(value),
        "{about}: {field}"
    );
}

/// Docker's default capabilities less `NET_RAW`, `MKNOD` and `AUDIT_WRITE`.
const CAPABILITIES: &str = "00000000800405fb";
const WITH_NET_RAW: &str = "00000000800425fb";
const NO_CAPABILITIES: &str = "0000000000000000";

async fn isolation_status_of_a_command_is_hardened(lab: Lab) {
    let session = lab.open("a").await;
    for (user, held) in [("root", CAPABILITIES), ("65534", NO_CAPABILITIES)] {
        if lab.has_one_id() && user != "root" {
            assert_no_such_id(session.exec(["true"]).user(user).await, user);
            continue;
        }
        let status = status(&session, user).await;
        let expected = [
            ("CapEff", held),
            ("CapPrm", held),
            ("CapBnd", CAPABILITIES),
            ("CapAmb", NO_CAPABILITIES),
            ("CapInh", NO_CAPABILITIES),
            ("NoNewPrivs", "1"),
            ("Seccomp", "2"),
        ];
        for (field, value) in expected {
            assert_field(&status, field, value, user);
        }
    }
}

async fn isolation_relaxations_are_named_and_work(lab: Lab) {
    let drop_capabilities = vec!["ALL".to_owned()];
    let security = crate::Security {
        drop_capabilities,
        ..Default::default()
    };
    let none = lab
        .open_with("none", SessionSpec::new().security(security))
        .await;
    assert_field(
        &status(&none, "root").await,
        "CapBnd",
        NO_CAPABILITIES,
        "all dropped",
    );
    let add_capabilities = vec!["NET_RAW".to_owned()];
    let security = crate::Security {
        add_capabilities,
        ..Default::default()
    };
    let raw = lab
        .open_with("raw", SessionSpec::new().security(security))
        .await;
    assert_field(
        &status(&raw, "root").await,
        "CapEff",
        WITH_NET_RAW,
        "one added",
    );
    let security = crate::Security {
        seccomp_unconfined: true,
        allow_new_privileges: true,
        ..Default::default()
    };
    let open = lab
        .open_with("open", SessionSpec::new().security(security))
        .await;
    let status = status(&open, "root").await;
    assert_field(&status, "Seccomp", "0", "unconfined");
    assert_field(&status, "NoNewPrivs", "0", "unconfined");
}

/// First id on the host and number of ids, of the map's first line.
async fn uid_map(session: &Session) -> (u64, u64) {
    let map = text(session, "cat /proc/self/uid_map").await;
    let mut numbers = map
        .split_whitespace()
        .map(|number| number.parse::<u64>().unwrap());
    assert_eq!(numbers.next(), Some(0), "{map}");
    (numbers.next().unwrap(), numbers.next().unwrap())
}

async fn isolation_ids_are_of_an_own_range(lab: Lab) {
    let class = lab.podkit().capabilities().isolation;
    let (one, two) = (lab.open("one").await, lab.open("two").await);
    assert_eq!(one.info().await.unwrap().isolation, class);
    let ((first, length), (second, _)) = (uid_map(&one).await, uid_map(&two).await);
    match class {
        Some(Isolation::OwnRange) => {
            assert_eq!(length, 65_536);
            assert!(first >= 65_536 && second >= 65_536, "{first} {second}");
            assert!(first.abs_diff(second) >= 65_536, "{first} {second}");
            let again = lab.stranger().await.open(one.key()).await.unwrap();
            assert_eq!(uid_map(&again).await.0, first);
        }
        Some(Isolation::SharedRange) => assert!(first >= 65_536 && length == 65_536),
        Some(Isolation::CallerUid) => assert_eq!(length, 1),
        None => {}
    }
}

async fn isolation_namespaces_are_the_containers_own(lab: Lab) {
    let (one, two) = (lab.open("one").await, lab.open("two").await);
    for kind in ["mnt", "pid", "net", "ipc", "uts"] {
        let link = format!("readlink /proc/self/ns/{kind}");
        let (first, second) = (text(&one, &link).await, text(&two, &link).await);
        let host = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert_ne!(first, second, "{kind}");
        assert_ne!(first.trim(), host.to_str().unwrap(), "{kind}");
    }
    let spec = SessionSpec::new().network(Network::None);
    let alone = lab.open_with("alone", spec).await;
    assert_eq!(text(&alone, "ls /sys/class/net").await, "lo\n");
}

async fn isolation_root_shows_only_what_it_should(lab: Lab) {
    let session = lab.open("a").await;
    let mounts = text(&session, "cat /proc/self/mounts").await;
    for line in mounts.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let (target, options) = (words[1], words[3]);
        let has = |option: &str| options.split(',').any(|word| word == option);
        let foreign = ["/usr", "/workspace", "/tmp", "/.podkit", "/dev/shm"];
        let flagged = lab.podkit().capabilities().bind_flags || target == "/dev/shm";
        if flagged && foreign.iter().any(|place| target.starts_with(place)) {
            assert!(has("nosuid") && has("nodev"), "{line}");
        }
        if target.starts_with("/usr") || target.starts_with("/.podkit") {
            assert!(has("ro"), "{line}");
        }
    }
    // No device but the harmless ones.
    let list = "cd /dev; for f in *; do [ -h $f ] && continue; [ -b $f ] && echo block-$f; \
                [ -c $f ] && echo $f; done; :";
    let harmless = [
        "console", "full", "null", "ptmx", "random", "tty", "urandom", "zero",
    ];
    for device in text(&session, list).await.split_whitespace() {
        assert!(harmless.contains(&device), "/dev/{device}");
    }
    // What belongs to the host is not there, or is the container's own.
    let list = "for d in /root /home /mnt /srv /opt /boot /media; do ls -A $d 2>/dev/null; done; :";
    let found = text(&session, list).await;
    // Another image may have files there.
    let own = !lab.podkit().capabilities().local_images;
    assert!(own || found.is_empty(), "{found}");
    let name = text(&session, "cat /proc/sys/kernel/hostname").await;
    assert!(name.trim().starts_with(lab.prefix().as_str()), "{name}");
}

async fn isolation_kernel_files_are_masked_or_read_only(lab: Lab) {
    let session = lab.open("a").await;
    let masked = [
        "kcore",
        "keys",
        "latency_stats",
        "timer_list",
        "timer_stats",
        "sched_debug",
    ];
    for name in masked {
        let output = shell(&session, &format!("cat /proc/{name}")).await;
        assert!(
            output.stdout.is_empty(),
            "/proc/{name} shows {}",
            output.stdout_text()
        );
    }
    let list = "for d in /sys/firmware /proc/scsi /proc/acpi; do ls -A $d 2>/dev/null; done; :";
    assert_eq!(text(&session, list).await, "");
    let sysctls = [
        "kernel/hostname",
        "vm/overcommit_memory",
        "kernel/core_pattern",
    ];
    for name in sysctls {
        let output = shell(&session, &format!("cat /proc/sys/{name} >/proc/sys/{name}")).await;
        assert!(!output.outcome.is_success(), "{name} was written");
    }
}

async fn isolation_two_users_cannot_reach_each_other(lab: Lab) {
    let spec = || SessionSpec::new().mount(Mount::bind(lab.programs(), "/attacks").read_only());
    let alice = lab
        .podkit()
        .session("alice", "s")
        .spec(spec())
        .await
        .unwrap();
    let bob = lab.podkit().session("bob", "s").spec(spec()).await.unwrap();
    let listen = ["/attacks/reach", "listen", "podkit-alice", "45678"];
    let mut listener = alice.exec(listen).stdin_stream().stream().await.unwrap();
    wait_for_output(&mut listener, b"ready\n").await;
    let tries: [&[&str]; 2] = [
        &["unix_socket", "@podkit-alice"],
        &["tcp", "127.0.0.1", "45678"],
    ];
    for argv in tries {
        let argv = || {
            ["/attacks/reach"]
                .iter()
                .chain(argv)
                .copied()
                .map(str::to_owned)
        };
        assert_eq!(
            said(&alice.exec(argv()).await.unwrap()),
            "ok",
            "the control"
        );
        assert_eq!(said(&bob.exec(argv()).await.unwrap()), "ECONNREFUSED");
    }
    // By processes: bob sees none of alice's, by her number inside or on the host.
    let inside = listener.pid();
    assert_eq!(
        text(&alice, &format!("cat /proc/{inside}/comm")).await,
        "reach\n"
    );
    let seen = shell(&bob, "cat /proc/[0-9]*/comm").await.stdout_text();
    assert!(!seen.contains("reach"), "{seen}");
    if let Some(pid) = lab.backend().inspect(alice.container()).await.unwrap().pid {
        for attack in ["kill", "ptrace", "read_memory", "take_descriptor"] {
            let argv = [
                "/attacks/processes".to_owned(),
                attack.to_owned(),
                pid.to_string(),
            ];
            let said = said(&bob.exec(argv).await.unwrap());
            assert!(
                ["ESRCH", "EPERM"].contains(&said.as_str()),
                "{attack}: {said}"
            );
        }
    }
    // By files.
    alice
        .files()
        .write("/workspace/secret", "of-alice")
        .await
        .unwrap();
    let find = "cat /workspace/secret; grep -rs of-alice /workspace /tmp /dev/shm /run";
    assert_eq!(shell(&bob, find).await.stdout_text(), "");
    listener.close_stdin().await.unwrap();
    let ended = listener.wait().await.unwrap();
    assert_eq!(
        ended.outcome,
        Outcome::Exited(0),
        "alice's process was untouched"
    );
}

async fn isolation_init_cannot_be_reached_from_inside(lab: Lab) {
    let session = lab.open("a").await;
    text(&session, "umask 077; echo secret >/tmp/root-only").await;
    let token = session.boot_token().await.unwrap();
    let tries =
        "cat /tmp/root-only /proc/1/environ /proc/1/mem; ls /proc/1/fd/; kill -9 1; : >/usr/x";
    let output = session.shell(tries).user("65534").await;
    if lab.has_one_id() {
        assert_no_such_id(output, "65534");
    } else {
        assert_eq!(output.unwrap().stdout_text(), "");
    }
    let tries = "cat /proc/1/environ /proc/1/mem; readlink /proc/1/fd/* /proc/1/exe; \
        kill -9 1; kill -STOP 1; kill -TERM 1";
    assert_eq!(shell(&session, tries).await.stdout_text(), "");
    assert_eq!(text(&session, "echo alive").await, "alive\n");
    assert_eq!(session.boot_token().await.unwrap(), token);
}

/// The helper that speaks to the agent is for the engine alone.
async fn isolation_agent_answers_to_nobody_inside(lab: Lab) {
    let session = lab.open("a").await;
    // The beginning of a frame; whatever answers, must not.
    for user in ["65534", "root"] {
        let script = "echo hello | /.podkit/agent connect; echo code $?";
        let output = session.shell(script).user(user).await;
        if lab.has_one_id() && user != "root" {
            assert_no_such_id(output, user);
            continue;
        }
        let text = output.unwrap().stdout_text();
        assert!(
            text.starts_with("code ") && text != "code 0\n",
            "{user}: {text:?}"
        );
    }
    // No socket of the agent's is in reach.
    let find = "find / -xdev -type s 2>/dev/null; find /.podkit /run -type s 2>/dev/null; \
        grep podkit /proc/net/unix; :";
    // The one by which engines' processes come has been tried above.
    let found = text(&session, find).await;
    let others = found
        .lines()
        .filter(|line| !line.contains("@podkit-agent-"));
    assert_eq!(others.collect::<Vec<_>>(), Vec::<&str>::new());
}
