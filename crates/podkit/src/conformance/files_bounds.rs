//! Files: links, special files, sizes – what a hostile container may prepare.

use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::{
    lab::{Lab, assert_kind, assert_no_such_id, text},
    table,
};
use crate::{ErrorKind, Mount, SessionSpec, Workspace, WriteOptions};

table!["files":
    Programs files_links_out_of_the_container_stay_inside,
    Programs files_special_files_are_typed_and_never_hang,
    Programs files_large_stream_is_bounded_and_equal,
    Programs files_read_of_endless_file_is_limit_exceeded,
    Programs files_on_read_only_places_are_permission_denied,
    Programs files_workspace_is_usable_on_both_sides,
    Programs files_workspace_links_lead_the_host_nowhere,
];

async fn files_links_out_of_the_container_stay_inside(lab: Lab) {
    let secret = lab.directory().join("secret");
    std::fs::write(&secret, "of the host").unwrap();
    let session = lab.open("a").await;
    let path = secret.to_str().unwrap();
    let script = format!(
        "ln -s {path} absolute; ln -s ../../../../../../../../../..{path} up; \
         ln -s /proc/1/root{path} magic; ln -s /proc/self/root{path} own; ln -s loop loop; \
         ln -s / root"
    );
    text(&session, &script).await;
    let files = session.files();
    for link in ["absolute", "up", "magic", "own", "loop"] {
        assert!(files.read(link).await.is_err(), "{link} was read");
    }
    let through = format!("root{path}");
    assert!(
        files.read(&through).await.is_err(),
        "a link in the middle led out"
    );
    let outside = format!("/workspace/../../../..{path}");
    assert!(files.read(&outside).await.is_err(), "dots led out");
    for link in ["absolute", "up", "magic", "own"] {
        let options = WriteOptions::new().with_parents(true);
        let _ = files
            .write_with(link, options, b"overwritten".as_slice())
            .await;
    }
    assert_eq!(std::fs::read(&secret).unwrap(), b"of the host");
    // Links that stay inside are followed as everywhere.
    text(&session, "echo inside >target; ln -s target inner").await;
    assert_eq!(files.read("inner").await.unwrap(), b"inside\n");
}

async fn files_special_files_are_typed_and_never_hang(lab: Lab) {
    let session = lab.open("a").await;
    text(&session, "mkdir d; mkfifo fifo; ln -s fifo link").await;
    let files = session.files();
    let calls = async {
        assert_kind(
            files.read("d").await,
            ErrorKind::InvalidInput,
            "read a directory",
        );
        assert_kind(
            files.read("fifo").await,
            ErrorKind::InvalidInput,
            "read a FIFO",
        );
        assert_kind(
            files.read("link").await,
            ErrorKind::InvalidInput,
            "read a link to a FIFO",
        );
        assert_kind(
            files.append("fifo", "x").await.map(drop),
            ErrorKind::InvalidInput,
            "append to a FIFO",
        );
        assert_kind(
            files.write("d", "x").await.map(drop),
            ErrorKind::InvalidInput,
            "write a directory",
        );
        // A FIFO as the list of users stalls nothing.
        session
            .shell("mv /etc/passwd /etc/kept; mkfifo /etc/passwd")
            .await
            .unwrap();
        let number = session.exec(["echo", "x"]).user("7").await;
        if lab.has_one_id() {
            assert_no_such_id(number, "7");
        } else {
            assert_eq!(number.unwrap().stdout, b"x\n");
        }
        let root = session.exec(["echo", "x"]).user("0").await;
        assert_eq!(root.unwrap().stdout, b"x\n");
        assert!(session.exec(["true"]).user("nobody").await.is_err());
        session
            .shell("rm /etc/passwd; mv /etc/kept /etc/passwd")
            .await
            .unwrap();
    };
    tokio::time::timeout(Duration::from_secs(10), calls)
        .await
        .expect("a call hung");
}

async fn files_large_stream_is_bounded_and_equal(lab: Lab) {
    const SIZE: usize = 64 << 20;
    let session = lab.open("a").await;
    let pattern: Vec<u8> = (0..1_048_573_u32)
        .map(|n| (n % 251).to_le_bytes()[0])
        .collect();
    let (mut feed, source) = tokio::io::duplex(1 << 16);
    let feeding = async {
        let mut left = SIZE;
        while left > 0 {
            let part = pattern.get(..left.min(pattern.len())).unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut feed, part)
                .await
                .unwrap();
            left -= part.len();
        }
        drop(feed);
    };
    let files = session.files();
    let writing = async {
        files
            .write_with("big", WriteOptions::new(), source)
            .await
            .unwrap()
    };
    tokio::join!(feeding, writing);
    assert_eq!(files.stat("big").await.unwrap().size_bytes, SIZE as u64);
    let mut reader = files.reader("big").await.unwrap();
    let (mut seen, mut buffer) = (0, vec![0; 1 << 16]);
    loop {
        let got = reader.read(&mut buffer).await.unwrap();
        if got == 0 {
            break;
        }
        for (offset, byte) in buffer.iter().take(got).enumerate() {
            let at = (seen + offset) % pattern.len();
            assert_eq!(Some(byte), pattern.get(at), "at {}", seen + offset);
        }
        seen += got;
    }
    assert_eq!(seen, SIZE);
}

async fn files_read_of_endless_file_is_limit_exceeded(lab: Lab) {
    let session = lab.open("a").await;
    // A sparse file of 1 TiB; and a device without an end.
    text(
        &session,
        "truncate -s 1T sparse || dd if=/dev/null of=sparse bs=1 seek=1T 2>/dev/null",
    )
    .await;
    assert_kind(
        session.files().read("sparse").await,
        ErrorKind::LimitExceeded,
        "1 TiB",
    );
    assert!(session.files().read("/dev/zero").await.is_err());
    assert_eq!(text(&session, "echo alive").await, "alive\n");
}

async fn files_on_read_only_places_are_permission_denied(lab: Lab) {
    if !lab.podkit().capabilities().bind_mounts {
        let spec = SessionSpec::new().mount(Mount::bind("/", "/data").read_only());
        return lab.assert_unsupported(spec, "bind").await;
    }
    let data = lab.directory().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("file"), "x").unwrap();
    let spec = SessionSpec::new()
        .mount(Mount::bind(&data, "/data").read_only())
        .read_only_root(true);
    let session = lab.open_with("a", spec).await;
    let files = session.files();
    assert_eq!(files.read("/data/file").await.unwrap(), b"x");
    for path in ["/data/file", "/data/other", "/etc/other"] {
        let denied = ErrorKind::PermissionDenied;
        assert_kind(files.write(path, "y").await.map(drop), denied, path);
    }
    assert_kind(
        files.remove("/data/file").await,
        ErrorKind::PermissionDenied,
        "remove",
    );
    assert_eq!(std::fs::read(data.join("file")).unwrap(), b"x");
}

/// Files made on either side are usable on the other, and the workspace outlives the container.
async fn files_workspace_is_usable_on_both_sides(lab: Lab) {
    if !lab.podkit().capabilities().writable_binds {
        let spec = SessionSpec::new().workspace(Workspace::new(lab.directory()));
        return lab.assert_unsupported(spec, "bind").await;
    }
    let spec = SessionSpec::new().workspace(Workspace::new(lab.directory()));
    let session = lab.open_with("a", spec.clone()).await;
    let host = lab.directory().join("workspaces/u/a");
    session
        .files()
        .write("inside", "from inside")
        .await
        .unwrap();
    assert_eq!(std::fs::read(host.join("inside")).unwrap(), b"from inside");
    std::fs::write(host.join("outside"), "from outside").unwrap();
    assert_eq!(
        text(
            &session,
            "cat outside; echo more >>outside; echo edited >inside"
        )
        .await,
        "from outside"
    );
    assert_eq!(std::fs::read(host.join("inside")).unwrap(), b"edited\n");
    assert_eq!(
        session.info().await.unwrap().workspace.as_deref(),
        Some(host.as_path())
    );
    session.close().await.unwrap();
    assert_eq!(
        std::fs::read(host.join("outside")).unwrap(),
        b"from outsidemore\n"
    );
    let again = lab.open_with("a", spec).await;
    assert_eq!(text(&again, "cat inside").await, "edited\n");
}

/// A link planted where the host will make or find a workspace must not be followed.
async fn files_workspace_links_lead_the_host_nowhere(lab: Lab) {
    if !lab.podkit().capabilities().writable_binds {
        return;
    }
    let elsewhere = lab.directory().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let base = lab.directory().join("base");
    let users = base.join("workspaces/u");
    std::fs::create_dir_all(&users).unwrap();
    std::os::unix::fs::symlink(&elsewhere, users.join("planted")).unwrap();
    let spec = SessionSpec::new().workspace(Workspace::new(&base));
    if let Ok(session) = lab.podkit().session("u", "planted").spec(spec).await {
        let _ = session.files().write("escaped", "x").await;
    }
    assert!(
        !elsewhere.join("escaped").exists(),
        "the planted link was followed"
    );
}
