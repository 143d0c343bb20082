//! What is taken straight from the operating system and the processor: clocks, small files, the
//! detection of `fork`, prefetching. Knows nothing of sessions.

#[cfg(any(feature = "capi", test))]
pub(crate) mod cancellation;
pub(crate) mod clock;
pub(crate) mod file;
pub(crate) mod fork_mark;
pub(crate) mod prefetch;
