//! How the agent comes in and is reached.

use std::{path::Path, time::Duration};

use podkit::{ErrorKind, GcOptions, Podkit, backend::connect::connect};

use super::{Engine, debian, run, support::options_at, support::worker::Worker, tests, text};

tests![
    volume_that_was_pruned_is_filled_again,
    volume_is_filled_once_by_several_at_once,
    volumes_of_other_versions_are_swept_and_ours_is_not,
    agent_in_the_container_cannot_be_replaced,
    agent_is_reached_through_the_engine_where_sockets_are_not_seen,
    sockets_of_a_container_go_with_it,
    inner_process_is_turned_away_at_the_clients_socket,
    way_in_through_the_engine_withstands_the_containers_root,
];

/// Whoever takes the agent's volume away must be alone on the engine.
fn alone(engine: &Engine) -> std::fs::File {
    let path = std::env::temp_dir().join(format!("podkit-test-volume-{}", engine.name));
    let file = std::fs::File::create(path).unwrap();
    file.lock().unwrap();
    file
}

fn volumes(engine: &Engine) -> Vec<String> {
    let listed = engine.run(&["volume", "ls", "-q", "--filter", "label=podkit.agent"]);
    listed.lines().map(str::to_owned).collect()
}

/// Takes the volume away: whether that was possible, since other tests' containers may use it.
fn prune(engine: &Engine) {
    for volume in volumes(engine) {
        engine.try_run(&["volume", "rm", &volume]);
    }
}

fn assert_no_filler(engine: &Engine) {
    let fillers = engine.run(&["ps", "-aq", "--filter", "label=podkit.agent"]);
    assert_eq!(fillers, "");
}

fn volume_that_was_pruned_is_filled_again(engine: &Engine) {
    let _alone = alone(engine);
    run(async {
        let session = engine.open(debian()).await.unwrap();
        let volume = text(&session, "ls -l /.podkit/agent").await;
        assert!(volume.contains("-r-xr-xr-x"), "{volume}");
        session.close().await.unwrap();
        prune(engine);
        let session = engine.open(debian()).await.unwrap();
        assert_eq!(text(&session, "echo hi").await, "hi\n");
        session.close().await.unwrap();
        assert_no_filler(engine);
    });
}

fn volume_is_filled_once_by_several_at_once(engine: &Engine) {
    let _alone = alone(engine);
    let mut workers: Vec<Worker> = (0..6).map(|_| Worker::start(engine.place.path())).collect();
    for round in 0..3 {
        prune(engine);
        for (number, worker) in workers.iter_mut().enumerate() {
            worker.tell(&format!("open s{number} 0"));
        }
        for worker in &mut workers {
            let answer = worker.answer();
            assert!(answer.starts_with("ok "), "round {round}: {answer}");
        }
        assert_no_filler(engine);
        for (number, worker) in workers.iter_mut().enumerate() {
            worker.tell(&format!("close s{number} 0"));
        }
        for worker in &mut workers {
            assert_eq!(worker.answer(), "ok true", "round {round}");
        }
    }
    assert!(engine.containers().is_empty());
}

fn volumes_of_other_versions_are_swept_and_ours_is_not(engine: &Engine) {
    let _alone = alone(engine);
    run(async {
        let podkit = engine.podkit().await;
        let session = podkit.session("u", "a").await.unwrap();
        session.close().await.unwrap();
        let kept = volumes(engine);
        let old = format!("podkit-agent-{}", engine.own_name("old"));
        engine.run(&["volume", "create", "--label", "podkit.agent=old", &old]);
        let foreign = engine.own_name("foreign");
        engine.run(&["volume", "create", "--label", "podkit.agent=x", &foreign]);
        let report = podkit.gc(GcOptions::new()).await.unwrap();
        assert!(report.swept.failed.is_empty(), "{report:?}");
        let left = volumes(engine);
        engine.try_run(&["volume", "rm", "-f", &foreign]);
        assert!(!left.contains(&old), "{left:?}");
        assert!(
            left.contains(&foreign),
            "one that is not named as ours was taken"
        );
        assert!(
            kept.iter().all(|volume| left.contains(volume)),
            "{kept:?} {left:?}"
        );
    });
}

fn agent_in_the_container_cannot_be_replaced(engine: &Engine) {
    run(async {
        let session = engine.open(debian()).await.unwrap();
        for attempt in [
            "rm /.podkit/agent",
            "cp /bin/true /.podkit/agent",
            "mv /.podkit /.x",
            "mount -o remount,rw /.podkit",
            "touch /.podkit-link/x",
            "mv /.podkit-link /.y",
            "kill -9 1; kill -STOP 1; sleep 0.1; grep -q 'T (stopped)' /proc/1/status",
        ] {
            let output = session.shell(attempt).await.unwrap();
            assert!(!output.outcome.is_success(), "`{attempt}` worked");
        }
        assert_eq!(text(&session, "echo hi").await, "hi\n");
    });
}

/// Another user of the engine, whose directory for sockets is another one.
async fn from_elsewhere(engine: &Engine, directory: &Path) -> Podkit {
    let mut options = options_at(engine.place.path());
    options.run_dir = Some(directory.join("run"));
    Podkit::builder()
        .backend(engine.name)
        .prefix(super::prefix_of(engine.place.path()))
        .connect_options(options)
        .build()
        .await
        .unwrap()
}

fn agent_is_reached_through_the_engine_where_sockets_are_not_seen(engine: &Engine) {
    run(async {
        let session = engine.open(debian()).await.unwrap();
        text(&session, "echo 1 > /root/x").await;
        let elsewhere = tempfile::tempdir().unwrap();
        let podkit = from_elsewhere(engine, elsewhere.path()).await;
        let again = podkit.session("u", "a").await.unwrap();
        assert_eq!(text(&again, "cat /root/x").await, "1\n");
        let big = again.shell("head -c 3000000 /dev/zero").await.unwrap();
        assert_eq!(big.stdout.len(), 3_000_000);
        let echoed = again
            .exec(["cat"])
            .stdin(vec![7_u8; 300_000])
            .await
            .unwrap();
        assert_eq!(echoed.stdout, vec![7_u8; 300_000]);
        let late = again
            .exec(["sleep", "60"])
            .timeout(Duration::from_millis(200))
            .await;
        assert_eq!(late.unwrap().outcome, podkit::Outcome::TimedOut);
        assert_eq!(
            again.boot_token().await.unwrap(),
            session.boot_token().await.unwrap()
        );
        // Both go on.
        assert_eq!(text(&session, "echo hi").await, "hi\n");
        podkit.shutdown().await;
    });
}

fn sockets_of_a_container_go_with_it(engine: &Engine) {
    run(async {
        let podkit = engine.podkit().await;
        let session = podkit.session("u", "a").await.unwrap();
        assert_eq!(engine.socket_directories().len(), 1);
        session.close().await.unwrap();
        assert!(engine.socket_directories().is_empty());
        // One that went with the machine's last life is made again.
        let session = podkit.session("u", "c").await.unwrap();
        session.stop(Duration::ZERO).await.unwrap();
        std::fs::remove_dir(&engine.socket_directories()[0]).unwrap();
        assert_eq!(text(&session, "echo hi").await, "hi\n");
        session.close().await.unwrap();
        assert!(engine.socket_directories().is_empty());
        // One whose container others have removed goes with the next sweep.
        podkit.session("u", "b").await.unwrap();
        engine.run(&["rm", "-f", &engine.containers()[0]]);
        assert_eq!(engine.socket_directories().len(), 1);
        let backend = connect(engine.name, &options_at(engine.place.path()))
            .await
            .unwrap();
        backend.sweep(Duration::ZERO).await.unwrap();
        assert!(engine.socket_directories().is_empty());
    });
}

fn inner_process_is_turned_away_at_the_clients_socket(engine: &Engine) {
    run(async {
        let session = engine.open(debian()).await.unwrap();
        // It connects to whatever appears, before or beside the agent.
        let script = "import os,socket,time\nend=time.time()+20\nwhile time.time()<end:\n \
            for n in os.listdir('/.podkit-link'):\n  s=socket.socket(socket.AF_UNIX)\n  \
            try:\n   s.connect('/.podkit-link/'+n)\n   s.send(b'x'*64)\n  except OSError: pass\n";
        let handle = session
            .exec(["python3", "-c", script])
            .stream()
            .await
            .unwrap();
        for round in 0..10 {
            let stranger = engine.podkit().await;
            let again = stranger.session("u", "a").await.unwrap();
            assert_eq!(text(&again, "echo hi").await, "hi\n", "round {round}");
            stranger.shutdown().await;
        }
        drop(handle);
    });
}

/// Tries its argument on each process that passes the bytes of a client through the engine, and says how
/// often it met one and how often it got in.
const AT_EACH_WAY_IN: &str = r#"
import os, signal, sys
found, entered = 0, 0
for pid in filter(str.isdigit, os.listdir('/proc')):
    try:
        if b'agent\0connect' not in open(f'/proc/{pid}/cmdline', 'rb').read(): continue
        found += 1
        if sys.argv[1] in ('mem', 'environ', 'fd'):
            if sys.argv[1] == 'fd': open(f'/proc/{pid}/fd/1', 'wb').write(b'x')
            else: open(f'/proc/{pid}/{sys.argv[1]}', 'rb').read(1)
            entered += 1
        else:
            os.kill(int(pid), getattr(signal, sys.argv[1]))
    except OSError: pass
print(found, entered)
"#;

fn way_in_through_the_engine_withstands_the_containers_root(engine: &Engine) {
    run(async {
        let session = engine.open(debian()).await.unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let podkit = from_elsewhere(engine, elsewhere.path()).await;
        let again = podkit.session("u", "a").await.unwrap();
        let attack = async |what: &str| {
            let argv = ["python3", "-c", AT_EACH_WAY_IN, what];
            let output = session.exec(argv).await.unwrap();
            output.check().unwrap().stdout_text()
        };
        for what in ["mem", "environ", "fd"] {
            assert_eq!(attack(what).await, "1 0\n", "{what}");
        }
        for signal in ["SIGKILL", "SIGSTOP"] {
            let running = super::long_command(&again).await;
            assert_eq!(attack(signal).await, "1 0\n", "{signal}");
            let bound = Duration::from_secs(10);
            let next = again.exec(["echo", "hi"]).into_future();
            let next = tokio::time::timeout(bound, next).await.unwrap();
            match (signal, next) {
                ("SIGKILL", Ok(output)) => assert!(output.outcome.is_success()),
                (_, next) => assert_eq!(next.unwrap_err().kind(), ErrorKind::AgentUnreachable),
            }
            let end = tokio::time::timeout(bound, running.wait()).await.unwrap();
            assert_eq!(
                end.unwrap_err().kind(),
                ErrorKind::AgentUnreachable,
                "{signal}"
            );
        }
        // The way is taken anew.
        assert_eq!(text(&again, "echo hi").await, "hi\n");
    });
}
