//! A get without a script: four plain commands in one trip, which take a server a fraction of a script's time. They are enough
//! where the key's expiry tells the last use (docs/FORMAT.md), so that sliding it is all there is to do, and Redis itself ends
//! the session in time. Whether that is so, the answers tell; if not, no harm is done, and the script goes on from what is there.

use std::sync::atomic::Ordering;

use super::{
    calls::{self, Calls, Tried},
    resp::{Reply, text},
    step::Way,
};
use crate::{
    error::Result,
    session::{
        codec::{self, Record},
        key::LookupKey,
        policy::{FOREVER, StepTime, Timeouts},
    },
};

/// By so much a guess of the server's time may be late before a slide is taken for somebody else's.
const LATE_MS: i64 = 2;

/// What the commands have met.
pub(super) enum Met {
    /// The session, and all is done.
    All(Way),
    /// Another one: this was wrong.
    Other(Tried),
    /// Nothing that they could change.
    Nothing,
}

/// Whether it is likely that nothing will be left to do: by what was seen last of this session, or else of another one.
pub(super) fn is_likely(calls: &Calls, key: &LookupKey) -> bool {
    let timeouts = calls.cx.policy.timeouts();
    if calls.cx.clock.is_manual() || !(2..FOREVER).contains(&timeouts.idle) {
        return false;
    }
    let Some(seen) = calls.open.heads.get(key) else { return calls.open.slides.load(Ordering::Relaxed) };
    let header = calls::as_head(&seen);
    let record = codec::decode(&header, calls.open.seals);
    record.is_ok_and(|record| calls.now(key).is_ok_and(|now| is_enough(&record, timeouts, now)))
}

/// Reads a session and slides it.
pub(super) fn read(calls: &Calls, key: &LookupKey) -> Result<Met> {
    let timeouts = calls.cx.policy.timeouts();
    let (idle, name) = (timeouts.idle, calls.open.names().session(key));
    // The key goes when its expiry is over. GT: who has a longer timeout, or none, keeps it.
    let longer: [&[u8]; 4] = [b"PEXPIRE", &name, &text(idle - 1), b"GT"];
    let expiry: [&[u8]; 2] = [b"PEXPIRETIME", &name];
    let mut replies =
        calls.open.servers.pipeline(&name, &[&expiry, &[b"GET", &name], &longer, &expiry], calls.until)?;
    let [Reply::Int(before @ 0..), bytes, Reply::Int(slid), Reply::Int(expiry)] = &mut replies[..] else {
        return Ok(Met::Nothing);
    };
    let (before, slid, expiry) = (*before, *slid == 1, *expiry);
    // Whatever a server answers: no sum may wrap.
    let used = |expiry: i64| expiry.saturating_add(1).saturating_sub(idle);
    let now = used(expiry);
    if let Reply::Bytes(bytes) = bytes
        && let Ok(record) = codec::decode(bytes, calls.open.seals)
        && record.header.last_seen == -idle
        && is_enough(&record, timeouts, now)
        // If it was not slid, somebody else has in the same millisecond, or too far.
        && (slid || (expiry == before && now <= calls.now(key)?.saturating_add(LATE_MS)))
    {
        let private = record.engine_fields;
        codec::patch_header(bytes, used(before), &private)?;
        let record = std::mem::take(bytes);
        let way = Way { moment: calls.moment(now), key: *key, record, until: i64::MAX, aliases: Vec::new() };
        return Ok(Met::All(way));
    }
    Ok(if slid && expiry > before { Met::Other(Tried { expiry, before }) } else { Met::Nothing })
}

/// Notes how a use of a session was noted: that of the next may be the same.
pub(super) fn learn(calls: &Calls, record: &Record, at: &StepTime) {
    let slides = is_enough(record, at.timeouts, at.now);
    // A line of memory that all threads read.
    if calls.open.slides.load(Ordering::Relaxed) != slides {
        calls.open.slides.store(slides, Ordering::Relaxed);
    }
}

/// Whether the key's expiry tells the last use of a session that is used now. common.lua knows this rule.
fn is_enough(record: &Record, timeouts: Timeouts, now: i64) -> bool {
    let ends = record.header.touched_at(now).deadline(timeouts).min(record.engine_fields.indexed_deadline);
    record.header.own.idle == 0 && ends == now.saturating_add(timeouts.idle)
}
