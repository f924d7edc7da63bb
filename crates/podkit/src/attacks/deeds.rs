//! Attacks that are more than a program: something is prepared inside that the client, the engine
//! or the agent stumbles over.

use std::{fs, time::Duration};

use futures::future::BoxFuture;

use super::{
    Attack, Field, How, Played, Run, Words, deeds_files,
    field::{PATIENCE, io, quoted, said},
    nowhere,
};
use crate::{
    backend::{Capabilities, ContainerState},
    config::{Limit, Mount, Port},
    container::ContainerRequest,
    error::Result,
    exec::Outcome,
    id::ContainerId,
    session::Session,
};

/// What a deed is done by.
type Play = for<'a> fn(&'a Field<'a>) -> BoxFuture<'a, Result<Played>>;

const fn deed(about: &'static str, play: Play, refused_with: Words) -> Attack {
    Attack {
        about,
        how: How::Deed(play),
        refused_with,
        optional: false,
        aims_at_host_image: false,
        conceded: nowhere,
    }
}

/// Refused, as the attack found nothing of what it wants.
const REFUSED: Words = &["refused"];
/// It was over in time.
const IN_TIME: Words = &["in time"];

fn traces_the_agent(can: &Capabilities) -> Option<&'static str> {
    (!can.local_images).then_some("`SYS_PTRACE` was added, and reaches all of the container")
}

pub(super) const ATTACKS: &[Attack] = &[
    deed(
        "outlive a timeout",
        |field| Box::pin(outlive_timeout(field)),
        REFUSED,
    ),
    deed(
        "hold off the end by the clock",
        |field| Box::pin(hold_off_stop(field)),
        REFUSED,
    ),
    deed(
        "hang the agent by the file of users",
        |field| Box::pin(hang_on_passwd(field)),
        IN_TIME,
    ),
    deed(
        "flood the client with output",
        |field| Box::pin(flood(field)),
        REFUSED,
    ),
    deed(
        "start in a descriptor's directory",
        |field| Box::pin(start_in_descriptor(field)),
        REFUSED,
    ),
    deed(
        "have a mount made through a link",
        |field| Box::pin(mount_over_link(field)),
        REFUSED,
    ),
    deed(
        "plant a set-id program on the host",
        |field| Box::pin(deeds_files::plant_set_id(field)),
        REFUSED,
    ),
    deed(
        "lead a download out by a link",
        |field| Box::pin(deeds_files::download_over_link(field)),
        REFUSED,
    ),
    deed(
        "have an upload follow a link",
        |field| Box::pin(deeds_files::upload_of_link(field)),
        REFUSED,
    ),
    deed(
        "hang an upload by a pipe",
        |field| Box::pin(deeds_files::upload_of_pipe(field)),
        IN_TIME,
    ),
    deed(
        "lead an archive out by a link",
        |field| Box::pin(deeds_files::archive_over_link(field)),
        REFUSED,
    ),
    deed(
        "lead an archive out by its names",
        |field| Box::pin(deeds_files::archive_with_names(field)),
        REFUSED,
    ),
    deed(
        "be taken for another user's session",
        |field| Box::pin(lie_by_labels(field)),
        REFUSED,
    ),
    deed(
        "read another session's files",
        |field| Box::pin(read_neighbour(field)),
        REFUSED,
    ),
    deed(
        "take the sockets of a published port",
        |field| Box::pin(take_published(field)),
        &["EPERM"],
    )
    .conceded(traces_the_agent),
];

/// `ok` when the attack succeeded.
pub(super) fn verdict(succeeded: bool) -> Run {
    Run::said(if succeeded { "ok" } else { "refused" })
}

/// `ok` when it hung.
pub(super) fn in_time<T>(result: &std::result::Result<T, tokio::time::error::Elapsed>) -> Run {
    Run::said(if result.is_ok() { "in time" } else { "ok" })
}

/// Whether a command line's output has a word.
pub(super) async fn shows(session: &Session, text: &str, word: &str) -> Result<bool> {
    Ok(session.shell(text).await?.stdout_text().contains(word))
}

/// Says whether a program is still there, seen from among its own.
const STILL_THERE: &str = "cat /proc/[0-9]*/comm 2>/dev/null | grep -q escape_timeout && echo ok";

async fn outlive_timeout(field: &Field<'_>) -> Result<Played> {
    let program = quoted(&field.stage().programs().join("escape_timeout"));
    let host = format!(
        "unshare --pid --fork --kill-child --mount-proc sh -c \
         'timeout -s KILL 1 {} >/dev/null 2>&1; {STILL_THERE}'",
        program.replace('\'', "")
    );
    let inside = field.with("attacker", field.spec(), async |session| {
        let command = session.exec(["/attacks/escape_timeout"]);
        let output = command.timeout(Duration::from_secs(1)).await?;
        let left = shows(session, STILL_THERE, "ok").await?;
        Ok(verdict(left || output.outcome != Outcome::TimedOut))
    });
    Ok(Played {
        control: field.stage().shell(&host, true)?,
        inside: inside.await?,
    })
}

async fn hold_off_stop(field: &Field<'_>) -> Result<Played> {
    let spec = field.spec().auto_stop(Limit::After(Duration::from_secs(1)));
    // It takes a moment to begin.
    let look = format!("for i in $(seq 100); do {{ {STILL_THERE}; }} && break; sleep 0.1; done");
    let played = field.with("attacker", spec, async |session| {
        session.spawn(["/attacks/escape_timeout"]).await?;
        // While it is looked at, it goes on.
        let control = verdict(shows(session, &look, "ok").await?);
        let stopped = async {
            let mut tick = tokio::time::interval(Duration::from_millis(50));
            loop {
                tick.tick().await;
                let info = field.podkit().inspect(session.key()).await?;
                if info.state != ContainerState::Running {
                    return Ok::<(), crate::error::Error>(());
                }
            }
        };
        let ended = tokio::time::timeout(PATIENCE, stopped).await;
        let inside = verdict(ended.is_err());
        Ok(Played { control, inside })
    });
    played.await
}

async fn hang_on_passwd(field: &Field<'_>) -> Result<Played> {
    let control = "mkfifo hang; timeout 1 cat hang; [ $? = 124 ] && echo ok; rm hang";
    let inside = field.with("attacker", field.spec(), async |session| {
        session
            .shell("rm -f /etc/passwd; mkfifo /etc/passwd")
            .await?;
        let command = session.exec(["true"]).user("nobody");
        Ok(in_time(
            &tokio::time::timeout(PATIENCE, command.into_future()).await,
        ))
    });
    Ok(Played {
        control: field.stage().shell(control, false)?,
        inside: inside.await?,
    })
}

async fn flood(field: &Field<'_>) -> Result<Played> {
    const LIMIT: u64 = 1 << 20;
    let control = "[ \"$(timeout 1 cat /dev/zero | wc -c)\" -gt 1048576 ] && echo ok";
    let inside = field.with("attacker", field.spec(), async |session| {
        let command = session.exec(["cat", "/dev/zero"]).output_limit(LIMIT);
        let output = command.timeout(Duration::from_secs(1)).await?;
        Ok(verdict(output.stdout.len() as u64 > LIMIT))
    });
    Ok(Played {
        control: field.stage().shell(control, false)?,
        inside: inside.await?,
    })
}

/// A path that leads from a directory of the host's to the stage's marker.
fn up_to_marker(field: &Field<'_>) -> String {
    let marker = field.stage().directory().join("marker");
    format!("../../../../../../../../../../..{}", marker.display())
}

async fn start_in_descriptor(field: &Field<'_>) -> Result<Played> {
    let path = up_to_marker(field);
    let control =
        format!("exec 9</; cd /proc/self/fd/9 && grep -q 'of the host' {path} && echo ok");
    let inside = field.with("attacker", field.spec(), async |session| {
        for number in 0..48 {
            let place = format!("/proc/self/fd/{number}");
            let command = session.exec(["cat", &path]).cwd(place);
            // Most of these are no directories, which is an error.
            if command
                .await
                .is_ok_and(|output| output.stdout_text().contains("of the host"))
            {
                return Ok(verdict(true));
            }
        }
        Ok(verdict(false))
    });
    Ok(Played {
        control: field.stage().shell(&control, false)?,
        inside: inside.await?,
    })
}

/// A former life leaves a link where the next one's mount goes.
async fn mount_over_link(field: &Field<'_>) -> Result<Played> {
    let elsewhere = field.directory("elsewhere")?;
    io(fs::create_dir_all(elsewhere.join("place")))?;
    let control = format!(
        "unshare --mount sh -c 'mkdir -p jail/m && ln -sfn {0} jail/m/deep && \
         mount --bind data jail/m/deep/place && test -e {0}/place/file && echo ok'",
        elsewhere.display()
    );
    let spec = field.spec();
    let spec = spec.mount(Mount::bind(field.stage().read_only(), "/m/deep/place").read_only());
    let inside = field.with("attacker", spec, async |session| {
        let plant = format!("mv /m/deep /m/old && ln -s {} /m/deep", quoted(&elsewhere));
        let planted = session.shell(plant).await?;
        session.stop(Duration::from_secs(1)).await?;
        // It may be refused, or made inside.
        let marker = up_to_marker(field);
        let look = format!(
            "cat {marker} /m/deep/../marker {}/../marker",
            quoted(&elsewhere)
        );
        let seen = session.shell(look).await;
        let read = seen.is_ok_and(|output| output.stdout_text().contains("of the host"));
        let hidden = elsewhere.join("place/file").exists();
        let what = if planted.outcome.is_success() {
            "refused"
        } else {
            "no link"
        };
        Ok(Run::said(if read || hidden { "ok" } else { what }))
    });
    Ok(Played {
        control: field.stage().shell(&control, true)?,
        inside: inside.await?,
    })
}

/// A container that has the name of a session, and the labels of another user's.
async fn lie_by_labels(field: &Field<'_>) -> Result<Played> {
    let podkit = field.podkit();
    let (attacker, victim) = (field.key("attacker")?, field.key("victim")?);
    let labels = field.with("attacker", field.spec(), async |session| {
        Ok(podkit
            .containers()
            .inspect(session.container())
            .await?
            .labels)
    });
    let mut labels = labels.await?;
    let name = ContainerId::new(victim.container_name(podkit.prefix()))?;
    let mut request = ContainerRequest::new(name.clone(), field.spec());
    request.labels.clone_from(&labels);
    let lie = async |request: &ContainerRequest| -> Result<bool> {
        let containers = podkit.containers();
        containers.create(&containers.resolve(request)?).await?;
        let taken = podkit.open(&victim).create(false).await.is_ok();
        if taken {
            podkit.close(&victim).await?;
        } else {
            containers.remove(&name).await?;
        }
        Ok(taken)
    };
    let inside = lie(&request).await;
    // The same labels with the names that belong to it are believed.
    for value in labels.values_mut() {
        if *value == attacker.user().as_str() {
            victim.user().as_str().clone_into(value);
        }
    }
    request.labels = labels;
    let control = lie(&request).await?;
    Ok(Played {
        control: verdict(control),
        inside: verdict(inside?),
    })
}

async fn read_neighbour(field: &Field<'_>) -> Result<Played> {
    let find = "grep -rs of-the-victim /workspace /tmp /dev/shm /run /var/tmp";
    let played = field.with("victim", field.spec(), async |victim| {
        let plant = "for d in /workspace /tmp /dev/shm /run /var/tmp; do \
                     echo of-the-victim >$d/secret; done; :";
        victim.shell(plant).await?;
        let control = verdict(shows(victim, find, "of-the-victim").await?);
        let inside = field.with("attacker", field.spec(), async |attacker| {
            Ok(verdict(shows(attacker, find, "of-the-victim").await?))
        });
        Ok(Played {
            control,
            inside: inside.await?,
        })
    });
    played.await
}

/// PID 1 and its children hold sockets of the host's where a port is published.
async fn take_published(field: &Field<'_>) -> Result<Played> {
    if !field.podkit().capabilities().ports {
        let why = "this engine publishes no ports";
        return Ok(Played {
            control: Run::absent(why),
            inside: Run::absent(why),
        });
    }
    let mut spec = field.spec().port(Port::new(45_678).anywhere());
    // Also where commands may trace each other.
    spec.security.add_capabilities.push("SYS_PTRACE".to_owned());
    let played = field.with("attacker", spec, async |session| {
        let listen = ["/attacks/reach", "listen", "podkit-published", "45678"];
        let mut listener = session.exec(listen).stdin_stream().stream().await?;
        super::field::first_line(&mut listener).await?;
        let ports = session.ports().await?;
        let caller = ports
            .first()
            .map(|port| std::net::TcpStream::connect((port.address, port.host)));
        let take = async |name: &str| {
            let argv = ["/attacks/processes", "take_from", name];
            Result::Ok(Run::Said(said(&session.exec(argv).await?)))
        };
        let played = Played {
            control: take("reach").await?,
            inside: take("podkit-agent").await?,
        };
        drop(caller);
        let _ = listener.close_stdin().await;
        Ok(played)
    });
    played.await
}
