//! Clears what has expired, a bounded number of entries of the expiry table at a time, and brings
//! the table up to date after a timeout was shortened.

use std::time::{Duration, Instant};

use super::{
    deadline_index::{self, OF_ALIAS, first_deadline, parse_deadline_key, parse_key, successor},
    env::Table,
    session_txn::{SessionRow, SessionTxn},
    shm::SlotState,
};
use crate::{
    error::Result,
    session::{codec::EngineFields, policy::StepTime},
};

/// How long one transaction visits sessions: other writers wait for it.
const MAX_HOLD: Duration = Duration::from_millis(1);
/// How many sessions one transaction visits, if there is room for it.
pub(super) const MAX_VISITS: u64 = 64;
/// Expired sessions that a create clears, so that a store that is never swept does not fill up.
const NEIGHBOURS: u64 = 4;

/// Removes up to `max` expired sessions, and returns how many. True: there may be more.
pub(super) fn sweep(txn: &mut SessionTxn, max: u64, max_visits: u64) -> Result<(u64, bool)> {
    let time = txn.cx.step_time();
    let removed = clear(txn, max, max_visits, &time)?;
    Ok((removed, first_deadline(txn.txn)?.is_some_and(|deadline| deadline <= time.now)))
}

/// What each create does.
pub(super) fn clear_a_few(txn: &mut SessionTxn) -> Result<()> {
    let time = txn.cx.step_time();
    clear(txn, u64::MAX, NEIGHBOURS, &time).map(drop)
}

/// Clears what is due: expired sessions, up to `max`, and aliases that have ended. A session that
/// was used since gets its new deadline, because the table has a lower bound only.
fn clear(txn: &mut SessionTxn, max: u64, max_visits: u64, time: &StepTime) -> Result<u64> {
    let begun = Instant::now();
    let mut removed = 0;
    for visits in 0..max_visits {
        let Some((entry, value)) = txn.txn.first_from(Table::Expiry, &[])? else { break };
        let (deadline, key) = parse_deadline_key(entry)?;
        if deadline > time.now || removed >= max || is_over(begun, visits) {
            break;
        }
        if value == OF_ALIAS {
            txn.txn.delete(Table::Aliases, &key.bytes())?;
            deadline_index::unschedule(txn.txn, deadline, &key)?;
            continue;
        }
        let Some(mut row) = txn.find(&key)?.filter(|row| row.engine_fields.indexed_deadline == deadline) else {
            // Of no session: this cannot be, and must not be found again and again.
            deadline_index::unschedule(txn.txn, deadline, &key)?;
            continue;
        };
        if txn.is_live(&mut row, time) {
            reschedule(txn, &row, time)?;
        } else {
            txn.count_ended(&row, time);
            removed += 1;
            txn.remove(&row)?;
        }
    }
    Ok(removed)
}

/// Removes up to `max` sessions that `revoke_all` has ended, from the key `from` on. Returns how
/// many, and where to continue; `None`: at the end of the table.
pub(super) fn remove_revoked(
    txn: &mut SessionTxn,
    from: &[u8],
    max: u64,
    max_visits: u64,
) -> Result<(u64, Option<Vec<u8>>)> {
    let mut next = from.to_vec();
    let mut removed = 0;
    let time = txn.cx.step_time();
    let begun = Instant::now();
    for visits in 0..max_visits {
        if is_over(begun, visits) || removed >= max {
            break;
        }
        let Some((key, bytes)) = txn.txn.first_from(Table::Sessions, &next)? else { return Ok((removed, None)) };
        next = successor(key);
        // A record that cannot be read is no session: `check` tells of it.
        if let Ok((row, _)) = SessionRow::read(parse_key(key)?, bytes, &txn.last_used(), txn.seals)
            && row.header.is_revoked(&time)
        {
            txn.count_ended(&row, &time);
            removed += 1;
            txn.remove(&row)?;
        }
    }
    Ok((removed, Some(next)))
}

/// Continues the visit of all sessions that may be due earlier than the table says, or were ended
/// in their slots alone. False: it is complete.
pub(super) fn reindex_batch(txn: &mut SessionTxn, max_visits: u64) -> Result<bool> {
    let Some(from) = deadline_index::reindex_from(txn.txn)? else { return Ok(false) };
    let mut next = from.to_vec();
    let time = txn.cx.step_time();
    let begun = Instant::now();
    for visits in 0..max_visits {
        if is_over(begun, visits) {
            break;
        }
        let Some((key, bytes)) = txn.txn.first_from(Table::Sessions, &next)? else {
            deadline_index::end_reindex(txn.txn)?;
            return Ok(false);
        };
        next = successor(key);
        let (row, _) = SessionRow::read(parse_key(key)?, bytes, &txn.last_used(), txn.seals)?;
        if row.slot_state == SlotState::Expired && row.header.is_live(&time) {
            // It was counted when it was ended.
            txn.remove(&row)?;
        } else if row.header.deadline(time.timeouts) < row.engine_fields.indexed_deadline {
            reschedule(txn, &row, &time)?;
        }
    }
    deadline_index::set_reindex_from(txn.txn, &next)?;
    Ok(true)
}

/// Whether a transaction has visited sessions for long enough: one at least, however slow this
/// process is.
fn is_over(begun: Instant, visits: u64) -> bool {
    visits > 0 && begun.elapsed() > MAX_HOLD
}

/// Writes a session's true deadline into the table, and its last use into the record.
fn reschedule(txn: &mut SessionTxn, row: &SessionRow, time: &StepTime) -> Result<()> {
    let deadline = row.header.deadline(time.timeouts);
    deadline_index::unschedule(txn.txn, row.engine_fields.indexed_deadline, &row.key)?;
    deadline_index::schedule(txn.txn, deadline, &row.key)?;
    let engine_fields = EngineFields { indexed_deadline: deadline, ..row.engine_fields };
    txn.patch_record(&row.key, row.header.last_seen, &engine_fields)
}
