//! From a key to the session that it reads: its own, or over the aliases of renewals the one under
//! another key.

use super::{
    commands::{Commands, Extent, Lookup, UseMode, Value},
    relocation,
};
use crate::{
    error::Result,
    session::{alias::Alias, key::LookupKey, policy::StepTime},
};

/// More renewals within one grace time are not followed.
const MAX_ALIASES: usize = 64;

/// The session that a key reads.
pub(super) struct Resolved {
    pub time: StepTime,
    pub key: LookupKey,
    pub record: Vec<u8>,
    /// When the first of the aliases ends.
    pub until: i64,
    pub alias_chain: Vec<Alias>,
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
    let mut key = *key;
    let mut until = i64::MAX;
    let mut alias_chain: Vec<Alias> = Vec::new();
    let mut lookup = first;
    loop {
        lookup = relocation::settle(commands, &key, extent, lookup)?;
        // The session was looked up later than the aliases, which may have ended meanwhile.
        if lookup.time.now >= until {
            return Ok(None);
        }
        match lookup.value {
            Value::Session(record) => {
                return Ok(Some(Resolved { time: lookup.time, key, record, until, alias_chain }));
            }
            Value::Alias(alias) if alias_chain.len() < MAX_ALIASES => {
                key = alias.target;
                until = until.min(alias.until);
                alias_chain.push(alias);
            }
            _ => return Ok(None),
        }
        lookup = commands.lookup(&key, UseMode::Peek, extent)?;
    }
}
