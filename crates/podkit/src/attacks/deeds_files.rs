//! Attacks on what moves files between a container and the host: links, pipes and archives that were
//! prepared for it.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use super::{
    Field, Played, Run,
    deeds::{in_time, shows, verdict},
    field::{PATIENCE, io, quoted},
    stage::last_word,
};
use crate::{
    config::{Mount, SessionSpec},
    error::Result,
};

/// A session with a directory of the host's at `/shared`, which it may write.
fn shared(field: &Field<'_>, directory: &Path) -> SessionSpec {
    field.spec().mount(Mount::bind(directory, "/shared"))
}

/// Why a deed cannot be done on an engine without writable binds.
fn lacks_binds(field: &Field<'_>) -> Option<Played> {
    (!field.podkit().capabilities().writable_binds).then(|| Played {
        control: Run::absent("nothing to compare"),
        inside: Run::absent("this engine has no writable binds"),
    })
}

/// Whether a program gives an ordinary user of this host root's rights.
fn gives_root(program: &Path) -> bool {
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(program)
        .arg("root")
        .stdin(Stdio::null())
        .output();
    output.is_ok_and(|output| last_word(&output.stdout) == "ok")
}

pub(super) async fn plant_set_id(field: &Field<'_>) -> Result<Played> {
    if let Some(played) = lacks_binds(field) {
        return Ok(played);
    }
    if !field.stage().is_root() {
        let why = "needs root";
        return Ok(Played {
            control: Run::not_run(why),
            inside: Run::not_run(why),
        });
    }
    let directory = field.directory("shared-programs")?;
    // The way to it is open to everybody, so that nothing but the bits is in the way.
    io(fs::set_permissions(
        &directory,
        fs::Permissions::from_mode(0o755),
    ))?;
    let inside = field.with("attacker", shared(field, &directory), async |session| {
        let plant = "cp /attacks/became /shared/planted; chown 0:0 /shared/planted; \
                     chmod 6755 /shared/planted; :";
        session.shell(plant).await?.check()?;
        Ok(verdict(gives_root(&directory.join("planted"))))
    });
    let inside = inside.await?;
    let own = directory.join("own");
    io(fs::copy(field.stage().programs().join("became"), &own))?;
    io(fs::set_permissions(
        &own,
        fs::Permissions::from_mode(0o4755),
    ))?;
    Ok(Played {
        control: verdict(gives_root(&own)),
        inside,
    })
}

pub(super) async fn download_over_link(field: &Field<'_>) -> Result<Played> {
    if let Some(played) = lacks_binds(field) {
        return Ok(played);
    }
    let (directory, aim) = (field.directory("shared-download")?, field.directory("aim")?);
    let inside = field.with("attacker", shared(field, &directory), async |session| {
        let plant = format!(
            "mkdir -p /shared/out /tmp/tree/sub && ln -s {0} /shared/out/sub && \
             echo planted >/tmp/tree/sub/file && ln -s {0}/file /shared/out/file && \
             echo planted >/tmp/tree/file",
            quoted(&aim)
        );
        session.shell(plant).await?.check()?;
        // Whether it is refused or made beside the link is its own affair.
        let _ = session
            .files()
            .download("/tmp/tree", directory.join("out"))
            .await;
        Ok(verdict(io(fs::read_dir(&aim))?.next().is_some()))
    });
    let inside = inside.await?;
    let control = format!(
        "mkdir -p tree/sub control && echo planted >tree/sub/file && ln -sfn {0} control/sub && \
         cp -r tree/sub/. control/sub && test -e {0}/file && rm {0}/file && echo ok",
        quoted(&aim)
    );
    Ok(Played {
        control: field.stage().shell(&control, false)?,
        inside,
    })
}

pub(super) async fn upload_of_link(field: &Field<'_>) -> Result<Played> {
    if let Some(played) = lacks_binds(field) {
        return Ok(played);
    }
    let directory = field.directory("shared-upload")?;
    let marker = field.stage().directory().join("marker");
    let control = format!(
        "tar -C {} -ch leak | tar -xO | grep -q host && echo ok",
        quoted(&directory)
    );
    let played = field.with("attacker", shared(field, &directory), async |session| {
        let plant = format!("ln -s {} /shared/leak", quoted(&marker));
        session.shell(plant).await?.check()?;
        let control = field.stage().shell(&control, false)?;
        let _ = session.files().upload(&directory, "/tmp/up").await;
        let inside = verdict(shows(session, "cat /tmp/up/leak", "of the host").await?);
        Ok(Played { control, inside })
    });
    played.await
}

pub(super) async fn upload_of_pipe(field: &Field<'_>) -> Result<Played> {
    if let Some(played) = lacks_binds(field) {
        return Ok(played);
    }
    let directory = field.directory("shared-pipe")?;
    let control = format!(
        "timeout 1 cat {}/pipe; [ $? = 124 ] && echo ok",
        quoted(&directory)
    );
    let played = field.with("attacker", shared(field, &directory), async |session| {
        session.shell("mkfifo /shared/pipe").await?.check()?;
        let control = field.stage().shell(&control, false)?;
        let files = session.files();
        let upload = tokio::time::timeout(PATIENCE, files.upload(&directory, "/tmp/up")).await;
        Ok(Played {
            control,
            inside: in_time(&upload),
        })
    });
    played.await
}

/// An archive of hostile entries, made by the host's `tar` from a directory.
fn packed(field: &Field<'_>, script: &str) -> Result<Vec<u8>> {
    let directory = field.directory("packed")?;
    let output = Command::new("sh")
        .args(["-ec", script])
        .current_dir(directory)
        .stdin(Stdio::null())
        .output();
    Ok(io(output)?.stdout)
}

/// A link, and then a file through it: what a reader that follows links writes elsewhere.
pub(super) async fn archive_over_link(field: &Field<'_>) -> Result<Played> {
    let aim = field.directory("aim-of-archive")?;
    let script = format!(
        "rm -rf a b; mkdir a b b/out; ln -s {0} a/out; echo planted >b/out/file; \
         tar -C a -cf t.tar out; tar -C b -rf t.tar out/file; cat t.tar",
        quoted(&aim)
    );
    let archive = packed(field, &script)?;
    let control = format!(
        "mkdir -p u && tar -P --keep-directory-symlink -xf packed/t.tar -C u 2>/dev/null; \
         test -e {0}/file && rm {0}/file && echo ok",
        quoted(&aim)
    );
    let inside = field.with("attacker", field.spec(), async |session| {
        // The same place inside, which the archive must not reach either.
        let place = quoted(&aim);
        session
            .shell(format!("mkdir -p {place} /tmp/x"))
            .await?
            .check()?;
        let _ = session.files().extract("/tmp/x", &archive[..]).await;
        Ok(verdict(
            shows(session, &format!("ls {place}"), "file").await?,
        ))
    });
    let inside = inside.await?;
    Ok(Played {
        control: field.stage().shell(&control, false)?,
        inside,
    })
}

/// Names that lead out by `..`.
pub(super) async fn archive_with_names(field: &Field<'_>) -> Result<Played> {
    let script =
        "echo planted >planted; tar -P -cf n.tar --transform 's,^,../../,' planted; cat n.tar";
    let archive = packed(field, script)?;
    let control = "mkdir -p v/w && tar -P -xf packed/n.tar -C v/w && test -e planted && rm planted \
                   && echo ok";
    let inside = field.with("attacker", field.spec(), async |session| {
        session.shell("mkdir -p /tmp/v/w").await?.check()?;
        let _ = session.files().extract("/tmp/v/w", &archive[..]).await;
        Ok(verdict(shows(session, "ls /tmp", "planted").await?))
    });
    let inside = inside.await?;
    Ok(Played {
        control: field.stage().shell(control, false)?,
        inside,
    })
}
