//! What is left in the end, and what is said of it.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use super::{LEAVING, Oracle};
use crate::{host, say};

impl Oracle {
    pub(super) fn judge_samples(&mut self) {
        let mut found = Vec::new();
        for client in &self.clients {
            if let [first, .., last] = client.samples.as_slice()
                && first.descriptors != last.descriptors
            {
                found.push(format!(
                    "the {} client had {} descriptors at first, {} at last",
                    client.name, first.descriptors, last.descriptors
                ));
            }
            // Of one that is killed each minute every sample is another process's.
            if client.name != "steady" {
                continue;
            }
            let later = client.samples.get(client.samples.len() / 2..);
            let memory = later.unwrap_or_default().iter().map(|s| s.memory_kib);
            let (least, most) = (memory.clone().min(), memory.max());
            if let (Some(least), Some(most)) = (least, most)
                && most * 95 > least * 105
            {
                found.push(format!(
                    "memory of the {} client goes from {least} to {most} KiB in the later half",
                    client.name,
                ));
            }
        }
        for what in found {
            self.fail(what);
        }
    }

    /// Compares the host with what it was.
    pub(super) fn compare(&mut self, before: &BTreeSet<String>) {
        let begun = Instant::now();
        let left = loop {
            let after = host::snapshot(&self.options.backend, &self.place, &self.prefix);
            let left: Vec<String> = after.difference(before).cloned().collect();
            if left.is_empty() || begun.elapsed() > LEAVING {
                break left;
            }
            std::thread::park_timeout(Duration::from_millis(500));
        };
        for line in left {
            self.fail(format!("left behind: {line}"));
        }
        if self.failures.is_empty()
            && let Err(error) = std::fs::remove_dir_all(&self.place)
        {
            self.fail(format!("{}: {error}", self.place.display()));
        }
    }

    pub(super) fn progress(&self) {
        let counts = &self.counts;
        let under_way: usize = self.clients.iter().map(|c| c.operations.len()).sum();
        say(&format!(
            "soak: {:>4} s: {} operations ({} under way), {} writes, {} reads, {} disturbed, \
             {} containers and {} clients killed, {} wrong",
            self.begun.elapsed().as_secs(),
            counts.operations,
            under_way,
            counts.writes,
            counts.reads,
            counts.disturbed,
            counts.containers_killed,
            counts.clients_killed,
            self.failures.len()
        ));
    }

    pub(super) fn summary(&self) -> Result<(), String> {
        self.progress();
        let mut longest: Vec<_> = self.counts.longest.iter().collect();
        longest.sort();
        for (name, time) in longest {
            say(&format!("soak: longest {name}: {time:?}"));
        }
        if self.failures.is_empty() {
            say("soak: nothing was wrong");
            return Ok(());
        }
        Err(format!(
            "{} things were wrong (seed {}); what is left of them is in {}",
            self.failures.len(),
            self.options.seed,
            self.place.display()
        ))
    }
}
