//! The engine of `redis:`: one store for all hosts, in Redis or Valkey. A step is composed here, by
//! the rules that all engines share (`ops`), and happens atomically in a script in the server
//! (`scripts/`), whose clock counts. Every call ends within the URL's `deadline`.
//!
//! ```text
//! PREFIX s:{key}  a session's record, as docs/FORMAT.md has it, or where its old id leads; Redis removes it at its deadline
//! PREFIX p:{key}  a principal's index: a sorted set of its sessions, by when each ends at the latest
//! PREFIX revocations  the calls that are ending all sessions, by when these were created at the latest
//! ```

mod client;
mod cluster_ops;
mod commands;
mod fast_read;
mod header_cache;
mod keys;
mod old_keys;
mod open;
mod ops;
mod record_prefix;
mod relocation;
mod resolve;
mod revocation;
mod scripts;

use once_cell::sync::OnceCell;

use self::{
    client::text,
    commands::{Commands, Extent, ListedSession, UseMode, Value},
    fast_read::FastRead,
    open::{OpenOptions, RedisStore, StoreHandle},
};
use super::{Blocking, Context, Engine, Found, Reader};
use crate::{
    crypto::keys::SALT_LEN,
    error::{Error, ErrorKind, Result},
    session::{
        alias::Grace,
        codec,
        header::{Meta, StoredEntry, StoredRecord},
        key::{LookupKey, PrincipalKey, Ref},
        write::Write,
    },
    stats::{Count, EngineUsage},
    sync::per_process::PerProcess,
    url::{RedisUrl, Url},
};

pub(crate) struct Redis {
    options: OpenOptions,
    /// This process's own; a forked child leaves its parent's alone.
    handle: PerProcess<OnceCell<StoreHandle>>,
}

impl Redis {
    /// Opens the store without connecting, and returns its salt with it.
    pub(crate) fn open(redis: &RedisUrl, url: &Url) -> Result<(Redis, [u8; SALT_LEN])> {
        let options =
            OpenOptions { url: redis.clone(), policy: url.policy, manual_clock: url.manual_clock, seals: url.seals() };
        let engine = Redis { options, handle: PerProcess::new() };
        engine.store()?;
        // Derived, not stored: a server that has lost its data has not lost the store.
        Ok((engine, blake3::derive_key("libsss 2026 format 2: salt of a redis store", redis.prefix.as_bytes())))
    }

    /// The store in this process.
    fn store(&self) -> Result<&RedisStore> {
        let handle = self.handle.get().get_or_try_init(|| {
            let inherited = self.handle.inherited().filter_map(OnceCell::get).last();
            RedisStore::open(&self.options, inherited.map(|handle| &**handle))
        })?;
        Ok(handle)
    }

    fn payload_len(&self, stored_len: usize) -> u64 {
        codec::payload_len(stored_len, self.options.seals)
    }
}

/// Undoes a recorded use on drop unless committed.
struct TouchGuard<'a> {
    commands: &'a Commands<'a>,
    key: &'a LookupKey,
    before: i64,
    used: i64,
}

impl TouchGuard<'_> {
    fn commit(mut self) {
        self.used = self.before;
    }
}

impl Drop for TouchGuard<'_> {
    fn drop(&mut self) {
        if self.before != self.used {
            // One use too many is better than another error in place of the reader's.
            let _ = self.commands.undo_touch(self.key, self.used, self.before);
        }
    }
}

impl Engine for Redis {
    fn enter(&self) -> Result<Context<'_>> {
        let store = self.store()?;
        store.synchronize_clock()?;
        Ok(store.context())
    }

    fn clock_moved(&self) -> Result<()> {
        self.store()?.synchronize_clock()
    }

    fn may_block(&self) -> Blocking {
        Blocking { reads: true, writes: true }
    }

    fn reopen_after_fork(&self) -> Option<Box<dyn Engine>> {
        Some(Box::new(Redis { options: self.options.clone(), handle: PerProcess::new() }))
    }

    fn create(&self, cx: &Context, key: &LookupKey, write: &Write) -> Result<Meta> {
        let header = ops::create(&Commands::new(self.store()?, cx), key, write)?;
        Ok(header.meta(cx.policy.timeouts()))
    }

    fn read(&self, cx: &Context, key: &LookupKey, peek: bool, reader: Reader) -> Result<()> {
        let store = self.store()?;
        let commands = Commands::new(store, cx);
        let mut use_was_refused = false;
        let mut swap = None;
        let mut resolved = None;
        if !peek && fast_read::should_try(&commands, key) {
            match fast_read::fast_read(&commands, key)? {
                FastRead::Hit(session) => resolved = Some(session),
                FastRead::Stale(changed) => swap = Some(changed),
                FastRead::Miss => {}
            }
        }
        if resolved.is_none() {
            let mode = if peek { UseMode::Peek } else { UseMode::Get };
            let lookup = commands.lookup_after_swap(key, mode, Extent::Whole, swap.as_ref())?;
            use_was_refused = lookup.use_was_refused;
            // A use is recorded in a session's own key only, not through an alias or while it
            // leaves.
            use_was_refused |= !matches!(lookup.value, Value::Session(_));
            resolved = resolve::resolve_from(&commands, key, Extent::Whole, lookup)?;
        }
        let Some(resolved) = resolved else {
            cx.counters.count(Count::Misses, key);
            return Err(Error::not_found());
        };
        let record = codec::decode(&resolved.record, store.seals)?;
        let is_use = !peek && !use_was_refused;
        let before = record.header.last_seen;
        if is_use {
            fast_read::record_result(&commands, &record, &resolved.time);
        }
        let header = if is_use { record.header.touched_at(resolved.time.now) } else { record.header };
        let mut meta = header.meta(resolved.time.timeouts);
        meta.expires_ms = meta.expires_ms.min(resolved.walk.until).min(record.engine_fields.indexed_deadline);
        let guard = TouchGuard { commands: &commands, key: &resolved.walk.key, before, used: header.last_seen };
        let stored = StoredRecord { key: resolved.walk.key, header: &header, payload: record.payload };
        reader(Found { record: stored, meta, alias_chain: &resolved.walk.chain })?;
        guard.commit();
        cx.counters.count(Count::Hits, key);
        store.headers.put(&resolved.walk.key, &resolved.record);
        Ok(())
    }

    fn touch(&self, cx: &Context, key: &LookupKey, peek: bool) -> Result<Meta> {
        let commands = Commands::new(self.store()?, cx);
        loop {
            let mode = if peek { UseMode::Peek } else { UseMode::Touch };
            let lookup = commands.lookup(key, mode, Extent::Prefix)?;
            match lookup.value {
                Value::Session(start) => {
                    let record = codec::decode(&start, commands.store.seals)?;
                    let header = if peek { record.header } else { record.header.touched_at(lookup.time.now) };
                    let meta = header.meta(lookup.time.timeouts);
                    let expires_ms = meta.expires_ms.min(record.engine_fields.indexed_deadline);
                    return Ok(Meta { expires_ms, ..meta });
                }
                Value::Leaving(_) if relocation::wait_until_settled(&commands, key)? => {}
                _ => return Err(Error::not_found()),
            }
        }
    }

    fn put(&self, cx: &Context, key: &LookupKey, write: &Write) -> Result<Meta> {
        let header = ops::put(&Commands::new(self.store()?, cx), key, write)?;
        Ok(header.meta(cx.policy.timeouts()))
    }

    fn renew(&self, cx: &Context, old: &LookupKey, new: &LookupKey, write: &Write, grace: &Grace) -> Result<Meta> {
        let header = ops::renew(&Commands::new(self.store()?, cx), old, new, write, grace)?;
        Ok(header.meta(cx.policy.timeouts()))
    }

    fn delete(&self, cx: &Context, key: &LookupKey, principal: Option<PrincipalKey>) -> Result<()> {
        ops::delete(&Commands::new(self.store()?, cx), key, principal)
    }

    fn resolve(&self, cx: &Context, key: &LookupKey) -> Result<LookupKey> {
        let resolved = resolve::resolve(&Commands::new(self.store()?, cx), key, Extent::Prefix)?;
        resolved.map(|resolved| resolved.walk.key).ok_or_else(Error::not_found)
    }

    /// Redis removes expired sessions by itself. What remains are entries in the indexes of
    /// principals, and with a manual clock, which Redis does not know, everything.
    fn sweep(&self, cx: &Context, max: u64) -> Result<u64> {
        let store = self.store()?;
        let commands = Commands::new(store, cx);
        let names = store.names();
        let mut removed = 0;
        if max == 0 {
            return Ok(0);
        }
        if cx.clock.is_manual() {
            store.client.scan(&names.session_pattern(), &[&[b"EXISTS"]], commands.deadline, |name, _| {
                if let Some(key) = names.parse(name) {
                    removed += u64::from(ops::delete_expired(&commands, &LookupKey::from(&Ref(key)))?);
                }
                Ok(removed < max)
            })?;
        } else {
            store.client.scan(&names.index_pattern(), &[&[b"ZCARD"]], commands.deadline, |name, replies| {
                if let Some(principal) = names.parse(name) {
                    let before = replies[0].int().unwrap_or_default().unsigned_abs();
                    // Listing removes the entries of sessions that have ended.
                    let sessions = ops::list(&commands, principal.into())?;
                    removed += before.saturating_sub(sessions.len() as u64);
                }
                Ok(removed < max)
            })?;
        }
        cx.counters.add(Count::Expired, removed);
        Ok(removed)
    }

    fn list(&self, cx: &Context, principal: PrincipalKey) -> Result<Vec<StoredEntry>> {
        let store = self.store()?;
        let sessions = ops::list(&Commands::new(store, cx), principal)?;
        let timeouts = cx.policy.timeouts();
        let entry = |session: &ListedSession| {
            let record = codec::decode(&session.start, store.seals)?;
            let header_len = session.start.len() - record.payload.len();
            let stored_len = session.record_len.saturating_sub(header_len);
            record.header.entry(session.key, record.label, self.payload_len(stored_len), timeouts)
        };
        sessions.iter().map(entry).collect()
    }

    fn revoke(&self, cx: &Context, principal: PrincipalKey, except: Option<&LookupKey>) -> Result<u64> {
        ops::revoke(&Commands::new(self.store()?, cx), principal, except)
    }

    fn revoke_all(&self, cx: &Context) -> Result<u64> {
        let (ended, complete) = revocation::revoke_all(&Commands::new(self.store()?, cx))?;
        cx.counters.add(Count::Revoked, ended);
        complete.map(|()| ended)
    }

    /// Counts by looking at every session.
    fn usage(&self, cx: &Context) -> Result<EngineUsage> {
        let store = self.store()?;
        let commands = Commands::new(store, cx);
        let mut usage = EngineUsage { sessions: 0, bytes: 0, hits: 0, misses: 0 };
        let start_end = text(codec::START as i64 - 1);
        let requests: [&[&[u8]]; 3] = [&[b"STRLEN"], &[b"GETRANGE", b"0", &start_end], &[b"GETRANGE", b"-1", b"-1"]];
        store.client.scan(&store.names().session_pattern(), &requests, commands.deadline, |_, replies| {
            let len = replies[0].int().and_then(|len| usize::try_from(len).ok()).unwrap_or_default();
            // It may have ended meanwhile, or be the key of an old id.
            if let (Some(mut start), Some(&[last])) = (replies[1].bytes().map(<[u8]>::to_vec), replies[2].bytes())
                && let Some(len) = old_keys::strip_start(&mut start, len, last)
                && let Some(stored_len) = codec::stored_len(&start, len)
            {
                usage.sessions += 1;
                usage.bytes += self.payload_len(stored_len);
            }
            Ok(true)
        })?;
        Ok(usage)
    }

    /// Redis has the deadline of each session. A use of a session finds it ended by the shorter
    /// timeout.
    fn timeouts_shortened(&self) -> Result<()> {
        Ok(())
    }

    fn check(&self) -> Result<Vec<String>> {
        Err(Error::fixed(ErrorKind::Unsupported, "a redis: store has no files to check"))
    }
}
