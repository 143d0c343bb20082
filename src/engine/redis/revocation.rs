//! Ends sessions without an index, by looking at all keys of the store: server by server, in steps of
//! some hundred keys. A server that fails does not keep the others from being visited.
//!
//! No session escapes by being renewed to a key that was visited before: while all sessions are
//! being ended, a mark in the store says so, and none of them is renewed. In a Cluster keys also
//! move with their slots, so the servers are visited until nothing is found.

use std::time::{Duration, Instant};

use super::{
    client::Address,
    commands::{Commands, EndFilter},
};
use crate::{
    crypto::random,
    error::{Error, ErrorKind, Result},
    session::{
        header::MAX_CLOCK_LEAD_MS,
        key::{LookupKey, PrincipalKey, Ref},
    },
};

/// A key that moves during one visit of a Cluster may be seen on neither server.
const MIN_CLUSTER_VISITS: u32 = 2;
const MAX_VISITS: u32 = 100;
/// For how long the mark of a call holds after its last step, if it dies. Longer than a step may
/// take.
const MARK_LIFETIME: Duration = Duration::from_secs(90);
const MARK_INTERVAL: Duration = Duration::from_secs(10);

/// Ends all sessions that were created before the call, and returns how many. Each step, not the
/// whole call, has the URL's deadline.
pub(super) fn revoke_all(commands: &Commands) -> Result<(u64, Result<()>)> {
    let now = latest_time(commands)?;
    let created_until = if commands.cx.clock.is_manual() { now } else { now.saturating_add(MAX_CLOCK_LEAD_MS) };
    let mut mark = RevocationMark::set(commands, created_until)?;
    let filter = EndFilter { created_until: Some(created_until), ..EndFilter::default() };
    let mut visit = Visit::new(commands, filter, None);
    let min_visits = if commands.spans_servers() { MIN_CLUSTER_VISITS } else { 1 };
    for count in 1..=MAX_VISITS {
        let found = visit.all_servers(|| mark.renew())?;
        if found == 0 && count >= min_visits || !commands.spans_servers() {
            let complete = visit.result();
            return Ok((visit.ended, complete));
        }
        // What is created meanwhile is no reason for another visit.
        visit.filter.created_until = Some(now.saturating_sub(1));
    }
    let message = format!("{} sessions were ended, but others are still moving between servers", visit.ended);
    Ok((visit.ended, Err(Error::new(ErrorKind::Unavailable, message))))
}

/// Ends the sessions of a principal except these, on all servers that can be reached.
pub(super) fn revoke_without_index(
    commands: &Commands,
    principal: PrincipalKey,
    excluded: &[LookupKey],
) -> Result<u64> {
    let filter = EndFilter { principal: Some(principal), ..EndFilter::default() };
    let mut visit = Visit::new(commands, filter, Some(commands.deadline));
    visit.excluded = excluded;
    visit.all_servers(|| ())?;
    Ok(visit.ended)
}

/// What the clock says that is ahead of all others. Sessions may have been created by one that was
/// ahead by `MAX_CLOCK_LEAD_MS` more; others are known by that.
fn latest_time(commands: &Commands) -> Result<i64> {
    if commands.cx.clock.is_manual() {
        return Ok(commands.cx.clock.now_ms());
    }
    let client = &commands.store.client;
    let mut latest = None;
    let mut first_error = None;
    for server in client.servers(commands.deadline)? {
        match client.time_at(&server, share_of(commands.deadline)) {
            Ok(time) => latest = latest.max(Some(time)),
            Err(error) => _ = first_error.get_or_insert(error),
        }
    }
    match (latest, first_error) {
        (Some(time), _) => Ok(time),
        (None, Some(error)) => Err(error),
        (None, None) => Err(Error::fixed(ErrorKind::Unavailable, "no server can be reached")),
    }
}

/// A part of the remaining time: a server that hangs does not take all of it.
pub(super) fn share_of(deadline: Instant) -> Instant {
    let now = Instant::now();
    now + deadline.saturating_duration_since(now) / 3
}

/// Tells all processes that sessions are being ended, until it is dropped.
struct RevocationMark<'a> {
    commands: &'a Commands<'a>,
    token: [u8; 16],
    created_until: i64,
    set_at: Instant,
}

impl<'a> RevocationMark<'a> {
    fn set(commands: &'a Commands<'a>, created_until: i64) -> Result<RevocationMark<'a>> {
        let mut token = [0; 16];
        random::fill_random(&mut token)?;
        let mark = RevocationMark { commands, token, created_until, set_at: Instant::now() };
        match commands.mark_revocation(&token, created_until, MARK_LIFETIME) {
            // A server of a Cluster that is down: its failure is reported when it is visited.
            Err(_) if commands.spans_servers() => Ok(mark),
            result => result.map(|()| mark),
        }
    }

    /// During a long call.
    fn renew(&mut self) {
        if self.set_at.elapsed() >= MARK_INTERVAL {
            self.set_at = Instant::now();
            let _ = self.step().mark_revocation(&self.token, self.created_until, MARK_LIFETIME);
        }
    }

    fn step(&self) -> Commands<'a> {
        Commands::new(self.commands.store, self.commands.cx)
    }
}

impl Drop for RevocationMark<'_> {
    fn drop(&mut self) {
        self.step().unmark_revocation(&self.token);
    }
}

/// A visit of all servers that ends the sessions which a filter describes.
struct Visit<'a> {
    commands: &'a Commands<'a>,
    filter: EndFilter,
    excluded: &'a [LookupKey],
    /// Of all steps together; `None`: each has the URL's.
    deadline: Option<Instant>,
    ended: u64,
    servers: usize,
    failures: Vec<Error>,
}

impl<'a> Visit<'a> {
    fn new(commands: &'a Commands<'a>, filter: EndFilter, deadline: Option<Instant>) -> Visit<'a> {
        Visit { commands, filter, excluded: &[], deadline, ended: 0, servers: 0, failures: Vec::new() }
    }

    /// Visits all servers once, and returns how many sessions were found. `between` is called
    /// before each step.
    fn all_servers(&mut self, mut between: impl FnMut()) -> Result<u64> {
        let servers = self.commands.store.client.servers(self.step().deadline)?;
        self.servers = servers.len();
        self.failures.clear();
        let mut found = 0;
        for server in &servers {
            if let Err(error) = self.one_server(server, &mut between, &mut found) {
                self.failures.push(error);
            }
        }
        Ok(found)
    }

    fn one_server(&mut self, server: &Address, between: &mut impl FnMut(), found: &mut u64) -> Result<()> {
        let names = self.commands.store.names();
        let pattern = names.session_pattern();
        let mut cursor = b"0".to_vec();
        loop {
            between();
            let step = self.step();
            let (next, mut keys) = self.commands.store.client.scan_at(server, &cursor, &pattern, step.deadline)?;
            keys.retain(|name| {
                let key = names.parse(name).map(|key| LookupKey::from(&Ref(key)));
                key.is_some_and(|key| !self.excluded.contains(&key))
            });
            let (lived, ended) = step.end_each(server, &keys, &self.filter)?;
            self.ended += lived;
            *found += ended;
            if next == b"0" {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// The commands of the next step.
    fn step(&self) -> Commands<'a> {
        let Commands { store, cx, .. } = *self.commands;
        match self.deadline {
            Some(deadline) => Commands { store, cx, deadline: share_of(deadline) },
            None => Commands::new(store, cx),
        }
    }

    fn result(&self) -> Result<()> {
        let Some(first) = self.failures.first() else { return Ok(()) };
        let kind = if first.kind() == ErrorKind::Timeout { ErrorKind::Unavailable } else { first.kind() };
        let (failed, servers, ended) = (self.failures.len(), self.servers, self.ended);
        let message =
            format!("{ended} sessions were ended, but {failed} of {servers} servers could not be reached: {first}");
        Err(Error::new(kind, message))
    }
}
