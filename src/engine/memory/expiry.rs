//! When each slot may be due: a column of armed deadlines beside the slots, with minima per block and for all, so
//! that looking for the due costs what is due and not what lives.
//!
//! Invariant: an armed deadline is never later than the session's real one. A use that slides a session leaves its
//! armed deadline alone; when that fires too early, the sweep arms it again at the real one.

/// Slots per block: 64 deadlines are eight cache lines.
const BLOCK: usize = 64;
/// A slot that is free or never expires.
const NEVER: i64 = i64::MAX;

#[derive(Default)]
pub(super) struct Expiry {
    armed: Vec<i64>,
    /// Not later than the earliest deadline of each block.
    blocks: Vec<i64>,
    /// Not later than the earliest block.
    earliest: Option<i64>,
    /// Where the last due slot was found.
    cursor: usize,
}

impl Expiry {
    /// Makes room for one more slot, so that `arm` cannot fail later.
    pub(super) fn reserve_slot(&mut self, slots: usize) -> Result<(), std::collections::TryReserveError> {
        if slots >= self.armed.len() {
            self.armed.try_reserve(slots + 1 - self.armed.len())?;
            self.blocks.try_reserve(1)?;
        }
        Ok(())
    }

    /// Notes that `slot` is due at `deadline`, whatever was noted before.
    pub(super) fn arm(&mut self, slot: usize, deadline: i64) {
        while slot >= self.armed.len() {
            if self.armed.len().is_multiple_of(BLOCK) {
                self.blocks.push(NEVER);
            }
            self.armed.push(NEVER);
        }
        self.armed[slot] = deadline;
        let block = &mut self.blocks[slot / BLOCK];
        *block = deadline.min(*block);
        self.earliest = Some(self.earliest.map_or(deadline, |earliest| earliest.min(deadline)));
    }

    /// Notes that `slot` may be due as early as `deadline`.
    pub(super) fn arm_earlier(&mut self, slot: usize, deadline: i64) {
        if deadline < self.armed[slot] {
            self.arm(slot, deadline);
        }
    }

    /// Notes that `slot` is free. The minima stay as lower bounds.
    pub(super) fn disarm(&mut self, slot: usize) {
        self.armed[slot] = NEVER;
    }

    /// Notes that every armed slot may be due by now.
    pub(super) fn arm_all(&mut self) {
        for armed in &mut self.armed {
            *armed = if *armed == NEVER { NEVER } else { i64::MIN };
        }
        self.blocks.fill(i64::MIN);
        self.earliest = Some(i64::MIN);
    }

    /// A slot whose armed deadline has come, or none. The caller disarms it or arms it later than `now`.
    pub(super) fn due(&mut self, now: i64) -> Option<usize> {
        if self.earliest? > now {
            return None;
        }
        let blocks = self.blocks.len();
        for step in 0..blocks {
            let block = (self.cursor + step) % blocks;
            if self.blocks[block] > now {
                continue;
            }
            let start = block * BLOCK;
            let slots = &self.armed[start..self.armed.len().min(start + BLOCK)];
            if let Some(i) = slots.iter().position(|&armed| armed <= now) {
                self.cursor = block;
                return Some(start + i);
            }
            self.blocks[block] = slots.iter().copied().min().unwrap_or(NEVER);
        }
        self.earliest = self.blocks.iter().copied().min();
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_finds_every_deadline_that_has_come_and_no_other() {
        let mut expiry = Expiry::default();
        for slot in 0..1000 {
            expiry.arm(slot, (slot as i64 * 7919) % 1000);
        }
        let mut found = 0;
        while let Some(slot) = expiry.due(499) {
            assert!((slot as i64 * 7919) % 1000 <= 499);
            expiry.disarm(slot);
            found += 1;
        }
        assert_eq!(found, 500);
        assert_eq!(expiry.due(499), None);
        assert_eq!(expiry.earliest, Some(500));
    }

    #[test]
    fn a_slot_that_never_expires_is_never_due() {
        let mut expiry = Expiry::default();
        expiry.arm(0, NEVER);
        assert_eq!(expiry.due(i64::MAX - 1), None);
        expiry.arm_earlier(0, 5);
        expiry.arm_earlier(0, 9);
        assert_eq!(expiry.due(5), Some(0));
    }
}
