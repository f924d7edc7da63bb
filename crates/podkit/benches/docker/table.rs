//! Measurements that take turns, and rows with the confidence that they deserve.

use std::time::Duration;

/// Resamplings of a row for its confidence interval.
const RESAMPLINGS: usize = 2000;

/// Rounds before those that count.
const FIRST: usize = 3;

/// How often, and how long to wait before each.
#[derive(Clone, Copy)]
pub(super) struct Rounds {
    pub(super) count: usize,
    pub(super) pause: Duration,
}

impl Rounds {
    async fn wait(self) {
        if !self.pause.is_zero() {
            tokio::time::sleep(self.pause).await;
        }
    }

    const fn pauses(self) -> &'static str {
        if self.pause.is_zero() {
            "none"
        } else {
            "150 ms"
        }
    }
}

/// Times of one step: podkit's and its neighbour's, by round, in milliseconds.
#[derive(Clone, Default)]
pub(super) struct Pairs(Vec<(f64, f64)>);

impl Pairs {
    fn column(&self, pick: fn(&(f64, f64)) -> f64) -> Times {
        Times::new(self.0.iter().map(pick).collect())
    }

    pub(super) fn extend(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    pub(super) fn ours(&self) -> Times {
        self.column(|pair| pair.0)
    }

    pub(super) fn theirs(&self) -> Times {
        self.column(|pair| pair.1)
    }

    /// The ratio of medians, and where it lies in 95 of 100 resamplings of the rounds.
    fn ratio(&self) -> (f64, f64, f64) {
        let medians = |pairs: &Self| pairs.ours().percentile(50) / pairs.theirs().percentile(50);
        let mut random = Random(42);
        let resampled = (0..RESAMPLINGS).map(|_| {
            let round = |_| self.0[random.below(self.0.len())];
            medians(&Self((0..self.0.len()).map(round).collect()))
        });
        let ratios = Times::new(resampled.collect());
        let edge = RESAMPLINGS / 40;
        (
            medians(self),
            ratios.0[edge],
            ratios.0[RESAMPLINGS - 1 - edge],
        )
    }
}

/// Sorted times in milliseconds.
pub(super) struct Times(Vec<f64>);

impl Times {
    pub(super) fn new(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        Self(times)
    }

    pub(super) fn percentile(&self, percent: usize) -> f64 {
        let index = (self.0.len() * percent / 100).min(self.0.len() - 1);
        self.0[index]
    }
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
}

pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Takes both in turn; which is first changes from round to round, so that neither always follows
/// the other. Each gives the times of its steps.
pub(super) async fn pairs<const STEPS: usize>(
    rounds: Rounds,
    mut ours: impl AsyncFnMut(usize) -> [Duration; STEPS],
    mut theirs: impl AsyncFnMut(usize) -> [Duration; STEPS],
) -> [Pairs; STEPS] {
    let mut steps: [Pairs; STEPS] = std::array::from_fn(|_| Pairs::default());
    for round in 0..rounds.count + FIRST {
        let (mut our_times, mut their_times) = ([Duration::ZERO; STEPS], [Duration::ZERO; STEPS]);
        for turn in 0..2 {
            rounds.wait().await;
            if (round + turn) % 2 == 0 {
                our_times = ours(round).await;
            } else {
                their_times = theirs(round).await;
            }
        }
        let times = our_times.into_iter().zip(their_times);
        for (step, (our, their)) in steps.iter_mut().zip(times).filter(|_| round >= FIRST) {
            step.0.push((milliseconds(our), milliseconds(their)));
        }
    }
    steps
}

pub(super) fn head() {
    println!(
        "| step | pauses | n | podkit, ms: p50 / p99 | beside it, ms: p50 / p99 | ratio (95 % of cases) | goal |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
}

/// Prints one row: medians, their ratio, and where the ratio lies in 95 of 100 cases.
pub(super) fn row(what: &str, rounds: Rounds, pairs: &Pairs, beside: &str, goal: &str) {
    let (ours, theirs) = (pairs.ours(), pairs.theirs());
    let (ratio, low, high) = pairs.ratio();
    println!(
        "| {what} | {} | {} | {:.2} / {:.2} | {beside} {:.2} / {:.2} | {ratio:.2} ({low:.2}–{high:.2}) | {goal} |",
        rounds.pauses(),
        rounds.count,
        ours.percentile(50),
        ours.percentile(99),
        theirs.percentile(50),
        theirs.percentile(99),
    );
}
