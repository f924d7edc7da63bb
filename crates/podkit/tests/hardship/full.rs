//! Disks of this machine that are full while sessions are open.

use std::{fs, path::Path, process::Command, time::Duration};

use podkit::{ErrorKind, Limit, SessionKey, SessionSpec};

use super::{
    Disk, kind_of,
    support::{Place, block_on, entries, host::Snapshot, worker::Worker},
};

const BLOCK: u64 = 4096;

fn spec() -> SessionSpec {
    SessionSpec::new().auto_stop(Limit::Off)
}

fn key() -> SessionKey {
    SessionKey::new("u", "a").unwrap()
}

/// A result, which may have failed for want of room alone.
fn assert_full_or_fine<T>(result: podkit::Result<T>, about: &str) {
    if let Err(error) = result {
        assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{about}: {error:?}");
    }
}

pub(super) fn state_on_a_full_disk_holds_up_no_session_that_is_open() {
    let place = Place::new();
    let disk = Disk::new(place.path().join("state"), 8 * 1024);
    let before = block_on(async {
        let podkit = place.podkit().await;
        podkit.session("u", "a").await.unwrap();
        podkit.close(&key()).await.unwrap();
        Snapshot::take(place.path())
    });
    block_on(async {
        for blocks in [0, 1, 3] {
            let about = format!("{blocks} blocks");
            let podkit = place.podkit().await;
            let session = podkit.session("u", "a").spec(spec()).await.unwrap();
            session.files().write("note", "kept").await.unwrap();
            disk.fill(blocks * BLOCK);
            let output = session.exec(["echo", "hi"]).await.unwrap();
            assert_eq!(output.stdout, b"hi\n", "{about}");
            let written = session.files().write("big", vec![7; 100_000]).await;
            let error = written.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error:?}");
            session.pause().await.unwrap();
            session.exec(["true"]).await.unwrap().check().unwrap();
            let change = podkit::LimitChange::new().pids_max(300);
            assert_full_or_fine(session.set_limits(change).await, &about);
            assert_full_or_fine(session.spawn(["true"]).await, &about);
            // It stops, and another client finds it and what it was.
            session.stop(Duration::ZERO).await.unwrap();
            let other = place.podkit().await;
            assert_full_or_fine(other.session("u", "a").await, &about);
            fs::remove_file(disk.path.join("filler")).unwrap();
            let again = place.podkit().await.session("u", "a").await.unwrap();
            let names = again.files().list("/workspace").await.unwrap();
            let names: Vec<_> = names.iter().map(|entry| entry.name.as_str()).collect();
            assert_eq!(names, ["note"], "{about}");
            disk.fill(blocks * BLOCK);
            let report = podkit.close(&key()).await.unwrap();
            assert!(report.existed && report.failed.is_empty(), "{report:?}");
            assert!(podkit.list().await.unwrap().is_empty(), "{about}");
            fs::remove_file(disk.path.join("filler")).unwrap();
            before.assert_same(place.path(), &about);
        }
    });
}

pub(super) fn download_to_a_full_disk_is_typed_and_leaves_no_half_file() {
    let place = Place::new();
    let disk = Disk::new(place.path().join("here"), 256);
    block_on(async {
        let podkit = place.podkit().await;
        let session = podkit.session("u", "a").await.unwrap();
        let files = session.files();
        for name in ["t/a", "t/d/b", "t/d/c", "t/e"] {
            files.write(name, vec![7; 20_000]).await.unwrap();
        }
        for blocks in [0, 1, 2, 4, 8, 16] {
            disk.fill(blocks * BLOCK);
            let to = disk.path.join("t");
            let tree = files.download("t", &to).await.map(drop);
            let error = tree.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error:?}");
            assert_whole(&to);
            let _ = fs::remove_dir_all(&to);
            disk.fill(blocks.min(4) * BLOCK);
            let one = files.download("t/a", &disk.path.join("one")).await;
            let error = one.map(drop).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error:?}");
            let names = entries(&disk.path);
            assert_eq!(names, [disk.path.join("filler")], "{blocks} blocks");
        }
        fs::remove_file(disk.path.join("filler")).unwrap();
        let whole = files.download("t", &disk.path.join("t")).await.unwrap();
        assert_eq!(whole.check().unwrap().bytes, 80_000);
        session.close().await.unwrap();
    });
    place.assert_empty();
}

/// Every file below is as long as it was in the container.
fn assert_whole(directory: &Path) {
    for path in entries(directory) {
        if path.is_dir() {
            assert_whole(&path);
        } else {
            let length = fs::metadata(&path).unwrap().len();
            assert_eq!(length, 20_000, "{}", path.display());
        }
    }
}

pub(super) fn image_that_is_unpacked_on_a_full_disk_leaves_nothing() {
    let place = Place::new();
    let disk = Disk::new(place.path().join("state"), 8 * 1024);
    let root = place.path().join("root");
    fs::create_dir_all(root.join("usr/bin")).unwrap();
    for number in 0..20 {
        fs::write(root.join(format!("usr/bin/{number}")), vec![7; 50_000]).unwrap();
    }
    let archive = place.path().join("image.tar");
    let made = Command::new("tar")
        .arg("-cf")
        .arg(&archive)
        .arg("-C")
        .arg(&root)
        .arg(".")
        .status();
    assert!(made.unwrap().success());
    let image = format!("tar:{}", archive.display());
    block_on(async {
        let podkit = place.podkit().await;
        podkit
            .session("u", "a")
            .await
            .unwrap()
            .close()
            .await
            .unwrap();
        let before = Snapshot::take(place.path());
        for blocks in [8, 40, 100, 200] {
            disk.fill(blocks * BLOCK);
            let spec = spec().image(&image);
            let opened = place.podkit().await.session("u", "a").spec(spec).await;
            let error = opened.map(drop).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{error:?}");
            fs::remove_file(disk.path.join("filler")).unwrap();
            podkit.close(&key()).await.unwrap();
            podkit.gc(podkit::GcOptions::new()).await.unwrap();
            before.assert_same(place.path(), &format!("{blocks} blocks"));
        }
        let spec = spec().image(&image);
        let session = podkit.session("u", "a").spec(spec).await.unwrap();
        let found = session.files().stat("/usr/bin/19").await.unwrap();
        assert_eq!(found.size_bytes, 50_000);
        session.close().await.unwrap();
    });
    place.assert_empty();
}

/// There is no room for the name of one more range of ids, in a mount namespace of the client's own.
pub(super) fn ids_that_cannot_be_put_on_record_are_not_used() {
    let place = Place::new();
    assert_eq!(kind_of(&Worker::start(place.path()).ask("open s 0")), "");
    assert_eq!(kind_of(&Worker::start(place.path()).ask("close s 0")), "");
    let before = Snapshot::take(place.path());
    let directory = "/var/lib/podkit/uid-ranges";
    for (option, fill) in [
        ("nr_inodes=1", "true".to_owned()),
        (
            "size=4k",
            format!("head -c 4096 /dev/zero >{directory}/filler"),
        ),
    ] {
        let full = format!("mount -t tmpfs -o {option} none {directory}; {fill}");
        let mut worker = Worker::try_start_in(place.path(), &["--mount"], &full)
            .unwrap_or_else(|answer| panic!("{answer}"));
        let answer = worker.ask("open s 0");
        assert_eq!(kind_of(&answer), "limit_exceeded", "{answer}");
        worker.kill();
        before.assert_same(place.path(), option);
    }
    assert_eq!(kind_of(&Worker::start(place.path()).ask("open s 0")), "");
    assert_eq!(kind_of(&Worker::start(place.path()).ask("close s 0")), "");
}
