//! The engine of `redis:`: one store for all hosts, in a Redis or Valkey server. What must not be torn apart happens in a
//! script in the server (`script`), whose clock is the one that counts; a step that touches a session and its principal's
//! list, which may be on two servers, is several of them, in such an order that a crash in between leaves no second living
//! id and no session that `revoke` cannot find. Every call ends within the URL's `deadline`.
//!
//! ```text
//! prefix s:{key}  the record of a session, as docs/FORMAT.md has it; Redis removes it at its deadline
//! prefix a:{key}  the alias of an old id within its grace time
//! prefix p:{key}  a principal's sessions: a sorted set by when they end at the latest
//! ```

mod calls;
mod connection;
mod failure;
mod heads;
mod names;
mod open;
mod pool;
mod resp;
mod script;
mod servers;
mod socket;
mod step;
mod stream;

use std::{collections::HashSet, sync::Arc};

use once_cell::sync::OnceCell;

use self::{
    calls::{Calls, Ended, Which},
    open::{Open, Shared, Wishes},
};
use super::{Context, Engine, Found, Reader, Usage};
use crate::{
    error::{Error, ErrorKind, Result},
    fork::PerProcess,
    format,
    key::{Key, PrincipalKey, SALT},
    record::{Entry, Grace, Meta, Stored, Write},
    seal,
    stats::Count,
    url::{RedisUrl, Url},
};

pub(crate) struct Redis {
    wishes: Wishes,
    /// This process's own; a parent's is left alone.
    shared: PerProcess<OnceCell<Arc<Shared>>>,
}

impl Redis {
    /// Opens the store, without asking its servers for anything. With it comes the store's salt.
    pub(crate) fn open(redis: &RedisUrl, url: &Url) -> Result<(Redis, [u8; SALT])> {
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
        stored_len.saturating_sub(if self.wishes.seals { seal::OVERHEAD } else { 0 }) as u64
    }
}

impl Engine for Redis {
    fn enter(&self) -> Result<Context<'_>> {
        Ok(self.here()?.context())
    }

    fn reopened(&self) -> Option<Box<dyn Engine>> {
        Some(Box::new(Redis { wishes: self.wishes.clone(), shared: PerProcess::new() }))
    }

    fn create(&self, cx: &Context, key: &Key, write: &Write) -> Result<Meta> {
        let calls = Calls::new(self.here()?, cx);
        let head = step::create(&calls, key, write)?;
        if let Some(principal) = head.principal {
            step::end_surplus(&calls, principal)?;
        }
        Ok(head.meta(cx.policy.timeouts()))
    }

    fn read(&self, cx: &Context, key: &Key, peek: bool, reader: Reader) -> Result<()> {
        let open = self.here()?;
        let calls = Calls::new(open, cx);
        let Some(way) = step::follow(&calls, key, !peek, true)? else {
            cx.counters.count(Count::Misses, key);
            return Err(Error::not_found());
        };
        let record = format::decode(&way.record, open.seals)?;
        let uses = !peek && way.aliases.is_empty() && way.until == i64::MAX;
        let head = if uses { record.head.seen(way.moment.now) } else { record.head };
        let mut meta = head.meta(way.moment.timeouts);
        meta.expires_ms = meta.expires_ms.min(way.until).min(record.private.armed);
        let stored = Stored { key: way.key, head: &head, bytes: record.bytes };
        let read = reader(Found { stored, meta, way: &way.aliases });
        if let Err(error) = read {
            if uses && head.last_seen != record.head.last_seen {
                // Its failure is the reader's; a use too much is better than another error in its place.
                let _ = calls.unread(&way.key, head.last_seen, record.head.last_seen);
            }
            return Err(error);
        }
        cx.counters.count(Count::Hits, key);
        open.heads.put(&way.key, &calls::first_bytes(&way.record));
        Ok(())
    }

    fn touch(&self, cx: &Context, key: &Key) -> Result<Meta> {
        let open = self.here()?;
        let look = Calls::new(open, cx).look(key, true, false)?;
        match look.record.filter(|_| look.alias.is_none()) {
            Some(record) => {
                let record = format::decode(&record, open.seals)?;
                let meta = record.head.seen(look.moment.now).meta(look.moment.timeouts);
                Ok(Meta { expires_ms: meta.expires_ms.min(record.private.armed), ..meta })
            }
            None => Err(Error::not_found()),
        }
    }

    fn put(&self, cx: &Context, key: &Key, write: &Write) -> Result<Meta> {
        let calls = Calls::new(self.here()?, cx);
        let (head, joined) = step::put(&calls, key, write)?;
        if let Some(principal) = joined {
            step::end_surplus(&calls, principal)?;
        }
        Ok(head.meta(cx.policy.timeouts()))
    }

    fn renew(&self, cx: &Context, old: &Key, new: &Key, write: &Write, grace: &Grace) -> Result<Meta> {
        let calls = Calls::new(self.here()?, cx);
        let head = step::renew(&calls, old, new, write, grace)?;
        if let Some(principal) = head.principal {
            step::end_surplus(&calls, principal)?;
        }
        Ok(head.meta(cx.policy.timeouts()))
    }

    fn delete(&self, cx: &Context, key: &Key) -> Result<()> {
        let open = self.here()?;
        let calls = Calls::new(open, cx);
        open.heads.forget(key);
        match calls.end(key, Which::Living)? {
            Ended::Done(head, _) => {
                step::unbind(&calls, key, &head);
                Ok(())
            }
            Ended::Gone | Ended::Other => Err(Error::not_found()),
        }
    }

    fn resolve(&self, cx: &Context, key: &Key) -> Result<Key> {
        let way = step::follow(&Calls::new(self.here()?, cx), key, false, false)?;
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
                if let Some(key) = names.key_in(name)
                    && let Ended::Done(head, _) = calls.end(&key, Which::Expired)?
                {
                    step::unbind(&calls, &key, &head);
                    removed += 1;
                }
                Ok(removed < max)
            })?;
        } else {
            open.servers.walk(
                &names.all_principals(),
                &[&[b"ZRANGE", b"0", b"-1"]],
                calls.until,
                |list, replies| {
                    removed += step::trim(&calls, list, &replies[0])?;
                    Ok(removed < max)
                },
            )?;
        }
        cx.counters.add(Count::Expired, removed);
        Ok(removed)
    }

    fn list(&self, cx: &Context, principal: PrincipalKey) -> Result<Vec<Entry>> {
        let calls = Calls::new(self.here()?, cx);
        let rows = step::sessions_of(&calls, principal)?;
        let timeouts = cx.policy.timeouts();
        Ok(rows.iter().map(|row| row.head.entry(row.key, self.payload_len(row.stored_len), timeouts)).collect())
    }

    fn revoke(&self, cx: &Context, principal: PrincipalKey, except: Option<&Key>) -> Result<u64> {
        let open = self.here()?;
        let calls = Calls::new(open, cx);
        let mut done = HashSet::new();
        if let Some(except) = except
            && let Some(way) = step::follow(&calls, except, false, false)?
            && format::decode(&way.record, open.seals)?.head.principal == Some(principal)
        {
            done.insert(way.key.bytes());
        }
        let mut revoked = 0;
        loop {
            // Until nothing new comes: what was renewed meanwhile has another key.
            let mut members = calls.members(principal)?;
            members.retain(|(key, _)| !done.contains(&key.bytes()));
            if members.is_empty() {
                break;
            }
            for (key, private) in members {
                done.insert(key.bytes());
                open.heads.forget(&key);
                if let Ended::Done(_, lived) = calls.end(&key, Which::Revoked(principal))? {
                    revoked += u64::from(lived);
                    calls.unbind(principal, &key, &private);
                }
            }
        }
        cx.counters.add(Count::Revoked, revoked);
        Ok(revoked)
    }

    /// Looks at every session: nobody counts them.
    fn usage(&self, cx: &Context) -> Result<Usage> {
        let open = self.here()?;
        let calls = Calls::new(open, cx);
        let mut usage = Usage { sessions: 0, bytes: 0, hits: 0, misses: 0 };
        let asks: [&[&[u8]]; 2] = [&[b"STRLEN"], &[b"GETRANGE", b"0", b"1"]];
        open.servers.walk(&open.names().all_sessions(), &asks, calls.until, |_, replies| {
            let len = replies[0].int().and_then(|len| usize::try_from(len).ok()).unwrap_or_default();
            // It may have gone meanwhile.
            if let Some(stored_len) = replies[1].bytes().and_then(|start| format::stored_len(start, len)) {
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
