//! Stores that are wrong on purpose: each fault answers some calls as a plausible bug would. They
//! stand between the recorder and a sound store, to show that the checker sees them.

use sss::{Access, Sid};

use super::{
    history::{Answer, Call},
    record::{PRINCIPALS, Recorder},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `get` answers from a copy that this thread once read.
    StaleRead,
    /// `put` says that it wrote, and only touches.
    LostPut,
    /// `put_if` looks at the version in one step and writes in another.
    TornPutIf,
    /// `delete` says so and does nothing.
    DeleteForgets,
    /// `revoke` spares the youngest session, and counts it.
    RevokeMisses,
    /// `renew` copies the session and then deletes it, so that two of them can both win.
    TornRenew,
    /// `peek` slides.
    PeekSlides,
    /// `touch` does not slide.
    TouchForgets,
    /// `list` leaves out a session.
    ListMisses,
    /// The clock stands still.
    ClockForgets,
}

impl Fault {
    pub const ALL: [Fault; 10] = [
        Fault::StaleRead,
        Fault::LostPut,
        Fault::TornPutIf,
        Fault::DeleteForgets,
        Fault::RevokeMisses,
        Fault::TornRenew,
        Fault::PeekSlides,
        Fault::TouchForgets,
        Fault::ListMisses,
        Fault::ClockForgets,
    ];
}

impl Recorder<'_> {
    /// The wrong answer, if the fault strikes here; else nothing, and the call is to be made.
    pub fn faulty(&mut self, what: &Call) -> Option<(Answer, Option<Sid>)> {
        let fault = self.world.fault?;
        // The look at the end is sound, and most calls are.
        if self.thread == 0 || !self.rng.one_in(3) {
            return None;
        }
        let store = &self.world.store;
        let answer = match (fault, *what) {
            (Fault::StaleRead, Call::Get { id }) => self.remembered.get(&id)?.clone(),
            (Fault::LostPut, Call::Put { id, version: None, .. }) => match self.perform(&Call::Touch { id }).0 {
                Answer::Wrote(mut meta) => {
                    meta.version += 1;
                    Answer::Wrote(meta)
                }
                other => other,
            },
            (Fault::TornPutIf, Call::Put { id, version: Some(version), value, opts }) => {
                let (_, meta) = store.get(self.world.sid(id), Access::Peek).ok()?;
                if meta.version() != version {
                    return None;
                }
                std::thread::yield_now();
                self.perform(&Call::Put { id, version: None, value, opts }).0
            }
            (Fault::DeleteForgets, Call::Delete { id }) => {
                store.touch(self.world.sid(id)).ok()?;
                Answer::Done
            }
            (Fault::RevokeMisses, Call::Revoke { who, except: None }) => {
                let entries = store.list(PRINCIPALS[who as usize]).ok()?;
                let (_, others) = entries.split_last()?;
                others.iter().for_each(|entry| _ = store.delete_ref(&entry.reference, None));
                Answer::Revoked(entries.len() as u64)
            }
            (Fault::TornRenew, Call::Renew { id, value, opts }) if opts.grace == 0 => {
                let sid = self.world.sid(id);
                let (payload, _) = store.get(&sid, Access::Peek).ok()?;
                let value = value.or_else(|| super::history::value_of(&payload))?;
                let copy = self.perform(&Call::Create { value, opts });
                std::thread::yield_now();
                _ = store.delete(&sid);
                return Some(copy);
            }
            (Fault::PeekSlides, Call::Peek { id }) => self.perform(&Call::Get { id }).0,
            (Fault::TouchForgets, Call::Touch { id }) => match self.perform(&Call::Peek { id }).0 {
                Answer::Read(_, meta) => Answer::Wrote(meta),
                other => other,
            },
            (Fault::ListMisses, Call::List { .. }) => match self.perform(what).0 {
                Answer::Listed(mut shown) => {
                    shown.pop()?;
                    Answer::Listed(shown)
                }
                other => other,
            },
            (Fault::ClockForgets, Call::Advance { .. }) => Answer::Done,
            _ => return None,
        };
        Some((answer, None))
    }
}
