//! The futures of the public API can be spawned: a compile-time promise.

use std::time::Duration;

use podkit::{
    EventStream, GcOptions, LimitChange, Podkit, Process, RunOnce, Session, SessionKey,
    SessionSpec, StatsStream, WriteOptions,
};

fn spawnable<T: Send>(_: &T) {}

/// Never called: that it compiles is the test.
fn check_session(session: &Session) {
    let files = session.files();
    spawnable(&async { session.exec(["true"]).await });
    spawnable(&async { session.exec(["true"]).stream().await });
    spawnable(&async { session.touch().await });
    spawnable(&async { session.info().await });
    spawnable(&async { session.stop(Duration::ZERO).await });
    spawnable(&async { session.close().await });
    spawnable(&async { session.boot_token().await });
    spawnable(&async { files.read("a").await });
    spawnable(&async { files.reader("a").await });
    spawnable(&async { files.write("a", "b").await });
    spawnable(&async {
        files
            .write_with("a", WriteOptions::new(), b"b".as_slice())
            .await
    });
    spawnable(&async { files.append("a", "b").await });
    spawnable(&async { files.list("a").await });
    spawnable(&async { files.stat("a").await });
    spawnable(&async { files.exists("a").await });
    spawnable(&async { files.make_dir("a").await });
    spawnable(&async { files.make_dir_all("a").await });
    spawnable(&async { files.rename("a", "b").await });
    spawnable(&async { files.remove("a").await });
    spawnable(&async { files.remove_all("a").await });
    spawnable(&async { files.upload("a", "b").await });
    spawnable(&async { files.download("a", "b").await });
    spawnable(&async { files.archive("a").await });
    spawnable(&async { files.extract("a", b"b".as_slice()).await });
    spawnable(&async { files.watch("a", true).await });
    spawnable(&async { files.disk_usage("a").await });
}

fn check_processes(session: &Session, process: &Process) {
    spawnable(&async { session.spawn(["true"]).await });
    spawnable(&async { session.processes().await });
    spawnable(&async { process.info().await });
    spawnable(&async { process.wait().await });
    spawnable(&async { process.signal(1).await });
    spawnable(&async { process.kill().await });
    spawnable(&async { process.stop(Duration::ZERO).await });
    spawnable(&async { process.set_keep_alive(true).await });
    spawnable(&async { process.forget().await });
    spawnable(&async { process.logs().await });
    spawnable(&async { process.logs().stream().await });
    spawnable(&async { process.attach(None).await });
    spawnable(&async { process.wait_for_log("a", Duration::ZERO).await });
}

fn check_resources(session: &Session, stats: &mut StatsStream, events: &mut EventStream) {
    spawnable(&async { session.stats().await });
    spawnable(&async { session.pause().await });
    spawnable(&async { session.resume().await });
    spawnable(&async { session.set_limits(LimitChange::new()).await });
    spawnable(&async { stats.next().await });
    spawnable(&async { events.next().await });
}

fn check_ports(session: &Session) {
    let local = ([127, 0, 0, 1], 0).into();
    spawnable(&async { session.ports().await });
    spawnable(&async { session.url(80).await });
    spawnable(&async { session.listening_ports().await });
    spawnable(&async { session.wait_for_port(80, Duration::ZERO).await });
    spawnable(&async { session.connect_port(80).await });
    spawnable(&async { session.forward_port(local, 80).await });
}

fn check_podkit(podkit: &Podkit, key: &SessionKey) {
    spawnable(&async { Podkit::connect("auto").await });
    spawnable(&async { podkit.session("a", "b").await });
    spawnable(&async { podkit.list().await });
    spawnable(&async { podkit.inspect(key).await });
    spawnable(&async { podkit.close(key).await });
    spawnable(&async { podkit.gc(GcOptions::new()).await });
    spawnable(&async {
        podkit
            .run_once(SessionSpec::new(), RunOnce::new(["true"]))
            .await
    });
    spawnable(&async { podkit.stats(key).await });
    spawnable(&async { podkit.pause(key).await });
    spawnable(&async { podkit.shutdown().await });
}

#[test]
fn futures_of_the_public_api_can_be_spawned() {
    // That they compile is the test.
    let _: fn(&Session) = check_session;
    let _: fn(&Session, &Process) = check_processes;
    let _: fn(&Session, &mut StatsStream, &mut EventStream) = check_resources;
    let _: fn(&Session) = check_ports;
    let _: fn(&Podkit, &SessionKey) = check_podkit;
}
