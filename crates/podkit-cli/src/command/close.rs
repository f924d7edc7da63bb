//! `podkit close`.

use serde_json::{Value, json};

use super::Context;
use crate::{
    args::CloseArgs,
    output::{Exit, Failure, error_json},
};

/// Removes sessions; a failure of one does not keep the others.
pub(super) async fn close(context: &Context, args: CloseArgs) -> Result<Exit, Failure> {
    let keys = args
        .sessions
        .iter()
        .map(|text| context.key(text))
        .collect::<Result<Vec<_>, _>>()?;
    let podkit = context.podkit().await?;
    let (mut rows, mut exit): (Vec<Value>, _) = (Vec::new(), Exit::Success);
    for key in keys {
        let (existed, failed) = match podkit.close(&key).await {
            Ok(report) => (report.existed, report.failed),
            Err(error) => (true, vec![error]),
        };
        if !failed.is_empty() {
            exit = Exit::Podkit;
        }
        if context.output.is_json() {
            rows.push(json!({
                "session": key.to_string(),
                "existed": existed,
                "failed": failed.iter().map(error_json).collect::<Vec<_>>(),
            }));
            continue;
        }
        if !existed {
            context.output.note(&format!("there is no session {key}"));
        }
        for error in &failed {
            context.output.error(error);
        }
    }
    if context.output.is_json() {
        context.output.result(|| rows.into(), String::new)?;
    }
    Ok(exit)
}
