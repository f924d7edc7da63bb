//! A machine that says no: disks that are full or read-only, cgroups and namespaces that are
//! forbidden, a boot that left stale state. A typed error or a stated limitation, and nothing half
//! made.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod full;
#[path = "../support/mod.rs"]
mod support;
mod suspended;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode},
    time::Duration,
};

use podkit::{Limit, SessionSpec};
use support::{
    Place, block_on, entries,
    host::{self, Snapshot},
    podkit_at, wait_for,
    worker::{Worker, main_if_asked},
};

/// A directory with a file system of its own, which goes with this value.
struct Disk {
    path: PathBuf,
}

impl Disk {
    fn new(path: PathBuf, kibibytes: u64) -> Self {
        fs::create_dir_all(&path).unwrap();
        let size = format!("size={kibibytes}k,mode=700");
        run("mount", &["-t", "tmpfs", "-o", &size, "podkit-test"], &path);
        Self { path }
    }

    fn remount(&self, options: &str) {
        run("mount", &["-o", &format!("remount,{options}")], &self.path);
    }

    /// Leaves no more than so many bytes free.
    fn fill(&self, free: u64) {
        let filler = self.path.join("filler");
        let _ = fs::remove_file(&filler);
        let stat = rustix::fs::statvfs(&self.path).unwrap();
        let taken = (stat.f_bavail * stat.f_frsize).saturating_sub(free);
        fs::write(&filler, vec![0_u8; usize::try_from(taken).unwrap()]).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

fn run(program: &str, arguments: &[&str], path: &Path) {
    let status = Command::new(program).args(arguments).arg(path).status();
    assert!(status.unwrap().success(), "{program} {arguments:?}");
}

/// The kind in a worker's answer `error KIND …`; empty when it succeeded.
fn kind_of(answer: &str) -> &str {
    match answer.split(' ').collect::<Vec<_>>()[..] {
        ["error", kind, ..] => kind,
        ["ok", ..] => "",
        _ => panic!("no answer: {answer:?}"),
    }
}

/// From no free block to enough of them: every write in turn is the one that fails.
fn open_with_a_full_disk_is_an_error_and_leaves_nothing() {
    const BLOCK: u64 = 4096;
    let place = Place::new();
    let disk = Disk::new(place.path().join("state"), 8 * 1024);
    use_once(&place);
    let before = Snapshot::take(place.path());
    let mut failures = 0;
    for blocks in 0..64 {
        disk.fill(blocks * BLOCK);
        let answer = Worker::start(place.path()).ask("open full 0");
        fs::remove_file(disk.path.join("filler")).unwrap();
        let kind = kind_of(&answer);
        if kind.is_empty() {
            break;
        }
        failures += 1;
        assert_eq!(kind, "limit_exceeded", "{blocks} blocks: {answer}");
        close_and_sweep(&place, "full");
        before.assert_same(place.path(), &format!("{blocks} blocks free"));
    }
    assert!(failures > 2, "only {failures} writes were hit");
    close_and_sweep(&place, "full");
    before.assert_same(place.path(), "at the end");
}

/// So that what an engine keeps for all containers is there.
fn use_once(place: &Place) {
    let mut worker = Worker::start(place.path());
    for request in ["open first 0", "close first 0"] {
        assert_eq!(kind_of(&worker.ask(request)), "", "{request}");
    }
}

fn close_and_sweep(place: &Place, session: &str) {
    let mut worker = Worker::start(place.path());
    assert_eq!(kind_of(&worker.ask(&format!("close {session} 0"))), "");
    assert_eq!(worker.ask("gc 0"), "ok 0");
}

fn open_with_a_read_only_state_directory_is_an_error() {
    let place = Place::new();
    let disk = Disk::new(place.path().join("state"), 8 * 1024);
    use_once(&place);
    let before = Snapshot::take(place.path());
    disk.remount("ro");
    let answer = Worker::start(place.path()).ask("open other 0");
    assert_eq!(kind_of(&answer), "unavailable", "{answer}");
    disk.remount("rw");
    before.assert_same(place.path(), "after the refusal");
    assert_eq!(
        kind_of(&Worker::start(place.path()).ask("open other 0")),
        ""
    );
    close_and_sweep(&place, "other");
}

/// Without any right on cgroups a limit is refused, and everything else works.
fn client_without_cgroups_states_what_it_cannot_limit() {
    let place = Place::new();
    let hide = "mount -t tmpfs -o ro none /sys/fs/cgroup";
    let mut worker = Worker::try_start_in(place.path(), &["--mount"], hide).unwrap();
    let answer = worker.ask("limited 64m");
    assert_eq!(kind_of(&answer), "unsupported", "{answer}");
    assert!(place.left().is_empty(), "{:?}", place.left());
    assert_eq!(kind_of(&worker.ask("open plain 0")), "");
    let told = worker.ask("limitations");
    for what in ["Memory", "Processor time", "The number of processes"] {
        assert!(
            told.contains(&format!("{what} cannot be limited")),
            "{told}"
        );
    }
    assert_eq!(kind_of(&worker.ask("close plain 0")), "");
    place.assert_empty();
}

/// The limit is that of a user namespace around the client: the kernel refuses it the same way as
/// where the whole host has it, and nothing of the host is changed.
fn open_where_user_namespaces_are_forbidden_says_so() {
    let place = Place::new();
    use_once(&place);
    let before = Snapshot::take(place.path());
    let inside = ["--user", "--map-root-user"];
    let forbid = "echo 0 > /proc/sys/user/max_user_namespaces";
    let answer = Worker::try_start_in(place.path(), &inside, forbid)
        .map_or_else(|answer| answer, |mut worker| worker.ask("open s 0"));
    assert_eq!(kind_of(&answer), "unsupported", "{answer}");
    assert!(answer.contains("max_user_namespaces"), "{answer}");
    assert!(answer.contains("sysctl"), "no fix: {answer}");
    before.assert_same(place.path(), "after the refusal");
    assert_eq!(kind_of(&Worker::start(place.path()).ask("open s 0")), "");
    close_and_sweep(&place, "s");
    before.assert_same(place.path(), "at the end");
}

fn init_of(place: &Place, session: &str) -> u32 {
    block_on(async {
        let podkit = place.podkit().await;
        let key = podkit::SessionKey::new("u", session).unwrap();
        let opened = podkit.open(&key).await.unwrap();
        let containers = podkit.containers();
        containers
            .inspect(opened.container())
            .await
            .unwrap()
            .pid
            .unwrap()
    })
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// A process that has nothing to do with containers. It ends with this value, also after a panic.
struct Stranger(Child);

impl Stranger {
    /// Starts it in a later tick of the clock than `init`: the kernel tells starts apart by ticks,
    /// and gives no pid to another process within one.
    fn start_after(init: u32) -> Self {
        let earlier = start_tick(init);
        wait_for(Duration::from_secs(5), || {
            let stranger = Self(Command::new("sleep").arg("1000").spawn().unwrap());
            if start_tick(stranger.id()) == earlier {
                return Err("it started in the same tick".to_owned());
            }
            Ok(stranger)
        })
    }

    fn id(&self) -> u32 {
        self.0.id()
    }

    fn lives(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_tick(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = status.rsplit_once(')').unwrap();
    rest.split_whitespace().nth(19).unwrap().parse().unwrap()
}

/// Every container of the machine is gone with the boot that is on record, its pids belong to others, and the run directory is
/// empty: sessions start again with their files, and the others are left alone.
fn sessions_of_another_boot_start_again_with_their_files() {
    let place = Place::new();
    let mut worker = Worker::start(place.path());
    assert_eq!(kind_of(&worker.ask("keep s note")), "");
    let init = init_of(&place, "s");
    let mut stranger = Stranger::start_after(init);
    worker.kill();
    kill(init);
    wait_for(Duration::from_secs(5), || {
        match host::processes_of(init).len() {
            0 => Ok(()),
            count => Err(format!("{count} processes")),
        }
    });
    for path in entries(&place.path().join("run")) {
        let _ = fs::remove_dir_all(&path);
        let _ = fs::remove_file(&path);
    }
    // A process of somebody else's now has the pid that is on record.
    put_on_record(&place, "pid", &stranger.id().into());
    let earlier = "00000000-1111-2222-3333-444444444444";
    put_on_record(&place, "boot_id", &earlier.into());
    let mut later = Worker::start(place.path());
    assert_eq!(later.ask("kept s"), "ok note");
    assert_eq!(kind_of(&later.ask("close s 0")), "");
    assert_eq!(later.ask("gc 0"), "ok 0");
    assert!(stranger.lives(), "a stranger was killed");
    place.assert_empty();
}

/// Somebody cleans the run directory up while the container runs.
fn container_that_lost_its_socket_starts_again_with_its_files() {
    let place = Place::new();
    let mut worker = Worker::start(place.path());
    assert_eq!(kind_of(&worker.ask("keep s note")), "");
    let init = init_of(&place, "s");
    worker.kill();
    fs::remove_dir_all(place.path().join("run")).unwrap();
    let begin = std::time::Instant::now();
    let mut later = Worker::start(place.path());
    assert_eq!(later.ask("kept s"), "ok note");
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "it took {:?}",
        begin.elapsed()
    );
    assert_eq!(
        host::processes_of(init),
        [0_u32; 0],
        "the life before goes on"
    );
    assert_eq!(kind_of(&later.ask("close s 0")), "");
    assert_eq!(later.ask("gc 0"), "ok 0");
    place.assert_empty();
}

/// The pid that is on record is another process's, in the same boot.
fn container_whose_pid_was_recycled_is_stopped_and_starts_again() {
    let place = Place::new();
    let mut worker = Worker::start(place.path());
    assert_eq!(kind_of(&worker.ask("keep s note")), "");
    let init = init_of(&place, "s");
    let mut stranger = Stranger::start_after(init);
    worker.kill();
    kill(init);
    put_on_record(&place, "pid", &stranger.id().into());
    let mut later = Worker::start(place.path());
    assert_eq!(later.ask("kept s"), "ok note");
    assert!(stranger.lives(), "a stranger was killed");
    let init = init_of(&place, "s");
    let mut stranger = Stranger::start_after(init);
    put_on_record(&place, "pid", &stranger.id().into());
    kill(init);
    assert_eq!(kind_of(&later.ask("close s 0")), "");
    assert!(stranger.lives(), "a stranger was killed");
    assert_eq!(later.ask("gc 0"), "ok 0");
    place.assert_empty();
}

fn put_on_record(place: &Place, field: &str, value: &serde_json::Value) {
    for container in entries(&place.path().join("state/containers")) {
        let path = container.join("state.json");
        let text = fs::read_to_string(&path).unwrap();
        let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(
            record.get(field).is_some(),
            "{field} is not on record: {text}"
        );
        record[field] = value.clone();
        let mut text = record.to_string();
        while text.len() < 1024 {
            text.push(' ');
        }
        fs::write(&path, text).unwrap();
    }
}

fn work(place: &Path, words: &[&str]) -> Option<String> {
    let place = place.to_owned();
    let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
    let running = std::thread::spawn(move || {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        block_on(answer(&place, &words))
    });
    running.join().unwrap()
}

async fn answer(place: &Path, words: &[&str]) -> Option<String> {
    let podkit = podkit_at(place).await;
    let spec = || SessionSpec::new().auto_stop(Limit::Off);
    let said = match words {
        ["limited", memory] => {
            let opening = podkit.session("u", "limited").spec(spec().memory(*memory));
            opening.await.map(|_| "open".to_owned())
        }
        ["limitations"] => Ok(podkit.capabilities().limitations.join("; ")),
        ["keep", session, text] => {
            async {
                let session = podkit.session("u", *session).spec(spec()).await?;
                session
                    .files()
                    .write("/workspace/note", (*text).to_owned())
                    .await?;
                Ok("kept".to_owned())
            }
            .await
        }
        ["kept", session] => {
            async {
                let session = podkit.session("u", *session).await?;
                let output = session.exec(["cat", "/workspace/note"]).await?;
                Ok(output.stdout_text())
            }
            .await
        }
        ["run", session, milliseconds, script @ ..] => {
            let (milliseconds, script) = (milliseconds.parse().unwrap(), script.join(" "));
            suspended::run(&podkit, session, milliseconds, &script).await
        }
        _ => return None,
    };
    Some(support::worker::tell(said))
}

fn main() -> ExitCode {
    if let Some(code) = main_if_asked(work) {
        return code;
    }
    let tests: &[(&str, fn())] = &[
        (
            "open_with_a_full_disk_is_an_error_and_leaves_nothing",
            open_with_a_full_disk_is_an_error_and_leaves_nothing,
        ),
        (
            "open_with_a_read_only_state_directory_is_an_error",
            open_with_a_read_only_state_directory_is_an_error,
        ),
        (
            "client_without_cgroups_states_what_it_cannot_limit",
            client_without_cgroups_states_what_it_cannot_limit,
        ),
        (
            "open_where_user_namespaces_are_forbidden_says_so",
            open_where_user_namespaces_are_forbidden_says_so,
        ),
        (
            "sessions_of_another_boot_start_again_with_their_files",
            sessions_of_another_boot_start_again_with_their_files,
        ),
        (
            "container_that_lost_its_socket_starts_again_with_its_files",
            container_that_lost_its_socket_starts_again_with_its_files,
        ),
        (
            "container_whose_pid_was_recycled_is_stopped_and_starts_again",
            container_whose_pid_was_recycled_is_stopped_and_starts_again,
        ),
        (
            "state_on_a_full_disk_holds_up_no_session_that_is_open",
            full::state_on_a_full_disk_holds_up_no_session_that_is_open,
        ),
        (
            "download_to_a_full_disk_is_typed_and_leaves_no_half_file",
            full::download_to_a_full_disk_is_typed_and_leaves_no_half_file,
        ),
        (
            "image_that_is_unpacked_on_a_full_disk_leaves_nothing",
            full::image_that_is_unpacked_on_a_full_disk_leaves_nothing,
        ),
        (
            "ids_that_cannot_be_put_on_record_are_not_used",
            full::ids_that_cannot_be_put_on_record_are_not_used,
        ),
        (
            "clients_and_containers_stopped_for_longer_than_silence_go_on",
            suspended::clients_and_containers_stopped_for_longer_than_silence_go_on,
        ),
        (
            "clients_whose_clocks_differ_share_sessions",
            suspended::clients_whose_clocks_differ_share_sessions,
        ),
    ];
    support::run(tests)
}
