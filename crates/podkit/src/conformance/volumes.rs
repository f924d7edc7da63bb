//! A volume for each session, where the engine has volumes.

use super::{
    lab::{Lab, assert_kind, text},
    table,
};
use crate::{ErrorKind, VolumeWorkspaces};

table!["volumes":
    Containers volume_of_a_session_is_its_own_and_stays,
];

async fn volume_of_a_session_is_its_own_and_stays(lab: Lab) {
    for bad in ["", "-a", "A", "a/b", "a b"] {
        let refused = VolumeWorkspaces::new(bad);
        assert_kind(refused, ErrorKind::InvalidInput, bad);
    }
    let strategy = VolumeWorkspaces::new(lab.prefix().as_str()).unwrap();
    let volumes = ["a", "b"].map(|session| strategy.volume("u", session));
    let podkit = lab.builder().mount_strategy(strategy).build();
    let podkit = podkit.await.unwrap();
    if !podkit.capabilities().volumes {
        let refused = podkit.session("u", "a").await;
        assert_kind(refused, ErrorKind::Unsupported, "a volume");
        return;
    }
    let one = podkit.session("u", "a").await.unwrap();
    let other = podkit.session("u", "b").await.unwrap();
    text(&one, "echo mine > /workspace/note").await;
    assert_eq!(text(&other, "ls -A /workspace").await, "");
    assert!(one.to_host_path("/workspace/note").is_err());
    one.close().await.unwrap();
    let again = podkit.session("u", "a").await.unwrap();
    assert_eq!(text(&again, "cat /workspace/note").await, "mine\n");
    for session in [again, other] {
        session.close().await.unwrap();
    }
    for volume in volumes {
        let removed = std::process::Command::new(lab.backend().name())
            .args(["volume", "rm", &volume])
            .output()
            .unwrap();
        assert!(removed.status.success(), "{removed:?}");
    }
}
