//! A renewal in a Cluster, where the old and the new key of a session may be on different servers
//! and no script reaches both.
//!
//! 1. prepare: the new record is stored under the new key, not readable yet.
//! 2. detach: the old record is marked as leaving. It is still read, but not written.
//! 3. publish: the new record becomes readable. This decides the renewal.
//! 4. finish: the old key becomes an alias, or ends.
//!
//! The new key tells how the renewal stands: until it is published it can be aborted, by its own
//! call or, after that call's deadline, by any other one that meets the leaving session; then the
//! old record is the session again. So a renewal that fails leaves the session under its old id,
//! and at no time is there a second living id.

use super::commands::{ArrivalState, Commands, Extent, Lookup, MAX_ATTEMPTS, Renewal, UseMode, Value, WriteOutcome};
use crate::{
    error::Result,
    session::{
        codec::{self, Record},
        header::MAX_CLOCK_LEAD_MS,
        key::LookupKey,
    },
};

/// Moves a session to its new key. Any outcome but `Applied` means that nothing has changed.
pub(super) fn relocate(commands: &Commands, renewal: &Renewal, composed_at: i64) -> Result<WriteOutcome> {
    if let Some(entry) = &renewal.entry {
        commands.insert_member(entry)?;
    }
    let rollback = Rollback { commands, renewal, is_committed: false };
    let prepared = commands.prepare_arrival(renewal, commands.now(&renewal.new.key)?)?;
    if !matches!(prepared, WriteOutcome::Applied { .. }) {
        return Ok(prepared);
    }
    // From now on, a call that ends all sessions finds the new key too.
    if is_being_revoked(commands, renewal) {
        return Ok(WriteOutcome::Revoked);
    }
    let old_keys = match commands.detach_session(renewal, composed_at)? {
        WriteOutcome::Applied { old_keys, .. } => old_keys,
        refused => return Ok(refused),
    };
    let published = commands.publish_arrival(renewal, &old_keys)?;
    if !matches!(published, WriteOutcome::Applied { .. }) {
        return Ok(published);
    }
    rollback.commit();
    // A failure changes nothing: the leaving record is no longer read, and expires.
    let _ = commands.finish_departure(&renewal.old, renewal.new, renewal.alias.as_ref());
    Ok(published)
}

/// Whether all sessions are being ended, this one among them. Not known, if the server that could
/// tell is down: then the call that ends them fails too.
fn is_being_revoked(commands: &Commands, renewal: &Renewal) -> bool {
    let (Ok(Some(until)), Ok(now)) = (commands.revoked_until(), commands.now(&renewal.old)) else { return false };
    let record = codec::decode(&renewal.record, commands.store.seals);
    record.is_ok_and(|Record { header, .. }| header.created <= until || header.created > now + MAX_CLOCK_LEAD_MS)
}

/// Aborts a renewal on drop unless it was committed. If a server cannot be reached now, a later
/// reader of the old key does it.
struct Rollback<'a> {
    commands: &'a Commands<'a>,
    renewal: &'a Renewal,
    is_committed: bool,
}

impl Rollback<'_> {
    fn commit(mut self) {
        self.is_committed = true;
    }
}

impl Drop for Rollback<'_> {
    fn drop(&mut self) {
        if self.is_committed {
            return;
        }
        let Rollback { commands, renewal, .. } = self;
        if let Ok(ArrivalState::Aborted) = commands.settle_arrival(&renewal.new.key, Some(renewal)) {
            let _ = commands.restore_departed(&renewal.old, renewal.new);
        }
        if let Some(entry) = &renewal.entry {
            commands.remove_entry(entry);
        }
    }
}

/// What a lookup has found, with a leaving session replaced by what its key stands for: a session
/// that can only be read while the renewal is under way, the session if it was aborted, the alias
/// or nothing if it was published.
pub(super) fn settle(commands: &Commands, key: &LookupKey, extent: Extent, mut lookup: Lookup) -> Result<Lookup> {
    for _ in 0..MAX_ATTEMPTS {
        let Value::Leaving(departure) = lookup.value else { return Ok(lookup) };
        let state = commands.settle_arrival(&departure.destination.key, None)?;
        match state {
            ArrivalState::Pending => {
                let record = codec::decode(&departure.record, commands.store.seals)?;
                let is_live =
                    record.header.is_live(&lookup.time) && lookup.time.now < record.engine_fields.indexed_deadline;
                lookup.record_len = departure.record.len();
                lookup.value = if is_live { Value::Session(departure.record) } else { Value::Nothing };
                return Ok(lookup);
            }
            ArrivalState::Aborted => commands.restore_departed(key, departure.destination)?,
            ArrivalState::Published => {}
        }
        // Another call may have restored the session since, and its target's key may be gone for
        // that reason.
        lookup = commands.lookup(key, UseMode::Peek, extent)?;
        if let (ArrivalState::Published, Value::Leaving(again)) = (state, &mut lookup.value)
            && again.destination == departure.destination
        {
            // The renewing call's last step has failed.
            let _ = commands.finish_departure(key, again.destination, again.alias.as_ref());
            let now = lookup.time.now;
            let alias = again.alias.take().filter(|alias| now < alias.until);
            lookup.value = alias.map_or(Value::Nothing, Value::Alias);
        }
    }
    Ok(lookup)
}

/// Before a write is tried again that has met a leaving session: waits until the renewal is
/// decided. False if it was published, so that nothing can be written under this key.
pub(super) fn wait_until_settled(commands: &Commands, key: &LookupKey) -> Result<bool> {
    loop {
        let lookup = commands.lookup(key, UseMode::Peek, Extent::Prefix)?;
        let Value::Leaving(departure) = &lookup.value else {
            return Ok(matches!(lookup.value, Value::Session(_)));
        };
        match commands.settle_arrival(&departure.destination.key, None)? {
            ArrivalState::Pending => commands.pause("the session is being renewed by another call")?,
            ArrivalState::Aborted => commands.restore_departed(key, departure.destination)?,
            ArrivalState::Published => {
                let destination = departure.destination;
                let again = commands.lookup(key, UseMode::Peek, Extent::Prefix)?;
                if matches!(again.value, Value::Leaving(departure) if departure.destination == destination) {
                    return Ok(false);
                }
            }
        }
    }
}
