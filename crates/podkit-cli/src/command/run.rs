//! `podkit run`.

use std::{fs::File, os::unix::fs::PermissionsExt as _, path::Path};

use podkit::{Error, Image, WriteOptions};

use super::{Context, exec};
use crate::{
    args::RunArgs,
    output::{Exit, Failure},
    pump,
    signals::Signals,
};

/// Runs a command in a container of its own, which is removed whatever happens.
pub(super) async fn run(context: &Context, args: RunArgs) -> Result<Exit, Failure> {
    Image::parse(&args.image).map_err(Failure::usage)?;
    let request = exec::request(&args.command)?;
    let spec = args.spec.spec().map_err(Failure::usage)?.image(&args.image);
    let files = args
        .files
        .iter()
        .map(|text| local_file(text))
        .collect::<Result<Vec<_>, _>>()
        .map_err(Failure::usage)?;
    let mut signals = Signals::listen()?;
    let podkit = pump::unless_signalled(&mut signals, context.podkit()).await?;
    // The result of the command passes through here, because the scope's own is the library's.
    let mut ended = None;
    let quiet = args.command.quiet;
    let closed = podkit
        .scoped(spec, async |session| {
            for (path, mode, file) in files {
                let mut options = WriteOptions::new();
                options.mode = Some(mode);
                let file = tokio::fs::File::from_std(file);
                session.files().write_with(&path, options, file).await?;
            }
            ended = Some(exec::attend(context, session, request, quiet, &mut signals).await);
            Ok(())
        })
        .await;
    match (ended, closed) {
        (None, Err(error)) => Err(error.into()),
        (Some(result), Ok(())) => result,
        (Some(result), Err(error)) => {
            context.output.warning(&error);
            result
        }
        (None, Ok(())) => Ok(Exit::Podkit),
    }
}

/// Opens `FILE[:PATH]`: where it goes, its permission bits, and the file.
fn local_file(text: &str) -> podkit::Result<(String, u32, File)> {
    let (local, path) = match text.rsplit_once(':') {
        Some((local, path)) if !local.is_empty() && !path.is_empty() => (local, path.to_owned()),
        _ => {
            let name = Path::new(text).file_name().and_then(|name| name.to_str());
            (text, name.unwrap_or_default().to_owned())
        }
    };
    let opened = File::open(local).and_then(|file| {
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(std::io::Error::from(std::io::ErrorKind::IsADirectory));
        }
        let mode = metadata.permissions().mode() & 0o777;
        Ok((file, mode))
    });
    let (file, mode) = opened.map_err(|error| {
        Error::invalid_input(format!("the file `{local}` cannot be read")).with_source(error)
    })?;
    Ok((path, mode, file))
}
