//! The old keys that lead to each session: so that its aliases end with it, and are few. Only the
//! removal of an alias that has ended leaves this table alone, so a list may name some that are
//! gone.

use super::{
    deadline_index::{alias_entry, parse_deadline_key, schedule_alias},
    env::{Table, WriteTxn},
};
use crate::{
    error::Result,
    session::{
        alias::{Alias, MAX_ALIASES},
        codec,
        key::LookupKey,
    },
};

/// An alias's entry in the expiry table.
type AliasEntry = [u8; 40];

/// The aliases in a list, the oldest first.
pub(super) fn entries(list: &[u8]) -> &[AliasEntry] {
    list.as_chunks().0
}

/// Stores the alias that a renewal leaves, and lists it with the older ones under its target. Those
/// are removed that have ended, and the oldest if they are too many.
pub(super) fn insert_alias(txn: &mut WriteTxn, alias: &Alias, now: i64) -> Result<()> {
    let list = take(txn, &alias.key)?;
    let excess = (list.len() + 1).saturating_sub(MAX_ALIASES);
    let mut kept = Vec::with_capacity(list.len() + 1);
    for (index, entry) in list.into_iter().enumerate() {
        if index >= excess && parse_deadline_key(&entry)?.0 > now {
            kept.push(entry);
        } else {
            remove_alias(txn, &entry)?;
        }
    }
    kept.push(alias_entry(alias));
    txn.put(Table::OldKeys, &alias.target.bytes(), kept.as_flattened())?;
    txn.put(Table::Aliases, &alias.key.bytes(), &codec::encode_alias(alias))?;
    schedule_alias(txn, alias)
}

/// Removes all aliases of a session that ends.
pub(super) fn remove_aliases(txn: &mut WriteTxn, session: &LookupKey) -> Result<()> {
    take(txn, session)?.iter().try_for_each(|entry| remove_alias(txn, entry))
}

fn take(txn: &mut WriteTxn, session: &LookupKey) -> Result<Vec<AliasEntry>> {
    if txn.entries(Table::OldKeys)? == 0 {
        return Ok(Vec::new());
    }
    let list = txn.get(Table::OldKeys, &session.bytes())?.map_or_else(Vec::new, |list| entries(list).to_vec());
    if !list.is_empty() {
        txn.delete(Table::OldKeys, &session.bytes())?;
    }
    Ok(list)
}

fn remove_alias(txn: &mut WriteTxn, entry: &AliasEntry) -> Result<()> {
    // It may have been removed when it had ended.
    if txn.delete(Table::Expiry, entry)? {
        let (_, key) = parse_deadline_key(entry)?;
        txn.delete(Table::Aliases, &key.bytes())?;
    }
    Ok(())
}
