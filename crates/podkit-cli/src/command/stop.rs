//! `podkit stop`.

use serde_json::json;

use super::Context;
use crate::{
    args::StopArgs,
    output::{Exit, Failure},
};

/// Stops a session's container.
pub(super) async fn stop(context: &Context, args: StopArgs) -> Result<Exit, Failure> {
    let key = context.key(&args.session)?;
    let podkit = context.podkit().await?;
    podkit.stop(&key, args.grace).await?;
    if context.output.is_json() {
        context
            .output
            .result(|| json!({ "session": key.to_string() }), String::new)?;
    }
    Ok(Exit::Success)
}
