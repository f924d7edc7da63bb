//! `podkit gc`.

use podkit::GcOptions;
use serde_json::json;

use super::Context;
use crate::{
    args::GcArgs,
    output::{Exit, Failure, error_json},
};

/// Removes sessions whose time is over, and leftovers.
pub(super) async fn gc(context: &Context, args: GcArgs) -> Result<Exit, Failure> {
    let podkit = context.podkit().await?;
    let mut options = GcOptions::default();
    options.idle = args.idle;
    options.dry_run = args.dry_run;
    let report = podkit.gc(options).await?;
    let keys: Vec<String> = report.removed.iter().map(ToString::to_string).collect();
    let json = || {
        json!({
            "dry_run": args.dry_run,
            "removed": keys,
            "kept": report.kept,
            "swept": report.swept.removed,
            "sweep_failed": report.swept.failed,
            "failed": report.failed.iter().map(error_json).collect::<Vec<_>>(),
        })
    };
    let text = || {
        let verb = if args.dry_run {
            "would remove"
        } else {
            "removed"
        };
        let lines = keys.iter().map(|key| format!("{verb} session {key}\n"));
        let swept = report
            .swept
            .removed
            .iter()
            .map(|what| format!("{verb} {what}\n"));
        lines.chain(swept).collect()
    };
    context.output.result(json, text)?;
    if !context.output.is_json() {
        if args.dry_run && keys.is_empty() && report.swept.removed.is_empty() {
            context.output.note("there is nothing to remove");
        }
        report
            .failed
            .iter()
            .for_each(|error| context.output.error(error));
        for what in &report.swept.failed {
            context.output.note(&format!("could not remove {what}"));
        }
    }
    let clean = report.failed.is_empty() && report.swept.failed.is_empty();
    Ok(if clean { Exit::Success } else { Exit::Podkit })
}
