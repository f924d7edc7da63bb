//! All attacks against one engine, one after the other.

use super::{
    Attack, Field, Finding, How, Plain, Run, attacks, exhaustion,
    field::{Neighbour, io, said},
    judge,
};
use crate::{error::Result, session::Session};

/// What [`prove`] works with.
#[derive(Debug)]
pub struct Proof<'a> {
    /// The engine, and the aims.
    pub field: Field<'a>,
    /// Containers of an engine's own defaults to compare with.
    pub plain: Option<Plain>,
    /// Which attacks are run.
    pub only: fn(&How) -> bool,
}

/// Runs every attack, tells each finding as it comes, and removes what it made.
///
/// # Errors
/// What ends all of it: the engine cannot be reached, sessions cannot be opened. An attack that
/// cannot be run is a finding.
///
/// # Cancel safety
/// Sessions may be left; [`Field::clear`] closes them.
pub async fn prove(proof: &Proof<'_>, mut tell: impl FnMut(&Finding)) -> Result<Vec<Finding>> {
    let field = &proof.field;
    let neighbour = Neighbour::open(field).await?;
    let session = field.open("programs", field.spec()).await;
    let mut findings = Vec::new();
    if let Ok(session) = &session {
        for attack in attacks().filter(|attack| (proof.only)(&attack.how)) {
            let finding = try_one(proof, attack, session, &neighbour).await;
            tell(&finding);
            findings.push(finding);
        }
    }
    let closed = match &session {
        Ok(session) => session.close().await.map(drop),
        Err(_) => Ok(()),
    };
    neighbour.close().await.and(closed)?;
    session.map(|_| findings)
}

async fn try_one(
    proof: &Proof<'_>,
    attack: &'static Attack,
    session: &Session,
    neighbour: &Neighbour,
) -> Finding {
    let field = &proof.field;
    let can = field.podkit().capabilities();
    let plain = proof
        .plain
        .as_ref()
        .map(|plain| plainly(field, plain, attack));
    let runs = match &attack.how {
        How::Deed(play) => play(field)
            .await
            .map(|played| (played.control, played.inside)),
        How::Exhaustion(what) => exhaustion::inside(field, what, neighbour)
            .await
            .map(|inside| (outside(field, attack), inside)),
        How::Program { argv, .. } => {
            let inside = if attack.aims_at_host_image && !can.local_images {
                Ok(Run::absent("the image has files of its own there"))
            } else {
                program(field, argv, session, neighbour).await
            };
            inside.map(|inside| (outside(field, attack), inside))
        }
    };
    let (control, inside) =
        runs.unwrap_or_else(|error| (outside(field, attack), Run::not_run(error.to_string())));
    let conceded = (attack.conceded)(&can);
    let verdict = judge(attack, &control, &inside, conceded);
    Finding {
        about: attack.about,
        control,
        plain,
        why: conceded.filter(|_| inside.succeeded()),
        inside,
        verdict,
    }
}

fn outside(field: &Field<'_>, attack: &Attack) -> Run {
    let run = field.stage().control(&attack.how);
    run.unwrap_or_else(|error| Run::not_run(error.to_string()))
}

fn plainly(field: &Field<'_>, plain: &Plain, attack: &Attack) -> Run {
    let stage = field.stage();
    if attack.aims_at_host_image {
        return Run::absent("the image has files of its own there");
    }
    let run = stage
        .victim()
        .and_then(|victim| plain.attack(&attack.how, stage, &victim));
    run.unwrap_or_else(|error| Run::not_run(error.to_string()))
}

/// One of the programs in podkit's container; it also succeeded when its victim did not live.
async fn program(
    field: &Field<'_>,
    argv: &[&str],
    session: &Session,
    neighbour: &Neighbour,
) -> Result<Run> {
    let stage = field.stage();
    if !argv.iter().all(|word| stage.has(word)) {
        return Ok(Run::not_run("needs root to set its aim up"));
    }
    let mut victim = io(stage.victim())?;
    let mut argv: Vec<String> = argv
        .iter()
        .map(|word| stage.inside(word, &victim, &neighbour.address))
        .collect();
    if let Some(program) = argv.first_mut() {
        program.insert_str(0, "/attacks/");
    }
    let word = said(&session.exec(argv).await?);
    Ok(Run::said(if victim.is_alive() {
        word.as_str()
    } else {
        "ok"
    }))
}
