//! A directory as an image.

use std::{fs, path::Path};

use super::{ETC_FILES, Image};
use crate::error::{Error, ErrorKind, Result};

/// The directory on top of what every root has.
pub(super) fn resolve(path: &Path, base: std::path::PathBuf) -> Result<Image> {
    if !path.is_dir() {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!("the root file system `{}` is gone", path.display()),
        ));
    }
    let etc = path.join("etc");
    let writable_etc = match fs::symlink_metadata(&etc) {
        // Who links it elsewhere keeps it as it is.
        Ok(metadata) if !metadata.is_dir() => Vec::new(),
        _ => ETC_FILES
            .into_iter()
            .filter(|name| {
                fs::symlink_metadata(etc.join(name)).map_or(true, |found| found.is_file())
            })
            .collect(),
    };
    Ok(Image {
        lowers: vec![path.to_owned(), base],
        writable_etc,
        ..Image::default()
    })
}
