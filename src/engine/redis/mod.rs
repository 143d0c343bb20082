//! The engine of `redis:`: one store for all hosts, in a Redis or Valkey server. A step is made up here, by the rules that all
//! engines share (`step`), and happens as a whole in a script in the server (`script`), whose clock is the one that counts.
//! Every call ends within the URL's `deadline`.
//!
//! ```text
//! PREFIX s:{key}  the record of a session, as docs/FORMAT.md has it; Redis removes it at its deadline
//! PREFIX a:{key}  the alias of an old id within its grace time
//! PREFIX p:{key}  a principal's sessions: a sorted set, by when each ends at the latest
//! ```

mod apart;
mod calls;
mod cluster;
mod connection;
mod failure;
mod heads;
mod names;
mod open;
mod pool;
mod resp;
mod script;
mod servers;
mod slide;
mod socket;
mod step;
mod stream;
mod tls;

use std::sync::Arc;

use once_cell::sync::OnceCell;

use self::{
    calls::{Calls, Which},
    open::{Open, Shared, Wishes},
    slide::Met,
};
use super::{Blocking, Context, Engine, Found, Reader};
use crate::{
    crypto::{aead, keys::SALT_LEN},
    error::{Error, ErrorKind, Result},
    session::{
        alias::Grace,
        codec,
        header::{Entry, Meta, StoredRecord},
        key::{LookupKey, PrincipalKey, Ref},
        write::Write,
    },
    stats::{Count, EngineUsage},
    sync::per_process::PerProcess,
    url::{RedisUrl, Url},
};

pub(crate) struct Redis {
    wishes: Wishes,
    /// This process's own; a parent's is left alone.
    shared: PerProcess<OnceCell<Arc<Shared>>>,
}

impl Redis {
    /// Opens the store, without asking its servers for anything. With it comes the store's salt.
    pub(crate) fn open(redis: &RedisUrl, url: &Url) -> Result<(Redis, [u8; SALT_LEN])> {
        let wishes =
            Wishes { url: redis.clone(), policy: url.policy, manual_clock: url.manual_clock, seals: url.seals() };
        let opened = Redis { wishes, shared: PerProcess::new() };
        opened.here()?;
        // Nothing that has to be kept: a server that has lost its data has not lost the store.
        Ok((opened, blake3::derive_key("libsss 2026 format 1: salt of a redis store", redis.prefix.as_bytes())))
    }

    /// The store in this process.
    fn here(&self) -> Result<&Open> {
        let shared = self.shared.get().get_or_try_init(|| {
            let inherited = self.shared.inherited().filter_map(OnceCell::get).last();
            Shared::open(&self.wishes, inherited.map(|shared| &**shared))
        })?;
        Ok(shared.get())
    }

    fn payload_len(&self, stored_len: usize) -> u64 {
        stored_len.saturating_sub(if self.wishes.seals { aead::OVERHEAD } else { 0 }) as u64
    }
}

/// A use of a session that is noted, but taken back unless it is forgotten.
struct Use<'a> {
    calls: &'a Calls<'a>,
    key: &'a LookupKey,
    from: i64,
    to: i64,
}

impl Drop for Use<'_> {
    fn drop(&mut self) {
        if self.from != self.to {
            // A use too much is better than another error in the place of the reader's.
            let _ = self.calls.unread(self.key, self.to, self.from);
        }
    }
}

impl Engine for Redis {
    fn enter(&self) -> Result<Context<'_>> {
        let open = self.here()?;
        open.agree_on_the_time()?;
        Ok(open.context())
    }

    fn clock_moved(&self) -> Result<()> {
        self.here()?.agree_on_the_time()
    }

    fn may_block(&self) -> Blocking {
        Blocking { reads: true, writes: true }
    }

    fn reopen_after_fork(&self) -> Option<Box<dyn Engine>> {
        Some(Box::new(Redis { wishes: self.wishes.clone(), shared: PerProcess::new() }))
    }

    fn create(&self, cx: &Context, key: &LookupKey, write: &Write) -> Result<Meta> {
        let header = step::create(&Calls::new(self.here()?, cx), key, write)?;
        Ok(header.meta(cx.policy.timeouts()))
    }

    fn read(&self, cx: &Context, key: &LookupKey, peek: bool, reader: Reader) -> Result<()> {
        let open = self.here()?;
        let calls = Calls::new(open, cx);
        let met = match !peek && slide::is_likely(&calls, key) {
            true => slide::read(&calls, key)?,
            false => Met::Nothing,
        };
        let look = |tried| calls.look_again(key, !peek, true, tried);
        let way = match met {
            Met::All(way) => Some(way),
            Met::Other(tried) => step::follow_from(&calls, key, true, look(Some(&tried))?)?,
            Met::Nothing => step::follow_from(&calls, key, true, look(None)?)?,
        };
        let Some(way) = way else {
            cx.counters.count(Count::Misses, key);
            return Err(Error::not_found());
        };
        let record = codec::decode(&way.record, open.seals)?;
        let uses = !peek && way.aliases.is_empty();
        let before = record.header.last_seen;
        if uses {
            slide::learn(&calls, &record, &way.moment);
        }
        let header = if uses { record.header.touched_at(way.moment.now) } else { record.header };
        let mut meta = header.meta(way.moment.timeouts);
        meta.expires_ms = meta.expires_ms.min(way.until).min(record.engine_fields.indexed_deadline);
        let used = Use { calls: &calls, key: &way.key, from: before, to: header.last_seen };
        reader(Found {
            record: StoredRecord { key: way.key, header: &header, payload: record.payload },
            meta,
            alias_chain: &way.aliases,
        })?;
        std::mem::forget(used);
        cx.counters.count(Count::Hits, key);
        open.heads.put(&way.key, &way.record);
        Ok(())
    }

    fn touch(&self, cx: &Context, key: &LookupKey) -> Result<Meta> {
        let open = self.here()?;
        let look = Calls::new(open, cx).look(key, true, false)?;
        let record = look.record.ok_or_else(Error::not_found)?;
        let record = codec::decode(&record, open.seals)?;
        let meta = record.header.touched_at(look.moment.now).meta(look.moment.timeouts);
        Ok(Meta { expires_ms: meta.expires_ms.min(record.engine_fields.indexed_deadline), ..meta })
    }

    fn put(&self, cx: &Context, key: &LookupKey, write: &Write) -> Result<Meta> {
        let header = step::put(&Calls::new(self.here()?, cx), key, write)?;
        Ok(header.meta(cx.policy.timeouts()))
    }

    fn renew(&self, cx: &Context, old: &LookupKey, new: &LookupKey, write: &Write, grace: &Grace) -> Result<Meta> {
        let header = step::renew(&Calls::new(self.here()?, cx), old, new, write, grace)?;
        Ok(header.meta(cx.policy.timeouts()))
    }

    fn delete(&self, cx: &Context, key: &LookupKey) -> Result<()> {
        let open = self.here()?;
        let calls = Calls::new(open, cx);
        open.heads.forget(key);
        let header = calls.end(key, Which::Living)?.ok_or_else(Error::not_found)?;
        step::unlist(&calls, key, &header);
        Ok(())
    }

    fn resolve(&self, cx: &Context, key: &LookupKey) -> Result<LookupKey> {
        let way = step::follow(&Calls::new(self.here()?, cx), key, false)?;
        way.map(|way| way.key).ok_or_else(Error::not_found)
    }

    /// Redis removes by itself what has expired; what is left to do are the principals' lists, and everything where a test
    /// moves the clock, which Redis does not know.
    fn sweep(&self, cx: &Context, max: u64) -> Result<u64> {
        let open = self.here()?;
        let (calls, names) = (Calls::new(open, cx), open.names());
        let mut removed = 0;
        if max == 0 {
            return Ok(0);
        }
        if cx.clock.is_manual() {
            open.servers.walk(&names.all_sessions(), &[&[b"EXISTS"]], calls.until, |name, _| {
                if let Some(key) = names.key_in(name).map(|key| LookupKey::from(&Ref(key)))
                    && let Some(header) = calls.end(&key, Which::Expired)?
                {
                    step::unlist(&calls, &key, &header);
                    removed += 1;
                }
                Ok(removed < max)
            })?;
        } else {
            open.servers.walk(&names.all_principals(), &[&[b"ZCARD"]], calls.until, |list, replies| {
                if let Some(principal) = names.key_in(list) {
                    let before = replies[0].int().unwrap_or_default().unsigned_abs();
                    // Whoever looks through a list takes out what has gone.
                    let rows = calls.list(principal.into())?;
                    removed += before.saturating_sub(rows.len() as u64);
                }
                Ok(removed < max)
            })?;
        }
        cx.counters.add(Count::Expired, removed);
        Ok(removed)
    }

    fn list(&self, cx: &Context, principal: PrincipalKey) -> Result<Vec<Entry>> {
        let open = self.here()?;
        let rows = Calls::new(open, cx).list(principal)?;
        let timeouts = cx.policy.timeouts();
        let entry = |row: &calls::Row| {
            let record = codec::decode(&row.header, open.seals)?;
            let stored_len = row.len.saturating_sub(row.header.len() - record.payload.len());
            Ok(record.header.entry(row.key, self.payload_len(stored_len), timeouts))
        };
        rows.iter().map(entry).collect()
    }

    fn revoke(&self, cx: &Context, principal: PrincipalKey, except: Option<&LookupKey>) -> Result<u64> {
        let revoked = step::revoke(&Calls::new(self.here()?, cx), principal, except)?;
        cx.counters.add(Count::Revoked, revoked);
        Ok(revoked)
    }

    /// Looks at every session: nobody counts them.
    fn usage(&self, cx: &Context) -> Result<EngineUsage> {
        let open = self.here()?;
        let calls = Calls::new(open, cx);
        let mut usage = EngineUsage { sessions: 0, bytes: 0, hits: 0, misses: 0 };
        let asks: [&[&[u8]]; 2] = [&[b"STRLEN"], &[b"GETRANGE", b"0", b"1"]];
        open.servers.walk(&open.names().all_sessions(), &asks, calls.until, |_, replies| {
            let len = replies[0].int().and_then(|len| usize::try_from(len).ok()).unwrap_or_default();
            // It may have gone meanwhile.
            if let Some(stored_len) = replies[1].bytes().and_then(|start| codec::stored_len(start, len)) {
                usage.sessions += 1;
                usage.bytes += self.payload_len(stored_len);
            }
            Ok(true)
        })?;
        Ok(usage)
    }

    /// Redis was told when each session ends. Whoever uses one finds it dead by the shorter timeout.
    fn timeouts_shortened(&self) -> Result<()> {
        Ok(())
    }

    fn check(&self) -> Result<Vec<String>> {
        Err(Error::fixed(ErrorKind::Unsupported, "a redis: store has no files to look through"))
    }
}
