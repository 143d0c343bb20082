//! The expiry table: each session by a lower bound of its deadline, and each alias by its end.

use super::env::{Table, Txn, WriteTxn};
use crate::{
    error::{Error, Result},
    session::{
        alias::Alias,
        key::{LookupKey, Ref},
    },
};

/// What follows the deadline's key.
const OF_SESSION: &[u8] = b"";
pub(super) const OF_ALIAS: &[u8] = b"alias";

/// In `Table::Meta`: where the visit of all sessions continues that a shorter timeout requires.
const REINDEX_FROM: &[u8] = b"reindex from";

/// A session that never ends is not in the table.
pub(super) fn schedule(txn: &mut WriteTxn, deadline: i64, key: &LookupKey) -> Result<()> {
    if deadline == i64::MAX {
        return Ok(());
    }
    txn.put(Table::Expiry, &deadline_key(deadline, key), OF_SESSION)
}

pub(super) fn schedule_alias(txn: &mut WriteTxn, alias: &Alias) -> Result<()> {
    txn.put(Table::Expiry, &alias_entry(alias), OF_ALIAS)
}

/// The key of an alias in the table.
pub(super) fn alias_entry(alias: &Alias) -> [u8; 40] {
    deadline_key(alias.until, &alias.key)
}

pub(super) fn unschedule(txn: &mut WriteTxn, deadline: i64, key: &LookupKey) -> Result<()> {
    txn.delete(Table::Expiry, &deadline_key(deadline, key)).map(drop)
}

/// Has the next sweep visit all sessions, some of which may be due earlier than the index says.
pub(super) fn request_reindex(txn: &mut WriteTxn) -> Result<()> {
    set_reindex_from(txn, &[0])
}

/// The key from which the visit of all sessions continues, if there is one to be made.
pub(super) fn reindex_from<'t>(txn: &'t Txn) -> Result<Option<&'t [u8]>> {
    txn.get(Table::Meta, REINDEX_FROM)
}

pub(super) fn set_reindex_from(txn: &mut WriteTxn, next: &[u8]) -> Result<()> {
    txn.put(Table::Meta, REINDEX_FROM, next)
}

pub(super) fn end_reindex(txn: &mut WriteTxn) -> Result<()> {
    txn.delete(Table::Meta, REINDEX_FROM).map(drop)
}

/// The earliest deadline in the table.
pub(super) fn first_deadline(txn: &Txn) -> Result<Option<i64>> {
    let first = txn.first_from(Table::Expiry, &[])?;
    first.map(|(entry, _)| Ok(parse_deadline_key(entry)?.0)).transpose()
}

/// In the order of the deadlines: big-endian, with the sign bit inverted.
fn deadline_key(deadline: i64, key: &LookupKey) -> [u8; 40] {
    let mut entry = [0; 40];
    entry[..8].copy_from_slice(&(deadline ^ i64::MIN).to_be_bytes());
    entry[8..].copy_from_slice(&key.bytes());
    entry
}

pub(super) fn parse_deadline_key(entry: &[u8]) -> Result<(i64, LookupKey)> {
    let (deadline, key) = entry.split_first_chunk().ok_or_else(Error::corrupt_record)?;
    Ok((i64::from_be_bytes(*deadline) ^ i64::MIN, parse_key(key)?))
}

pub(super) fn parse_key(bytes: &[u8]) -> Result<LookupKey> {
    let bytes = <[u8; 32]>::try_from(bytes).map_err(|_| Error::corrupt_record())?;
    Ok(LookupKey::from(&Ref(bytes)))
}

/// The key that comes next in the order of bytes.
pub(super) fn successor(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}
