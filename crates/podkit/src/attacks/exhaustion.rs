//! Exhaustion: one container takes all that it gets, others must go on, and it must come back.

use super::{
    Exhaustion, Run,
    field::{FEW_PROCESSORS, Field, Neighbour, PROCESSORS, first_line, io, said},
    stage::last_word,
};
use crate::{
    error::Result,
    exec::{ExecEvent, Outcome},
    session::Session,
};

/// Takes as much as there is in a session of its own, while the neighbour and the host ask for a
/// little; then closes the session, and wants a little in it again.
pub(super) async fn inside(
    field: &Field<'_>,
    what: &Exhaustion,
    neighbour: &Neighbour,
) -> Result<Run> {
    let place = what.place.replace("{tmp}", "/tmp");
    let limited = field.limited(match what.kind {
        "processors" => FEW_PROCESSORS,
        _ => PROCESSORS,
    });
    let taking = async |session: &Session| take(field, session, what, &place, neighbour).await;
    let word = field.with("attacker", limited.clone(), taking).await?;
    let again = async |session: &Session| gets(session, what, &place).await;
    // What was taken comes back at the close.
    let back = field.with("attacker", limited, again).await?;
    Ok(Run::said(if back { word.as_str() } else { "ok" }))
}

async fn take(
    field: &Field<'_>,
    session: &Session,
    what: &Exhaustion,
    place: &str,
    neighbour: &Neighbour,
) -> Result<String> {
    let argv = ["/attacks/exhaust", what.kind, what.amount, "hold", place];
    let mut taker = session.exec(argv).stdin_stream().stream().await?;
    let (line, mut outcome) = first_line(&mut taker).await?;
    // While it holds what it has, where it was not killed for it.
    let others =
        gets(&neighbour.session, what, "/tmp/probe").await? && io(field.stage().host_gets(what))?;
    let used = memory_in_use(field, session).await?;
    // One that was killed has no input any more.
    let _ = taker.close_stdin().await;
    while let Some(event) = taker.next().await.transpose()? {
        if let ExecEvent::Exited(result) = event {
            outcome = Some(result.outcome);
        }
    }
    if !others {
        return Ok("ok".to_owned());
    }
    let word = match outcome {
        Some(Outcome::OutOfMemory) => "out of memory".to_owned(),
        Some(Outcome::Signaled(number)) if line.is_empty() => format!("signal {number}"),
        _ => last_word(line.as_bytes()),
    };
    // Cached files are given up for what needs memory, and may be as many as the limit allows.
    let reclaims = what.kind == "page_cache" && word == "ok" && used;
    Ok(if reclaims {
        "reclaimed".to_owned()
    } else {
        word
    })
}

/// Whether a session gets a little.
async fn gets(session: &Session, what: &Exhaustion, place: &str) -> Result<bool> {
    let argv = ["/attacks/exhaust", what.kind, what.little, "go", place];
    let word = said(&session.exec(argv).await?);
    // A share of nobody's processor is too little for the attack, and all that was asked for.
    Ok(word == "ok" || (what.kind == "processors" && word == "ETIME"))
}

/// Whether the engine says that the session uses no more memory than its limit.
async fn memory_in_use(field: &Field<'_>, session: &Session) -> Result<bool> {
    if !field.podkit().capabilities().stats {
        return Ok(false);
    }
    let stats = field.podkit().stats(session.key()).await?;
    Ok(match (stats.memory_bytes, stats.memory_limit_bytes) {
        (Some(used), Some(limit)) => used <= limit,
        _ => false,
    })
}
