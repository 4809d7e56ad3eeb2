//! What is random in a schedule.

use proptest::test_runner::{RngAlgorithm, TestRng};

/// Random numbers from a seed, the same on every machine.
pub struct Dice(TestRng);

impl Dice {
    pub fn new(seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Self(TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
    }

    /// Below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        use proptest::prelude::Rng as _;
        usize::try_from(self.0.next_u64() % end as u64).expect("below a usize")
    }

    /// In so many of a hundred cases.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// Runs `schedule` with the seed that `SITESWAP_SEED` says, or with as many as `SITESWAP_SEEDS` says, or as is usual.
pub fn each_seed(usual: u64, mut schedule: impl FnMut(u64)) {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seeds = match number("SITESWAP_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SITESWAP_SEEDS").unwrap_or(usual),
    };
    for seed in seeds {
        let running = Running(seed);
        schedule(seed);
        drop(running);
    }
}

/// Names the seed of a schedule that fails.
struct Running(u64);

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("SITESWAP_SEED={} repeats this", self.0);
        }
    }
}
