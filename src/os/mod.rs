//! What is taken straight from the operating system: clocks, small files, and the detection of `fork`. Knows nothing of sessions.

pub(crate) mod clock;
pub(crate) mod file;
pub(crate) mod fork_mark;
