//! Writes that involve more than one shard: sessions with a principal, renewal, and the limit per
//! principal. Each is one step under the locks of everything involved.

use smallvec::SmallVec;

use super::{
    aliases::OldKeys,
    principals::LockedPrincipals,
    quota::Usage,
    session_table::{SessionTable, ShardGuard, key_is_taken},
    shard::{RemovedSessions, Shard},
};
use crate::{
    crypto::zeroize::ZeroizeOnDrop,
    engine::Context,
    error::{Error, Result},
    session::{
        alias::Grace,
        header::{Meta, StoredRecord, try_to_vec},
        key::{LookupKey, PrincipalKey},
        policy::StepTime,
        write::Write,
    },
    stats::Count,
};

enum Attempt {
    Done(Meta),
    /// The session's principal changed before the locks were held.
    Retry,
    Full,
}

/// What is removed once the locks are released.
#[derive(Default)]
struct Leftovers {
    /// Expired sessions, whose references are left.
    expired: RemovedSessions,
    /// Aliases of sessions that were ended or renewed.
    old_keys: SmallVec<[OldKeys; 2]>,
}

type Keys = SmallVec<[u128; 4]>;

impl SessionTable {
    /// Writes a session from key `old`, if there is one, to key `new`. Its principal or key may
    /// change.
    pub(super) fn write_across_shards(
        &self,
        cx: &Context,
        old: Option<u128>,
        new: u128,
        write: &Write,
        grace: &Grace,
    ) -> Result<Meta> {
        self.pool.reserve_ahead();
        let mut is_last_try = false;
        let mut leftovers = Leftovers::default();
        loop {
            match self.try_write_across_shards(cx, old, new, write, grace, &mut leftovers)? {
                Attempt::Done(meta) => {
                    self.remove_references(&leftovers.expired);
                    leftovers.old_keys.iter().for_each(|old_keys| self.remove_aliases(old_keys));
                    return Ok(meta);
                }
                Attempt::Retry => {}
                Attempt::Full => self.make_room(cx, &mut is_last_try)?,
            }
        }
    }

    fn try_write_across_shards(
        &self,
        cx: &Context,
        old: Option<u128>,
        new: u128,
        write: &Write,
        grace: &Grace,
        leftovers: &mut Leftovers,
    ) -> Result<Attempt> {
        let key_changes = old != Some(new);
        // The principal's lock comes before the shard's, so the principal is read first and checked
        // again below.
        let old_principal = match old {
            Some(key) => self.lock(key).find_live(key, &cx.step_time()).ok_or_else(Error::not_found)?.1.principal,
            None => None,
        };
        let new_principal = write.principal_after(old_principal);
        let mut principals = self.principals.lock(old_principal, new_principal);
        let limit = cx.policy.limits().max_per_principal;
        let others = match new_principal {
            Some(principal) => other_sessions(&principals, principal, [old, Some(new)], limit),
            None => Keys::new(),
        };
        let mut shards = self.lock_shards(old.into_iter().chain([new]).chain(others.iter().copied()));
        let time = cx.step_time();
        let excess = shards.excess(&others, limit, &time);

        let before = match old {
            Some(key) => Some((key, shards.of(key).find_live(key, &time).ok_or_else(Error::not_found)?)),
            None => None,
        };
        if before.is_some_and(|(_, (_, header))| header.principal != old_principal) {
            return Ok(Attempt::Retry);
        }
        let header = match before {
            Some((_, (_, header))) => {
                write.check_version(&header)?;
                write.header_after(header, time.now)
            }
            None => write.new_header(&time),
        };
        if key_changes && shards.of(new).contains(new) {
            return Err(key_is_taken());
        }
        let alias = match before {
            Some((key, (_, before))) => {
                grace.alias((LookupKey(key, 0), &before), (LookupKey(new, 0), &header), &time)?
            }
            None => None,
        };
        if let Some(alias) = &alias {
            shards.of(alias.key.0).aliases.reserve_alias(alias.key.0).map_err(|_| Error::no_memory())?;
            shards.of(new).aliases.reserve_old_keys().map_err(|_| Error::no_memory())?;
        }

        // The new record, which is not found before it is linked.
        let mut old_usage = Usage::default();
        let mut old_payload = ZeroizeOnDrop::new(Vec::new());
        let mut old_label = Vec::new();
        if let Some((key, (slot, _))) = before {
            let slab = &shards.of(key).slab;
            old_label = try_to_vec(slab.label(slot))?;
            let payload = slab.payload(slot);
            old_usage = self.usage_of(payload.len());
            if write.content.needs_old_payload() {
                old_payload.try_reserve_exact(payload.len()).map_err(|_| Error::no_memory())?;
                old_payload.extend_from_slice(payload);
            }
        }
        let stored_len = write.content.stored_len(old_payload.len());
        let old_record = before.as_ref().map(|(key, (_, header))| StoredRecord {
            key: LookupKey(*key, 0),
            header,
            payload: &old_payload,
        });
        let label_before = before.as_ref().map(|(_, (_, header))| (header, &*old_label));
        let label = write.label_after(label_before, &header)?;
        let fill = |out: &mut [u8]| write.content.write_to(&LookupKey(new, 0), &header, old_record, out);
        let deadline = header.deadline(time.timeouts);
        let slot = shards.of(new).insert_unlinked(new, &header, &label, deadline, stored_len, fill)?;
        let index_changes = key_changes || old_principal != new_principal;
        if index_changes
            && new_principal.is_some()
            && let Err(error) = principals.reserve_one()
        {
            shards.of(new).slab.remove(slot);
            return Err(error);
        }
        for &key in &excess {
            old_usage += shards.usage_of(key);
        }
        match self.quota.reserve(old_usage, self.usage_of(stored_len), &cx.policy.limits()) {
            Some(reservation) => reservation.commit(),
            None => {
                shards.of(new).slab.remove(slot);
                return Ok(Attempt::Full);
            }
        }

        // Nothing below fails.
        for key in excess {
            if let Some(session) = shards.of(key).remove(key) {
                cx.counters.add(Count::Revoked, 1);
                leftovers.old_keys.push(session.old_keys);
            }
            if let Some(principal) = new_principal {
                principals.remove(principal, key);
            }
        }
        match before {
            Some((key, (old_slot, _))) if !key_changes => shards.of(key).replace(key, old_slot, slot),
            Some((key, _)) => {
                let mut old_keys = shards.of(key).remove(key).map(|session| session.old_keys).unwrap_or_default();
                match alias {
                    Some(alias) => {
                        leftovers.old_keys.push(old_keys.push(&alias, time.now));
                        shards.of(new).aliases.set_old_keys(new, old_keys);
                        shards.of(key).aliases.insert(alias);
                    }
                    // The way from older ids leads over this one, which is dead now.
                    None => leftovers.old_keys.push(old_keys),
                }
                shards.of(new).link(new, slot);
            }
            None => shards.of(new).link(new, slot),
        }
        if index_changes {
            if let (Some(principal), Some(key)) = (old_principal, old) {
                principals.remove(principal, key);
            }
            if let Some(principal) = new_principal {
                principals.add(principal, new);
            }
        }
        if old.is_none() {
            self.remove_expired_neighbours(cx, &time, shards.of(new), &mut leftovers.expired);
        }
        Ok(Attempt::Done(header.meta(time.timeouts).shifted_by(cx.clock.wall_offset_ms())))
    }

    fn lock_shards(&self, keys: impl Iterator<Item = u128>) -> LockedShards<'_> {
        let mut numbers: SmallVec<[usize; 4]> = keys.map(|key| self.shard_number(key)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let locked = numbers.into_iter().map(|number| (number, self.shards()[number].lock())).collect();
        LockedShards { table: self, locked }
    }
}

struct LockedShards<'a> {
    table: &'a SessionTable,
    locked: SmallVec<[(usize, ShardGuard<'a>); 3]>,
}

impl LockedShards<'_> {
    /// The shard of a key, which was locked.
    fn of(&mut self, key: u128) -> &mut Shard {
        let wanted = self.table.shard_number(key);
        match self.locked.iter_mut().find(|(number, _)| *number == wanted) {
            Some((_, shard)) => shard,
            None => unreachable!("every shard involved is locked"),
        }
    }

    fn usage_of(&mut self, key: u128) -> Usage {
        let table = self.table;
        let shard = self.of(key);
        shard.find(key).map_or(Usage::default(), |slot| table.usage_of(shard.slab.payload(slot).len()))
    }

    /// The least recently used of a principal's other sessions, which must end so that one more
    /// does not exceed the limit. Under the locks of all of them, because one that ended after it
    /// was counted would make room.
    fn excess(&mut self, others: &[u128], limit: u64, time: &StepTime) -> Keys {
        let mut live: SmallVec<[_; 4]> = SmallVec::new();
        for &key in others {
            if let Some((_, header)) = self.of(key).find_live(key, time) {
                live.push((header.last_seen, header.created, key));
            }
        }
        let count = (live.len() as u64 + 1).saturating_sub(limit) as usize;
        live.sort_unstable();
        live.into_iter().take(count).map(|(_, _, key)| key).collect()
    }
}

/// The sessions of a principal but the excluded ones, expired or not, if there may be too many.
fn other_sessions(
    principals: &LockedPrincipals,
    principal: PrincipalKey,
    excluded: [Option<u128>; 2],
    limit: u64,
) -> Keys {
    if limit == u64::MAX {
        return Keys::new();
    }
    let others: Keys = principals.sessions_of(principal).filter(|key| !excluded.contains(&Some(*key))).collect();
    if (others.len() as u64) < limit { Keys::new() } else { others }
}
