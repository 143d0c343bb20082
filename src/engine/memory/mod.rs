//! The engine of `memory:`: sessions in shards by key, each behind its own lock; a use of a session takes one lock once,
//! one line of the table and one slot.
//!
//! Locking: the principals' locks first (see `principals`), then session shards from the lowest to the highest.

mod aliases;
mod expiry;
mod lock;
mod payload;
mod pool;
mod principals;
mod region;
mod rewrite;
mod segment;
mod shard;
mod slots;
mod space;
mod table;
mod usage;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    thread::available_parallelism,
};

use crate::sync::backoff_mutex::BackoffMutexGuard as MutexGuard;
use smallvec::SmallVec;

use self::{
    expiry::Cursor,
    lock::Lock,
    pool::Pool,
    principals::Principals,
    shard::{Expired, Gone, MOST_EXPIRED, Shard},
    slots::Address,
    usage::Usage,
};
use super::{Blocking, Context, Engine, Found, Reader};
use crate::{
    error::{Error, ErrorKind, Result},
    os::{
        clock::{self, Clock},
        fork_mark,
    },
    session::{
        alias::{Alias, Grace},
        header::{Entry, Meta, RecordHeader},
        key::{LookupKey, PrincipalKey},
        policy::{Limits, Policy, PolicyOptions, StepTime},
        write::{PrincipalChange, Write},
    },
    stats::{Count, Counters, EngineUsage},
};

/// Four shards for each core, so that cores seldom meet, within these bounds: more shards make a small store larger (32 take some
/// 150 bytes more for each of a thousand sessions than 16, where two threads met twice as often).
const SHARDS: std::ops::RangeInclusive<usize> = 32..=64;
/// Slots that a sweep looks at before it lets the shard's other users in: parking_lot's locks are not fair, so a longer
/// hold, or coming back at once, would keep them out.
const SWEEP_HOLD: u32 = MOST_EXPIRED as u32;
/// Sessions that are moved together in one such visit: a move takes three times as long.
const TIDY_HOLD: u32 = 5;
/// A chunk that is given back to the kernel takes as long as so many moves.
const MOVES_FOR_A_CHUNK: u64 = 4;
/// Slots that a create looks at for expired neighbours: more than one, so that a store that nobody sweeps shrinks.
const NEIGHBOURS: u32 = 4;
/// Expired sessions cleared at once when a store is full.
const ROOM: u64 = 64;

pub(crate) struct Memory {
    /// The process that opened the store: no other has it.
    generation: u32,
    offset_ms: i64,
    manual_ms: Option<AtomicI64>,
    policy: Policy,
    counters: Counters,
    shards: Box<[Lock]>,
    principals: Principals,
    usage: Usage,
    pool: Arc<Pool>,
    /// How much longer a payload is as it is stored: what is counted and limited is its own length.
    overhead: usize,
    /// Where the next sweep begins.
    sweep_from: AtomicUsize,
}

/// From a key to the session that it reads, whose shard is locked.
struct Way<'a> {
    /// The key under which the session is held.
    key: u128,
    shard: MutexGuard<'a, Shard>,
    at: Address,
    header: RecordHeader,
    moment: StepTime,
    /// When the way ends.
    until: i64,
    aliases: Vec<Alias>,
}

impl Memory {
    pub(crate) fn new(options: &PolicyOptions, manual_clock: bool, overhead: usize) -> Memory {
        let cores = available_parallelism().map_or(*SHARDS.start(), |cores| cores.get());
        let shards = (4 * cores).next_power_of_two().clamp(*SHARDS.start(), *SHARDS.end());
        let pool = Pool::new();
        Memory {
            generation: fork_mark::generation(),
            offset_ms: clock::steady_offset_ms(),
            manual_ms: manual_clock.then(|| AtomicI64::new(clock::wall_ms())),
            policy: Policy::new(options),
            counters: Counters::default(),
            shards: (0..shards).map(|_| Lock::new(Shard::new(Arc::clone(&pool)))).collect(),
            principals: Principals::default(),
            usage: Usage::default(),
            pool,
            overhead,
            sweep_from: AtomicUsize::new(0),
        }
    }

    /// The length of a payload of which `stored` bytes are held.
    fn payload_len(&self, stored: usize) -> u64 {
        stored.saturating_sub(self.overhead) as u64
    }

    fn shard_of(&self, key: u128) -> usize {
        (key >> 64) as usize & (self.shards.len() - 1)
    }

    fn lock(&self, key: u128) -> MutexGuard<'_, Shard> {
        self.shards[self.shard_of(key)].lock()
    }

    /// The fast way to create: no principal, so one shard.
    fn create_alone(&self, cx: &Context, key: u128, write: &Write) -> Result<Meta> {
        self.pool.top_up();
        let stored_len = write.content.stored_len(0);
        let (mut none_left, mut expired) = (false, Expired::new());
        loop {
            let mut shard = self.lock(key);
            let moment = cx.step_time();
            shard.prefetch(key);
            let header = write.new_header(moment.now);
            let fill = |out: &mut [u8]| write.content.write_to(&LookupKey(key, 0), &header, None, out);
            let at = shard.prepare(key, &header, header.deadline(moment.timeouts), stored_len, fill)?;
            if shard.holds(key) {
                shard.slots.free(at);
                return Err(taken());
            }
            if !self.usage.change((0, 0), (1, self.payload_len(stored_len)), &cx.policy.limits()) {
                shard.slots.free(at);
                drop(shard);
                self.make_room(cx, &mut none_left)?;
                continue;
            }
            shard.link(key, at);
            self.take_neighbours(&moment, &mut shard, &mut expired);
            drop(shard);
            self.forget(&expired);
            return Ok(header.meta(moment.timeouts));
        }
    }

    /// Clears some expired sessions. If there were none, one more attempt is due, because others may have cleared them;
    /// after that it is `FULL`.
    fn make_room(&self, cx: &Context, none_left: &mut bool) -> Result<()> {
        if *none_left {
            return Err(Error::fixed(ErrorKind::Full, "the store is full: max_sessions or max_bytes is reached"));
        }
        *none_left = self.sweep(cx, ROOM)? == 0;
        Ok(())
    }

    /// Books sessions out that were taken out of their shard. Under the shard's lock, so that whoever finds the store full
    /// and then nothing to clear can rely on it.
    fn book_out(&self, gone: &[Gone]) {
        if !gone.is_empty() {
            let bytes = gone.iter().map(|gone| self.payload_len(gone.stored_len)).sum();
            self.usage.release(gone.len() as u64, bytes);
        }
    }

    /// Forgets the principals' pairs of sessions that were taken out. No session shard may be locked.
    fn forget(&self, gone: &[Gone]) {
        for gone in gone {
            if let Some(principal) = gone.principal {
                self.principals.forget(principal, gone.key);
            }
        }
    }

    /// Takes expired sessions out of a locked shard and books them out, as many as `budget` and `max` allow.
    fn take_expired(
        &self,
        moment: &StepTime,
        shard: &mut Shard,
        cursor: &mut Cursor,
        budget: &mut u32,
        max: u64,
        expired: &mut Expired,
    ) {
        let before = expired.len();
        shard.take_expired(moment, cursor, budget, max, expired);
        self.book_out(&expired[before..]);
        self.counters.add(Count::Expired, (expired.len() - before) as u64);
    }

    /// Takes a few expired sessions out of a shard in which one was created: nothing else makes a store grow.
    fn take_neighbours(&self, moment: &StepTime, shard: &mut Shard, expired: &mut Expired) {
        let (mut cursor, mut budget) = (shard.neighbours, NEIGHBOURS);
        self.take_expired(moment, shard, &mut cursor, &mut budget, u64::MAX, expired);
        shard.neighbours = cursor;
        shard.aliases.clear_ended(moment.now, &mut budget);
    }

    /// Reads what the alias `key` stands for. Always a peek: the old id of a session does not keep it alive.
    fn read_by_alias(&self, cx: &Context, key: u128, reader: Reader) -> Result<()> {
        let Some(mut way) = self.follow(cx, key) else {
            self.lock(key).misses += 1;
            return Err(Error::not_found());
        };
        let mut meta = way.header.meta(way.moment.timeouts);
        meta.expires_ms = meta.expires_ms.min(way.until);
        reader(Found { record: way.shard.slots.stored(way.at, &way.header), meta, alias_chain: &way.aliases })?;
        way.shard.hits += 1;
        Ok(())
    }

    /// Follows aliases from `key` to a living session, and leaves its shard locked: between two looks at it, it might have
    /// been renewed again.
    fn follow(&self, cx: &Context, key: u128) -> Option<Way<'_>> {
        let (mut key, mut until, mut aliases) = (key, i64::MAX, Vec::new());
        // Ends: a target is always minted after what points to it.
        loop {
            let shard = self.lock(key);
            let moment = cx.step_time();
            // The clock may have moved since the first look, and whoever did it may have written since.
            if moment.now >= until {
                return None;
            }
            if let Some((at, header)) = shard.living(key, &moment) {
                return Some(Way { key, shard, at, header, moment, until, aliases });
            }
            let alias = shard.aliases.find(key, moment.now)?;
            aliases.push(alias.clone());
            (key, until) = (alias.target.0, until.min(alias.until));
        }
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
            None => Clock::Steady { offset_ms: self.offset_ms },
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
            PrincipalChange::Set(_) => self.rewrite(cx, None, key.0, write, &Grace::NONE),
            _ => self.create_alone(cx, key.0, write),
        }
    }

    fn read(&self, cx: &Context, key: &LookupKey, peek: bool, reader: Reader) -> Result<()> {
        let mut shard = self.lock(key.0);
        let Some(at) = shard.find(key.0) else {
            if shard.aliases.holds(key.0) {
                drop(shard);
                return self.read_by_alias(cx, key.0, reader);
            }
            shard.misses += 1;
            return Err(Error::not_found());
        };
        let moment = cx.step_time();
        let header = shard.slots.header(at);
        if !header.is_live(&moment) {
            shard.misses += 1;
            return Err(Error::not_found());
        }
        let seen = if peek { header } else { header.touched_at(moment.now) };
        reader(Found { record: shard.slots.stored(at, &seen), meta: seen.meta(moment.timeouts), alias_chain: &[] })?;
        if seen.last_seen != header.last_seen {
            shard.slots.set_last_seen(at, seen.last_seen);
        }
        shard.hits += 1;
        Ok(())
    }

    fn touch(&self, cx: &Context, key: &LookupKey) -> Result<Meta> {
        let mut shard = self.lock(key.0);
        let moment = cx.step_time();
        let (at, header) = shard.living(key.0, &moment).ok_or_else(Error::not_found)?;
        let seen = header.touched_at(moment.now);
        shard.slots.set_last_seen(at, seen.last_seen);
        Ok(seen.meta(moment.timeouts))
    }

    fn put(&self, cx: &Context, key: &LookupKey, write: &Write) -> Result<Meta> {
        if write.principal != PrincipalChange::Keep {
            return self.rewrite(cx, Some(key.0), key.0, write, &Grace::NONE);
        }
        self.pool.top_up();
        let mut none_left = false;
        loop {
            let mut shard = self.lock(key.0);
            let moment = cx.step_time();
            let (at, before) = shard.living(key.0, &moment).ok_or_else(Error::not_found)?;
            write.check_version(&before)?;
            let header = write.header_after(before, moment.now);
            let len = write.content.stored_len(0);
            let sizes = [shard.slots.payload(at).len(), len].map(|stored_len| (1, self.payload_len(stored_len)));
            if !self.usage.change(sizes[0], sizes[1], &cx.policy.limits()) {
                drop(shard);
                self.make_room(cx, &mut none_left)?;
                continue;
            }
            let deadlines = [before, header].map(|header| header.deadline(moment.timeouts));
            let fill = |out: &mut [u8]| write.content.write_to(key, &header, None, out);
            if let Err(error) = shard.update(key.0, at, &header, deadlines, len, fill) {
                self.usage.change(sizes[1], sizes[0], &NO_LIMITS);
                return Err(error);
            }
            return Ok(header.meta(moment.timeouts));
        }
    }

    fn renew(&self, cx: &Context, old: &LookupKey, new: &LookupKey, write: &Write, grace: &Grace) -> Result<Meta> {
        self.rewrite(cx, Some(old.0), new.0, write, grace)
    }

    fn delete(&self, cx: &Context, key: &LookupKey) -> Result<()> {
        if key.1 != 0 {
            // A made-up reference: keys of this engine have 128 bits.
            return Err(Error::not_found());
        }
        let mut shard = self.lock(key.0);
        shard.living(key.0, &cx.step_time()).ok_or_else(Error::not_found)?;
        if let Some(gone) = shard.remove(key.0) {
            let gone = [gone];
            self.book_out(&gone);
            drop(shard);
            self.forget(&gone);
        }
        Ok(())
    }

    fn resolve(&self, cx: &Context, key: &LookupKey) -> Result<LookupKey> {
        self.follow(cx, key.0).map(|way| LookupKey(way.key, 0)).ok_or_else(Error::not_found)
    }

    fn sweep(&self, cx: &Context, max: u64) -> Result<u64> {
        let first = self.sweep_from.fetch_add(1, Ordering::Relaxed);
        let shards = (0..self.shards.len()).map(|i| &self.shards[first.wrapping_add(i) % self.shards.len()]);
        let mut unswept: SmallVec<[_; 64]> = shards.map(|shard| (shard, Cursor::default())).collect();
        let mut untidy: SmallVec<[_; 64]> = unswept.iter().map(|&(shard, _)| shard).collect();
        // In turns, so that no shard's users wait for more than one short hold.
        let (mut removed, mut expired) = (0, Expired::new());
        while !unswept.is_empty() && removed < max {
            unswept.retain(|(shard, cursor)| {
                let mut budget = SWEEP_HOLD;
                let mut locked = shard.lock();
                let (moment, most) = (cx.step_time(), max - removed);
                self.take_expired(&moment, &mut locked, cursor, &mut budget, most, &mut expired);
                drop(locked);
                removed += expired.len() as u64;
                self.forget(&expired);
                expired.clear();
                budget == 0
            });
        }
        // Nothing is left to remove: what remains of the work that was asked for goes into tidying up.
        let mut moves = max - removed;
        while !untidy.is_empty() && moves > 0 {
            untidy.retain(|shard| {
                let mut budget = TIDY_HOLD.min(u32::try_from(moves).unwrap_or(TIDY_HOLD));
                let before = budget;
                let mut locked = shard.lock();
                locked.tidy(cx.step_time().now, &mut budget);
                drop(locked);
                moves -= u64::from(before - budget);
                budget == 0
            });
        }
        // Here and nowhere else: whoever ends a session does not wait for the kernel, and who reads one while many are swept is not
        // interrupted by it.
        while moves > 0 {
            let trimmed = self.pool.trim() as u64;
            moves = if trimmed == 0 { 0 } else { moves.saturating_sub(trimmed * MOVES_FOR_A_CHUNK) };
        }
        Ok(removed)
    }

    fn list(&self, cx: &Context, principal: PrincipalKey) -> Result<Vec<Entry>> {
        // Under the principal's lock: a renewal meanwhile would hide a session from this.
        let pairs = self.principals.lock(Some(principal), None);
        let entry = |key: u128| {
            let shard = self.lock(key);
            let moment = cx.step_time();
            let (at, header) = shard.living(key, &moment).filter(|(_, header)| header.principal == Some(principal))?;
            Some(header.entry(LookupKey(key, 0), self.payload_len(shard.slots.payload(at).len()), moment.timeouts))
        };
        let mut entries = Vec::new();
        for entry in pairs.of(principal).filter_map(entry) {
            entries.try_reserve(1).map_err(|_| Error::no_memory())?;
            entries.push(entry);
        }
        Ok(entries)
    }

    fn revoke(&self, cx: &Context, principal: PrincipalKey, except: Option<&LookupKey>) -> Result<u64> {
        let mut pairs = self.principals.lock(Some(principal), None);
        // Under the principal's lock, so that a renewal of the spared session is either before or after.
        let spared = except.and_then(|key| self.follow(cx, key.0)).map(|way| way.key);
        let (mut revoked, mut expired, mut last) = (0, 0, None);
        // One after the other, so that no memory is needed: ending sessions must not fail for want of it.
        while let Some(key) = pairs.next(principal, last) {
            last = Some(key);
            if last == spared {
                continue;
            }
            pairs.remove(principal, key);
            let mut shard = self.lock(key);
            let Some(at) = shard.find(key).filter(|&at| shard.slots.header(at).principal == Some(principal)) else {
                continue;
            };
            *(if shard.slots.header(at).is_live(&cx.step_time()) { &mut revoked } else { &mut expired }) += 1;
            self.book_out(shard.remove(key).as_slice());
            drop(shard);
        }
        cx.counters.add(Count::Revoked, revoked);
        cx.counters.add(Count::Expired, expired);
        Ok(revoked)
    }

    fn usage(&self, _: &Context) -> Result<EngineUsage> {
        let (sessions, bytes) = self.usage.get();
        let mut usage = EngineUsage { sessions, bytes, hits: 0, misses: 0 };
        for shard in &self.shards {
            let shard = shard.lock();
            usage.hits += shard.hits;
            usage.misses += shard.misses;
        }
        Ok(usage)
    }

    fn timeouts_shortened(&self) -> Result<()> {
        self.shards.iter().for_each(|shard| shard.lock().slots.expiry.arm_all());
        Ok(())
    }

    fn check(&self) -> Result<Vec<String>> {
        Err(Error::fixed(ErrorKind::Unsupported, "a memory: store has nothing that others could damage"))
    }
}

const NO_LIMITS: Limits = Limits { max_sessions: u64::MAX, max_bytes: u64::MAX, max_per_principal: u64::MAX };

fn taken() -> Error {
    Error::fixed(ErrorKind::Exists, "the new id is taken")
}
