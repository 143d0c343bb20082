//! LMDB's list of free pages, as its version 0.9.70 stores it: a table of the transaction that
//! freed pages (a word) to those pages, the first word of which is their count.

use lmdb_master_sys as lmdb;

use super::txn::ReadTxn;
use crate::error::Result;

/// The handle of the list is the same in every environment.
const FREE_LIST: lmdb::MDB_dbi = 0;

/// Whether at least `wanted` pages are in the list that were freed by transactions up to `last`.
pub(super) fn has_pages(txn: &ReadTxn, last: u64, wanted: usize) -> Result<bool> {
    let mut next = 0_usize;
    let mut pages = 0_usize;
    while pages < wanted {
        let Some((key, value)) = txn.first_in(FREE_LIST, &next.to_ne_bytes())? else { return Ok(false) };
        let transaction = first_word(key);
        // A file that is damaged while it is open may lead round in a circle.
        if transaction as u64 > last || transaction < next || transaction == usize::MAX {
            return Ok(false);
        }
        pages = pages.saturating_add(first_word(value));
        next = transaction + 1;
    }
    Ok(true)
}

fn first_word(bytes: &[u8]) -> usize {
    bytes.first_chunk().map_or(0, |word| usize::from_ne_bytes(*word))
}
