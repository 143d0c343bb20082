//! LMDB's list of free pages, as its version 0.9.70 stores it: a table of the transaction that freed pages (a word) to
//! those pages, the first word of which is their count.

use lmdb_master_sys as lmdb;

use super::txn::ReadTxn;
use crate::error::Result;

/// The handle of the list is the same in every environment.
const FREE_LIST: lmdb::MDB_dbi = 0;

/// Whether at least `wanted` pages are in the list.
pub(super) fn has_pages(txn: &ReadTxn, wanted: usize) -> Result<bool> {
    let mut next = 0_usize;
    let mut pages = 0_usize;
    while let Some((key, value)) = txn.first_in(FREE_LIST, &next.to_ne_bytes())? {
        pages = pages.saturating_add(first_word(value));
        if pages >= wanted {
            return Ok(true);
        }
        // A file that is damaged while it is open may lead round in a circle.
        let after = first_word(key).saturating_add(1);
        if after <= next {
            break;
        }
        next = after;
    }
    Ok(false)
}

fn first_word(bytes: &[u8]) -> usize {
    bytes.first_chunk().map_or(0, |word| usize::from_ne_bytes(*word))
}
