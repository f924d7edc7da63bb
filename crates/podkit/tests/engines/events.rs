//! What the engine tells of containers.

use std::time::{Duration, SystemTime};

use futures::StreamExt;
use podkit::{
    SessionKey,
    backend::{
        connect::connect,
        events::{ContainerEventKind, Watched},
    },
};

use super::{Engine, prefix_of, run, support::options_at, tests};

tests![events_tell_each_thing_once_and_in_order];

fn events_tell_each_thing_once_and_in_order(engine: &Engine) {
    run(async {
        let options = options_at(engine.place.path());
        let backend = connect(engine.name, &options).await.unwrap();
        let prefix = prefix_of(engine.place.path());
        let label = ("podkit.prefix".to_owned(), prefix.to_string());
        let about = Watched::Labels([label].into());
        let began = SystemTime::now();
        let podkit = engine.podkit().await;
        let session = podkit.session("u", "a").await.unwrap();
        // What happened before it was watched for is told as well.
        let mut told = backend
            .events()
            .unwrap()
            .watch(&about, began)
            .await
            .unwrap();
        session.stop(Duration::ZERO).await.unwrap();
        podkit.session("u", "a").await.unwrap();
        session.close().await.unwrap();
        let expected = [
            ContainerEventKind::Created,
            ContainerEventKind::Started,
            ContainerEventKind::Ended,
            ContainerEventKind::Started,
            ContainerEventKind::Ended,
            ContainerEventKind::Removed,
        ];
        let name = SessionKey::new("u", "a").unwrap().container_name(&prefix);
        for kind in expected {
            let next = tokio::time::timeout(Duration::from_secs(10), told.next()).await;
            let event = next.unwrap().unwrap().unwrap();
            assert_eq!(
                (event.kind, event.container.as_str()),
                (kind, name.as_str())
            );
            assert!(event.at >= began - Duration::from_secs(1));
        }
    });
}
