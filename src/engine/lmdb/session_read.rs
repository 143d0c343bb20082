//! Reads of sessions without a write transaction: in a snapshot, together with the slots, which are
//! newer than it.

use std::result;

use super::{
    env::ReadTxn,
    handle::Handle,
    session_txn::SessionRow,
    shm::{LastUsedTable, SlotRef},
};
use crate::{
    error::{Error, Result},
    session::{key::LookupKey, policy::StepTime},
};

/// Why a snapshot gives no answer.
pub(super) enum Undecided {
    Failed(Error),
    /// It shows a session as it was before.
    Stale,
    /// A writer is about to end the session that has this slot, or to give it another one, or was
    /// killed while it was.
    Ending(SlotRef),
    /// The session was created or used while the clock was ahead.
    Ahead(LookupKey),
}

/// What an attempt to read may take for granted.
#[derive(Clone, Copy, Default)]
pub(super) struct Attempt {
    /// The snapshot is the same as the last time, so what it shows is as it is.
    is_settled: bool,
    /// Sessions that are ahead of the clock cannot be pulled back now.
    accepts_ahead: bool,
}

impl From<Error> for Undecided {
    fn from(error: Error) -> Undecided {
        Undecided::Failed(error)
    }
}

/// Reads in a snapshot, and again in a newer one for as long as `read` cannot tell what became of a
/// session.
pub(super) fn lookup<T>(
    handle: &Handle,
    pull_back: impl Fn(&LookupKey) -> Result<()>,
    mut read: impl FnMut(&ReadTxn, Attempt) -> result::Result<T, Undecided>,
) -> Result<T> {
    let mut last = None;
    let mut pulled_back = None;
    let mut attempt = Attempt::default();
    loop {
        let txn = handle.env.read()?;
        attempt.is_settled = last.replace(txn.id()) == last;
        match read(&txn, attempt) {
            Ok(answer) => return Ok(answer),
            Err(Undecided::Failed(error)) => return Err(error),
            Err(Undecided::Stale) => {}
            Err(Undecided::Ahead(key)) => {
                drop(txn);
                // A read succeeds on a full store too; the next one tries again.
                attempt.accepts_ahead = pull_back(&key).is_err() || pulled_back.replace(key) == Some(key);
            }
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
    attempt: Attempt,
) -> result::Result<bool, Undecided> {
    if row.is_stale() && !attempt.is_settled {
        return Err(Undecided::Stale);
    }
    let is_live = row.is_live(last_used, time).ok_or(Undecided::Ending(row.slot()))?;
    if is_live && row.header.is_ahead_of(time.now) && !attempt.accepts_ahead {
        return Err(Undecided::Ahead(row.key));
    }
    Ok(is_live)
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
