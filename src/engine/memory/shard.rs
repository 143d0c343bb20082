//! One shard: the sessions whose keys fall into it. Everything here happens under the shard's lock; what spans shards
//! (principals, renewal, limits) is in the parent module.
//!
//! Invariant: the table has one entry for each slot in use that was linked, and no other.

use std::sync::Arc;

use super::{
    aliases::Aliases,
    expiry::Cursor,
    region::Pool,
    slots::{Address, Slots},
    table::{Table, tag_of},
};
use crate::{
    error::{Error, Result},
    key::PrincipalKey,
    policy::{Moment, Timeouts},
    record::Head,
};

pub(super) struct Shard {
    table: Table,
    pub slots: Slots,
    pub aliases: Aliases,
    /// Where creates go on clearing expired neighbours.
    pub neighbours: Cursor,
}

/// What is left to settle of a session that was taken out.
pub(super) struct Gone {
    pub key: u128,
    pub principal: Option<PrincipalKey>,
    /// The bytes that were stored of its payload.
    pub stored_len: usize,
}

impl Shard {
    pub(super) fn new(pool: Arc<Pool>) -> Shard {
        Shard {
            table: Table::default(),
            slots: Slots::new(pool),
            aliases: Aliases::default(),
            neighbours: Cursor::default(),
        }
    }

    /// Whether the key is taken, by a session or by an alias.
    pub(super) fn holds(&self, key: u128) -> bool {
        self.find(key).is_some() || self.aliases.holds(key)
    }

    /// Where the session with this key lies, living or not.
    pub(super) fn find(&self, key: u128) -> Option<Address> {
        self.table.find(tag_of(key), |at| self.slots.key(at) == key)
    }

    /// The session with this key, unless it has expired.
    pub(super) fn living(&self, key: u128, moment: &Moment) -> Option<(Address, Head)> {
        let at = self.find(key)?;
        let head = self.slots.head(at);
        head.lives(moment).then_some((at, head))
    }

    /// Stores a session that nobody finds until it is linked: all that can fail, so that nothing else has to.
    pub(super) fn prepare(
        &mut self,
        key: u128,
        head: &Head,
        timeouts: Timeouts,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<Address> {
        self.table.reserve().map_err(|_| Error::no_memory())?;
        self.slots.store(key, head, head.deadline(timeouts), len, fill)
    }

    /// Links a session that was prepared. Its key is not taken.
    pub(super) fn link(&mut self, key: u128, at: Address) {
        debug_assert!(self.find(key).is_none());
        self.table.insert(tag_of(key), at);
    }

    /// Writes another head and payload over a session: in its slot if they fit its size class.
    pub(super) fn update(
        &mut self,
        key: u128,
        at: Address,
        head: &Head,
        timeouts: Timeouts,
        len: usize,
        fill: impl Fn(&mut [u8]) -> Result<()>,
    ) -> Result<()> {
        if self.slots.overwrite(at, head, len, &fill)? {
            self.slots.arm_earlier(at, head.deadline(timeouts));
        } else {
            let moved = self.prepare(key, head, timeouts, len, fill)?;
            self.replace(key, at, moved);
        }
        Ok(())
    }

    /// Puts a prepared session in the place of the one at `old`.
    pub(super) fn replace(&mut self, key: u128, old: Address, new: Address) {
        self.table.moved(tag_of(key), old, new);
        self.slots.free(old);
    }

    /// Takes out the session with this key, living or not, and wipes it.
    pub(super) fn remove(&mut self, key: u128) -> Option<Gone> {
        let at = self.find(key)?;
        Some(self.remove_at(key, at))
    }

    fn remove_at(&mut self, key: u128, at: Address) -> Gone {
        let gone = Gone { key, principal: self.slots.head(at).principal, stored_len: self.slots.payload(at).len() };
        self.table.remove(tag_of(key), at);
        self.slots.free(at);
        gone
    }

    /// Takes out the next expired session from the cursor on. Each slot looked at takes one of the `budget`; when that is
    /// used up there may be more to find.
    pub(super) fn take_expired(&mut self, moment: &Moment, cursor: &mut Cursor, budget: &mut u32) -> Option<Gone> {
        self.aliases.clear_ended(moment.now, budget);
        while *budget > 0 {
            let (chunk, number) = self.slots.expiry.due(cursor, moment.now)?;
            *budget -= 1;
            let at = self.slots.address(chunk, number);
            let deadline = self.slots.head(at).deadline(moment.timeouts);
            if deadline <= moment.now {
                return Some(self.remove_at(self.slots.key(at), at));
            }
            self.slots.arm(at, deadline);
        }
        None
    }

    /// Moves sessions together, each for one of the `budget`, so that memory can be given back.
    pub(super) fn compact(&mut self, budget: &mut u32) {
        if self.table.shrink() {
            *budget = 0;
        }
        while *budget > 0
            && let Some(moved) = self.slots.compact()
        {
            self.table.moved(tag_of(moved.key), moved.from, moved.to);
            *budget -= 1;
        }
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        self.table.check();
        self.slots.check(self.table.len());
    }
}
