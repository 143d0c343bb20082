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
use super::{Context, Engine, Found, Reader};
use crate::{
    error::{Error, ErrorKind, Result},
    key::{Key, PrincipalKey},
    record::{Content, Entry, Grace, Head, PrincipalChange, Stored, Write},
    seal::Token,
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
const NO_GRACE: Grace = Grace { ms: 0, token: None };

#[derive(Default)]
pub(crate) struct Memory {
    shards: Box<[Padded<Mutex<Shard>>]>,
    principals: Principals,
    usage: Usage,
    /// How much longer a payload is as it is stored: what is counted and limited is its own length.
    overhead: usize,
    /// Where the next sweep begins.
    sweep_from: AtomicUsize,
}

/// Two cache lines of its own for each lock.
#[derive(Default)]
#[repr(align(128))]
struct Padded<T>(T);

type Sessions = SmallVec<[Session; NEIGHBOURS as usize]>;

/// From a key to the one under which the session is held.
struct Way {
    target: u128,
    until: i64,
    tokens: Vec<(Key, Option<Box<Token>>)>,
}

impl Memory {
    pub(crate) fn new(overhead: usize) -> Memory {
        Memory { shards: (0..SHARDS).map(|_| Padded::default()).collect(), overhead, ..Memory::default() }
    }

    /// The length of a payload of which `stored` bytes are held.
    fn payload_len(&self, stored: usize) -> u64 {
        stored.saturating_sub(self.overhead) as u64
    }

    fn len(&self, session: &Session) -> u64 {
        self.payload_len(session.payload.bytes().len())
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
    fn rewrite(&self, cx: &Context, old: Option<u128>, new: u128, write: &Write, mut grace: Grace) -> Result<Head> {
        let moves = old != Some(new);
        loop {
            // The principal's lock comes before the shard's, so the principal is read first and checked again below.
            let from = match old {
                Some(key) => self.lock(key).living(key, cx).ok_or_else(Error::not_found)?.head.principal,
                None => None,
            };
            let to = write.principal_after(from);
            let mut pairs = self.principals.lock(from, to);
            let surplus = to.map_or_else(SmallVec::new, |to| self.surplus(cx, &pairs, to, [old, Some(new)]));
            let mut shards = self.lock_all(old.into_iter().chain([new]).chain(surplus.iter().map(|&(_, key)| key)));
            let used_since =
                |(last_seen, key)| shards.of(key).session(key).is_some_and(|s| s.head.last_seen != last_seen);
            if surplus.iter().copied().any(used_since) {
                // Another one may be the least recently used now.
                continue;
            }

            let before = match old {
                Some(key) => Some(&*shards.of(key).living(key, cx).ok_or_else(Error::not_found)?),
                None => None,
            };
            if before.is_some_and(|session| session.head.principal != from) {
                continue;
            }
            let head = match before {
                Some(session) => {
                    check_version(&session.head, write)?;
                    session.head.written(cx.now, write)
                }
                None => Head::begin(cx.now, write),
            };
            let mut held = before.map_or((0, 0), |session| (1, self.len(session)));
            let stored_len = write.content.stored_len(before.map_or(0, |session| session.payload.bytes().len()));
            let payload = match write.content {
                Content::Kept => None,
                _ => Some(Payload::filled(stored_len, |out| {
                    write.content.fill(&Key(new, 0), &head, before.map(Session::stored), out)
                })?),
            };
            if moves {
                if shards.of(new).holds(new) {
                    return Err(Error::fixed(ErrorKind::Exists, "the new id is taken"));
                }
                shards.of(new).reserve()?;
            }
            if let (Some(key), true) = (old, grace.ms > 0) {
                shards.of(key).aliases.reserve().map_err(|_| Error::no_memory())?;
            }
            let wanted = (1, self.payload_len(stored_len));
            for &(_, key) in &surplus {
                if let Some(session) = shards.of(key).session(key) {
                    held = (held.0 + 1, held.1 + self.len(session));
                }
            }
            if !self.usage.change(held, wanted, &cx.limits) {
                drop((shards, pairs));
                self.make_room(cx)?;
                continue;
            }

            // From here on nothing fails.
            let mut gone = Sessions::new();
            for (_, key) in surplus {
                gone.extend(shards.of(key).remove(key));
                to.into_iter().for_each(|to| pairs.remove(to, key));
            }
            cx.counters.add(Count::Revoked, gone.len() as u64);
            if moves {
                let mut before = old.and_then(|key| shards.of(key).remove(key));
                let kept = before.as_mut().map(|session| std::mem::take(&mut session.payload));
                let payload = payload.or(kept).unwrap_or_default();
                shards.of(new).insert(Session { key: new, head, payload }, cx.timeouts);
                if let (Some(key), true) = (old, grace.ms > 0) {
                    let until = cx.now.saturating_add(grace.ms);
                    shards.of(key).aliases.insert(key, Alias { target: new, until, token: grace.token.take() });
                }
            } else if let Some(session) = shards.of(new).living(new, cx) {
                session.head = head;
                session.payload = payload.unwrap_or_else(|| std::mem::take(&mut session.payload));
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

    /// The least recently used sessions of a principal that have to end so that one more does not exceed the limit: when
    /// each was used last, and its key.
    fn surplus(
        &self,
        cx: &Context,
        pairs: &LockedPairs,
        principal: PrincipalKey,
        spared: [Option<u128>; 2],
    ) -> SmallVec<[(i64, u128); 4]> {
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
        living.into_iter().take(too_many).map(|(last_seen, _, key)| (last_seen, key)).collect()
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
        self.usage.release(1, self.len(session));
        if let Some(principal) = session.head.principal {
            self.principals.forget(principal, session.key);
        }
    }

    /// Follows aliases from `key` to the key of a living session.
    fn follow(&self, cx: &Context, key: u128) -> Option<Way> {
        let mut way = Way { target: key, until: i64::MAX, tokens: Vec::new() };
        // Ends: a target is always minted after what points to it.
        loop {
            let key = way.target;
            let mut shard = self.lock(key);
            if shard.living(key, cx).is_some() {
                return Some(way);
            }
            let alias = shard.aliases.find(key, cx.now)?;
            way.target = alias.target;
            way.until = way.until.min(alias.until);
            way.tokens.push((Key(key, 0), alias.token.clone()));
        }
    }
}

impl Engine for Memory {
    fn create(&self, cx: &Context, key: &Key, write: &Write) -> Result<Head> {
        self.rewrite(cx, None, key.0, write, NO_GRACE)
    }

    fn read(&self, cx: &Context, key: &Key, peek: bool, reader: Reader) -> Result<()> {
        let mut shard = self.lock(key.0);
        if let Some(session) = shard.living(key.0, cx) {
            let head = if peek { session.head } else { session.head.seen(cx.now) };
            let stored = Stored { head: &head, ..session.stored() };
            reader(Found { stored, until: i64::MAX, way: &[] })?;
            session.head = head;
            return Ok(());
        }
        let aliased = shard.aliases.holds(key.0);
        drop(shard);
        if !aliased || key.1 != 0 {
            return Err(Error::not_found());
        }
        let way = self.follow(cx, key.0).ok_or_else(Error::not_found)?;
        let mut shard = self.lock(way.target);
        let session = shard.living(way.target, cx).ok_or_else(Error::not_found)?;
        reader(Found { stored: session.stored(), until: way.until, way: &way.tokens })
    }

    fn touch(&self, cx: &Context, key: &Key) -> Result<Head> {
        let mut shard = self.lock(key.0);
        let session = shard.living(key.0, cx).ok_or_else(Error::not_found)?;
        session.head = session.head.seen(cx.now);
        Ok(session.head)
    }

    fn put(&self, cx: &Context, key: &Key, write: &Write) -> Result<Head> {
        if write.principal != PrincipalChange::Keep {
            return self.rewrite(cx, Some(key.0), key.0, write, NO_GRACE);
        }
        loop {
            let mut shard = self.lock(key.0);
            let session = shard.living(key.0, cx).ok_or_else(Error::not_found)?;
            check_version(&session.head, write)?;
            let head = session.head.written(cx.now, write);
            let (len, new_len) = (session.payload.bytes().len(), write.content.stored_len(0));
            let mut other_size = match len == new_len {
                true => None,
                false => Some(Payload::filled(new_len, |out| write.content.fill(key, &head, None, out))?),
            };
            if !self.usage.change((1, self.payload_len(len)), (1, self.payload_len(new_len)), &cx.limits) {
                drop(shard);
                self.make_room(cx)?;
                continue;
            }
            match &mut other_size {
                Some(payload) => std::mem::swap(&mut session.payload, payload),
                None => write.content.fill(key, &head, None, session.payload.bytes_mut())?,
            }
            session.head = head;
            shard.deadline_changed(key.0, cx.timeouts);
            drop(shard);
            return Ok(head);
        }
    }

    fn renew(&self, cx: &Context, old: &Key, new: &Key, write: &Write, grace: Grace) -> Result<Head> {
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
        self.follow(cx, key.0).map(|way| Key(way.target, 0)).ok_or_else(Error::not_found)
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
            Some(session.head.entry(Key(key, 0), self.len(session), cx.timeouts))
        };
        Ok(keys.into_iter().filter_map(entry).collect())
    }

    fn revoke(&self, cx: &Context, principal: PrincipalKey, except: Option<&Key>) -> Result<u64> {
        let mut pairs = self.principals.lock(Some(principal), None);
        // Under the principal's lock, so that a renewal of the spared session is either before or after.
        let spared = except.and_then(|key| self.follow(cx, key.0)).map(|way| way.target);
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
            session.iter().for_each(|session| self.usage.release(1, self.len(session)));
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
