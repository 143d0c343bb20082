//! Steps on all sessions of a principal in a Cluster, where they and the principal's index are on
//! different servers and no script reaches all of them. A session is in the index before it is
//! stored, so that `revoke` finds it; an entry whose session was never stored is removed when its
//! write would come too late. A server that does not answer does not keep the others from being
//! asked.

use std::{collections::HashSet, time::Instant};

use super::{
    client::Address,
    commands::{Commands, EndFilter, EndOutcome, Extent, IndexEntry, ListedSession, MAX_ATTEMPTS, UseMode, Value},
    keys::{entry_number_bytes, index_member, member_age_ms, member_key},
    relocation,
    resolve::resolve,
    revocation::{self, share_of},
};
use crate::{
    crypto::random,
    error::{Error, ErrorKind, Result},
    session::{
        codec,
        header::RecordHeader,
        key::{LookupKey, PrincipalKey},
    },
};

/// A session is stored within a second after it was inserted into the index, or not at all; some
/// more for clocks that differ.
const ORPHAN_AGE_MS: u64 = 60_000;
/// So often a list follows sessions that are renewed meanwhile. Then no more renewals begin.
const MAX_UNLOCKED_ROUNDS: usize = 6;
/// A renewal that had begun may complete in the first of them.
const MAX_LOCKED_ROUNDS: usize = 3;

/// A principal's living sessions. A session that is being renewed may be listed under either key,
/// or under both.
pub(super) fn list(commands: &Commands, principal: PrincipalKey) -> Result<Vec<ListedSession>> {
    let mut sessions = Vec::new();
    let mut known = HashSet::new();
    let mut listed = HashSet::new();
    let mut rounds_without_news = 0;
    let mut lock = None;
    for round in 0..MAX_UNLOCKED_ROUNDS + MAX_LOCKED_ROUNDS {
        if round == MAX_UNLOCKED_ROUNDS {
            lock = Some(IndexLock::acquire(commands, principal)?);
        }
        let members = commands.members(principal)?;
        let mut is_any_new = false;
        let mut is_any_missing = false;
        for member in members {
            let Some(key) = member_key(&member).filter(|_| !listed.contains(&member)) else { continue };
            is_any_new |= known.insert(member.clone());
            if let Some(session) = listed_session(commands, principal, &key, &member)? {
                sessions.try_reserve(1).map_err(|_| Error::no_memory())?;
                sessions.push(session);
                listed.insert(member);
                continue;
            }
            if member_age_ms(&member, commands.now(&key)?) > ORPHAN_AGE_MS {
                commands.remove_member(principal, &member);
            }
            is_any_missing = true;
        }
        // A session that was under none of its keys when each was looked up was renewed meanwhile:
        // to a key that is inserted since, or to one that was looked up before it arrived there.
        rounds_without_news = if is_any_new { 0 } else { rounds_without_news + 1 };
        if !is_any_missing || rounds_without_news == 2 {
            break;
        }
    }
    drop(lock);
    Ok(sessions)
}

fn listed_session(
    commands: &Commands,
    principal: PrincipalKey,
    key: &LookupKey,
    member: &[u8],
) -> Result<Option<ListedSession>> {
    let lookup = commands.lookup(key, UseMode::Peek, Extent::Prefix)?;
    let lookup = relocation::settle(commands, key, Extent::Prefix, lookup)?;
    let Value::Session(start) = lookup.value else { return Ok(None) };
    let record = codec::decode(&start, commands.store.seals)?;
    let is_listed = record.header.principal == Some(principal) && index_member(key, &record.engine_fields) == member;
    Ok(is_listed.then_some(ListedSession { key: *key, record_len: lookup.record_len, start }))
}

/// Ends the sessions of a principal except the one that `except` reads. Meanwhile nothing is
/// inserted into the index, so that it has all there are; one that is not stored yet cannot be
/// stored any more, and is not counted.
///
/// Ends all that can be reached before it fails for those that cannot.
pub(super) fn revoke(
    commands: &Commands,
    principal: PrincipalKey,
    except: Option<&LookupKey>,
) -> Result<(u64, Result<()>)> {
    let excluded = |commands| except.map_or(Ok(Vec::new()), |key| excluded_keys(commands, principal, key));
    let lock = match IndexLock::acquire(commands, principal) {
        Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) => {
            let ended = revocation::revoke_without_index(commands, principal, &excluded(commands)?)?;
            return Ok((ended, Err(incomplete(ended, error))));
        }
        lock => lock?,
    };
    let of_principal = EndFilter { principal: Some(principal), ..EndFilter::default() };
    let mut servers = Servers::new(commands);
    let members = commands.members(principal)?;
    if except.is_some() {
        // No renewal can be completed any more by which the exception would get another key.
        let arriving = EndFilter { only_arriving: true, ..of_principal };
        for key in members.iter().filter_map(|member| member_key(member)) {
            servers.visit(&key, |commands| commands.end_session(&key, &arriving, false));
        }
    }
    let excluded = excluded(commands)?;
    let mut ended = Vec::new();
    let mut departed = Vec::new();
    let mut aliases = Vec::new();
    for member in members {
        let Some(key) = member_key(&member).filter(|key| !excluded.contains(key)) else { continue };
        match servers.visit(&key, |commands| commands.end_session(&key, &of_principal, false)) {
            Some(EndOutcome::Ended { was_live, left_for, old_keys }) => {
                aliases.extend(old_keys.iter());
                match left_for {
                    Some(target) if was_live => departed.push(target),
                    None if was_live => ended.push(key),
                    _ => {}
                }
            }
            Some(EndOutcome::NotFound) => {}
            Some(EndOutcome::Mismatch) | None => continue,
        }
        commands.remove_member(principal, &member);
    }
    drop(lock);
    // A session whose renewal was published is counted under its new key.
    departed.retain(|target| !ended.contains(target));
    let ended = (ended.len() + departed.len()) as u64;
    if commands.store.client.waits_for_replicas() {
        // Once for each server: its replicas have all that was written before.
        for key in servers.last_keys() {
            servers.visit(&key, |commands| commands.end_session(&key, &of_principal, true));
        }
    }
    let complete = servers.first_error.take().map_or(Ok(()), |error| Err(incomplete(ended, error)));
    remove_aliases(&mut servers, &aliases);
    Ok((ended, complete))
}

fn incomplete(ended: u64, error: Error) -> Error {
    Error::new(error.kind(), format!("only {ended} sessions were ended, which could be reached: {error}"))
}

/// Removes the aliases of sessions that have ended. Those that remain lead nowhere and end by
/// themselves.
fn remove_aliases(servers: &mut Servers, keys: &[LookupKey]) {
    for key in keys {
        servers.visit(key, |commands| commands.remove_alias(key));
    }
}

/// The keys of the session that `except` reads, if it is the principal's: two while it is being
/// renewed.
fn excluded_keys(commands: &Commands, principal: PrincipalKey, except: &LookupKey) -> Result<Vec<LookupKey>> {
    let mut keys = Vec::new();
    let resolved = match resolve(commands, except, Extent::Prefix) {
        Ok(resolved) => resolved,
        // It cannot be ended either.
        Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) => return Ok(vec![*except]),
        Err(error) => return Err(error),
    };
    if let Some(resolved) = resolved {
        let record = codec::decode(&resolved.record, commands.store.seals)?;
        if record.header.principal == Some(principal) {
            keys.push(resolved.walk.key);
            let lookup = commands.lookup(&resolved.walk.key, UseMode::Peek, Extent::Prefix)?;
            if let Value::Leaving(departure) = lookup.value {
                keys.push(departure.destination.key);
            }
        }
    }
    Ok(keys)
}

/// Ends the least recently used sessions of a principal that has too many since this entry was
/// inserted, except the entry's own. The write that made it so has happened: sessions on servers
/// that do not answer are left.
pub(super) fn evict_excess(commands: &Commands, entry: &IndexEntry) -> u64 {
    let limit = commands.cx.policy.limits().max_per_principal;
    let mut evicted = 0;
    if limit == u64::MAX {
        return evicted;
    }
    let mut servers = Servers::new(commands);
    let mut aliases = Vec::new();
    // A session that was used meanwhile is not ended, but another one.
    for _ in 0..MAX_ATTEMPTS {
        let Ok(members) = commands.members(entry.principal) else { break };
        let mut others: Vec<(RecordHeader, [u8; 6], LookupKey)> = Vec::new();
        for member in &members {
            let Some(key) = member_key(member).filter(|key| *key != entry.key) else { continue };
            let session = servers.visit(&key, |commands| listed_session(commands, entry.principal, &key, member));
            if let Some(Some(session)) = session
                && let Ok(record) = codec::decode(&session.start, commands.store.seals)
            {
                others.push((record.header, entry_number_bytes(&record.engine_fields), key));
            }
        }
        others.sort_unstable_by_key(|(header, number, key)| (header.last_seen, header.created, *number, *key));
        others.truncate((others.len() as u64 + 1).saturating_sub(limit) as usize);
        if others.is_empty() {
            break;
        }
        for (header, _, key) in &others {
            let filter = EndFilter {
                principal: Some(entry.principal),
                last_seen: Some(header.last_seen),
                ..EndFilter::default()
            };
            let end = |commands: &Commands| commands.end_session(key, &filter, true);
            if let Some(EndOutcome::Ended { was_live, old_keys, .. }) = servers.visit(key, end) {
                evicted += u64::from(was_live);
                aliases.extend(old_keys.iter());
            }
        }
    }
    remove_aliases(&mut servers, &aliases);
    evicted
}

/// Keeps sessions from being inserted into an index, until it is dropped or the call's deadline has
/// passed.
struct IndexLock<'a> {
    commands: &'a Commands<'a>,
    principal: PrincipalKey,
    token: [u8; 16],
}

impl<'a> IndexLock<'a> {
    fn acquire(commands: &'a Commands<'a>, principal: PrincipalKey) -> Result<IndexLock<'a>> {
        let mut token = [0; 16];
        random::fill_random(&mut token)?;
        let lock = IndexLock { commands, principal, token };
        // If its server hangs, time is left for the sessions on others.
        let Commands { store, cx, deadline } = *commands;
        let lifetime = deadline.saturating_duration_since(Instant::now());
        Commands { store, cx, deadline: share_of(deadline) }.lock_index(principal, &token, lifetime)?;
        Ok(lock)
    }
}

impl Drop for IndexLock<'_> {
    fn drop(&mut self) {
        self.commands.unlock_index(self.principal, &self.token);
    }
}

/// Commands to many servers, of which some may be down: one that did not answer in time is not
/// asked again.
struct Servers<'a> {
    commands: &'a Commands<'a>,
    silent: Vec<Address>,
    last_keys: Vec<(Address, LookupKey)>,
    first_error: Option<Error>,
}

impl<'a> Servers<'a> {
    fn new(commands: &'a Commands<'a>) -> Servers<'a> {
        Servers { commands, silent: Vec::new(), last_keys: Vec::new(), first_error: None }
    }

    /// Runs commands about a key; `None` if its server cannot execute them.
    fn visit<T>(&mut self, key: &LookupKey, run: impl FnOnce(&Commands) -> Result<T>) -> Option<T> {
        let Commands { store, cx, deadline } = *self.commands;
        let name = store.names().session(key);
        let result = store.client.server_of(&name, deadline).and_then(|server| {
            if self.silent.contains(&server) {
                return Ok(None);
            }
            let deadline = share_of(deadline);
            let result = run(&Commands { store, cx, deadline });
            if result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Timeout) {
                self.silent.push(server);
            } else if result.is_ok() {
                self.last_keys.retain(|(other, _)| *other != server);
                self.last_keys.push((server, *key));
            }
            result.map(Some)
        });
        result.unwrap_or_else(|error| {
            self.first_error.get_or_insert(error);
            None
        })
    }

    /// The key that was visited last on each server.
    fn last_keys(&self) -> Vec<LookupKey> {
        self.last_keys.iter().map(|(_, key)| *key).collect()
    }
}
