//! Files: what is written comes back, under the session's user.

use std::collections::BTreeMap;

use super::{
    lab::{Lab, assert_kind, assert_no_such_id, eventually, shell, text},
    table,
};
use crate::{ErrorKind, FileKind, Outcome, SessionSpec, WriteOptions};

table!["files":
    Containers files_write_then_read_is_the_same,
    Programs files_binary_survives_in_every_length,
    Programs files_modes_and_parents_are_as_asked,
    Programs files_append_adds_and_makes,
    Programs files_list_and_stat_tell_what_is_there,
    Programs files_rename_replaces_in_one_step,
    Programs files_rename_to_what_is_in_use_is_a_conflict,
    Programs files_remove_takes_what_it_says_and_no_more,
    Programs files_write_replaces_at_once,
    Programs files_belong_to_the_session_user,
    Programs files_names_may_be_odd,
    Programs files_calls_at_once_do_not_mix,
];

async fn files_write_then_read_is_the_same(lab: Lab) {
    let session = lab.open("a").await;
    let all: Vec<u8> = (0..=255).collect();
    session.files().write("a.bin", all.clone()).await.unwrap();
    assert_eq!(session.files().read("a.bin").await.unwrap(), all);
    assert!(session.files().exists("a.bin").await.unwrap());
    session.files().remove("a.bin").await.unwrap();
    assert!(!session.files().exists("a.bin").await.unwrap());
    assert_kind(
        session.files().read("a.bin").await,
        ErrorKind::NotFound,
        "read what is gone",
    );
}

async fn files_binary_survives_in_every_length(lab: Lab) {
    let session = lab.open("a").await;
    // Around the sizes of frames and windows.
    for length in [
        0, 1, 65_535, 65_536, 65_537, 262_143, 262_144, 262_145, 1_000_003,
    ] {
        let bytes: Vec<u8> = (0..=250).cycle().take(length).collect();
        session.files().write("f", bytes.clone()).await.unwrap();
        assert!(
            session.files().read("f").await.unwrap() == bytes,
            "{length} bytes"
        );
        let size = session.files().stat("f").await.unwrap().size_bytes;
        assert_eq!(size, u64::try_from(length).unwrap());
        let output = shell(&session, "wc -c <f").await;
        assert_eq!(output.stdout_text().trim(), length.to_string());
    }
}

async fn files_modes_and_parents_are_as_asked(lab: Lab) {
    let session = lab.open("a").await;
    let files = session.files();
    files.write("plain", "x").await.unwrap();
    assert_eq!(files.stat("plain").await.unwrap().mode & 0o777, 0o644);
    for mode in [0o600, 0o755, 0o777, 0o400] {
        let options = WriteOptions::new().with_mode(mode);
        files
            .write_with("m", options, b"x".as_slice())
            .await
            .unwrap();
        assert_eq!(
            files.stat("m").await.unwrap().mode & 0o7777,
            mode,
            "{mode:o}"
        );
    }
    // An existing file keeps its mode.
    files.write("m", "y").await.unwrap();
    assert_eq!(files.stat("m").await.unwrap().mode & 0o7777, 0o400);
    files.write("new/deep/er", "x").await.unwrap();
    assert_eq!(text(&session, "cat new/deep/er").await, "x");
    let options = WriteOptions::new().with_parents(false);
    let result = files
        .write_with("other/deep", options, b"x".as_slice())
        .await;
    assert_kind(result, ErrorKind::NotFound, "no parents");
    assert_kind(
        files.write("plain/below", "x").await.map(drop),
        ErrorKind::InvalidInput,
        "below a file",
    );
    assert_kind(
        files.make_dir("x/y").await,
        ErrorKind::NotFound,
        "make_dir without parents",
    );
    files.make_dir("x").await.unwrap();
    assert_kind(
        files.make_dir("x").await,
        ErrorKind::AlreadyExists,
        "make_dir twice",
    );
    files.make_dir_all("x/y/z").await.unwrap();
    files.make_dir_all("x/y/z").await.unwrap();
    assert_eq!(files.stat("x/y/z").await.unwrap().kind, FileKind::Directory);
}

async fn files_append_adds_and_makes(lab: Lab) {
    let session = lab.open("a").await;
    for part in ["one,", "two,", "three"] {
        session.files().append("log", part).await.unwrap();
    }
    assert_eq!(session.files().read("log").await.unwrap(), b"one,two,three");
}

async fn files_list_and_stat_tell_what_is_there(lab: Lab) {
    let session = lab.open("a").await;
    let make = "mkdir d d/sub; printf 12345 >d/file; ln -s nowhere d/link; mkfifo d/fifo; \
        chmod 4711 d/file; touch -d @1000000000 d/file";
    text(&session, make).await;
    let chown = shell(&session, "chown 12:34 d/file").await;
    let owner = if lab.has_one_id() {
        assert_eq!(chown.outcome, Outcome::Exited(1), "nobody is there to own");
        (0, 0)
    } else {
        assert_eq!(chown.outcome, Outcome::Exited(0));
        (12, 34)
    };
    let entries = session.files().list("d").await.unwrap();
    let kinds: BTreeMap<_, _> = entries
        .iter()
        .map(|entry| (entry.name.clone(), entry.kind))
        .collect();
    let expected = [
        ("fifo", FileKind::Other),
        ("file", FileKind::File),
        ("link", FileKind::Symlink),
        ("sub", FileKind::Directory),
    ];
    assert_eq!(
        kinds,
        expected
            .into_iter()
            .map(|(name, kind)| (name.into(), kind))
            .collect()
    );
    let file = session.files().stat("d/file").await.unwrap();
    assert_eq!(
        (file.kind, file.size_bytes, file.mode),
        (FileKind::File, 5, 0o4711 & file.mode | 0o711)
    );
    assert_eq!((file.uid, file.gid), owner);
    let seconds = file
        .modified
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert_eq!(seconds, 1_000_000_000);
    assert!(session.files().list("d/sub").await.unwrap().is_empty());
    assert_kind(
        session.files().list("d/file").await,
        ErrorKind::InvalidInput,
        "list a file",
    );
    assert_kind(
        session.files().list("none").await,
        ErrorKind::NotFound,
        "list nothing",
    );
    assert_kind(
        session.files().stat("none").await,
        ErrorKind::NotFound,
        "stat nothing",
    );
    // A directory with more entries than fit into one answer.
    text(
        &session,
        "mkdir many; cd many; i=0; while [ $i -lt 3000 ]; do : >entry-$i; i=$((i+1)); done",
    )
    .await;
    assert_eq!(session.files().list("many").await.unwrap().len(), 3000);
}

async fn files_rename_replaces_in_one_step(lab: Lab) {
    let session = lab.open("a").await;
    let files = session.files();
    files.write("a", "a").await.unwrap();
    files.write("b", "b").await.unwrap();
    files.rename("a", "b").await.unwrap();
    assert_eq!(files.read("b").await.unwrap(), b"a");
    assert!(!files.exists("a").await.unwrap());
    assert_kind(
        files.rename("a", "c").await,
        ErrorKind::NotFound,
        "nothing to rename",
    );
    files.make_dir("d").await.unwrap();
    files.rename("b", "d/b").await.unwrap();
    files.rename("d", "e").await.unwrap();
    assert_eq!(files.read("e/b").await.unwrap(), b"a");
}

async fn files_rename_to_what_is_in_use_is_a_conflict(lab: Lab) {
    let session = lab.open("a").await;
    let files = session.files();
    files.write("a", "a").await.unwrap();
    files.make_dir("d").await.unwrap();
    for (from, taken) in [("a", "/"), ("d", "/"), ("d", "/proc")] {
        assert_kind(files.rename(from, taken).await, ErrorKind::Conflict, taken);
    }
    assert_eq!(files.read("a").await.unwrap(), b"a");
}

async fn files_remove_takes_what_it_says_and_no_more(lab: Lab) {
    let session = lab.open("a").await;
    let files = session.files();
    text(&session, "mkdir -p keep tree/a/b; echo x >keep/file; echo x >tree/a/f; ln -s ../keep tree/link; ln -s keep alias").await;
    let result = files.remove("tree").await;
    assert!(result.is_err(), "a directory that is not empty");
    assert_eq!(text(&session, "ls tree").await, "a\nlink\n");
    files.remove_all("tree").await.unwrap();
    assert!(!files.exists("tree").await.unwrap());
    assert!(
        files.exists("keep/file").await.unwrap(),
        "a link was followed"
    );
    files.remove("alias").await.unwrap();
    assert!(
        files.exists("keep/file").await.unwrap(),
        "a link was followed"
    );
    files.make_dir("empty").await.unwrap();
    files.remove("empty").await.unwrap();
    assert_kind(
        files.remove("none").await,
        ErrorKind::NotFound,
        "nothing to remove",
    );
    // A deep tree, deeper than paths are long.
    let deep = "mkdir deep; (cd deep; i=0; while [ $i -lt 1200 ]; do mkdir dddd; cd -P dddd 2>/dev/null || break; i=$((i+1)); done)";
    shell(&session, deep).await;
    files.remove_all("deep").await.unwrap();
    assert!(!files.exists("deep").await.unwrap());
}

/// A reader sees the old bytes or the new ones, and a write that was given up changes nothing.
async fn files_write_replaces_at_once(lab: Lab) {
    let session = lab.open("a").await;
    let files = session.files();
    let (old, new) = (vec![b'o'; 600_000], vec![b'n'; 600_000]);
    files.write("f", old.clone()).await.unwrap();
    let writer = async {
        for bytes in [&new, &old].into_iter().cycle().take(20) {
            files.write("f", bytes.clone()).await.unwrap();
        }
    };
    let reader = async {
        for _ in 0..20 {
            let seen = session.files().read("f").await.unwrap();
            assert!(seen == old || seen == new, "a mixture was read");
        }
    };
    tokio::join!(writer, reader);
    files.write("f", old.clone()).await.unwrap();
    let (mut feed, source) = tokio::io::duplex(1024);
    let writing = session.files();
    {
        let write = writing.write_with("f", WriteOptions::new(), source);
        let feeding = async {
            tokio::io::AsyncWriteExt::write_all(&mut feed, &[b'x'; 100_000])
                .await
                .unwrap();
        };
        tokio::select! {
            result = write => panic!("must wait for more: {result:?}"),
            () = feeding => {}
        }
    }
    eventually("what was begun is cleared away", || async {
        let names = text(&session, "ls -A").await;
        (names == "f\n").then_some(())
    })
    .await;
    assert!(
        files.read("f").await.unwrap() == old,
        "a write that was given up left a trace"
    );
}

async fn files_belong_to_the_session_user(lab: Lab) {
    let session = lab
        .open_with("a", SessionSpec::new().user("1234:4321").cwd("/tmp"))
        .await;
    if lab.has_one_id() {
        // Nothing is done under another user instead.
        let files = session.files();
        assert_no_such_id(files.write("/tmp/mine", "x").await.map(drop), "4321");
        assert_no_such_id(files.append("/tmp/mine", "x").await.map(drop), "4321");
        assert_no_such_id(files.make_dir("/tmp/dir").await, "4321");
        assert_no_such_id(files.read("/etc/passwd").await, "4321");
        assert_no_such_id(session.exec(["true"]).await, "4321");
        let list = session.shell("ls -A /tmp").user("root").await.unwrap();
        assert_eq!(list.check().unwrap().stdout_text(), "");
        return;
    }
    session.files().write("/tmp/mine", "x").await.unwrap();
    let stat = session.files().stat("/tmp/mine").await.unwrap();
    assert_eq!((stat.uid, stat.gid), (1234, 4321));
    let script = "mkdir /tmp/closed; echo s >/tmp/closed/secret; echo s >/tmp/secret; chmod 700 /tmp/closed; chmod 600 /tmp/secret";
    session
        .shell(script)
        .user("root")
        .await
        .unwrap()
        .check()
        .unwrap();
    let files = session.files();
    let denied = ErrorKind::PermissionDenied;
    assert_kind(files.read("/tmp/secret").await, denied, "read");
    assert_kind(files.read("/tmp/closed/secret").await, denied, "read below");
    assert_kind(
        files.append("/tmp/secret", "x").await.map(drop),
        denied,
        "append",
    );
    assert_kind(files.list("/tmp/closed").await, denied, "list");
    assert_kind(
        files.write("/etc/passwd", "x").await.map(drop),
        denied,
        "write",
    );
    assert_kind(files.make_dir("/etc/mine").await, denied, "make_dir");
    assert_kind(files.remove("/etc/passwd").await, denied, "remove");
}

async fn files_names_may_be_odd(lab: Lab) {
    let session = lab.open("a").await;
    for name in ["with space", "-rf", "é中", "new\nline", "*", "$HOME", "..."] {
        session.files().write(name, name).await.unwrap();
        assert_eq!(session.files().read(name).await.unwrap(), name.as_bytes());
    }
    assert_eq!(session.files().list(".").await.unwrap().len(), 7);
    for path in ["a\0b", ""] {
        assert_kind(
            session.files().read(path).await,
            ErrorKind::InvalidInput,
            "bad path",
        );
    }
    let long = "x".repeat(300);
    assert!(session.files().write(&long, "x").await.is_err());
    assert!(session.files().read(&"x/".repeat(3000)).await.is_err());
}

async fn files_calls_at_once_do_not_mix(lab: Lab) {
    let session = lab.open("a").await;
    let calls = (0..32_u8).map(|number| {
        let files = session.files();
        async move {
            let (name, bytes) = (format!("f{number}"), vec![number; 200_000]);
            files.write(&name, bytes.clone()).await.unwrap();
            assert!(files.read(&name).await.unwrap() == bytes);
        }
    });
    futures::future::join_all(calls).await;
}
