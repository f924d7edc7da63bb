//! Looking at sessions, which is no activity.

use std::{
    fmt,
    future::IntoFuture,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use futures::future::BoxFuture;

use super::{labels, manager::SessionManager};
use crate::{
    config::{Isolation, Limit, PublishedPort, SessionSpec, WORKSPACE_PATH},
    container::{ContainerInfo, ContainerState, MountContext, StopCause, auto_stop},
    error::{Error, ErrorKind, Result},
    id::{ContainerId, SessionKey, UserId},
};

/// A look at one session.
#[derive(Clone)]
#[non_exhaustive]
pub struct SessionInfo {
    /// Whose session, and which.
    pub key: SessionKey,
    /// Name of its container.
    pub container: ContainerId,
    /// State of its container.
    pub state: ContainerState,
    /// Why the container does not run, where the engine knows.
    pub stop_cause: Option<StopCause>,
    /// When the container was made.
    pub created_at: SystemTime,
    /// When the container was last started.
    pub started_at: Option<SystemTime>,
    /// Last activity: from the agent when one session was asked for, what the engine knows in a
    /// list.
    pub last_active_at: Option<SystemTime>,
    /// What the clocks will do if nothing happens.
    pub expires: Expiry,
    /// What the container was made from, with its environment. Not shown by `Debug`.
    pub spec: SessionSpec,
    /// The workspace as this process sees it, if the session has one.
    pub workspace: Option<PathBuf>,
    /// How far the container's user ids are kept apart, where the engine says.
    pub isolation: Option<Isolation>,
    /// Ports that the host offers, while the container runs.
    pub ports: Vec<PublishedPort>,
    /// Whether the container's configuration could not be read; `spec` says nothing then.
    pub config_lost: bool,
}

/// When the clocks end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Expiry {
    /// The container stops, unless something runs or happens.
    pub stops_at: Option<SystemTime>,
    /// The session expires: `gc` removes its container.
    pub idle_at: Option<SystemTime>,
    /// Everything stops.
    pub ends_at: Option<SystemTime>,
}

impl fmt::Debug for SessionInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionInfo")
            .field("key", &self.key)
            .field("container", &self.container)
            .field("state", &self.state)
            .field("stop_cause", &self.stop_cause)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// Lists sessions when it is awaited: those of this prefix, in the order of their keys.
///
/// # Errors
/// `Unavailable` or `TimedOut`.
#[derive(Debug)]
#[must_use = "sessions are listed when this is awaited"]
pub struct ListSessions {
    manager: SessionManager,
    user: Option<Result<UserId>>,
}

impl ListSessions {
    pub(crate) const fn new(manager: SessionManager) -> Self {
        Self {
            manager,
            user: None,
        }
    }

    /// Lists this user's sessions only.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(UserId::new(user));
        self
    }
}

impl IntoFuture for ListSessions {
    type Output = Result<Vec<SessionInfo>>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let user = self.user.transpose()?;
            self.manager.list(user.as_ref()).await
        })
    }
}

impl SessionManager {
    async fn list(&self, user: Option<&UserId>) -> Result<Vec<SessionInfo>> {
        let mut filter = labels::filter(self.prefix());
        if let Some(user) = user {
            filter.insert(labels::USER.to_owned(), user.to_string());
        }
        let found = self.containers().list(&filter).await?;
        let mut sessions: Vec<SessionInfo> = found
            .iter()
            .filter_map(|info| Some((labels::owner(self.prefix(), info)?, info)))
            .filter(|(key, _)| user.is_none_or(|user| key.user() == user))
            .map(|(key, info)| self.describe(key, info, info.last_active_at))
            .collect();
        sessions.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(sessions)
    }

    pub(crate) async fn inspect(&self, key: &SessionKey) -> Result<SessionInfo> {
        let name = ContainerId::new(key.container_name(self.prefix()))?;
        let look = async {
            let info = self.inspect_ours(key, &name).await?;
            let mut last_active_at = info.last_active_at;
            if info.state == ContainerState::Running
                && let Ok(status) = self.containers().status(&info).await
            {
                last_active_at = active_at(&status);
            }
            Ok(self.describe(key.clone(), &info, last_active_at))
        };
        look.await
            .map_err(|error: Error| error.with_operation("inspect session"))
    }

    /// The engine's record of a session's container.
    ///
    /// # Errors
    /// `NotFound`, also when a container of this name is not the session's.
    pub(super) async fn inspect_ours(
        &self,
        key: &SessionKey,
        name: &ContainerId,
    ) -> Result<ContainerInfo> {
        let info = self.containers().find(name).await?;
        let ours = |info: &ContainerInfo| labels::owner(self.prefix(), info).as_ref() == Some(key);
        info.filter(ours).ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("the session `{key}` has no container"),
            )
            .with_hint("list the sessions with `podkit ls`")
        })
    }

    fn describe(
        &self,
        key: SessionKey,
        info: &ContainerInfo,
        last_active_at: Option<SystemTime>,
    ) -> SessionInfo {
        let stored = labels::config(info);
        let config_lost = stored.is_none();
        let spec = stored.unwrap_or_default();
        let context = MountContext::new(key.user().as_str(), key.session().as_str(), &spec);
        let workspace = spec.workspace.as_ref().and_then(|_| {
            self.strategy()
                .to_host_path(&context, WORKSPACE_PATH.as_ref())
                .ok()
        });
        SessionInfo {
            container: info.id.clone(),
            state: info.state,
            stop_cause: info.stop_cause,
            created_at: info.created_at,
            started_at: info.started_at,
            last_active_at,
            expires: if config_lost {
                Expiry::default()
            } else {
                expiry(&spec, info, last_active_at)
            },
            workspace,
            isolation: info.isolation,
            ports: info.ports.clone(),
            config_lost,
            key,
            spec,
        }
    }
}

/// When the agent was last active, in this process' time.
fn active_at(status: &podkit_agent::AgentStatus) -> Option<SystemTime> {
    SystemTime::now().checked_sub(Duration::from_millis(status.idle_ms))
}

fn expiry(spec: &SessionSpec, info: &ContainerInfo, last: Option<SystemTime>) -> Expiry {
    let running = matches!(info.state, ContainerState::Running);
    let last = last
        .or(info.finished_at)
        .or(info.started_at)
        .unwrap_or(info.created_at);
    let after = |from: SystemTime, limit: Option<Duration>| from.checked_add(limit?);
    Expiry {
        stops_at: after(last, auto_stop(spec).ok().flatten()).filter(|_| running),
        idle_at: after(last, spec.idle_timeout.and_then(Limit::duration)),
        ends_at: after(info.created_at, spec.max_lifetime.and_then(Limit::duration)),
    }
}
