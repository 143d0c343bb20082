//! From a key to the session that it reads: its own, or over the aliases of renewals the one under
//! another key.

use super::{
    commands::{Commands, Extent, Lookup, UseMode, Value},
    relocation,
};
use crate::{
    error::Result,
    session::{
        alias::{AliasWalk, MAX_ALIASES},
        key::LookupKey,
        policy::StepTime,
    },
};

/// The session that a key reads.
pub(super) struct Resolved {
    pub time: StepTime,
    pub record: Vec<u8>,
    /// The way to it.
    pub walk: AliasWalk,
}

/// The session that a key reads, without a use of it.
pub(super) fn resolve(commands: &Commands, key: &LookupKey, extent: Extent) -> Result<Option<Resolved>> {
    resolve_from(commands, key, extent, commands.lookup(key, UseMode::Peek, extent)?)
}

/// The same after a lookup of the key itself.
pub(super) fn resolve_from(
    commands: &Commands,
    key: &LookupKey,
    extent: Extent,
    first: Lookup,
) -> Result<Option<Resolved>> {
    let mut walk = AliasWalk::from(*key);
    let mut lookup = first;
    loop {
        lookup = relocation::settle(commands, &walk.key, extent, lookup)?;
        // The session was looked up later than the aliases, which may have ended meanwhile.
        if walk.has_ended(lookup.time.now) {
            return Ok(None);
        }
        match lookup.value {
            Value::Session(record) => return Ok(Some(Resolved { time: lookup.time, record, walk })),
            // Only an edited record leads over more than a session has.
            Value::Alias(alias) if walk.chain.len() < MAX_ALIASES => walk.follow(alias),
            _ => return Ok(None),
        }
        lookup = commands.lookup(&walk.key, UseMode::Peek, extent)?;
    }
}
