//! Memory from the kernel for slots and index buckets. Knows nothing of what is stored in it.

pub(super) mod mapping;
pub(super) mod pool;
mod region;

pub(super) use self::region::{CHUNK_SIZE, CacheLine, LINES_PER_CHUNK};
