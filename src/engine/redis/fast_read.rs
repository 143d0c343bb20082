//! A get without a script: five plain commands in one trip, which take a server a fraction of a
//! script's time. They are enough if the key's expiry encodes the last use (docs/FORMAT.md): then
//! sliding the expiry is all that a get has to do, and Redis ends the session in time. The answers
//! show whether that is so; if not, the script corrects what they changed.

use std::sync::atomic::Ordering;

use super::{
    client::{Reply, text, time_ms},
    commands::{Commands, ExpirySwap},
    old_keys,
    resolve::Resolved,
};
use crate::{
    error::Result,
    session::{
        alias::AliasWalk,
        codec::{self, Record},
        key::LookupKey,
        policy::{FOREVER, StepTime, Timeouts},
    },
};

pub(super) enum FastRead {
    /// The session, and its use is recorded.
    Hit(Resolved),
    /// The expiry was changed and has to be corrected.
    Stale(ExpirySwap),
    /// Nothing was changed.
    Miss,
}

/// Whether a fast read is likely to be enough: by what was last seen of this session, or else of
/// another one.
pub(super) fn should_try(commands: &Commands, key: &LookupKey) -> bool {
    let timeouts = commands.cx.policy.timeouts();
    if commands.cx.clock.is_manual() || !(2..FOREVER).contains(&timeouts.idle) {
        return false;
    }
    let Some(prefix) = commands.store.headers.get(key) else {
        return commands.store.is_fast_read_likely.load(Ordering::Relaxed);
    };
    let start = prefix.to_record_start();
    let record = codec::decode(&start, commands.store.seals);
    record.is_ok_and(|record| commands.now(key).is_ok_and(|now| expiry_encodes_last_use(&record, timeouts, now)))
}

/// Reads a session and slides it.
pub(super) fn fast_read(commands: &Commands, key: &LookupKey) -> Result<FastRead> {
    let timeouts = commands.cx.policy.timeouts();
    let idle = timeouts.idle;
    let name = commands.store.names().session(key);
    // A key expires when its expiry is over. GT: a session with a longer timeout, or none, keeps
    // it.
    let slide: [&[u8]; 4] = [b"PEXPIRE", &name, &text(idle - 1), b"GT"];
    let expiry: [&[u8]; 2] = [b"PEXPIRETIME", &name];
    let commands_sent: [&[&[u8]]; 5] = [&expiry, &[b"GET", &name], &slide, &expiry, &[b"TIME"]];
    let mut replies = commands.store.client.pipeline(&name, &commands_sent, commands.deadline)?;
    if let Some(Reply::Bytes(value)) = replies.get_mut(1) {
        old_keys::strip(value);
    }
    let [Reply::Int(before @ 0..), bytes, Reply::Int(slid), Reply::Int(expiry), time] = &mut replies[..] else {
        return Ok(FastRead::Miss);
    };
    let before = *before;
    let expiry = *expiry;
    let was_slid = *slid == 1;
    // Whatever a server answers: no sum may wrap.
    let last_use = |expiry: i64| expiry.saturating_add(1).saturating_sub(idle);
    let now = last_use(expiry);
    if let Reply::Bytes(bytes) = bytes
        && let Ok(record) = codec::decode(bytes, commands.store.seals)
        && record.header.last_seen == -idle
        && expiry_encodes_last_use(&record, timeouts, now)
        // If it was not slid, another client has done so in the same millisecond, or too far, or
        // the server's clock was ahead.
        && (was_slid || expiry == before)
        && time_ms(time).is_some_and(|time| now <= time)
    {
        let fields = record.engine_fields;
        codec::patch_header(bytes, last_use(before), &fields)?;
        let record = std::mem::take(bytes);
        let time = commands.step_time(now);
        let resolved = Resolved { time, record, walk: AliasWalk::from(*key) };
        return Ok(FastRead::Hit(resolved));
    }
    let is_stale = was_slid && expiry > before;
    Ok(if is_stale { FastRead::Stale(ExpirySwap { tried: expiry, before }) } else { FastRead::Miss })
}

/// Remembers how the use of a session was recorded: that of the next one may be the same.
pub(super) fn record_result(commands: &Commands, record: &Record, time: &StepTime) {
    let is_likely = expiry_encodes_last_use(record, time.timeouts, time.now);
    let known = &commands.store.is_fast_read_likely;
    // All threads read this cache line: it is written only if it changes.
    if known.load(Ordering::Relaxed) != is_likely {
        known.store(is_likely, Ordering::Relaxed);
    }
}

/// Whether the key's expiry encodes the last use of a session that is used now, and needs no
/// correction. common.lua has the same rules.
fn expiry_encodes_last_use(record: &Record, timeouts: Timeouts, now: i64) -> bool {
    if record.header.is_ahead_of(now) {
        return false;
    }
    let ends = record.header.touched_at(now).deadline(timeouts).min(record.engine_fields.indexed_deadline);
    record.header.own.idle == 0 && ends == now.saturating_add(timeouts.idle)
}
