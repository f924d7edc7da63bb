//! How far the fetching of an image is: a bar for each layer on a terminal, one line elsewhere.

use std::{
    collections::HashMap,
    io::{self, IsTerminal},
    sync::{Mutex, PoisonError},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use podkit::PullProgress;

use crate::output::{Output, printable};

/// Most bars at once.
const MOST: usize = 20;

/// Shows pulls on standard error.
#[derive(Debug)]
pub(super) struct PullBars {
    output: Output,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    bars: MultiProgress,
    layers: HashMap<String, ProgressBar>,
    /// The image that was named last.
    named: Option<String>,
}

impl PullBars {
    pub(super) fn new(output: Output) -> Self {
        Self {
            output,
            state: Mutex::default(),
        }
    }

    /// Shows one event.
    pub(super) fn tell(&self, progress: &PullProgress) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.named.as_ref() != Some(&progress.image) {
            state.named = Some(progress.image.clone());
            self.output
                .note(&format!("fetching the image {}", progress.image));
        }
        let Some(layer) = progress
            .layer
            .as_ref()
            .filter(|_| io::stderr().is_terminal())
        else {
            return;
        };
        let bar = match state.layers.get(layer) {
            Some(bar) => bar.clone(),
            None if progress.total.is_none() || state.layers.len() >= MOST => return,
            None => {
                let bar = state.bars.add(ProgressBar::new(0));
                let template = "{prefix} {msg:12} {bytes}/{total_bytes} {wide_bar}";
                bar.set_style(
                    // The template is constant; without one the default is used.
                    ProgressStyle::with_template(template)
                        .unwrap_or_else(|_| ProgressStyle::default_bar()),
                );
                bar.set_prefix(printable(layer).into_owned());
                state.layers.insert(layer.clone(), bar.clone());
                bar
            }
        };
        bar.set_message(printable(&progress.status).into_owned());
        match progress.total {
            Some(total) => {
                bar.set_length(total);
                bar.set_position(progress.current);
            }
            None if progress.status.to_lowercase().contains("complete") => {
                bar.finish_and_clear();
            }
            None => {}
        }
    }
}
