//! What sessions have of the container that the client runs in, wherever it runs.

use super::{
    lab::{Lab, assert_kind, key},
    table,
};
use crate::{ErrorKind, Network, Opened, SessionSpec};

table!["nested":
    Containers inherit_gives_what_the_own_container_has_or_says_why_not,
    Containers inherit_beside_what_is_named_is_not_asked_for,
];

fn wishes() -> [(SessionSpec, &'static str); 2] {
    [
        (
            SessionSpec::new().inherit_networks(true),
            "inherit_networks",
        ),
        (SessionSpec::new().inherit_image(true), "inherit_image"),
    ]
}

async fn inherit_gives_what_the_own_container_has_or_says_why_not(lab: Lab) {
    let podkit = lab.podkit();
    if !podkit.capabilities().inherit {
        assert_kind(podkit.parent().await, ErrorKind::Unsupported, "parent");
        for (spec, field) in wishes() {
            lab.assert_unsupported(spec, field).await;
        }
        return;
    }
    let Some(parent) = podkit.parent().await.unwrap() else {
        for (spec, field) in wishes() {
            let opened = podkit.session("u", "refused").spec(spec).await;
            let error = assert_kind(opened, ErrorKind::InvalidInput, field);
            assert!(error.message().contains(field), "{error:?}");
            assert!(error.hint().is_some(), "{error:?}");
        }
        assert!(podkit.list().await.unwrap().is_empty());
        return;
    };
    for (spec, field) in wishes() {
        let opened = podkit.session("u", field).spec(spec).await;
        if field == "inherit_networks" && parent.networks.is_empty() {
            assert_kind(opened, ErrorKind::InvalidInput, field);
            continue;
        }
        let session = opened.unwrap();
        assert_eq!(session.opened(), Opened::Created);
        let spec = podkit.inspect(&key(field)).await.unwrap().spec;
        if field == "inherit_image" {
            assert_eq!(spec.image.as_ref(), Some(&parent.image));
        } else {
            assert_eq!(spec.network, Some(Network::Named(parent.networks.clone())));
        }
    }
}

async fn inherit_beside_what_is_named_is_not_asked_for(lab: Lab) {
    let spec = SessionSpec::new()
        .network(Network::None)
        .inherit_networks(true);
    let session = lab.open_with("a", spec.clone()).await;
    assert_eq!(session.opened(), Opened::Created);
    let again = lab.open_with("a", spec).await;
    assert_eq!(again.opened(), Opened::Reconnected);
    let info = lab.podkit().inspect(&key("a")).await.unwrap();
    assert_eq!(info.spec.network, Some(Network::None));
}
