//! Directories that are watched.

use std::time::Duration;

use tokio::time::timeout;

use super::{
    lab::{Lab, assert_kind, text},
    table,
};
use crate::{ErrorKind, FileChange, FileChangeKind, FileWatch, Limit, Session, SessionSpec};

table!["trees":
    Programs watch_tells_what_happens_below,
    Programs watch_ends_with_its_directory,
    Programs watch_keeps_no_session_alive,
];

/// The changes up to one of a path.
async fn until(watch: &mut FileWatch, path: &str) -> Vec<(FileChangeKind, String)> {
    let mut changes = Vec::new();
    loop {
        let next = timeout(Duration::from_secs(20), watch.next());
        let FileChange { kind, path: at, .. } = next.await.unwrap().unwrap().unwrap();
        let last = at == path;
        changes.push((kind, at));
        if last {
            return changes;
        }
    }
}

async fn watch_tells_what_happens_below(lab: Lab) {
    use FileChangeKind::{Attributes, Created, Modified, MovedFrom, MovedTo, Removed};
    let session = lab.open("a").await;
    let files = session.files();
    text(
        &session,
        "mkdir -p /tmp/t/old /tmp/u; echo x >/tmp/t/old/file; echo x >/tmp/t/top",
    )
    .await;
    let mut flat = files.watch("/tmp/t", false).await.unwrap();
    let mut watch = files.watch("/tmp/t", true).await.unwrap();
    let happens = |script: &str| {
        let script = format!("cd /tmp/t && {script} && : >mark && rm mark");
        let session = session.clone();
        async move {
            text(&session, &script).await;
        }
    };
    let mut what = async |script: &str| {
        happens(script).await;
        let mut changes = until(&mut watch, "mark").await;
        changes.pop();
        // The mark's own end.
        let end = timeout(Duration::from_secs(20), watch.next());
        assert_eq!(end.await.unwrap().unwrap().unwrap().kind, Removed);
        changes
    };
    let change = |kind, path: &str| (kind, path.to_owned());
    assert_eq!(
        what("echo y >>old/file").await,
        [change(Modified, "old/file")]
    );
    assert_eq!(what("chmod 600 top").await, [change(Attributes, "top")]);
    assert_eq!(
        what("mv top old/down").await,
        [change(MovedFrom, "top"), change(MovedTo, "old/down")]
    );
    assert_eq!(what("rm old/down").await, [change(Removed, "old/down")]);
    // A directory that is new is watched, with what was in it before anybody could.
    let made = what("mkdir -p new/a/b && : >new/a/b/early").await;
    for path in ["new", "new/a", "new/a/b", "new/a/b/early"] {
        assert!(made.contains(&change(Created, path)), "{path}: {made:?}");
    }
    assert_eq!(
        what(": >new/a/b/late").await,
        [change(Created, "new/a/b/late")]
    );
    // One that was renamed goes on under its new name, one that has left is not heard of.
    assert_eq!(
        what("mv new renamed").await,
        [change(MovedFrom, "new"), change(MovedTo, "renamed")]
    );
    assert_eq!(
        what(": >renamed/a/file").await,
        [change(Created, "renamed/a/file")]
    );
    assert_eq!(
        what("mv renamed ../u/").await,
        [change(MovedFrom, "renamed")]
    );
    assert_eq!(what(": >../u/renamed/a/more").await, []);
    drop(watch);
    // Without what is below.
    let seen = until(&mut flat, "renamed").await;
    assert!(!seen.iter().any(|(_, path)| path.contains('/')), "{seen:?}");
    let missing = files.watch("/tmp/none", true).await;
    assert_kind(missing, ErrorKind::NotFound, "a watch of nothing");
    assert_eq!(text(&session, "echo hi").await, "hi\n");
}

async fn watch_ends_with_its_directory(lab: Lab) {
    let session = lab.open("a").await;
    text(&session, "mkdir /tmp/t").await;
    let mut watch = session.files().watch("/tmp/t", true).await.unwrap();
    text(&session, "rmdir /tmp/t").await;
    let changes = until(&mut watch, "").await;
    assert_eq!(changes.last().unwrap().0, FileChangeKind::Removed);
    let end = timeout(Duration::from_secs(20), watch.next()).await;
    assert!(end.unwrap().is_none());
    let mut watch = session.files().watch("/tmp", true).await.unwrap();
    session.close().await.unwrap();
    let end = timeout(Duration::from_secs(20), watch.next()).await;
    assert_kind(
        end.unwrap().unwrap(),
        ErrorKind::ContainerGone,
        "its container",
    );
}

async fn watch_keeps_no_session_alive(lab: Lab) {
    let spec = SessionSpec::new().auto_stop(Limit::After(Duration::from_secs(1)));
    let session: Session = lab.open_with("a", spec).await;
    let mut watch = session.files().watch("/tmp", true).await.unwrap();
    let end = timeout(Duration::from_secs(20), watch.next()).await;
    let error = end
        .expect("the container did not stop")
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ContainerGone);
}
