//! `podkit ls`.

use podkit::{SessionInfo, backend::ContainerState};

use super::{Context, inspect::info_json};
use crate::{
    args::LsArgs,
    output::{Exit, Failure, ago, table},
};

/// Lists sessions.
pub(super) async fn ls(context: &Context, args: LsArgs) -> Result<Exit, Failure> {
    if let Some(user) = &args.user {
        podkit::UserId::new(user.as_str()).map_err(Failure::usage)?;
    }
    let podkit = context.podkit().await?;
    let mut list = podkit.list();
    if let Some(user) = &args.user {
        list = list.user(user);
    }
    let mut sessions = list.await?;
    if !args.all {
        sessions.retain(|info| is_whole(info.state));
    }
    sessions.sort_by(|a, b| a.key.cmp(&b.key));
    let default_image = format!("{} (default)", podkit.capabilities().default_image);
    let json = || sessions.iter().map(info_json).collect();
    let text = || {
        if args.quiet {
            sessions
                .iter()
                .map(|info| format!("{}\n", info.key))
                .collect()
        } else {
            let rows: Vec<Vec<String>> = sessions
                .iter()
                .map(|info| row(info, &default_image))
                .collect();
            table(&["SESSION", "STATE", "IMAGE", "CREATED", "USED"], &rows)
        }
    };
    context.output.result(json, text)?;
    Ok(Exit::Success)
}

const fn is_whole(state: ContainerState) -> bool {
    matches!(
        state,
        ContainerState::Running | ContainerState::Paused | ContainerState::Exited
    )
}

fn row(info: &SessionInfo, default_image: &str) -> Vec<String> {
    let state = match info.stop_cause {
        Some(cause) if info.state == ContainerState::Exited => {
            format!(
                "{} ({})",
                info.state.as_str(),
                cause.as_str().replace('_', " ")
            )
        }
        _ => info.state.as_str().to_owned(),
    };
    vec![
        info.key.to_string(),
        state,
        info.spec
            .image
            .clone()
            .unwrap_or_else(|| default_image.to_owned()),
        ago(info.created_at),
        info.last_active_at.map_or_else(|| "-".to_owned(), ago),
    ]
}
