//! One shard: the sessions whose keys fall into it, found by key and by expiry. Everything here happens under the
//! shard's lock; what spans shards (principals, renewal, limits) is in the parent module.
//!
//! Invariants: `index` holds exactly the occupied slots; every occupied slot is armed in `expiry`.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use super::{aliases::Aliases, expiry::Expiry, payload::Payload};
use crate::{
    engine::Context,
    error::{Error, Result},
    key::Key,
    policy::Timeouts,
    record::{Head, Stored},
};

pub(super) struct Session {
    pub key: u128,
    pub head: Head,
    pub payload: Payload,
}

impl Session {
    pub(super) fn stored(&self) -> Stored<'_> {
        Stored { key: Key(self.key, 0), head: &self.head, bytes: self.payload.bytes() }
    }
}

#[derive(Default)]
pub(super) struct Shard {
    index: HashMap<u128, u32, BuildHasherDefault<KeyIsHash>>,
    slots: Vec<Option<Session>>,
    free: Vec<u32>,
    expiry: Expiry,
    pub aliases: Aliases,
}

impl Shard {
    pub(super) fn holds(&self, key: u128) -> bool {
        self.index.contains_key(&key) || self.aliases.holds(key)
    }

    /// The session with this key, unless it has expired.
    pub(super) fn living(&mut self, key: u128, cx: &Context) -> Option<&mut Session> {
        let slot = *self.index.get(&key)?;
        self.slots[slot as usize].as_mut().filter(|session| session.head.lives(cx.now, cx.timeouts))
    }

    /// The session with this key, living or not.
    pub(super) fn session(&self, key: u128) -> Option<&Session> {
        self.slots[*self.index.get(&key)? as usize].as_ref()
    }

    /// Makes room for one more session, so that `insert` cannot fail once others have been changed.
    pub(super) fn reserve(&mut self) -> Result<()> {
        let reserved = self.index.try_reserve(1).and_then(|()| {
            if self.free.is_empty() {
                self.slots.try_reserve(1)?;
                // A slot of its own in the list of free ones, for when it is freed.
                self.free.try_reserve(self.slots.len() + 1)?;
            }
            self.expiry.reserve_slot(self.slots.len())
        });
        match reserved {
            Ok(()) if self.slots.len() < u32::MAX as usize => Ok(()),
            _ => Err(Error::no_memory()),
        }
    }

    /// Takes in a session whose key is not held. `reserve` came first.
    pub(super) fn insert(&mut self, session: Session, timeouts: Timeouts) {
        debug_assert!(!self.holds(session.key));
        let deadline = session.head.deadline(timeouts);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        });
        self.index.insert(session.key, slot);
        self.slots[slot as usize] = Some(session);
        self.expiry.arm(slot as usize, deadline);
    }

    /// Takes out the session with this key, living or not.
    pub(super) fn remove(&mut self, key: u128) -> Option<Session> {
        let slot = self.index.remove(&key)?;
        self.free.push(slot);
        self.expiry.disarm(slot as usize);
        self.slots[slot as usize].take()
    }

    /// To be called when a session's timeouts were changed: it may be due earlier than was noted.
    pub(super) fn deadline_changed(&mut self, key: u128, timeouts: Timeouts) {
        if let Some(&slot) = self.index.get(&key)
            && let Some(session) = &self.slots[slot as usize]
        {
            self.expiry.arm_earlier(slot as usize, session.head.deadline(timeouts));
        }
    }

    pub(super) fn arm_all(&mut self) {
        self.expiry.arm_all();
    }

    /// Takes out one expired session. `budget` bounds the work: each slot looked at takes one, and when none is left
    /// there may be more to find.
    pub(super) fn take_expired(&mut self, cx: &Context, budget: &mut u32) -> Option<Session> {
        self.aliases.clear_ended(cx.now, budget);
        while *budget > 0 {
            let slot = self.expiry.due(cx.now)?;
            *budget -= 1;
            let session = self.slots[slot].as_ref()?;
            let (key, deadline) = (session.key, session.head.deadline(cx.timeouts));
            if deadline <= cx.now {
                return self.remove(key);
            }
            self.expiry.arm(slot, deadline);
        }
        None
    }
}

/// The keys are hashes already.
#[derive(Default)]
pub(super) struct KeyIsHash(u64);

impl Hasher for KeyIsHash {
    fn write_u128(&mut self, key: u128) {
        // The low half: the high one picks the shard.
        self.0 = key as u64;
    }

    fn write(&mut self, _: &[u8]) {
        debug_assert!(false, "only keys are hashed");
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
