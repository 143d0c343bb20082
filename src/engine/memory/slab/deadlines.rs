//! When each slot may be due: a column of scheduled deadlines per chunk, apart from the slots, and
//! the earliest of each column, so that finding what is due costs what is due and not what lives.
//!
//! Invariant: a scheduled deadline is not later than the session's real one. A use that slides a
//! session leaves its scheduled deadline alone; when that comes too early, the sweep schedules the
//! session again at the real one.

use crate::error::{Error, Result};

/// The slot is free.
const FREE: i64 = i64::MAX;
/// A session that never expires. Later than every clock (`os::clock::LAST_MS`).
const NEVER: i64 = i64::MAX - 1;

pub(super) struct Deadlines {
    /// As long as the chunk's slots were ever used.
    columns: Vec<Vec<i64>>,
    /// A lower bound of each column.
    earliest: Vec<i64>,
    /// A lower bound of all columns.
    earliest_of_all: i64,
}

/// The progress of a search for slots that are due.
#[derive(Clone, Copy, Default, PartialEq)]
pub(crate) struct DueCursor {
    chunk: usize,
    index: usize,
}

impl Default for Deadlines {
    fn default() -> Deadlines {
        Deadlines { columns: Vec::new(), earliest: Vec::new(), earliest_of_all: NEVER }
    }
}

impl Deadlines {
    pub(super) fn add_chunk(&mut self, chunk: usize) -> Result<()> {
        if chunk == self.columns.len() {
            let reserved = self.columns.try_reserve(1).and_then(|()| self.earliest.try_reserve(1));
            reserved.map_err(|_| Error::no_memory())?;
            self.columns.push(Vec::new());
            self.earliest.push(NEVER);
        }
        Ok(())
    }

    pub(super) fn remove_chunk(&mut self, chunk: usize) {
        self.columns[chunk] = Vec::new();
        self.earliest[chunk] = NEVER;
    }

    /// Makes room for a slot of a chunk that has `slots` in all.
    pub(super) fn reserve(&mut self, chunk: usize, index: usize, slots: usize) -> Result<()> {
        let column = &mut self.columns[chunk];
        if index >= column.len() {
            if index >= column.capacity() {
                let capacity = (2 * index).max(4).min(slots);
                column.try_reserve_exact(capacity - column.len()).map_err(|_| Error::no_memory())?;
            }
            column.resize(index + 1, FREE);
        }
        Ok(())
    }

    pub(super) fn is_live(&self, chunk: usize, index: usize) -> bool {
        self.columns[chunk].get(index).is_some_and(|&scheduled| scheduled != FREE)
    }

    pub(super) fn scheduled(&self, chunk: usize, index: usize) -> i64 {
        self.columns[chunk][index]
    }

    /// Schedules a slot, whether or not it was scheduled before.
    pub(super) fn schedule(&mut self, chunk: usize, index: usize, deadline: i64) {
        let deadline = deadline.min(NEVER);
        self.columns[chunk][index] = deadline;
        self.earliest[chunk] = self.earliest[chunk].min(deadline);
        self.earliest_of_all = self.earliest_of_all.min(deadline);
    }

    /// Records that a slot is free. The minima stay lower bounds.
    pub(super) fn unschedule(&mut self, chunk: usize, index: usize) {
        debug_assert!(self.is_live(chunk, index), "a slot was freed twice");
        self.columns[chunk][index] = FREE;
    }

    /// Makes every session due: the sweep then schedules it again at its real deadline.
    pub(super) fn make_all_due(&mut self) {
        for scheduled in self.columns.iter_mut().flatten().filter(|scheduled| **scheduled != FREE) {
            *scheduled = i64::MIN;
        }
        self.earliest.fill(i64::MIN);
        self.earliest_of_all = i64::MIN;
    }

    /// The next slot from the cursor on (chunk and index) that is due. The caller unschedules it or
    /// schedules it later than `now`. `None`: there is none up to the end, and the cursor is at the
    /// beginning again.
    pub(super) fn next_due(&mut self, cursor: &mut DueCursor, now: i64) -> Option<(usize, usize)> {
        if self.earliest_of_all > now {
            *cursor = DueCursor::default();
            return None;
        }
        while let Some(column) = self.columns.get(cursor.chunk) {
            if self.earliest[cursor.chunk] <= now {
                let rest = column.get(cursor.index..).unwrap_or_default();
                if let Some(i) = rest.iter().position(|&scheduled| scheduled <= now) {
                    let index = cursor.index + i;
                    cursor.index = index + 1;
                    return Some((cursor.chunk, index));
                }
                self.earliest[cursor.chunk] = column.iter().copied().min().unwrap_or(NEVER);
            }
            *cursor = DueCursor { chunk: cursor.chunk + 1, index: 0 };
        }
        *cursor = DueCursor::default();
        self.earliest_of_all = self.earliest.iter().copied().min().unwrap_or(NEVER);
        None
    }

    #[cfg(test)]
    pub(super) fn check(&self, live: usize) {
        let scheduled = |column: &[i64]| column.iter().filter(|&&scheduled| scheduled != FREE).count();
        assert_eq!(self.columns.iter().map(|column| scheduled(column)).sum::<usize>(), live);
        for (column, earliest) in self.columns.iter().zip(&self.earliest) {
            assert!(column.iter().all(|scheduled| scheduled >= earliest) && *earliest >= self.earliest_of_all);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::clock;

    const SLOTS: usize = 100;

    fn filled(chunks: usize, deadline: impl Fn(usize) -> i64) -> Deadlines {
        let mut deadlines = Deadlines::default();
        for chunk in 0..chunks {
            deadlines.add_chunk(chunk).unwrap();
            for index in 0..SLOTS {
                deadlines.reserve(chunk, index, SLOTS).unwrap();
                deadlines.schedule(chunk, index, deadline(chunk * SLOTS + index));
            }
        }
        deadlines
    }

    #[test]
    fn next_due_finds_exactly_what_is_due() {
        let deadline = |i: usize| (i as i64 * 7919) % 1000;
        let mut deadlines = filled(10, deadline);
        let mut cursor = DueCursor::default();
        let mut found = 0;
        while let Some((chunk, index)) = deadlines.next_due(&mut cursor, 499) {
            assert!(deadline(chunk * SLOTS + index) <= 499);
            deadlines.unschedule(chunk, index);
            found += 1;
        }
        assert_eq!(found, 500);
        assert_eq!(deadlines.earliest_of_all, 500);
        assert_eq!(deadlines.next_due(&mut cursor, 499), None);
        deadlines.check(500);
    }

    /// Otherwise a sweep would visit it and schedule it again, over and over.
    #[test]
    fn immortal_session_is_due_only_after_make_all_due() {
        let mut deadlines = filled(2, |_| i64::MAX);
        assert_eq!(deadlines.next_due(&mut DueCursor::default(), clock::LAST_MS), None);
        deadlines.make_all_due();
        assert_eq!(deadlines.next_due(&mut DueCursor::default(), 0), Some((0, 0)));
    }
}
