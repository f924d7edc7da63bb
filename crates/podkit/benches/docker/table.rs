//! Rows of the table, with the confidence that they deserve.

use std::time::Duration;

/// Resamplings of a row for its confidence interval.
const RESAMPLINGS: usize = 2000;

/// How often, and how long to wait before each.
#[derive(Clone, Copy)]
pub(super) struct Rounds {
    pub(super) count: usize,
    pub(super) pause: Duration,
}

impl Rounds {
    pub(super) async fn pause(self) {
        if !self.pause.is_zero() {
            tokio::time::sleep(self.pause).await;
        }
    }
}

fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let index = (sorted.len() * percent / 100).min(sorted.len() - 1);
    sorted[index]
}

fn sorted(times: &[Duration]) -> Vec<f64> {
    let mut ms: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
    ms.sort_by(f64::total_cmp);
    ms
}

/// Numbers that are random enough, and the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    fn median_of_resampled(&mut self, times: &[f64]) -> f64 {
        let mut picked: Vec<f64> = (0..times.len())
            .map(|_| times[self.below(times.len())])
            .collect();
        picked.sort_by(f64::total_cmp);
        percentile(&picked, 50)
    }
}

/// Prints one row: medians, their ratio, and where the ratio lies in 95 of 100 cases.
pub(super) fn row(
    what: &str,
    rounds: Rounds,
    ours: &[Duration],
    beside: &str,
    theirs: &[Duration],
    goal: &str,
) {
    let pauses = if rounds.pause.is_zero() {
        "none"
    } else {
        "150 ms"
    };
    let (ours, theirs) = (sorted(ours), sorted(theirs));
    let mut random = Random(42);
    let mut ratios: Vec<f64> = (0..RESAMPLINGS)
        .map(|_| random.median_of_resampled(&ours) / random.median_of_resampled(&theirs))
        .collect();
    ratios.sort_by(f64::total_cmp);
    let at = |index: usize| ratios[index.min(RESAMPLINGS - 1)];
    println!(
        "| {what} | {pauses} | {} | {:.2} / {:.2} | {beside} {:.2} / {:.2} | {:.2} ({:.2}–{:.2}) | {goal} |",
        rounds.count,
        percentile(&ours, 50),
        percentile(&ours, 99),
        percentile(&theirs, 50),
        percentile(&theirs, 99),
        percentile(&ours, 50) / percentile(&theirs, 50),
        at(RESAMPLINGS / 40),
        at(RESAMPLINGS - RESAMPLINGS / 40),
    );
}
