//! What is taken straight from the operating system: clocks, and the detection of `fork`. Knows nothing of sessions.

pub(crate) mod clock;
pub(crate) mod fork_mark;
