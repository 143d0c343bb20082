//! The engine of `memory:`. A use of a session takes one lock once, and touches one line of the
//! index and one slot.

mod aliases;
mod alloc;
mod index;
mod multi_shard;
mod principals;
mod quota;
mod session_table;
mod shard;
mod slab;
mod sweep;

use std::sync::atomic::AtomicI64;

use self::{
    session_table::{SessionTable, key_is_taken},
    shard::RemovedSessions,
};
use super::{Blocking, Context, Engine, Found, Reader};
use crate::{
    error::{Error, ErrorKind, Result},
    os::{
        clock::{self, Clock},
        fork_mark,
    },
    session::{
        alias::Grace,
        header::{Meta, RecordHeader, StoredEntry},
        key::{LookupKey, PrincipalKey},
        policy::{Policy, PolicyOptions, StepTime},
        write::{PrincipalChange, Write},
    },
    stats::{Count, Counters, EngineUsage},
};

pub(crate) struct Memory {
    /// The process that opened the store. No other one can use it.
    generation: u32,
    manual_ms: Option<AtomicI64>,
    policy: Policy,
    counters: Counters,
    sessions: SessionTable,
}

impl Memory {
    /// `overhead` is how much longer a stored payload is than the caller's.
    pub(crate) fn new(options: &PolicyOptions, manual_clock: bool, overhead: usize) -> Result<Memory> {
        Ok(Memory {
            generation: fork_mark::generation(),
            manual_ms: manual_clock.then(|| AtomicI64::new(clock::wall_ms())),
            policy: Policy::new(options),
            counters: Counters::default(),
            sessions: SessionTable::new(overhead)?,
        })
    }

    /// The fast path of create: without a principal only one shard is involved.
    fn create_in_one_shard(&self, cx: &Context, key: u128, write: &Write) -> Result<Meta> {
        self.sessions.pool.reserve_ahead();
        let stored_len = write.content.stored_len(0);
        let mut is_last_try = false;
        let mut removed = RemovedSessions::new();
        loop {
            let mut shard = self.sessions.lock(key);
            let time = cx.step_time();
            shard.prefetch(key);
            let header = write.new_header(&time);
            let fill = |out: &mut [u8]| write.content.write_to(&LookupKey(key, 0), &header, None, out);
            let deadline = header.deadline(time.timeouts);
            let slot = shard.insert_unlinked(key, &header, b"", deadline, stored_len, fill)?;
            if shard.contains(key) {
                shard.slab.remove(slot);
                return Err(key_is_taken());
            }
            let usage = self.sessions.usage_of(stored_len);
            let Some(reservation) = self.sessions.quota.reserve(Default::default(), usage, &cx.policy.limits()) else {
                shard.slab.remove(slot);
                drop(shard);
                self.sessions.make_room(cx, &mut is_last_try)?;
                continue;
            };
            reservation.commit();
            shard.link(key, slot);
            self.sessions.remove_expired_neighbours(cx, &time, &mut shard, &mut removed);
            drop(shard);
            self.sessions.remove_references(&removed);
            return Ok(meta(cx, &header, &time));
        }
    }

    /// Reads over the alias `key`. Always a peek: the old id of a session does not keep it alive.
    fn read_by_alias(&self, cx: &Context, key: u128, reader: Reader) -> Result<()> {
        let Some(mut resolved) = self.sessions.resolve(cx, key) else {
            self.sessions.lock(key).misses += 1;
            return Err(Error::not_found());
        };
        let mut meta = resolved.header.meta(resolved.time.timeouts);
        meta.expires_ms = meta.expires_ms.min(resolved.walk.until);
        let meta = meta.shifted_by(cx.clock.wall_offset_ms());
        reader(Found {
            record: resolved.shard.slab.record(resolved.slot, &resolved.header),
            meta,
            alias_chain: &resolved.walk.chain,
        })?;
        resolved.shard.hits += 1;
        Ok(())
    }
}

impl Engine for Memory {
    fn enter(&self) -> Result<Context<'_>> {
        if self.generation != fork_mark::generation() {
            return Err(Error::fixed(
                ErrorKind::Forked,
                "the memory: store was opened before fork and is not shared with this process; open one in the child, \
                 or use an engine for several processes, such as lmdb:",
            ));
        }
        let clock = match &self.manual_ms {
            Some(now_ms) => Clock::Manual(now_ms),
            None => Clock::BootTime,
        };
        Ok(Context { clock, policy: &self.policy, counters: &self.counters })
    }

    fn may_block(&self) -> Blocking {
        Blocking { reads: false, writes: false }
    }

    fn reopen_after_fork(&self) -> Option<Box<dyn Engine>> {
        None
    }

    fn create(&self, cx: &Context, key: &LookupKey, write: &Write) -> Result<Meta> {
        match write.principal {
            PrincipalChange::Set(_) => self.sessions.write_across_shards(cx, None, key.0, write, &Grace::NONE),
            _ => self.create_in_one_shard(cx, key.0, write),
        }
    }

    fn read(&self, cx: &Context, key: &LookupKey, peek: bool, reader: Reader) -> Result<()> {
        let mut shard = self.sessions.lock(key.0);
        let Some(slot) = shard.find(key.0) else {
            if shard.aliases.contains(key.0) {
                drop(shard);
                return self.read_by_alias(cx, key.0, reader);
            }
            shard.misses += 1;
            return Err(Error::not_found());
        };
        let time = cx.step_time();
        let header = shard.slab.header(slot);
        if !header.is_live(&time) {
            shard.misses += 1;
            return Err(Error::not_found());
        }
        let after = if peek { header } else { header.touched_at(time.now) };
        reader(Found { record: shard.slab.record(slot, &after), meta: meta(cx, &after, &time), alias_chain: &[] })?;
        if after.last_seen != header.last_seen {
            shard.slab.set_last_seen(slot, after.last_seen);
        }
        shard.hits += 1;
        Ok(())
    }

    fn touch(&self, cx: &Context, key: &LookupKey, peek: bool) -> Result<Meta> {
        check_width(key)?;
        let mut shard = self.sessions.lock(key.0);
        let time = cx.step_time();
        let (slot, header) = shard.find_live(key.0, &time).ok_or_else(Error::not_found)?;
        if peek {
            return Ok(meta(cx, &header, &time));
        }
        let touched = header.touched_at(time.now);
        shard.slab.set_last_seen(slot, touched.last_seen);
        Ok(meta(cx, &touched, &time))
    }

    fn put(&self, cx: &Context, key: &LookupKey, write: &Write) -> Result<Meta> {
        if write.principal != PrincipalChange::Keep {
            return self.sessions.write_across_shards(cx, Some(key.0), key.0, write, &Grace::NONE);
        }
        self.sessions.pool.reserve_ahead();
        let mut is_last_try = false;
        loop {
            let mut shard = self.sessions.lock(key.0);
            let time = cx.step_time();
            let (slot, before) = shard.find_live(key.0, &time).ok_or_else(Error::not_found)?;
            write.check_version(&before)?;
            let header = write.header_after(before, time.now);
            let stored_len = write.content.stored_len(0);
            let old_usage = self.sessions.usage_of(shard.slab.payload(slot).len());
            let new_usage = self.sessions.usage_of(stored_len);
            let Some(reservation) = self.sessions.quota.reserve(old_usage, new_usage, &cx.policy.limits()) else {
                drop(shard);
                self.sessions.make_room(cx, &mut is_last_try)?;
                continue;
            };
            let deadlines = [before, header].map(|header| header.deadline(time.timeouts));
            let fill = |out: &mut [u8]| write.content.write_to(key, &header, None, out);
            shard.update(key.0, slot, &header, deadlines, stored_len, fill)?;
            reservation.commit();
            return Ok(meta(cx, &header, &time));
        }
    }

    fn renew(&self, cx: &Context, old: &LookupKey, new: &LookupKey, write: &Write, grace: &Grace) -> Result<Meta> {
        self.sessions.write_across_shards(cx, Some(old.0), new.0, write, grace)
    }

    fn delete(&self, cx: &Context, key: &LookupKey, principal: Option<PrincipalKey>) -> Result<()> {
        check_width(key)?;
        let mut shard = self.sessions.lock(key.0);
        let (_, header) = shard.find_live(key.0, &cx.step_time()).ok_or_else(Error::not_found)?;
        if principal.is_some_and(|principal| header.principal != Some(principal)) {
            return Err(Error::not_found());
        }
        if let Some(removed) = shard.remove(key.0) {
            let removed = [removed];
            self.sessions.release_quota(&removed);
            drop(shard);
            self.sessions.remove_references(&removed);
        }
        Ok(())
    }

    fn resolve(&self, cx: &Context, key: &LookupKey) -> Result<LookupKey> {
        self.sessions.resolve(cx, key.0).map(|resolved| resolved.walk.key).ok_or_else(Error::not_found)
    }

    fn sweep(&self, cx: &Context, max: u64) -> Result<u64> {
        Ok(self.sessions.sweep(cx, max))
    }

    fn list(&self, cx: &Context, principal: PrincipalKey) -> Result<Vec<StoredEntry>> {
        // Under the principal's lock: a renewal meanwhile would hide a session from the list.
        let principals = self.sessions.principals.lock(Some(principal), None);
        let mut entries = Vec::new();
        for key in principals.sessions_of(principal) {
            let shard = self.sessions.lock(key);
            let time = cx.step_time();
            let Some((slot, header)) = shard.find_live(key, &time) else { continue };
            if header.principal == Some(principal) {
                let payload_len = self.sessions.payload_len(shard.slab.payload(slot).len());
                let label = shard.slab.label(slot);
                let mut stored = header.entry(LookupKey(key, 0), label, payload_len, time.timeouts)?;
                stored.entry.meta = stored.entry.meta.shifted_by(cx.clock.wall_offset_ms());
                entries.try_reserve(1).map_err(|_| Error::no_memory())?;
                entries.push(stored);
            }
        }
        Ok(entries)
    }

    fn revoke(&self, cx: &Context, principal: PrincipalKey, except: Option<&LookupKey>) -> Result<u64> {
        let mut principals = self.sessions.principals.lock(Some(principal), None);
        // Under the principal's lock, so that a renewal of the excepted session is either before or
        // after.
        let excepted = except.and_then(|key| self.sessions.resolve(cx, key.0)).map(|resolved| resolved.walk.key.0);
        let mut revoked = 0;
        let mut expired = 0;
        let mut last = None;
        // One by one, so that no memory is needed: ending sessions must not fail for want of it.
        while let Some(key) = principals.next_session_of(principal, last) {
            last = Some(key);
            if last == excepted {
                continue;
            }
            principals.remove(principal, key);
            let mut shard = self.sessions.lock(key);
            let Some(slot) = shard.find(key) else { continue };
            let header = shard.slab.header(slot);
            if header.principal != Some(principal) {
                continue;
            }
            let time = cx.step_time();
            if header.is_live(&time) {
                revoked += 1;
            } else if header.has_expired(&time) {
                expired += 1;
            } else {
                self.sessions.count_revoked(cx, 1);
            }
            let removed = shard.remove(key);
            self.sessions.release_quota(removed.as_slice());
            drop(shard);
            if let Some(session) = removed {
                self.sessions.remove_aliases(&session.old_keys);
            }
        }
        cx.counters.add(Count::Revoked, revoked);
        cx.counters.add(Count::Expired, expired);
        Ok(revoked)
    }

    fn revoke_all(&self, cx: &Context) -> Result<u64> {
        Ok(self.sessions.revoke_all(cx))
    }

    fn usage(&self, _: &Context) -> Result<EngineUsage> {
        let used = self.sessions.quota.used();
        let mut usage = EngineUsage { sessions: used.sessions, bytes: used.bytes, hits: 0, misses: 0 };
        for shard in self.sessions.shards() {
            let shard = shard.lock();
            usage.hits += shard.hits;
            usage.misses += shard.misses;
        }
        Ok(usage)
    }

    fn timeouts_shortened(&self) -> Result<()> {
        for shard in self.sessions.shards() {
            shard.lock().slab.make_all_due();
        }
        Ok(())
    }

    fn check(&self) -> Result<Vec<String>> {
        Err(Error::fixed(ErrorKind::Unsupported, "a memory: store has nothing that other processes could damage"))
    }
}

/// `NOT_FOUND` for a made-up reference: keys of this engine have 128 bits.
fn check_width(key: &LookupKey) -> Result<()> {
    if key.1 == 0 { Ok(()) } else { Err(Error::not_found()) }
}

/// What a caller is told of a session: its times as wall time by the present offset.
fn meta(cx: &Context, header: &RecordHeader, time: &StepTime) -> Meta {
    header.meta(time.timeouts).shifted_by(cx.clock.wall_offset_ms())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::session::{
        alias::MAX_ALIASES,
        label::LabelChange,
        policy::{FOREVER, Timeout, TimeoutChanges},
        write::{Authentication, Content},
    };

    const PRINCIPAL: PrincipalKey = PrincipalKey(7, 0);

    fn immortal() -> Memory {
        let options = PolicyOptions { timeout: Some(FOREVER), idle_timeout: Some(FOREVER), ..PolicyOptions::default() };
        Memory::new(&options, true, 0).unwrap()
    }

    fn key(n: u128) -> LookupKey {
        // Shards are chosen by the upper half, tags by the lower one.
        LookupKey(n << 64 | n, 0)
    }

    fn write(idle: Option<Timeout>, principal: PrincipalChange) -> Write<'static> {
        let timeouts = TimeoutChanges { absolute: None, idle };
        Write {
            content: Content::Plain(b"x"),
            timeouts,
            principal,
            label: LabelChange::Keep,
            authentication: Authentication::AtLogin,
            if_version: None,
            current_key: None,
        }
    }

    fn create(memory: &Memory, n: u128, idle: Option<Timeout>) {
        let cx = memory.enter().unwrap();
        memory.create(&cx, &key(n), &write(idle, PrincipalChange::Set(PRINCIPAL))).unwrap();
    }

    fn renew(memory: &Memory, old: u128, new: u128, grace_ms: i64) {
        let cx = memory.enter().unwrap();
        let grace = Grace { ms: grace_ms, ..Grace::NONE };
        memory.renew(&cx, &key(old), &key(new), &write(None, PrincipalChange::Keep), &grace).unwrap();
    }

    fn reads(memory: &Memory, n: u128) -> bool {
        memory.read(&memory.enter().unwrap(), &key(n), true, &mut |_| Ok(())).is_ok()
    }

    fn aliases(memory: &Memory) -> usize {
        memory.sessions.shards().iter().map(|shard| shard.lock().aliases.len()).sum()
    }

    #[test]
    fn endless_renewals_keep_few_aliases() {
        for grace_ms in [10, FOREVER] {
            let memory = immortal();
            create(&memory, 0, None);
            for n in 0..5000 {
                renew(&memory, n, n + 1, grace_ms);
                memory.enter().unwrap().clock.advance(1).unwrap();
            }
            assert!(aliases(&memory) <= MAX_ALIASES, "{} aliases", aliases(&memory));
            let oldest = if grace_ms == FOREVER { MAX_ALIASES } else { 9 } as u128;
            assert!(reads(&memory, 5000) && reads(&memory, 5000 - oldest) && !reads(&memory, 4999 - oldest));
        }
    }

    /// For each way in which a session can end.
    #[test]
    fn aliases_end_with_their_session() {
        type End = fn(&Memory);
        let ends: [End; 6] = [
            |memory| memory.delete(&memory.enter().unwrap(), &key(3), None).unwrap(),
            |memory| assert_eq!(memory.revoke_all(&memory.enter().unwrap()).unwrap(), 1),
            |memory| assert_eq!(memory.revoke(&memory.enter().unwrap(), PRINCIPAL, None).unwrap(), 1),
            |memory| renew(memory, 3, 4, 0),
            |memory| {
                let cx = memory.enter().unwrap();
                cx.clock.advance(1000).unwrap();
                assert_eq!(memory.sweep(&cx, 10).unwrap(), 1);
            },
            |memory| {
                memory.policy.tighten(&PolicyOptions { max_per_principal: Some(1), ..PolicyOptions::default() });
                create(memory, 5, None);
                assert!(!reads(memory, 3) && reads(memory, 5));
            },
        ];
        for end in ends {
            let memory = immortal();
            create(&memory, 0, Some(Timeout::After(Duration::from_secs(1))));
            (0..3).for_each(|n| renew(&memory, n, n + 1, FOREVER));
            assert_eq!(aliases(&memory), 3);
            end(&memory);
            assert_eq!(aliases(&memory), 0);
            assert!((0..4).all(|n| !reads(&memory, n)));
        }
    }

    #[test]
    fn sweep_removes_all_ended_aliases() {
        const SESSIONS: u128 = 1000;
        let memory = immortal();
        for n in 0..SESSIONS {
            create(&memory, n, None);
            renew(&memory, n, n + SESSIONS, 10);
        }
        assert_eq!(aliases(&memory), SESSIONS as usize);
        let cx = memory.enter().unwrap();
        cx.clock.advance(10).unwrap();
        assert_eq!(memory.sweep(&cx, 1).unwrap(), 0);
        assert_eq!(aliases(&memory), 0);
        for n in 0..SESSIONS {
            memory.delete(&cx, &key(n + SESSIONS), None).unwrap();
        }
        for shard in memory.sessions.shards() {
            let (sessions, capacity) = shard.lock().aliases.sessions();
            assert!(sessions == 0 && capacity <= 100, "room for {capacity}");
        }
    }
}
