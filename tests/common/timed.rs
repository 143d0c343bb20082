//! How long a call takes, told apart from how long a busy machine lets it wait for a processor.

use std::{
    fs,
    time::{Duration, Instant},
};

/// So much later than its deadline a call may end.
pub const LATE: Duration = Duration::from_millis(50);

/// So much later a call may end beside servers that are killed and started, which keep the
/// processors busy: one that has no deadline takes longer.
pub const LATE_UNDER_LOAD: Duration = Duration::from_secs(2);

/// What a call returns, and how long it took but for the time that its thread could have run and
/// had no processor, or that the host gave the machine's processors to others.
pub fn timed<T>(call: impl FnOnce() -> T) -> (T, Duration) {
    let (lost_before, begun) = (kept_waiting() + stolen(), Instant::now());
    let done = call();
    let took = begun.elapsed();
    (done, took.saturating_sub(kept_waiting() + stolen() - lost_before))
}

/// As the kernel counts it: the second number there, in nanoseconds.
fn kept_waiting() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').nth(1).unwrap().parse().unwrap())
}

/// Of all processors: proc_stat(5), the eighth number of the first line, in hundredths of a second.
fn stolen() -> Duration {
    let text = fs::read_to_string("/proc/stat").unwrap();
    Duration::from_millis(10 * text.split_ascii_whitespace().nth(8).unwrap().parse::<u64>().unwrap())
}
