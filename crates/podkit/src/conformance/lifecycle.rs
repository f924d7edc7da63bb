//! Containers on the bare [`Backend`](crate::backend::Backend): what its contract says, call by call.

use std::{
    collections::BTreeMap,
    future::Future,
    time::{Duration, SystemTime},
};

use super::{
    lab::{BOUND, Lab, assert_kind},
    table,
};
use crate::{
    ContainerId, ContainerManager, ErrorKind,
    backend::{ContainerInfo, ContainerSpec, ContainerState, StopCause},
    container::ContainerRequest,
};

table!["lifecycle":
    Containers container_goes_through_its_states,
    Containers container_create_twice_is_already_exists,
    Containers container_created_by_many_at_once_is_one,
    Containers container_calls_are_idempotent,
    Containers container_that_is_missing_is_not_found,
    Containers container_list_finds_by_all_labels,
    Containers container_connect_needs_a_running_one,
    Containers container_env_is_recorded_and_labels_are_whole,
    Containers container_sweep_spares_what_lives,
    Containers container_removed_while_running_is_gone,
    Containers engine_answers_and_has_a_name,
];

const GRACE: Duration = Duration::from_millis(100);

fn spec(lab: &Lab, name: &str) -> ContainerSpec {
    let name = ContainerId::new(format!("{}-{name}", lab.prefix())).unwrap();
    let mut request = ContainerRequest::new(name, lab.default_spec().env("SECRET", "value"));
    request.labels = labels(lab);
    ContainerManager::new(lab.backend())
        .resolve(&request)
        .unwrap()
}

fn labels(lab: &Lab) -> BTreeMap<String, String> {
    BTreeMap::from([("podkit.test".to_owned(), lab.prefix().to_string())])
}

/// Runs a body, and removes this case's containers after it, also when it panics.
async fn with_containers(lab: &Lab, body: impl Future<Output = ()>) {
    use futures::FutureExt;
    let result = std::panic::AssertUnwindSafe(body).catch_unwind().await;
    for info in lab.backend().list(&labels(lab)).await.unwrap() {
        lab.backend().remove(&info.id).await.unwrap();
    }
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
    assert!(lab.backend().list(&labels(lab)).await.unwrap().is_empty());
}

async fn inspect(lab: &Lab, id: &ContainerId) -> ContainerInfo {
    lab.backend().inspect(id).await.unwrap()
}

async fn container_goes_through_its_states(lab: Lab) {
    with_containers(&lab, async {
        let backend = lab.backend();
        let before = SystemTime::now() - Duration::from_secs(1);
        let id = backend.create(&spec(&lab, "a")).await.unwrap();
        let info = inspect(&lab, &id).await;
        assert_eq!(
            (info.state, info.started_at),
            (ContainerState::Created, None)
        );
        assert!(info.created_at >= before && info.created_at <= SystemTime::now() + BOUND);
        for round in 0..3 {
            backend.start(&id).await.unwrap();
            let info = inspect(&lab, &id).await;
            assert_eq!(
                (info.state, info.stop_cause),
                (ContainerState::Running, None),
                "{round}"
            );
            assert!(info.started_at.is_some());
            backend.stop(&id, GRACE).await.unwrap();
            let info = inspect(&lab, &id).await;
            assert_eq!(info.state, ContainerState::Exited, "{round}");
            assert_eq!(info.stop_cause, Some(StopCause::Requested), "{round}");
            let (started, finished) = (info.started_at, info.finished_at);
            assert!(finished >= started, "{round}: {finished:?} {started:?}");
        }
        backend.remove(&id).await.unwrap();
        assert_kind(
            backend.inspect(&id).await,
            ErrorKind::NotFound,
            "inspect after remove",
        );
    })
    .await;
}

async fn container_create_twice_is_already_exists(lab: Lab) {
    with_containers(&lab, async {
        let backend = lab.backend();
        let id = backend.create(&spec(&lab, "a")).await.unwrap();
        assert_kind(
            backend.create(&spec(&lab, "a")).await,
            ErrorKind::AlreadyExists,
            "created",
        );
        backend.start(&id).await.unwrap();
        assert_kind(
            backend.create(&spec(&lab, "a")).await,
            ErrorKind::AlreadyExists,
            "running",
        );
        backend.stop(&id, GRACE).await.unwrap();
        assert_kind(
            backend.create(&spec(&lab, "a")).await,
            ErrorKind::AlreadyExists,
            "exited",
        );
        backend.remove(&id).await.unwrap();
        backend.create(&spec(&lab, "a")).await.unwrap();
    })
    .await;
}

async fn container_created_by_many_at_once_is_one(lab: Lab) {
    with_containers(&lab, async {
        for _ in 0..5 {
            let backend = lab.backend();
            let spec = spec(&lab, "a");
            let creates = (0..8).map(|_| backend.create(&spec));
            let results = futures::future::join_all(creates).await;
            let made: Vec<_> = results.iter().flatten().collect();
            assert_eq!(made.len(), 1, "{results:?}");
            for error in results.iter().filter_map(|result| result.as_ref().err()) {
                assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error:?}");
            }
            backend.remove(made.first().unwrap()).await.unwrap();
        }
    })
    .await;
}

async fn container_calls_are_idempotent(lab: Lab) {
    with_containers(&lab, async {
        let backend = lab.backend();
        let id = backend.create(&spec(&lab, "a")).await.unwrap();
        backend.stop(&id, GRACE).await.unwrap();
        for _ in 0..2 {
            backend.start(&id).await.unwrap();
        }
        let (one, two) = tokio::join!(backend.stop(&id, GRACE), backend.stop(&id, GRACE));
        one.and(two).unwrap();
        let (one, two) = tokio::join!(backend.start(&id), backend.start(&id));
        one.and(two).unwrap();
        assert_eq!(inspect(&lab, &id).await.state, ContainerState::Running);
        let (one, two) = tokio::join!(backend.remove(&id), backend.remove(&id));
        one.and(two).unwrap();
        backend.remove(&id).await.unwrap();
    })
    .await;
}

async fn container_that_is_missing_is_not_found(lab: Lab) {
    let backend = lab.backend();
    let id = ContainerId::new(format!("{}-none", lab.prefix())).unwrap();
    assert_kind(backend.inspect(&id).await, ErrorKind::NotFound, "inspect");
    assert_kind(backend.start(&id).await, ErrorKind::NotFound, "start");
    assert_kind(backend.stop(&id, GRACE).await, ErrorKind::NotFound, "stop");
    assert_kind(backend.logs(&id, 10).await, ErrorKind::NotFound, "logs");
    let connected = backend.connect(&id).await;
    let kinds = [ErrorKind::NotFound, ErrorKind::ContainerGone];
    assert!(kinds.contains(&connected.unwrap_err().kind()));
    backend.remove(&id).await.unwrap();
}

async fn container_list_finds_by_all_labels(lab: Lab) {
    with_containers(&lab, async {
        let backend = lab.backend();
        let (mut one, mut two) = (spec(&lab, "one"), spec(&lab, "two"));
        one.labels
            .insert("color".to_owned(), "blue = 1, \"é\"\n".to_owned());
        two.labels.insert("color".to_owned(), String::new());
        backend.create(&one).await.unwrap();
        let second = backend.create(&two).await.unwrap();
        backend.start(&second).await.unwrap();
        let found = async |labels: BTreeMap<String, String>| {
            let infos = backend.list(&labels).await.unwrap();
            let mut names: Vec<_> = infos.into_iter().map(|info| info.name).collect();
            names.sort();
            names
        };
        let names = [one.name.to_string(), two.name.to_string()];
        assert_eq!(found(labels(&lab)).await, names, "in every state");
        assert_eq!(found(one.labels.clone()).await, names[..1]);
        assert_eq!(found(two.labels.clone()).await, names[1..]);
        let mut other = labels(&lab);
        other.insert("color".to_owned(), "red".to_owned());
        assert!(found(other).await.is_empty());
    })
    .await;
}

async fn container_connect_needs_a_running_one(lab: Lab) {
    with_containers(&lab, async {
        let backend = lab.backend();
        let id = backend.create(&spec(&lab, "a")).await.unwrap();
        assert_kind(
            backend.connect(&id).await,
            ErrorKind::ContainerGone,
            "created",
        );
        backend.start(&id).await.unwrap();
        let first = backend.connect(&id).await.unwrap();
        let second = backend.connect(&id).await.unwrap();
        drop((first, second));
        backend.connect(&id).await.unwrap();
        backend.stop(&id, GRACE).await.unwrap();
        assert_kind(
            backend.connect(&id).await,
            ErrorKind::ContainerGone,
            "exited",
        );
    })
    .await;
}

async fn container_env_is_recorded_and_labels_are_whole(lab: Lab) {
    with_containers(&lab, async {
        let spec = spec(&lab, "a");
        let id = lab.backend().create(&spec).await.unwrap();
        let info = inspect(&lab, &id).await;
        assert_eq!(info.labels, spec.labels);
        assert_eq!(info.env.get("SECRET").map(String::as_str), Some("value"));
        assert_eq!(info.name, spec.name.to_string());
        assert!(
            !format!("{info:?}{spec:?}").contains("value"),
            "a value is shown"
        );
    })
    .await;
}

async fn container_sweep_spares_what_lives(lab: Lab) {
    with_containers(&lab, async {
        let backend = lab.backend();
        let running = backend.create(&spec(&lab, "running")).await.unwrap();
        backend.start(&running).await.unwrap();
        let exited = backend.create(&spec(&lab, "exited")).await.unwrap();
        backend.start(&exited).await.unwrap();
        backend.stop(&exited, GRACE).await.unwrap();
        let created = backend.create(&spec(&lab, "created")).await.unwrap();
        let report = backend.sweep(Duration::from_secs(600)).await.unwrap();
        assert!(report.failed.is_empty(), "{report:?}");
        assert_eq!(inspect(&lab, &running).await.state, ContainerState::Running);
        assert_eq!(inspect(&lab, &exited).await.state, ContainerState::Exited);
        assert_eq!(inspect(&lab, &created).await.state, ContainerState::Created);
    })
    .await;
}

async fn container_removed_while_running_is_gone(lab: Lab) {
    with_containers(&lab, async {
        let backend = lab.backend();
        for _ in 0..3 {
            let id = backend.create(&spec(&lab, "a")).await.unwrap();
            backend.start(&id).await.unwrap();
            backend.remove(&id).await.unwrap();
            assert_kind(backend.inspect(&id).await, ErrorKind::NotFound, "inspect");
        }
    })
    .await;
}

async fn engine_answers_and_has_a_name(lab: Lab) {
    let backend = lab.backend();
    backend.ping().await.unwrap();
    let name = backend.name();
    assert!(
        !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '-'),
        "{name}"
    );
    assert_eq!(backend.capabilities(), backend.capabilities());
    assert_eq!(lab.podkit().backend_name(), name);
}
