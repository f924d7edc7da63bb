//! Flags of `podkit image`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

/// Fetch, list, remove and import the images of an engine that keeps them by name
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  podkit --backend docker image pull python:3.12
  podkit --backend docker image ls
  podkit --backend podman image import rootfs.tar my/image:1")]
pub(crate) struct ImageArgs {
    #[command(subcommand)]
    pub(crate) command: ImageCommand,
}

/// What to do with images.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Fetch an image from its registry
    Pull {
        /// Name, such as python:3.12 or registry:5000/name@sha256:...
        #[arg(value_name = "IMAGE")]
        image: String,

        /// Platform, such as linux/amd64 [default: the engine's own]
        #[arg(long, value_name = "PLATFORM")]
        platform: Option<String>,

        /// Show no progress
        #[arg(short = 'q', long)]
        quiet: bool,
    },
    /// List images
    #[command(visible_alias = "list")]
    Ls {
        /// Only names, one a line
        #[arg(short = 'q', long)]
        quiet: bool,
    },
    /// Remove images
    Rm {
        /// Names
        #[arg(value_name = "IMAGE", required = true)]
        images: Vec<String>,
    },
    /// Make an image from a tar archive of a root file system
    Import {
        /// The archive; `-` for standard input
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,

        /// Name of the image that is made
        #[arg(value_name = "IMAGE")]
        image: String,
    },
}
