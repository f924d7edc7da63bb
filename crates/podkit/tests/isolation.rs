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
    Isolation, Mount, Outcome, Session, SessionSpec, Workspace,
    conformance::{ATTACKS, Stage, build_programs},
};
use support::{Place, block_on, host, wait_for};

/// Controls that must have shown their attack, whatever the kernel was built without.
const LEAST_SHOWN: usize = 40;

fn attacks_succeed_in_their_control_runs() {
    let place = Place::new();
    let programs = place.path().join("attacks");
    build_programs(&programs);
    let stage = Stage::new(place.path());
    let (mut shown, mut wrong) = (0, Vec::new());
    for attack in ATTACKS {
        match stage.control(attack, &programs).as_str() {
            "ok" => shown += 1,
            absent @ ("ENOSYS" | "ENOENT" | "EAFNOSUPPORT") if attack.optional => {
                println!(
                    "{}: this kernel has nothing to attack: {absent}",
                    attack.about
                );
            }
            said => wrong.push(format!("{}: {said}", attack.about)),
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
    build_programs(&programs);
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
        let plant = "for d in /data /workspace; do cp /attacks/processes $d/planted; \
            chown 0:0 $d/planted; chmod 6755 $d/planted; done; :";
        session.shell(plant).await.unwrap().check().unwrap();
        for planted in [
            data.join("planted"),
            place.path().join("workspaces/u/armed/planted"),
        ] {
            assert!(planted.exists(), "{}", planted.display());
            let said = as_ordinary_user(&planted, "became_root");
            assert_ne!(said, "ok", "{} gives root on the host", planted.display());
        }
        session.close().await.unwrap();
    });
    // The control: where a set-id file of root's is followed, the program says so.
    let control = place.path().join("control");
    fs::copy(place.path().join("attacks/processes"), &control).unwrap();
    fs::set_permissions(&control, fs::Permissions::from_mode(0o4755)).unwrap();
    assert_eq!(as_ordinary_user(&control, "became_root"), "ok");
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
            "timeout_ends_every_process_of_a_stubborn_command",
            timeout_ends_every_process_of_a_stubborn_command,
        ),
    ];
    support::run(tests)
}
