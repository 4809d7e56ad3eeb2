//! Whatever a plain connection does to the tables is in the touches.

mod fuzz;

/// `CAPTURE_SEED=n` repeats one run, `CAPTURE_SEEDS=n` makes so many of them.
#[test]
fn every_difference_between_two_snapshots_is_in_a_touch() {
    for seed in fuzz::seeds(300) {
        if let Err(what) = fuzz::run(seed, |_| {}) {
            panic!("CAPTURE_SEED={seed}\n{what}");
        }
    }
}
