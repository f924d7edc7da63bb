//! `podkit image`.

use std::{path::Path, pin::Pin};

use bytes::Bytes;
use futures::{StreamExt, stream};
use indicatif::HumanBytes;
use podkit::{Error, ErrorKind, ImageInfo, PullRequest};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::Context;
use crate::{
    image_args::{ImageArgs, ImageCommand},
    output::{Exit, Failure, ago, error_json, table},
};

/// Bytes of an archive that are read at once.
const CHUNK: usize = 256 * 1024;

/// Does something with the engine's images.
pub(super) async fn image(context: &Context, args: ImageArgs) -> Result<Exit, Failure> {
    match args.command {
        ImageCommand::Pull {
            image,
            platform,
            quiet,
        } => pull(context, image, platform, quiet).await,
        ImageCommand::Ls { quiet } => ls(context, quiet).await,
        ImageCommand::Rm { images } => rm(context, &images).await,
        ImageCommand::Import { file, image } => import(context, &file, &image).await,
    }
}

async fn pull(
    context: &Context,
    image: String,
    platform: Option<String>,
    quiet: bool,
) -> Result<Exit, Failure> {
    let podkit = context.podkit_with(quiet).await?;
    let images = podkit.containers();
    let request = PullRequest::new(&image).with_platform(platform);
    images.pull(&request).await?;
    let info = images.inspect_image(&image).await?;
    let text = || format!("{}\n", info.id);
    context.output.result(|| image_json(&info), text)?;
    Ok(Exit::Success)
}

async fn ls(context: &Context, quiet: bool) -> Result<Exit, Failure> {
    let podkit = context.podkit().await?;
    let images = podkit.containers().list_images().await?;
    let json = || images.iter().map(image_json).collect();
    let text = || {
        if quiet {
            let names = images.iter().flat_map(|image| &image.names);
            return names.map(|name| format!("{name}\n")).collect();
        }
        let rows: Vec<Vec<String>> = images.iter().flat_map(rows).collect();
        table(&["IMAGE", "ID", "CREATED", "SIZE"], &rows)
    };
    context.output.result(json, text)?;
    Ok(Exit::Success)
}

fn rows(image: &ImageInfo) -> Vec<Vec<String>> {
    let id = image.id.trim_start_matches("sha256:");
    let names = if image.names.is_empty() {
        &image.digests
    } else {
        &image.names
    };
    let row = |name: &String| {
        vec![
            name.clone(),
            id.get(..12).unwrap_or(id).to_owned(),
            image.created_at.map_or_else(|| "-".to_owned(), ago),
            HumanBytes(image.size_bytes).to_string(),
        ]
    };
    names.iter().map(row).collect()
}

fn image_json(image: &ImageInfo) -> serde_json::Value {
    json!({
        "id": image.id,
        "names": image.names,
        "digests": image.digests,
        "size_bytes": image.size_bytes,
        "platform": image.platform,
        "entrypoint": image.entrypoint,
        "command": image.command,
        "user": image.user,
    })
}

async fn rm(context: &Context, images: &[String]) -> Result<Exit, Failure> {
    let podkit = context.podkit().await?;
    let (mut removed, mut failed) = (Vec::new(), Vec::new());
    for image in images {
        match podkit.containers().remove_image(image).await {
            Ok(()) => removed.push(image),
            Err(error) => failed.push(error),
        }
    }
    let json = || {
        let failed: Vec<_> = failed.iter().map(error_json).collect();
        json!({ "removed": removed, "failed": failed })
    };
    let text = || {
        removed
            .iter()
            .map(|name| format!("removed {name}\n"))
            .collect()
    };
    context.output.result(json, text)?;
    if !context.output.is_json() {
        failed.iter().for_each(|error| context.output.error(error));
    }
    Ok(if failed.is_empty() {
        Exit::Success
    } else {
        Exit::Podkit
    })
}

async fn import(context: &Context, file: &Path, image: &str) -> Result<Exit, Failure> {
    let reader: Pin<Box<dyn AsyncRead + Send>> = if file == Path::new("-") {
        Box::pin(tokio::io::stdin())
    } else {
        let opened = tokio::fs::File::open(file).await.map_err(|error| {
            let text = format!("cannot read the archive `{}`", file.display());
            Error::new(ErrorKind::InvalidInput, text).with_source(error)
        })?;
        Box::pin(opened)
    };
    let chunks = stream::unfold(reader, |mut reader| async move {
        let mut chunk = vec![0; CHUNK];
        match reader.read(&mut chunk).await {
            Ok(0) => None,
            Ok(count) => {
                chunk.truncate(count);
                Some((Ok(Bytes::from(chunk)), reader))
            }
            Err(error) => Some((Err(error), reader)),
        }
    });
    let podkit = context.podkit().await?;
    let images = podkit.containers();
    images.import_image(image, chunks.boxed()).await?;
    let info = images.inspect_image(image).await?;
    context
        .output
        .result(|| image_json(&info), || format!("{}\n", info.id))?;
    Ok(Exit::Success)
}
