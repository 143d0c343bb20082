//! Deadlines: the expiry table, in which each session stands by a lower bound of its deadline, and each alias by its end;
//! and what clears those that are due, a bounded number at a time.

use std::time::{Duration, Instant};

use super::{
    database::Open,
    ffi::{Table, Txn},
    step::{Row, Step, parse_key, successor},
};
use crate::{
    error::Result,
    session::{codec::EngineFields, key::LookupKey, policy::StepTime},
};

/// For how long a step that visits many sessions goes on: others wait for it.
const HOLD: Duration = Duration::from_millis(1);
/// And how many it visits at the most.
const VISITS: u64 = 64;
/// In `Table::Meta`: where arming goes on when timeouts were shortened.
const ARM_FROM: &[u8] = b"arm from";

/// What stands after the deadline's key.
const OF_SESSION: &[u8] = b"";
pub(super) const OF_ALIAS: &[u8] = b"alias";

impl Step<'_, '_> {
    /// Removes up to `max` expired sessions, and says how many. True: there may be more.
    pub(super) fn sweep(&mut self, max: u64) -> Result<(u64, bool)> {
        let moment = self.cx.step_time();
        let removed = self.expire(max, VISITS, &moment)?;
        Ok((removed, first_deadline(self.txn)?.is_some_and(|deadline| deadline <= moment.now)))
    }

    /// Clears what is due: expired sessions, up to `max`, and aliases that have ended. Sessions that were used again are
    /// armed anew, since what is armed is only a lower bound.
    pub(super) fn expire(&mut self, max: u64, visits: u64, moment: &StepTime) -> Result<u64> {
        let (mut removed, begun) = (0, Instant::now());
        for _ in 0..visits {
            let Some((entry, value)) = self.txn.first_from(Table::Expiry, &[])? else { break };
            let (deadline, key) = parse_deadline_key(entry)?;
            if deadline > moment.now || removed >= max || begun.elapsed() > HOLD {
                break;
            }
            let is_alias = value == OF_ALIAS;
            if is_alias {
                self.txn.delete(Table::Aliases, &key.bytes())?;
                self.disarm(deadline, &key)?;
                continue;
            }
            let Some(mut row) = self.find(&key)?.filter(|row| row.private.indexed_deadline == deadline) else {
                // Of no session: cannot be, and must not be met again and again.
                self.disarm(deadline, &key)?;
                continue;
            };
            if self.lives(&mut row, moment) {
                self.arm_again(&row, moment)?;
            } else {
                self.effects.expired += 1;
                removed += 1;
                self.remove(&row)?;
            }
        }
        Ok(removed)
    }

    /// Goes on arming sessions that may be due earlier than was noted, since timeouts were shortened. False: all are.
    pub(super) fn arm_some(&mut self) -> Result<bool> {
        let Some(from) = self.txn.get(Table::Meta, ARM_FROM)? else { return Ok(false) };
        let (mut next, moment, begun) = (from.to_vec(), self.cx.step_time(), Instant::now());
        for _ in 0..VISITS {
            if begun.elapsed() > HOLD {
                break;
            }
            let Some((key, bytes)) = self.txn.first_from(Table::Sessions, &next)? else {
                self.txn.delete(Table::Meta, ARM_FROM)?;
                return Ok(false);
            };
            next = successor(key);
            let (row, _) = Row::read(parse_key(key)?, bytes, &self.open.map.touches(), self.seals)?;
            if row.header.deadline(moment.timeouts) < row.private.indexed_deadline {
                self.arm_again(&row, &moment)?;
            }
        }
        self.txn.put(Table::Meta, ARM_FROM, &next)?;
        Ok(true)
    }

    /// Notes a session's true deadline and last use.
    fn arm_again(&mut self, row: &Row, moment: &StepTime) -> Result<()> {
        let deadline = row.header.deadline(moment.timeouts);
        self.disarm(row.private.indexed_deadline, &row.key)?;
        self.arm(deadline, &row.key)?;
        self.amend(&row.key, row.header.last_seen, &EngineFields { indexed_deadline: deadline, ..row.private })
    }

    /// What never ends is not in the table.
    pub(super) fn arm(&mut self, deadline: i64, key: &LookupKey) -> Result<()> {
        match deadline {
            i64::MAX => Ok(()),
            _ => self.txn.put(Table::Expiry, &deadline_key(deadline, key), OF_SESSION),
        }
    }

    pub(super) fn disarm(&mut self, deadline: i64, key: &LookupKey) -> Result<()> {
        self.txn.delete(Table::Expiry, &deadline_key(deadline, key)).map(|_| ())
    }
}

impl Open {
    /// Has the next sweep look at all sessions, some of which may be due earlier than is noted.
    pub(super) fn arm_anew(&self) -> Result<()> {
        let mut txn = self.write()?;
        txn.put(Table::Meta, ARM_FROM, &[0])?;
        txn.commit()
    }
}

pub(super) fn is_arming(txn: &Txn) -> Result<bool> {
    Ok(txn.get(Table::Meta, ARM_FROM)?.is_some())
}

/// The earliest deadline that is armed.
pub(super) fn first_deadline(txn: &Txn) -> Result<Option<i64>> {
    let first = txn.first_from(Table::Expiry, &[])?;
    first.map(|(entry, _)| Ok(parse_deadline_key(entry)?.0)).transpose()
}

/// In the order of the deadlines: big-endian, with the sign turned.
pub(super) fn deadline_key(deadline: i64, key: &LookupKey) -> [u8; 40] {
    let mut entry = [0; 40];
    entry[..8].copy_from_slice(&(deadline ^ i64::MIN).to_be_bytes());
    entry[8..].copy_from_slice(&key.bytes());
    entry
}

pub(super) fn parse_deadline_key(entry: &[u8]) -> Result<(i64, LookupKey)> {
    let (deadline, key) = entry.split_first_chunk().ok_or_else(crate::error::Error::corrupt_record)?;
    Ok((i64::from_be_bytes(*deadline) ^ i64::MIN, parse_key(key)?))
}
