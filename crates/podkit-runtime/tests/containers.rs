//! Real containers, as root.
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

mod agent;
mod records;
mod support;

use std::{
    fs,
    os::unix::{fs::MetadataExt, net::UnixListener},
    time::{Duration, Instant},
};

use agent::{run, shell};
use podkit_agent::ExecStatus;
use podkit_runtime::{
    ContainerSpec, ContainerState, ErrorKind, Isolation, Mount, Network, Rootfs, StopCause,
};
use support::{Place, wait_for};

const GRACE: Duration = Duration::from_secs(5);

/// Makes and starts a container.
fn start(runtime: &podkit_runtime::Runtime, spec: &ContainerSpec) {
    runtime.create(spec).unwrap();
    runtime.start(&spec.name).unwrap();
}

#[test]
fn container_runs_commands_and_keeps_files_over_a_stop() {
    let (place, spec) = (Place::new(), ContainerSpec::new("a"));
    let runtime = place.runtime();
    start(&runtime, &spec);
    assert_eq!(run(&runtime, "a", "pwd"), "/workspace\n");
    run(
        &runtime,
        "a",
        "echo kept > /workspace/file && ln -s /x /etc/hosts.new",
    );
    runtime.stop("a", GRACE).unwrap();
    let info = runtime.inspect("a").unwrap();
    assert_eq!(info.state, ContainerState::Exited);
    assert_eq!(info.stop_cause, Some(StopCause::Requested));
    assert!(info.finished_at.is_some());
    assert_eq!(
        runtime.connect("a").unwrap_err().kind(),
        ErrorKind::NotFound
    );
    runtime.start("a").unwrap();
    runtime.start("a").unwrap();
    assert_eq!(run(&runtime, "a", "cat file"), "kept\n");
    runtime.remove("a").unwrap();
    runtime.remove("a").unwrap();
    assert_eq!(
        runtime.inspect("a").unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn create_gives_a_name_to_one_of_many() {
    let place = Place::new();
    let runtime = place.runtime();
    let made = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| runtime.create(&ContainerSpec::new("a"))))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .filter(|made| match made {
                Ok(()) => true,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
                    false
                }
            })
            .count()
    });
    assert_eq!(made, 1);
    assert_eq!(runtime.list(&Default::default()).unwrap().len(), 1);
}

#[test]
fn openers_closers_and_sweepers_race_and_leaves_nothing() {
    let place = Place::new();
    let runtime = place.runtime();
    runtime.facts().unwrap();
    runtime.create(&ContainerSpec::new("first")).unwrap();
    runtime.remove("first").unwrap();
    let before = place.snapshot();
    let until = Instant::now() + Duration::from_secs(4);
    std::thread::scope(|scope| {
        for number in 0..6 {
            let runtime = place.runtime();
            scope.spawn(move || {
                while Instant::now() < until {
                    let done = match number {
                        0..=3 => runtime
                            .create(&ContainerSpec::new("a"))
                            .or_else(|error| match error.kind() {
                                ErrorKind::AlreadyExists => Ok(()),
                                _ => Err(error),
                            })
                            .and_then(|()| runtime.start("a")),
                        4 => runtime.remove("a"),
                        _ => runtime.sweep(Duration::ZERO).map(|report| {
                            assert!(report.failed.is_empty(), "{report:?}");
                        }),
                    };
                    if let Err(error) = done {
                        assert_eq!(error.kind(), ErrorKind::NotFound, "{number}: {error}");
                    }
                }
            });
        }
    });
    runtime.remove("a").unwrap();
    let report = runtime.sweep(Duration::ZERO).unwrap();
    assert!(report.failed.is_empty(), "{report:?}");
    before.assert_same(place.path(), "after the race");
}

#[test]
fn root_inside_is_nobody_outside_and_is_hardened() {
    let (place, spec) = (Place::new(), ContainerSpec::new("a"));
    let runtime = place.runtime();
    start(&runtime, &spec);
    let info = runtime.inspect("a").unwrap();
    assert_eq!(info.isolation, Some(Isolation::OwnRange));
    let pid = info.pid.unwrap();
    let owner = fs::metadata(format!("/proc/{pid}")).unwrap().uid();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(owner == 0 || owner >= 0x7000_0000, "{owner}");
    for line in [
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "CapEff:\t00000000800405fb",
        "CapBnd:\t00000000800405fb",
    ] {
        assert!(status.contains(line), "{line} in {status}");
    }
    for (command, refused) in [
        ("cat /etc/shadow", "No such file"),
        ("unshare -U true", "not permitted"),
        ("mount -t tmpfs x /tmp", "ermission denied|not permitted"),
        ("echo 1 > /proc/sys/kernel/panic", "Read-only|ermission"),
        ("touch /usr/x", "Read-only"),
        ("mknod /tmp/x c 1 1", "not permitted"),
        (
            "cat /proc/kcore > /dev/null",
            "ermission|not permitted|No such",
        ),
        ("chroot /tmp mount", "No such"),
    ] {
        let (ended, output) = shell(&runtime, "a", command);
        assert_ne!(ended, ExecStatus::Exited(0), "{command}: {output}");
        assert!(
            refused.split('|').any(|text| output.contains(text)),
            "{command}: {output}"
        );
    }
    assert_eq!(
        run(
            &runtime,
            "a",
            "id -u; ls /sys/class/net; wc -c < /proc/keys"
        ),
        "0\nlo\n0\n"
    );
}

#[test]
fn host_image_has_what_real_work_needs() {
    let (place, spec) = (Place::new(), ContainerSpec::new("a"));
    let runtime = place.runtime();
    start(&runtime, &spec);
    for (command, said) in [
        ("echo a b | awk '{print $2}'", "b\n"),
        (
            "python3 -c 'import ssl; print(len(ssl.create_default_context().get_ca_certs()) > 0)'",
            "True\n",
        ),
        (
            "printf 'int main(){return 0;}' > a.c && cc a.c -o a && ./a && echo ok",
            "ok\n",
        ),
        ("getent hosts localhost | wc -l", "1\n"),
        ("stat -c %a /tmp /root /workspace", "1777\n700\n755\n"),
        ("hostname", "a\n"),
        ("echo x > /dev/shm/x && cat /dev/shm/x", "x\n"),
        ("ls -d /home/* /opt /srv /boot 2>/dev/null | wc -l", "0\n"),
    ] {
        assert_eq!(run(&runtime, "a", command), said, "{command}");
    }
}

#[test]
fn limits_hold_and_the_agent_lives_on() {
    let (place, mut spec) = (Place::new(), ContainerSpec::new("a"));
    spec.memory_bytes = Some(64 << 20);
    spec.swap_bytes = Some(0);
    spec.cpu_millis = Some(500);
    spec.pids_max = Some(20);
    let runtime = place.runtime();
    start(&runtime, &spec);
    let (ended, output) = shell(&runtime, "a", "python3 -c 'x = bytearray(300 << 20)'");
    assert!(
        matches!(
            ended,
            ExecStatus::OutOfMemory | ExecStatus::Signaled(9) | ExecStatus::Exited(137)
        ),
        "{ended:?} {output}"
    );
    let forks = "for i in $(seq 40); do sleep 3 & done; wait";
    let (_, output) = shell(&runtime, "a", forks);
    assert!(
        output.contains("fork") || output.contains("Resource"),
        "{output}"
    );
    let (_, output) = shell(&runtime, "a", "exec head -c 100M /dev/zero > /dev/shm/x");
    assert!(output.contains("No space"), "{output}");
    assert_eq!(run(&runtime, "a", "echo alive"), "alive\n");
}

#[test]
fn writable_bind_is_owned_by_root_inside_and_by_its_owner_outside() {
    let (place, mut spec) = (Place::new(), ContainerSpec::new("a"));
    let shared = place.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("secret"), "s").unwrap();
    std::os::unix::fs::chown(&shared, Some(1000), Some(1000)).unwrap();
    spec.mounts = vec![
        Mount::Bind {
            source: shared.clone(),
            target: "/w".into(),
            read_only: false,
        },
        Mount::Bind {
            source: shared.clone(),
            target: "/r".into(),
            read_only: true,
        },
        Mount::Tmpfs {
            target: "/t".into(),
            size_bytes: 1 << 20,
            mode: 0o1777,
        },
    ];
    let runtime = place.runtime();
    start(&runtime, &spec);
    run(&runtime, "a", "echo x > /w/file && echo x > /t/file");
    let made = fs::metadata(shared.join("file")).unwrap();
    assert_eq!((made.uid(), made.gid()), (1000, 1000));
    let (ended, output) = shell(&runtime, "a", "echo x > /r/other");
    assert_ne!(ended, ExecStatus::Exited(0), "{output}");
}

#[test]
fn bad_orders_leaves_nothing() {
    let place = Place::new();
    let runtime = place.runtime();
    runtime.facts().unwrap();
    let socket = place.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    let before = place.snapshot();
    let bind = |source: &std::path::Path| Mount::Bind {
        source: source.to_owned(),
        target: "/w".into(),
        read_only: true,
    };
    type Spoil<'a> = Box<dyn Fn(&mut ContainerSpec) + 'a>;
    let spoils: Vec<Spoil<'_>> = vec![
        Box::new(|spec| spec.name = "../a".into()),
        Box::new(|spec| spec.mounts = vec![bind("/does/not/exist".as_ref())]),
        Box::new(|spec| spec.mounts = vec![bind(&socket)]),
        Box::new(|spec| spec.mounts = vec![bind("/dev/null".as_ref())]),
        Box::new(|spec| spec.rootfs = Rootfs::Directory("/does/not/exist".into())),
        Box::new(|spec| spec.rootfs = Rootfs::Directory("/".into())),
        Box::new(|spec| spec.rootfs = Rootfs::Tar("/etc/passwd".into())),
        Box::new(|spec| {
            spec.rootfs = Rootfs::Host {
                paths: vec![place.path().to_owned()],
            }
        }),
        Box::new(|spec| spec.memory_bytes = Some(7)),
    ];
    for (number, spoil) in spoils.iter().enumerate() {
        let mut spec = ContainerSpec::new("a");
        spoil(&mut spec);
        let refused = runtime.create(&spec).unwrap_err();
        assert_eq!(
            refused.kind(),
            ErrorKind::InvalidInput,
            "{number}: {refused}"
        );
    }
    before.assert_same(place.path(), "after bad orders");
}

#[test]
fn source_that_vanished_fails_the_start_and_leaves_nothing() {
    let (place, mut spec) = (Place::new(), ContainerSpec::new("a"));
    let shared = place.path().join("shared");
    fs::create_dir(&shared).unwrap();
    spec.mounts = vec![Mount::Bind {
        source: shared.clone(),
        target: "/w".into(),
        read_only: false,
    }];
    let runtime = place.runtime();
    runtime.create(&spec).unwrap();
    let before = place.snapshot();
    fs::remove_dir(&shared).unwrap();
    assert_eq!(
        runtime.start("a").unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    before.assert_same(place.path(), "after a failed start");
    fs::create_dir(&shared).unwrap();
    runtime.start("a").unwrap();
}

#[test]
fn container_of_an_earlier_boot_starts_again_with_its_files() {
    let (place, spec) = (Place::new(), ContainerSpec::new("a"));
    let runtime = place.runtime();
    start(&runtime, &spec);
    run(&runtime, "a", "echo kept > file");
    let pid = runtime.inspect("a").unwrap().pid.unwrap();
    kill(pid);
    wait_for("the end", || match runtime.inspect("a").unwrap().state {
        ContainerState::Exited => Ok(()),
        state => Err(format!("{state:?}")),
    });
    assert_eq!(
        runtime.inspect("a").unwrap().stop_cause,
        Some(StopCause::Killed)
    );
    // As after a reboot: another boot, a pid that somebody else has, no sockets.
    let path = place.path().join("state/containers/a/state.json");
    let text = fs::read_to_string(&path).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let other = text.replace(boot.trim(), "00000000-0000-0000-0000-000000000000");
    let other = other.replace(
        &format!("\"pid\":{pid}"),
        &format!("\"pid\":{}", std::process::id()),
    );
    assert_ne!(text, other);
    fs::write(&path, other).unwrap();
    fs::remove_dir_all(place.path().join("run")).unwrap();
    let later = place.runtime();
    assert_eq!(later.inspect("a").unwrap().state, ContainerState::Exited);
    later.start("a").unwrap();
    assert_eq!(run(&later, "a", "cat file"), "kept\n");
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn paused_container_rests_and_can_be_stopped() {
    let (place, spec) = (Place::new(), ContainerSpec::new("a"));
    let runtime = place.runtime();
    start(&runtime, &spec);
    runtime.pause("a").unwrap();
    assert_eq!(runtime.inspect("a").unwrap().state, ContainerState::Paused);
    runtime.resume("a").unwrap();
    assert_eq!(run(&runtime, "a", "echo on"), "on\n");
    runtime.pause("a").unwrap();
    runtime.stop("a", GRACE).unwrap();
    assert_eq!(runtime.inspect("a").unwrap().state, ContainerState::Exited);
    assert_eq!(runtime.pause("a").unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn container_stops_by_its_clock_and_says_so() {
    let (place, mut spec) = (Place::new(), ContainerSpec::new("a"));
    spec.auto_stop = Some(Duration::from_millis(200));
    let runtime = place.runtime();
    start(&runtime, &spec);
    wait_for("the clock", || match runtime.inspect("a").unwrap().state {
        ContainerState::Exited => Ok(()),
        state => Err(format!("{state:?}")),
    });
    assert_eq!(
        runtime.inspect("a").unwrap().stop_cause,
        Some(StopCause::AutoStop)
    );
    runtime.start("a").unwrap();
}

#[test]
fn main_command_writes_a_log_and_its_end_is_the_containers() {
    let (place, mut spec) = (Place::new(), ContainerSpec::new("a"));
    spec.main = Some(
        ["/bin/sh", "-c", "echo hello; exit 3"]
            .map(str::to_owned)
            .to_vec(),
    );
    let runtime = place.runtime();
    start(&runtime, &spec);
    wait_for("its end", || match runtime.inspect("a").unwrap().state {
        ContainerState::Exited => Ok(()),
        state => Err(format!("{state:?}")),
    });
    let info = runtime.inspect("a").unwrap();
    assert_eq!(
        (info.stop_cause, info.exit_code),
        (Some(StopCause::MainExited), Some(3))
    );
    assert_eq!(runtime.logs("a", 1000).unwrap(), b"hello\n");
    assert_eq!(runtime.logs("a", 3).unwrap(), b"lo\n");
}

#[test]
fn main_command_that_writes_much_keeps_the_end_of_its_log() {
    let (place, mut spec) = (Place::new(), ContainerSpec::new("a"));
    spec.main = Some(
        ["/bin/sh", "-c", "echo begin; seq 1 600000"]
            .map(str::to_owned)
            .to_vec(),
    );
    let runtime = place.runtime();
    runtime.create(&spec).unwrap();
    for life in 1..=2 {
        runtime.start("a").unwrap();
        wait_for("its end", || match runtime.inspect("a").unwrap().state {
            ContainerState::Exited => Ok(()),
            state => Err(format!("{state:?}")),
        });
        let all = runtime.logs("a", u64::MAX).unwrap();
        assert!(
            (512 << 10..=1 << 20).contains(&all.len()),
            "{life}: {}",
            all.len()
        );
        let text = String::from_utf8(all).unwrap();
        // A part of a line may stand at its beginning; from there on none is missing.
        let numbers: Vec<u32> = text
            .lines()
            .skip(1)
            .map(|line| line.parse().unwrap())
            .collect();
        assert_eq!(numbers.last(), Some(&600_000), "{life}");
        assert!(
            numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]),
            "{life}"
        );
    }
}

#[test]
fn directory_and_tar_are_images() {
    let place = Place::new();
    let runtime = place.runtime();
    let root = place.path().join("root");
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::write(root.join("only-here"), "x").unwrap();
    let tar = place.path().join("root.tar");
    let made = std::process::Command::new("tar")
        .arg("-cf")
        .arg(&tar)
        .arg("-C")
        .arg(&root)
        .arg(".")
        .status();
    assert!(made.unwrap().success());
    for (name, rootfs) in [
        ("directory", Rootfs::Directory(root.clone())),
        ("tar", Rootfs::Tar(tar.clone())),
    ] {
        let mut spec = ContainerSpec::new(name);
        spec.rootfs = rootfs;
        start(&runtime, &spec);
        let pid = runtime.inspect(name).unwrap().pid.unwrap();
        let inside = format!("/proc/{pid}/root");
        assert_eq!(fs::read(format!("{inside}/only-here")).unwrap(), b"x");
        assert!(
            fs::read_to_string(format!("{inside}/etc/hosts"))
                .unwrap()
                .contains(name)
        );
        assert!(
            fs::metadata(format!("{inside}/workspace"))
                .unwrap()
                .is_dir()
        );
    }
    // What was imported does not need the archive any more.
    runtime.stop("tar", GRACE).unwrap();
    fs::remove_file(&tar).unwrap();
    runtime.start("tar").unwrap();
}

#[test]
fn container_that_hides_its_files_deep_is_removed() {
    let (place, spec) = (Place::new(), ContainerSpec::new("a"));
    let runtime = place.runtime();
    start(&runtime, &spec);
    let deep = "import os\nfor i in range(3000):\n os.mkdir('d'); os.chdir('d')";
    run(
        &runtime,
        "a",
        &format!("cd /tmp && python3 -c \"{deep}\" && chmod 0 /tmp"),
    );
    runtime.remove("a").unwrap();
    assert!(support::entries(&place.path().join("state/trash")).is_empty());
}

#[test]
fn full_disk_is_a_typed_error_and_leaves_nothing() {
    let place = Place::new();
    let (state, size) = (place.path().join("state"), 24_u64 << 20);
    fs::create_dir(&state).unwrap();
    let mounted = std::process::Command::new("mount")
        .args([
            "-t",
            "tmpfs",
            "-o",
            &format!("size={size},mode=700"),
            "podkit-test",
        ])
        .arg(&state)
        .status();
    assert!(mounted.unwrap().success());
    let result = std::panic::catch_unwind(|| {
        let runtime = place.runtime();
        runtime.facts().unwrap();
        let before = place.snapshot();
        let ballast = state.join("ballast");
        // From nothing free to enough, a page at a time: each write in turn finds no space.
        let mut started = 0;
        for pages in 0..24_u64 {
            let room = fill(&ballast, pages * 4096);
            let done = runtime
                .create(&ContainerSpec::new("a"))
                .and_then(|()| runtime.start("a"));
            match done {
                Ok(()) => started += 1,
                Err(error) => assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{room}: {error}"),
            }
            runtime.remove("a").unwrap();
            fs::remove_file(&ballast).unwrap();
            let report = runtime.sweep(Duration::ZERO).unwrap();
            assert!(report.failed.is_empty(), "{report:?}");
            before.assert_same(place.path(), &format!("{pages} pages"));
        }
        assert!(started > 0 && started < 24, "{started}");
    });
    let unmounted = std::process::Command::new("umount")
        .arg("-l")
        .arg(&state)
        .status();
    assert!(unmounted.unwrap().success());
    result.unwrap();
}

/// Fills the file system of `path` up to so many bytes.
fn fill(path: &std::path::Path, room: u64) -> u64 {
    let file = fs::File::create(path).unwrap();
    let free = rustix::fs::fstatvfs(&file).unwrap();
    let bytes = (free.f_bavail * free.f_frsize).saturating_sub(room);
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes.max(1)).unwrap();
    room
}

#[test]
fn host_network_shows_the_hosts_interfaces() {
    let (place, mut spec) = (Place::new(), ContainerSpec::new("a"));
    spec.network = Network::Host;
    let runtime = place.runtime();
    start(&runtime, &spec);
    let ours = fs::read_to_string("/proc/net/dev").unwrap().lines().count();
    let theirs = run(&runtime, "a", "wc -l < /proc/net/dev");
    assert_eq!(theirs.trim().parse(), Ok(ours));
}

#[test]
fn environment_of_the_caller_stays_outside() {
    let (place, spec) = (Place::new(), ContainerSpec::new("a"));
    let runtime = place.runtime();
    start(&runtime, &spec);
    let pid = runtime.inspect("a").unwrap().pid.unwrap();
    let own = fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert_eq!(String::from_utf8_lossy(&own), "", "of its first process");
}
