//! What happens to containers, by the engine's stream of events.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bollard::{models::EventMessage, query_parameters::EventsOptionsBuilder};
use futures::{StreamExt, future, stream::BoxStream};

use super::{DockerBackend, failure};
use crate::{
    backend::events::{ContainerEvent, ContainerEventKind, Events, Watched},
    error::Result,
    id::ContainerId,
};

#[async_trait]
impl Events for DockerBackend {
    async fn watch(
        &self,
        about: &Watched,
        since: SystemTime,
    ) -> Result<BoxStream<'static, Result<ContainerEvent>>> {
        let mut filters = HashMap::from([("type", vec!["container".to_owned()])]);
        match about {
            Watched::Container(id) => filters.insert("container", vec![id.to_string()]),
            Watched::Labels(labels) => {
                let pairs = labels.iter().map(|(name, value)| format!("{name}={value}"));
                filters.insert("label", pairs.collect())
            }
        };
        let since = since
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let since = format!("{}.{:09}", since.as_secs(), since.subsec_nanos());
        let options = EventsOptionsBuilder::new()
            .since(&since)
            .filters(&filters)
            .build();
        let about = about.clone();
        let events = self.docker.events(Some(options)).filter_map(move |event| {
            future::ready(match event {
                Ok(event) => of(event, &about).map(Ok),
                Err(error) => Some(Err(failure::error(error))),
            })
        });
        Ok(events.boxed())
    }
}

/// An event in podkit's words; none for what podkit has no word for.
fn of(event: EventMessage, about: &Watched) -> Option<ContainerEvent> {
    let kind = match event.action.as_deref()? {
        "create" => ContainerEventKind::Created,
        "start" => ContainerEventKind::Started,
        "die" | "died" => ContainerEventKind::Ended,
        "oom" => ContainerEventKind::OutOfMemory,
        "pause" => ContainerEventKind::Paused,
        "unpause" => ContainerEventKind::Resumed,
        "destroy" | "remove" => ContainerEventKind::Removed,
        _ => return None,
    };
    let attributes = event.actor?.attributes?;
    let container = ContainerId::new(attributes.get("name")?.as_str()).ok()?;
    let ours = match about {
        Watched::Container(id) => *id == container,
        // Podman takes several labels for alternatives.
        Watched::Labels(labels) => labels
            .iter()
            .all(|(name, value)| attributes.get(name) == Some(value)),
    };
    let nanoseconds = u64::try_from(event.time_nano.unwrap_or(0)).unwrap_or(0);
    let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(nanoseconds);
    ours.then_some(ContainerEvent {
        container,
        kind,
        at,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bollard::models::EventActor;

    use super::*;

    fn event(action: &str, name: &str) -> EventMessage {
        let attributes = [("name", name), ("podkit.prefix", "p")];
        let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        EventMessage {
            action: Some(action.to_owned()),
            actor: Some(EventActor {
                id: Some("1".to_owned()),
                attributes: Some(attributes.map(pair).into()),
            }),
            time_nano: Some(1_500_000_000),
            ..EventMessage::default()
        }
    }

    #[test]
    fn events_of_the_watched_are_told_in_podkits_words() {
        let labels = |prefix: &str| {
            let pair = ("podkit.prefix".to_owned(), prefix.to_owned());
            Watched::Labels(BTreeMap::from([pair]))
        };
        let told = of(event("die", "a"), &labels("p")).unwrap();
        assert_eq!(told.kind, ContainerEventKind::Ended);
        assert_eq!(
            told.at,
            SystemTime::UNIX_EPOCH + Duration::from_millis(1500)
        );
        assert_eq!(of(event("die", "a"), &labels("q")), None);
        let one = Watched::Container(ContainerId::new("a").unwrap());
        assert!(of(event("destroy", "a"), &one).is_some());
        assert_eq!(of(event("destroy", "ab"), &one), None);
        assert_eq!(of(event("exec_start: x", "a"), &one), None);
    }
}
