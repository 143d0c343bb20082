//! The engine of `memory:`: sessions in shards by key, each behind its own lock; a use of a session takes one lock
//! once. What spans shards is here: principals, renewal, limits and the sweep.
//!
//! Locking: the principals' locks first (see `principals`), then session shards from the lowest to the highest. What
//! was removed is wiped and freed after the locks are released.

mod aliases;
mod expiry;
mod payload;
mod principals;
mod shard;
mod usage;

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

use self::{
    aliases::Alias,
    payload::Payload,
    principals::{LockedPairs, Principals},
    shard::{Session, Shard},
    usage::Usage,
};
use super::{Context, Engine, Reader};
use crate::{
    error::{Error, ErrorKind, Result},
    key::{Key, PrincipalKey},
    record::{Entry, Head, PrincipalChange, Write},
    stats::Count,
};

/// Enough that the cores of a large machine seldom meet; few enough that an empty store stays small.
const SHARDS: usize = 64;
/// Slots that a sweep looks at before it lets the shard's other users in: parking_lot's locks are not fair, so a longer
/// hold, or coming back at once, would keep them out.
const SWEEP_HOLD: u32 = 16;
/// Slots that a create looks at for expired neighbours: more than one, so that a store that nobody sweeps shrinks.
const NEIGHBOURS: u32 = 4;
/// Expired sessions cleared at once when a store is full.
const ROOM: u64 = 64;

#[derive(Default)]
pub(crate) struct Memory {
    shards: Box<[Padded<Mutex<Shard>>]>,
    principals: Principals,
    usage: Usage,
    /// Where the next sweep begins.
    sweep_from: AtomicUsize,
}

/// Two cache lines of its own for each lock.
#[derive(Default)]
#[repr(align(128))]
struct Padded<T>(T);

type Sessions = SmallVec<[Session; NEIGHBOURS as usize]>;

impl Memory {
    pub(crate) fn new() -> Memory {
        Memory { shards: (0..SHARDS).map(|_| Padded::default()).collect(), ..Memory::default() }
    }

    fn lock(&self, key: u128) -> MutexGuard<'_, Shard> {
        self.shards[shard_of(key)].0.lock()
    }

    fn lock_all(&self, keys: impl Iterator<Item = u128>) -> LockedShards<'_> {
        let mut shards: SmallVec<[usize; 4]> = keys.map(shard_of).collect();
        shards.sort_unstable();
        shards.dedup();
        LockedShards(shards.into_iter().map(|shard| (shard, self.shards[shard].0.lock())).collect())
    }

    /// Writes a session whose principal or key may change, or that is new: from `old` (if any) to `new`, in one step
    /// under the locks of all that is involved.
    fn rewrite(&self, cx: &Context, old: Option<u128>, new: u128, write: &Write, grace: i64) -> Result<Head> {
        let moves = old != Some(new);
        let mut payload = write.payload.map(Payload::copy_of).transpose()?;
        loop {
            // The principal's lock comes before the shard's, so the principal is read first and checked again below.
            let from = match old {
                Some(key) => self.lock(key).living(key, cx).ok_or_else(Error::not_found)?.head.principal,
                None => None,
            };
            let to = write.principal_after(from);
            let mut pairs = self.principals.lock(from, to);
            let surplus = to.map_or_else(SmallVec::new, |to| self.surplus(cx, &pairs, to, [old, Some(new)]));
            let mut shards = self.lock_all(old.into_iter().chain([new]).chain(surplus.iter().copied()));

            let (mut head, mut held) = (Head::begin(cx.now, write), (0, 0));
            if let Some(key) = old {
                let session = shards.of(key).living(key, cx).ok_or_else(Error::not_found)?;
                if session.head.principal != from {
                    continue;
                }
                check_version(&session.head, write)?;
                head = session.head.written(cx.now, write);
                held = (1, session.payload.len() as u64);
            }
            if moves {
                if shards.of(new).holds(new) {
                    return Err(Error::fixed(ErrorKind::Exists, "the new id is taken"));
                }
                shards.of(new).reserve()?;
            }
            if let (Some(key), true) = (old, grace > 0) {
                shards.of(key).aliases.reserve().map_err(|_| Error::no_memory())?;
            }
            let wanted = (1, payload.as_ref().map_or(held.1, |payload| payload.len() as u64));
            for &key in &surplus {
                if let Some(session) = shards.of(key).session(key) {
                    held = (held.0 + 1, held.1 + session.payload.len() as u64);
                }
            }
            if !self.usage.change(held, wanted, &cx.limits) {
                drop((shards, pairs));
                self.make_room(cx)?;
                continue;
            }

            // From here on nothing fails.
            let mut gone = Sessions::new();
            for key in surplus {
                gone.extend(shards.of(key).remove(key));
                to.into_iter().for_each(|to| pairs.remove(to, key));
            }
            cx.counters.add(Count::Revoked, gone.len() as u64);
            if moves {
                let mut before = old.and_then(|key| shards.of(key).remove(key));
                let kept = before.as_mut().map(|session| std::mem::take(&mut session.payload));
                let payload = payload.take().or(kept).unwrap_or_default();
                shards.of(new).insert(Session { key: new, head, payload }, cx.timeouts);
                if let (Some(key), true) = (old, grace > 0) {
                    let alias = Alias { target: new, until: cx.now.saturating_add(grace) };
                    shards.of(key).aliases.insert(key, alias);
                }
            } else if let Some(session) = shards.of(new).living(new, cx) {
                session.head = head;
                if let Some(payload) = payload.take() {
                    session.payload = payload;
                }
                shards.of(new).deadline_changed(new, cx.timeouts);
            }
            if moves || from != to {
                from.into_iter().zip(old).for_each(|(from, key)| pairs.remove(from, key));
                to.into_iter().for_each(|to| pairs.add(to, new));
            }
            let mut expired = Sessions::new();
            if moves {
                let mut budget = NEIGHBOURS;
                expired.extend(std::iter::from_fn(|| shards.of(new).take_expired(cx, &mut budget)));
            }
            drop((shards, pairs));
            self.bury_expired(cx, &expired);
            return Ok(head);
        }
    }

    /// The least recently used sessions of a principal that have to end so that one more does not exceed the limit.
    fn surplus(
        &self,
        cx: &Context,
        pairs: &LockedPairs,
        principal: PrincipalKey,
        spared: [Option<u128>; 2],
    ) -> SmallVec<[u128; 4]> {
        let most = cx.limits.max_per_principal;
        if most == u64::MAX {
            return SmallVec::new();
        }
        let others = pairs.of(principal).filter(|key| !spared.contains(&Some(*key)));
        let mut living: Vec<_> = others
            .filter_map(|key| {
                self.lock(key).living(key, cx).map(|session| (session.head.last_seen, session.head.created, key))
            })
            .collect();
        let too_many = (living.len() as u64 + 1).saturating_sub(most) as usize;
        living.sort_unstable();
        living.into_iter().take(too_many).map(|(.., key)| key).collect()
    }

    /// Clears some expired sessions, or fails with `FULL`.
    fn make_room(&self, cx: &Context) -> Result<()> {
        match self.sweep(cx, ROOM)? {
            0 => Err(Error::fixed(ErrorKind::Full, "the store is full: max_sessions or max_bytes is reached")),
            _ => Ok(()),
        }
    }

    /// Settles the accounts of sessions that were taken out of their shards because they had expired.
    fn bury_expired(&self, cx: &Context, expired: &[Session]) {
        cx.counters.add(Count::Expired, expired.len() as u64);
        expired.iter().for_each(|session| self.bury(session));
    }

    /// Settles the accounts of a session that was taken out of its shard. No lock may be held.
    fn bury(&self, session: &Session) {
        self.usage.release(1, session.payload.len() as u64);
        if let Some(principal) = session.head.principal {
            self.principals.forget(principal, session.key);
        }
    }

    /// Follows aliases from `key` to the key of a living session, and says until when the way is open.
    fn follow(&self, cx: &Context, mut key: u128) -> Option<(u128, i64)> {
        let mut until = i64::MAX;
        // Ends: a target is always minted after what points to it.
        loop {
            let mut shard = self.lock(key);
            if shard.living(key, cx).is_some() {
                return Some((key, until));
            }
            let alias = shard.aliases.find(key, cx.now)?;
            (key, until) = (alias.target, until.min(alias.until));
        }
    }
}

impl Engine for Memory {
    fn create(&self, cx: &Context, key: &Key, write: &Write) -> Result<Head> {
        self.rewrite(cx, None, key.0, write, 0)
    }

    fn read(&self, cx: &Context, key: &Key, peek: bool, reader: Reader) -> Result<()> {
        let mut shard = self.lock(key.0);
        if let Some(session) = shard.living(key.0, cx) {
            let head = if peek { session.head } else { session.head.seen(cx.now) };
            reader(&head, i64::MAX, session.payload.bytes())?;
            session.head = head;
            return Ok(());
        }
        let aliased = shard.aliases.holds(key.0);
        drop(shard);
        if !aliased || key.1 != 0 {
            return Err(Error::not_found());
        }
        let (target, until) = self.follow(cx, key.0).ok_or_else(Error::not_found)?;
        let mut shard = self.lock(target);
        let session = shard.living(target, cx).ok_or_else(Error::not_found)?;
        reader(&session.head, until, session.payload.bytes())
    }

    fn touch(&self, cx: &Context, key: &Key) -> Result<Head> {
        let mut shard = self.lock(key.0);
        let session = shard.living(key.0, cx).ok_or_else(Error::not_found)?;
        session.head = session.head.seen(cx.now);
        Ok(session.head)
    }

    fn put(&self, cx: &Context, key: &Key, write: &Write) -> Result<Head> {
        if write.principal != PrincipalChange::Keep {
            return self.rewrite(cx, Some(key.0), key.0, write, 0);
        }
        let bytes = write.payload.unwrap_or_default();
        loop {
            let mut shard = self.lock(key.0);
            let session = shard.living(key.0, cx).ok_or_else(Error::not_found)?;
            check_version(&session.head, write)?;
            let len = session.payload.len();
            let other_size = if len == bytes.len() { None } else { Some(Payload::copy_of(bytes)?) };
            if !self.usage.change((1, len as u64), (1, bytes.len() as u64), &cx.limits) {
                drop(shard);
                self.make_room(cx)?;
                continue;
            }
            let head = session.head.written(cx.now, write);
            session.head = head;
            let replaced = match other_size {
                Some(payload) => Some(std::mem::replace(&mut session.payload, payload)),
                None => {
                    session.payload.overwrite(bytes);
                    None
                }
            };
            shard.deadline_changed(key.0, cx.timeouts);
            drop(shard);
            drop(replaced);
            return Ok(head);
        }
    }

    fn renew(&self, cx: &Context, old: &Key, new: &Key, write: &Write, grace: i64) -> Result<Head> {
        self.rewrite(cx, Some(old.0), new.0, write, grace)
    }

    fn delete(&self, cx: &Context, key: &Key) -> Result<()> {
        if key.1 != 0 {
            return Err(Error::not_found());
        }
        let mut shard = self.lock(key.0);
        shard.living(key.0, cx).ok_or_else(Error::not_found)?;
        let session = shard.remove(key.0);
        drop(shard);
        session.iter().for_each(|session| self.bury(session));
        Ok(())
    }

    fn resolve(&self, cx: &Context, key: &Key) -> Result<Key> {
        self.follow(cx, key.0).map(|(key, _)| Key(key, 0)).ok_or_else(Error::not_found)
    }

    fn sweep(&self, cx: &Context, max: u64) -> Result<u64> {
        let first = self.sweep_from.fetch_add(1, Ordering::Relaxed);
        let mut removed = 0;
        let mut unswept: SmallVec<[usize; SHARDS]> = (0..SHARDS).map(|i| (first + i) % SHARDS).collect();
        // In turns, so that no shard's users wait for more than one short hold.
        while !unswept.is_empty() && removed < max {
            unswept.retain(|&mut shard| {
                let mut budget = SWEEP_HOLD;
                let mut expired: SmallVec<[Session; SWEEP_HOLD as usize]> = SmallVec::new();
                let mut locked = self.shards[shard].0.lock();
                while removed + (expired.len() as u64) < max {
                    match locked.take_expired(cx, &mut budget) {
                        Some(session) => expired.push(session),
                        None => break,
                    }
                }
                drop(locked);
                removed += expired.len() as u64;
                self.bury_expired(cx, &expired);
                budget == 0
            });
        }
        Ok(removed)
    }

    fn list(&self, cx: &Context, principal: PrincipalKey) -> Result<Vec<Entry>> {
        let keys: Vec<u128> = self.principals.lock(Some(principal), None).of(principal).collect();
        let entry = |key: u128| {
            let mut shard = self.lock(key);
            let session = shard.living(key, cx).filter(|session| session.head.principal == Some(principal))?;
            Some(session.head.entry(Key(key, 0), session.payload.len(), cx.timeouts))
        };
        Ok(keys.into_iter().filter_map(entry).collect())
    }

    fn revoke(&self, cx: &Context, principal: PrincipalKey, except: Option<&Key>) -> Result<u64> {
        let mut pairs = self.principals.lock(Some(principal), None);
        // Under the principal's lock, so that a renewal of the spared session is either before or after.
        let spared = except.and_then(|key| self.follow(cx, key.0)).map(|(key, _)| key);
        let keys: Vec<u128> = pairs.of(principal).filter(|key| Some(*key) != spared).collect();
        let (mut revoked, mut expired) = (0, 0);
        for key in keys {
            pairs.remove(principal, key);
            let mut shard = self.lock(key);
            if shard.session(key).is_none_or(|session| session.head.principal != Some(principal)) {
                continue;
            }
            *(if shard.living(key, cx).is_some() { &mut revoked } else { &mut expired }) += 1;
            let session = shard.remove(key);
            drop(shard);
            session.iter().for_each(|session| self.usage.release(1, session.payload.len() as u64));
        }
        cx.counters.add(Count::Revoked, revoked);
        cx.counters.add(Count::Expired, expired);
        Ok(revoked)
    }

    fn usage(&self) -> Result<(u64, u64)> {
        Ok(self.usage.get())
    }

    fn timeouts_shortened(&self) {
        self.shards.iter().for_each(|shard| shard.0.lock().arm_all());
    }
}

/// Session shards, locked.
struct LockedShards<'a>(SmallVec<[(usize, MutexGuard<'a, Shard>); 3]>);

impl LockedShards<'_> {
    /// The shard of a key whose shard was locked.
    fn of(&mut self, key: u128) -> &mut Shard {
        let locked = self.0.iter_mut().find(|(shard, _)| *shard == shard_of(key));
        &mut locked.expect("every shard involved is locked").1
    }
}

fn shard_of(key: u128) -> usize {
    (key >> 64) as usize % SHARDS
}

fn check_version(head: &Head, write: &Write) -> Result<()> {
    match write.if_version {
        Some(version) if version != head.version => {
            Err(Error::fixed(ErrorKind::Conflict, "the session has another version: it was changed in between"))
        }
        _ => Ok(()),
    }
}
