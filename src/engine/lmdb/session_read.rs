//! Reads of sessions without a write transaction: in a snapshot, together with the slots, which are newer than it.

use std::result;

use super::{
    env::ReadTxn,
    handle::Handle,
    session_txn::SessionRow,
    shm::{LastUsedTable, SlotRef},
};
use crate::{
    error::{Error, Result},
    session::policy::StepTime,
};

/// Why a snapshot gives no answer.
pub(super) enum Undecided {
    Failed(Error),
    /// It shows a session as it was before.
    Stale,
    /// A writer is about to end the session that has this slot, or to give it another one, or was killed while it was.
    Ending(SlotRef),
}

impl From<Error> for Undecided {
    fn from(error: Error) -> Undecided {
        Undecided::Failed(error)
    }
}

/// Reads in a snapshot, and again in a newer one for as long as `read` cannot tell what became of a session. Its second
/// argument says that the snapshot is the same as the last time, so that what it shows is as it is.
pub(super) fn lookup<T>(
    handle: &Handle,
    mut read: impl FnMut(&ReadTxn, bool) -> result::Result<T, Undecided>,
) -> Result<T> {
    let mut last = None;
    loop {
        let txn = handle.env.read()?;
        let is_settled = last.replace(txn.id()) == last;
        match read(&txn, is_settled) {
            Ok(answer) => return Ok(answer),
            Err(Undecided::Failed(error)) => return Err(error),
            Err(Undecided::Stale) => {}
            Err(Undecided::Ending(slot)) => {
                drop(txn);
                // With the write lock, a mark that is still there is that of a dead writer.
                let _txn = handle.env.write(&handle.shm.header().writer_queue)?;
                handle.shm.last_used().unmark_ending(slot);
            }
        }
    }
}

/// Whether a session of a snapshot is live.
pub(super) fn is_live(
    row: &mut SessionRow,
    last_used: &LastUsedTable,
    time: &StepTime,
    is_settled: bool,
) -> result::Result<bool, Undecided> {
    if row.is_stale() && !is_settled {
        return Err(Undecided::Stale);
    }
    row.is_live(last_used, time).ok_or(Undecided::Ending(row.slot()))
}

/// A use of a session that is noted in its slot. Undone on drop unless committed.
#[must_use]
pub(super) struct TouchGuard<'a> {
    last_used: LastUsedTable<'a>,
    slot: SlotRef,
    before: i64,
    now: i64,
    is_committed: bool,
}

impl<'a> TouchGuard<'a> {
    /// Fails if the session has ended since it was read, or is about to.
    pub(super) fn new(
        last_used: LastUsedTable<'a>,
        row: &SessionRow,
        now: i64,
    ) -> result::Result<TouchGuard<'a>, Undecided> {
        let before = last_used.touch(row.slot(), now).ok_or(Undecided::Stale)?;
        Ok(TouchGuard { last_used, slot: row.slot(), before, now, is_committed: false })
    }

    pub(super) fn commit(mut self) {
        self.is_committed = true;
    }
}

impl Drop for TouchGuard<'_> {
    fn drop(&mut self) {
        if !self.is_committed {
            self.last_used.undo_touch(self.slot, self.now, self.before);
        }
    }
}
