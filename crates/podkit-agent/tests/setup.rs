//! `podkit-agent setup` as the engine starts it. Most of these need root.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use std::{
    collections::BTreeSet,
    fs,
    io::{ErrorKind, Read, Write},
    os::{
        fd::OwnedFd,
        unix::{
            fs::{MetadataExt, PermissionsExt, symlink},
            net::UnixStream,
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use podkit_agent::{
    FrameBuffer,
    plan::{
        ContainerPlan, FilePlan, IdMaps, IdRange, MountPlan, Plan, ProbePlan, Report, RootPlan,
        TreePlan,
    },
};

/// First id of the range that these tests use.
const FIRST_ID: u32 = 1_900_000_000;

/// Longest that anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A directory for one test, with the agent in it.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = PathBuf::from(format!(
            "/var/tmp/podkit-setup-{}-{name}",
            std::process::id()
        ));
        fs::create_dir(&path).unwrap();
        // Another process writes it: a file that this one has open cannot be executed.
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("prebuilt/podkit-agent-x86_64");
        let mut install = Command::new("install");
        install
            .args(["-m", "755"])
            .arg(shipped)
            .arg(path.join("agent"));
        assert!(install.status().unwrap().success());
        Self(path)
    }

    fn directory(&self, name: &str, owner: u32) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir(&path).unwrap();
        std::os::unix::fs::chown(&path, Some(owner), Some(owner)).unwrap();
        path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A helper that runs, and the engine's end of its socket.
struct Helper {
    process: Child,
    socket: UnixStream,
    buffer: FrameBuffer,
}

impl Helper {
    fn start(place: &Place, plan: &Plan, user: Option<u32>) -> Self {
        let (socket, theirs) = UnixStream::pair().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut command = Command::new(place.0.join("agent"));
        command
            .arg("setup")
            .stdin(Stdio::from(OwnedFd::from(theirs)));
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        let process = command.spawn().unwrap();
        let mut helper = Self {
            process,
            socket,
            buffer: FrameBuffer::new(),
        };
        let mut frame = Vec::new();
        plan.encode(&mut frame);
        helper.socket.write_all(&frame).unwrap();
        helper
    }

    fn report(&mut self) -> Report {
        loop {
            if let Some(report) = Report::take(&mut self.buffer).unwrap() {
                return report;
            }
            let mut bytes = [0; 4096];
            let length = match self.socket.read(&mut bytes) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read.unwrap(),
            };
            assert!(length > 0, "the helper ended without a report");
            self.buffer.push(&bytes[..length]);
        }
    }

    /// Pid of PID 1 once it waits for the commit.
    fn ready(&mut self) -> u32 {
        let Report::Pid(pid) = self.report() else {
            panic!("the pid comes first");
        };
        assert_eq!(
            self.report(),
            Report::Ready {
                volatile_root: false
            }
        );
        pid
    }

    fn answer(mut self) -> Report {
        let report = self.report();
        self.process.wait().unwrap();
        report
    }
}

fn range(outside: u32, count: u32) -> IdMaps {
    let range = vec![IdRange {
        inside: 0,
        outside,
        count,
    }];
    IdMaps {
        uids: range.clone(),
        gids: range,
        deny_setgroups: count == 1,
        writers: None,
    }
}

fn bytes(path: &Path) -> Vec<u8> {
    path.to_str().unwrap().as_bytes().to_vec()
}

/// A container of the host's programs, whose ids begin at `owner`.
fn container(place: &Place, owner: u32, own_range: bool) -> ContainerPlan {
    let lower = place.directory("lower", owner);
    place.directory("lower/etc", owner);
    place.directory("lower/usr", owner);
    symlink("/proc/self/fd/0", lower.join("etc/hosts")).unwrap();
    let usr = fs::metadata("/usr").unwrap();
    ContainerPlan {
        privileged: own_range,
        maps: range(owner, if own_range { 65_536 } else { 1 }),
        own_network: true,
        hostname: b"inside".to_vec(),
        root: RootPlan {
            lowers: vec![bytes(&lower)],
            idmap_lowers: false,
            writable: bytes(&place.directory("writable", owner)),
            userxattr: !own_range,
            ..RootPlan::default()
        },
        mounts: vec![
            MountPlan::Bind {
                source: b"/usr".to_vec(),
                identity: (usr.dev(), usr.ino()),
                directory: true,
                target: b"/usr".to_vec(),
                read_only: true,
                no_exec: false,
                recursive: false,
                owner: None,
            },
            MountPlan::Tmpfs {
                target: b"/tmp".to_vec(),
                bytes: 1 << 20,
                mode: 0o1777,
            },
        ],
        shm_bytes: 1 << 20,
        files: vec![FilePlan {
            path: b"/etc/hosts".to_vec(),
            bytes: b"127.0.0.1 localhost\n".to_vec(),
        }],
        masked: vec![b"/proc/timer_list".to_vec(), b"/sys/firmware".to_vec()],
        read_only: vec![b"/proc/sys".to_vec()],
        capabilities: 1 << 5,
        no_new_privileges: true,
        ..ContainerPlan::default()
    }
}

fn namespaces(pid: &str) -> BTreeSet<(String, u64)> {
    ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"]
        .into_iter()
        .map(|kind| {
            let namespace = fs::metadata(format!("/proc/{pid}/ns/{kind}")).unwrap();
            (kind.to_owned(), namespace.ino())
        })
        .collect()
}

fn wait_until_gone(pid: u32) {
    let end = Instant::now() + PATIENCE;
    // The helper's own parent here is this test, so whoever adopts orphans reaps PID 1.
    while fs::read_link(format!("/proc/{pid}/exe")).is_ok() {
        assert!(Instant::now() < end, "process {pid} is still there");
        std::thread::yield_now();
    }
}

fn check_inside(pid: u32) {
    let inside = namespaces(&pid.to_string());
    assert_eq!(inside.intersection(&namespaces("self")).count(), 0);
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    for mount in mounts.lines() {
        assert!(mount.contains("nosuid"), "{mount}");
        let device = mount
            .split(' ')
            .nth(4)
            .is_some_and(|at| at.starts_with("/dev/") || at == "/proc/timer_list");
        assert!(device || mount.contains("nodev"), "{mount}");
    }
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    let names: BTreeSet<_> = fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let expected = ["dev", "etc", "proc", "sys", "tmp", "usr"];
    assert_eq!(names, expected.map(String::from).into());
    let hosts = fs::read_to_string(root.join("etc/hosts")).unwrap();
    assert_eq!(hosts, "127.0.0.1 localhost\n");
    assert_eq!(fs::read(root.join("proc/timer_list")).unwrap(), b"");
    assert!(fs::write(root.join("proc/sys/kernel/hostname"), "other").is_err());
    assert!(fs::write(root.join("usr/.podkit-test"), "").is_err());
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    for line in [
        "CapEff:\t0000000000000020",
        "CapBnd:\t0000000000000020",
        "NoNewPrivs:\t1",
    ] {
        assert!(status.contains(line), "{line} is not in\n{status}");
    }
}

#[test]
fn container_of_root_is_apart_and_ends_with_the_engine() {
    let place = Place::new("root");
    let plan = Plan::Container(Box::new(container(&place, FIRST_ID, true)));
    let mut helper = Helper::start(&place, &plan, None);
    let pid = helper.ready();
    check_inside(pid);
    drop(helper.socket);
    helper.process.wait().unwrap();
    wait_until_gone(pid);
}

#[test]
fn container_of_an_ordinary_user_is_apart_and_ends_with_the_engine() {
    let place = Place::new("user");
    let plan = Plan::Container(Box::new(container(&place, 1000, false)));
    let mut helper = Helper::start(&place, &plan, Some(1000));
    let pid = helper.ready();
    check_inside(pid);
    drop(helper.socket);
    helper.process.wait().unwrap();
    wait_until_gone(pid);
}

#[test]
fn bind_of_another_directory_than_was_checked_fails() {
    let place = Place::new("swapped");
    let mut plan = container(&place, FIRST_ID, true);
    if let Some(MountPlan::Bind { identity, .. }) = plan.mounts.first_mut() {
        identity.1 += 1;
    }
    let mut helper = Helper::start(&place, &Plan::Container(Box::new(plan)), None);
    let Report::Pid(pid) = helper.report() else {
        panic!("the pid comes first");
    };
    let Report::Failed { step, .. } = helper.report() else {
        panic!("it must fail");
    };
    assert!(step.contains("/usr"), "{step}");
    helper.process.wait().unwrap();
    wait_until_gone(pid);
}

#[test]
fn tree_of_any_depth_and_owner_is_removed() {
    let place = Place::new("deep");
    let top = place.directory("tree", FIRST_ID);
    let mut deep = top.clone();
    // Paths cannot be this long, so it grows from the inside.
    for _ in 0..3000 {
        let above = place.0.join("above");
        fs::create_dir(&above).unwrap();
        std::os::unix::fs::chown(&above, Some(FIRST_ID), Some(FIRST_ID)).unwrap();
        fs::rename(&deep, above.join("d")).unwrap();
        deep.clone_from(&place.0.join("tree"));
        fs::rename(&above, &deep).unwrap();
    }
    let elsewhere = place.0.join("elsewhere");
    fs::write(&elsewhere, "").unwrap();
    std::os::unix::fs::chown(&elsewhere, Some(FIRST_ID), Some(FIRST_ID)).unwrap();
    symlink(&elsewhere, top.join("link")).unwrap();
    let plan = Plan::Tree(TreePlan {
        maps: range(FIRST_ID, 65_536),
        remove: vec![bytes(&top)],
        copy: vec![],
    });
    // The last directory is in one that is root's.
    fs::set_permissions(&place.0, fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(Helper::start(&place, &plan, None).answer(), Report::Done);
    assert!(!top.exists() && elsewhere.exists());
}

#[test]
fn tree_is_copied_with_modes_and_links() {
    let place = Place::new("copy");
    let from = place.0.join("from");
    fs::create_dir_all(from.join("a")).unwrap();
    fs::write(from.join("a/file"), b"bytes").unwrap();
    fs::set_permissions(from.join("a/file"), fs::Permissions::from_mode(0o751)).unwrap();
    symlink("a/file", from.join("link")).unwrap();
    let to = place.0.join("to");
    let plan = Plan::Tree(TreePlan {
        copy: vec![(bytes(&from), bytes(&to))],
        ..TreePlan::default()
    });
    assert_eq!(Helper::start(&place, &plan, None).answer(), Report::Done);
    assert_eq!(fs::read(to.join("a/file")).unwrap(), b"bytes");
    assert_eq!(
        fs::metadata(to.join("a/file")).unwrap().mode() & 0o7777,
        0o751
    );
    assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("a/file"));
}

#[test]
fn probe_says_what_works_and_what_does_not() {
    let place = Place::new("probe");
    let overlay = bytes(&place.directory("overlay", FIRST_ID));
    let mut probe = ProbePlan {
        maps: range(FIRST_ID, 65_536),
        overlay,
    };
    let done = Helper::start(&place, &Plan::Probe(probe.clone()), None).answer();
    assert_eq!(done, Report::Done);
    probe.overlay = b"/proc/sys/nowhere".to_vec();
    let failed = Helper::start(&place, &Plan::Probe(probe), None).answer();
    assert!(
        matches!(failed, Report::Failed { errno: 2, .. }),
        "{failed:?}"
    );
}
