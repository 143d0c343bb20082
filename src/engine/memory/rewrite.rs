//! Writes that involve more than one shard: sessions with a principal, renewal, and the limit per principal. All of it
//! is one step under the locks of everything involved.

use crate::sync::backoff_mutex::BackoffMutexGuard as MutexGuard;
use smallvec::SmallVec;

use super::{
    Memory,
    principals::LockedPairs,
    shard::{Expired, Shard},
    taken,
};
use crate::{
    crypto::zeroize::ZeroizeOnDrop,
    engine::Context,
    error::{Error, Result},
    session::{
        alias::Grace,
        header::{Meta, StoredRecord},
        key::{LookupKey, PrincipalKey},
        policy::StepTime,
        write::Write,
    },
    stats::Count,
};

enum Attempt {
    Done(Meta),
    /// Something changed before the locks were held.
    Again,
    Full,
}

impl Memory {
    /// Writes a session whose principal or key may change, or that is new: from `old` (if any) to `new`.
    pub(super) fn rewrite(
        &self,
        cx: &Context,
        old: Option<u128>,
        new: u128,
        write: &Write,
        grace: &Grace,
    ) -> Result<Meta> {
        self.pool.top_up();
        let (mut none_left, mut expired) = (false, Expired::new());
        loop {
            match self.try_rewrite(cx, old, new, write, grace, &mut expired)? {
                Attempt::Done(meta) => {
                    self.forget(&expired);
                    return Ok(meta);
                }
                Attempt::Again => {}
                Attempt::Full => self.make_room(cx, &mut none_left)?,
            }
        }
    }

    fn try_rewrite(
        &self,
        cx: &Context,
        old: Option<u128>,
        new: u128,
        write: &Write,
        grace: &Grace,
        expired: &mut Expired,
    ) -> Result<Attempt> {
        let moves = old != Some(new);
        // The principal's lock comes before the shard's, so the principal is read first and checked again below.
        let from = match old {
            Some(key) => {
                let shard = self.lock(key);
                shard.living(key, &cx.step_time()).ok_or_else(Error::not_found)?.1.principal
            }
            None => None,
        };
        let to = write.principal_after(from);
        let mut pairs = self.principals.lock(from, to);
        let most = cx.policy.limits().max_per_principal;
        let rivals = to.map_or_else(SmallVec::new, |to| rivals(&pairs, to, [old, Some(new)], most));
        let mut shards = self.lock_all(old.into_iter().chain([new]).chain(rivals.iter().copied()));
        let moment = cx.step_time();
        let surplus = shards.surplus(&rivals, most, &moment);

        let before = match old {
            Some(key) => Some((key, shards.of(key).living(key, &moment).ok_or_else(Error::not_found)?)),
            None => None,
        };
        if before.is_some_and(|(_, (_, header))| header.principal != from) {
            return Ok(Attempt::Again);
        }
        let header = match before {
            Some((_, (_, header))) => {
                write.check_version(&header)?;
                write.header_after(header, moment.now)
            }
            None => write.new_header(moment.now),
        };
        if moves && shards.of(new).holds(new) {
            return Err(taken());
        }
        let alias = match old {
            Some(key) => grace.alias(LookupKey(key, 0), LookupKey(new, 0), &header, &moment)?,
            None => None,
        };
        if let Some(alias) = &alias {
            shards.of(alias.key.0).aliases.reserve().map_err(|_| Error::no_memory())?;
        }

        // The new record, which nobody finds yet.
        let mut held = (0, 0);
        let mut old_bytes = ZeroizeOnDrop::new(Vec::new());
        if let Some((key, (at, _))) = before {
            let bytes = shards.of(key).slots.payload(at);
            held = (1, self.payload_len(bytes.len()));
            if write.content.needs_old_payload() {
                old_bytes.try_reserve_exact(bytes.len()).map_err(|_| Error::no_memory())?;
                old_bytes.extend_from_slice(bytes);
            }
        }
        let stored_len = write.content.stored_len(old_bytes.len());
        let replaced = before.as_ref().map(|(key, (_, header))| StoredRecord {
            key: LookupKey(*key, 0),
            header,
            payload: &old_bytes,
        });
        let fill = |out: &mut [u8]| write.content.write_to(&LookupKey(new, 0), &header, replaced, out);
        let at = shards.of(new).prepare(new, &header, header.deadline(moment.timeouts), stored_len, fill)?;
        for &key in &surplus {
            let shard = shards.of(key);
            if let Some(at) = shard.find(key) {
                held = (held.0 + 1, held.1 + self.payload_len(shard.slots.payload(at).len()));
            }
        }
        if !self.usage.change(held, (1, self.payload_len(stored_len)), &cx.policy.limits()) {
            shards.of(new).slots.free(at);
            return Ok(Attempt::Full);
        }

        // From here on nothing fails.
        for key in surplus {
            cx.counters.add(Count::Revoked, u64::from(shards.of(key).remove(key).is_some()));
            to.into_iter().for_each(|to| pairs.remove(to, key));
        }
        match before {
            Some((key, (old_at, _))) if !moves => shards.of(key).replace(key, old_at, at),
            Some((key, _)) => {
                shards.of(key).remove(key);
                if let Some(alias) = alias {
                    shards.of(key).aliases.insert(alias);
                }
                shards.of(new).link(new, at);
            }
            None => shards.of(new).link(new, at),
        }
        if moves || from != to {
            from.into_iter().zip(old).for_each(|(from, key)| pairs.remove(from, key));
            to.into_iter().for_each(|to| pairs.add(to, new));
        }
        if old.is_none() {
            self.take_neighbours(&moment, shards.of(new), expired);
        }
        Ok(Attempt::Done(header.meta(moment.timeouts)))
    }

    fn lock_all(&self, keys: impl Iterator<Item = u128>) -> LockedShards<'_> {
        let mut shards: SmallVec<[usize; 4]> = keys.map(|key| self.shard_of(key)).collect();
        shards.sort_unstable();
        shards.dedup();
        LockedShards {
            memory: self,
            locked: shards.into_iter().map(|shard| (shard, self.shards[shard].lock())).collect(),
        }
    }
}

/// Session shards, locked.
struct LockedShards<'a> {
    memory: &'a Memory,
    locked: SmallVec<[(usize, MutexGuard<'a, Shard>); 3]>,
}

impl LockedShards<'_> {
    /// The shard of a key whose shard was locked.
    fn of(&mut self, key: u128) -> &mut Shard {
        let wanted = self.memory.shard_of(key);
        match self.locked.iter_mut().find(|(shard, _)| *shard == wanted) {
            Some((_, shard)) => shard,
            None => unreachable!("every shard involved is locked"),
        }
    }

    /// The least recently used of these sessions, which have to end so that one more does not exceed the limit. Under
    /// the locks of all of them: one that died after it was counted would make room.
    fn surplus(&mut self, rivals: &[u128], most: u64, moment: &StepTime) -> SmallVec<[u128; 4]> {
        let used =
            |&key: &u128| self.of(key).living(key, moment).map(|(_, header)| (header.last_seen, header.created, key));
        let mut living: SmallVec<[_; 4]> = rivals.iter().filter_map(used).collect();
        let too_many = (living.len() as u64 + 1).saturating_sub(most) as usize;
        living.sort_unstable();
        living.into_iter().take(too_many).map(|(_, _, key)| key).collect()
    }
}

/// The other sessions of a principal, living or not, if they may be too many.
fn rivals(pairs: &LockedPairs, principal: PrincipalKey, spared: [Option<u128>; 2], most: u64) -> SmallVec<[u128; 4]> {
    if most == u64::MAX {
        return SmallVec::new();
    }
    let others: SmallVec<[u128; 4]> = pairs.of(principal).filter(|key| !spared.contains(&Some(*key))).collect();
    if (others.len() as u64) < most { SmallVec::new() } else { others }
}
