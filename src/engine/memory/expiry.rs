//! When each slot may be due: for every chunk a column of armed deadlines, apart from the slots, and the earliest of
//! each column, so that looking for the due costs what is due and not what lives.
//!
//! Invariant: an armed deadline is never later than the session's real one. A use that slides a session leaves its armed
//! deadline alone; when that fires too early, the sweep arms it again at the real one.

use super::slots::{Address, chunk_of};
use crate::error::{Error, Result};

/// The slot is free.
const FREE: i64 = i64::MAX;
/// The latest that a session is armed: one that never expires.
const NEVER: i64 = i64::MAX - 1;

pub(super) struct Expiry {
    columns: Vec<Box<[i64]>>,
    /// Not later than the earliest of each column.
    earliest: Vec<i64>,
    /// Not later than the earliest of all.
    earliest_of_all: i64,
}

/// How far a search for the due has come.
#[derive(Clone, Copy, Default)]
pub(super) struct Cursor {
    chunk: usize,
    number: usize,
}

impl Default for Expiry {
    fn default() -> Expiry {
        Expiry { columns: Vec::new(), earliest: Vec::new(), earliest_of_all: NEVER }
    }
}

impl Expiry {
    pub(super) fn add_chunk(&mut self, chunk: usize, slots: usize) -> Result<()> {
        let mut column = Vec::new();
        let reserved = column.try_reserve_exact(slots).and_then(|()| {
            self.columns.try_reserve(1)?;
            self.earliest.try_reserve(1)
        });
        reserved.map_err(|_| Error::no_memory())?;
        column.resize(slots, FREE);
        if chunk == self.columns.len() {
            self.columns.push(Box::default());
            self.earliest.push(NEVER);
        }
        self.columns[chunk] = column.into_boxed_slice();
        self.earliest[chunk] = NEVER;
        Ok(())
    }

    pub(super) fn remove_chunk(&mut self, chunk: usize) {
        self.columns[chunk] = Box::default();
        self.earliest[chunk] = NEVER;
    }

    pub(super) fn is_live(&self, chunk: usize, number: usize) -> bool {
        self.columns[chunk][number] != FREE
    }

    pub(super) fn armed(&self, at: Address, number: usize) -> i64 {
        self.columns[chunk_of(at)][number]
    }

    /// Notes that the slot is due at `deadline`, whatever was noted before.
    pub(super) fn arm(&mut self, at: Address, number: usize, deadline: i64) {
        let (chunk, deadline) = (chunk_of(at), deadline.min(NEVER));
        self.columns[chunk][number] = deadline;
        self.earliest[chunk] = self.earliest[chunk].min(deadline);
        self.earliest_of_all = self.earliest_of_all.min(deadline);
    }

    /// Notes that the slot is free. The minima stay as lower bounds.
    pub(super) fn disarm(&mut self, at: Address, number: usize) {
        debug_assert!(self.is_live(chunk_of(at), number), "a slot was freed twice");
        self.columns[chunk_of(at)][number] = FREE;
    }

    /// Notes that every session may be due by now.
    pub(super) fn arm_all(&mut self) {
        for armed in self.columns.iter_mut().flatten().filter(|armed| **armed != FREE) {
            *armed = i64::MIN;
        }
        self.earliest.fill(i64::MIN);
        self.earliest_of_all = i64::MIN;
    }

    /// The next slot (chunk and number) from the cursor on whose armed deadline has come. The caller disarms it or arms it
    /// later than `now`. `None`: from the cursor to the end there is none, and the cursor is back at the beginning.
    pub(super) fn due(&mut self, cursor: &mut Cursor, now: i64) -> Option<(usize, usize)> {
        if self.earliest_of_all > now {
            *cursor = Cursor::default();
            return None;
        }
        while let Some(column) = self.columns.get(cursor.chunk) {
            if self.earliest[cursor.chunk] <= now {
                let rest = column.get(cursor.number..).unwrap_or_default();
                if let Some(i) = rest.iter().position(|&armed| armed <= now) {
                    let number = cursor.number + i;
                    cursor.number = number + 1;
                    return Some((cursor.chunk, number));
                }
                self.earliest[cursor.chunk] = column.iter().copied().min().unwrap_or(NEVER);
            }
            *cursor = Cursor { chunk: cursor.chunk + 1, number: 0 };
        }
        *cursor = Cursor::default();
        self.earliest_of_all = self.earliest.iter().copied().min().unwrap_or(NEVER);
        None
    }

    #[cfg(test)]
    pub(super) fn check(&self, live: usize) {
        let armed = |column: &[i64]| column.iter().filter(|&&armed| armed != FREE).count();
        assert_eq!(self.columns.iter().map(|column| armed(column)).sum::<usize>(), live);
        for (column, earliest) in self.columns.iter().zip(&self.earliest) {
            assert!(column.iter().all(|armed| armed >= earliest) && *earliest >= self.earliest_of_all);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOTS: usize = 100;

    fn filled(chunks: usize, deadline: impl Fn(usize) -> i64) -> Expiry {
        let mut expiry = Expiry::default();
        for chunk in 0..chunks {
            expiry.add_chunk(chunk, SLOTS).unwrap();
            for number in 0..SLOTS {
                expiry.arm(first_of(chunk), number, deadline(chunk * SLOTS + number));
            }
        }
        expiry
    }

    /// Any address in the chunk.
    fn first_of(chunk: usize) -> Address {
        (0..).find(|&at| chunk_of(at) == chunk).unwrap()
    }

    #[test]
    fn due_finds_every_deadline_that_has_come_and_no_other() {
        let deadline = |i: usize| (i as i64 * 7919) % 1000;
        let mut expiry = filled(10, deadline);
        let (mut cursor, mut found) = (Cursor::default(), 0);
        while let Some((chunk, number)) = expiry.due(&mut cursor, 499) {
            assert!(deadline(chunk * SLOTS + number) <= 499);
            expiry.disarm(first_of(chunk), number);
            found += 1;
        }
        assert_eq!(found, 500);
        assert_eq!(expiry.earliest_of_all, 500);
        assert_eq!(expiry.due(&mut cursor, 499), None);
        expiry.check(500);
    }

    #[test]
    fn what_never_expires_is_not_due_until_timeouts_change() {
        let mut expiry = filled(2, |_| i64::MAX);
        assert_eq!(expiry.due(&mut Cursor::default(), i64::MAX - 2), None);
        expiry.arm_all();
        assert_eq!(expiry.due(&mut Cursor::default(), 0), Some((0, 0)));
    }
}
