//! The memory of a segment: buckets of one cache line each, on the heap while they are few, else a
//! chunk of the pool.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};

use super::super::alloc::{
    CHUNK_SIZE, CacheLine, LINES_PER_CHUNK,
    pool::{Chunk, Pool},
};
use crate::os::prefetch::prefetch;

pub(super) type Bucket = CacheLine;

pub(super) const EMPTY_BUCKET: Bucket = CacheLine([0; 8]);
pub(super) const MAX_BUCKETS: usize = LINES_PER_CHUNK;

/// Up to `MAX_BUCKETS` buckets.
pub(super) enum Buckets {
    Heap(Vec<Bucket>),
    Chunk(Chunk),
}

impl Buckets {
    /// `count` empty buckets, or `None` if there is no memory or `count` is more than
    /// `MAX_BUCKETS`.
    pub(super) fn new(pool: &Arc<Pool>, count: usize) -> Option<Buckets> {
        match count.checked_mul(size_of::<Bucket>())? {
            CHUNK_SIZE => {
                let mut buckets = Buckets::Chunk(pool.allocate()?);
                buckets.fill(EMPTY_BUCKET);
                Some(buckets)
            }
            0..CHUNK_SIZE => {
                let mut buckets = Vec::new();
                buckets.try_reserve_exact(count).ok()?;
                buckets.resize(count, EMPTY_BUCKET);
                Some(Buckets::Heap(buckets))
            }
            _ => None,
        }
    }

    #[inline]
    pub(super) fn prefetch(&self, bucket: usize) {
        prefetch(self.as_ptr().wrapping_add(bucket));
    }
}

impl Deref for Buckets {
    type Target = [Bucket];

    #[inline]
    fn deref(&self) -> &[Bucket] {
        match self {
            Buckets::Heap(buckets) => buckets,
            Buckets::Chunk(chunk) => chunk.lines(),
        }
    }
}

impl DerefMut for Buckets {
    #[inline]
    fn deref_mut(&mut self) -> &mut [Bucket] {
        match self {
            Buckets::Heap(buckets) => buckets,
            Buckets::Chunk(chunk) => chunk.lines_mut(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_of_every_size_are_empty_and_disjoint_from_chunks() {
        let pool = Pool::new();
        let mut held = Vec::new();
        for round in 0..3 {
            for count in (0..11).map(|doublings| 1 << doublings) {
                let mut buckets = Buckets::new(&pool, count).unwrap();
                assert_eq!(buckets.len(), count);
                assert!(buckets.iter().all(|bucket| bucket.0 == [0; 8]), "{count} buckets in round {round}");
                buckets.fill(CacheLine([count as u64; 8]));
                let mut chunk = pool.allocate().unwrap();
                chunk.fill(0xFF);
                held.push((buckets, chunk));
            }
            for (buckets, chunk) in held.drain(..) {
                assert!(buckets.iter().all(|bucket| bucket.0 == [buckets.len() as u64; 8]));
                assert!(chunk.iter().all(|&byte| byte == 0xFF));
            }
        }
        assert!(Buckets::new(&pool, 2 * MAX_BUCKETS).is_none());
    }
}
