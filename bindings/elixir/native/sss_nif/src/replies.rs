//! What the NIFs return: conversions to Elixir terms.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustler::{Encoder, Env, NewBinary, Term, types::atom::Atom};
use sss::{Entry, Error, ErrorKind, Meta, Stats};

use crate::atoms;

/// `{:ok, value}`, `{:error, :not_found}` or `{:error, {reason, code, message}}`.
pub fn ok_value<'a>(env: Env<'a>, result: Result<impl Encoder, Error>) -> Term<'a> {
    match result {
        Ok(value) => (atoms::ok(), value).encode(env),
        Err(error) => failure(env, &error),
    }
}

/// `:ok`, `{:error, :not_found}` or `{:error, {reason, code, message}}`.
pub fn ok<'a>(env: Env<'a>, result: Result<(), Error>) -> Term<'a> {
    match result {
        Ok(()) => atoms::ok().encode(env),
        Err(error) => failure(env, &error),
    }
}

fn failure<'a>(env: Env<'a>, error: &Error) -> Term<'a> {
    if error.kind() == ErrorKind::NotFound {
        return (atoms::error(), atoms::not_found()).encode(env);
    }
    let reason = (reason(env, error.kind()), error.code(), error.to_string());
    (atoms::error(), reason).encode(env)
}

/// `:too_large` for `TOO_LARGE`.
pub fn reason<'a>(env: Env<'a>, kind: ErrorKind) -> Term<'a> {
    match Atom::from_str(env, &kind.name().to_ascii_lowercase()) {
        Ok(atom) => atom.encode(env),
        Err(_) => atoms::error().encode(env),
    }
}

/// `{version, created_ms, last_seen_ms, expires_ms, authenticated_ms, timeout_ms, idle_timeout_ms}`.
/// `expires_ms` and the timeouts may be `:infinity`, and `authenticated_ms` is `nil` for never.
pub fn meta<'a>(env: Env<'a>, meta: &Meta) -> Term<'a> {
    let infinity = atoms::infinity().encode(env);
    let timeout =
        |timeout: Option<Duration>| timeout.map_or(infinity, |timeout| (timeout.as_millis() as u64).encode(env));
    let expires = meta.expires().map_or(infinity, |expires| unix_ms(expires).encode(env));
    let (created, last_seen) = (unix_ms(meta.created()), unix_ms(meta.last_seen()));
    let authenticated = meta.authenticated().map(unix_ms);
    let timeouts = (timeout(meta.timeout()), timeout(meta.idle_timeout()));
    (meta.version(), created, last_seen, expires, authenticated, timeouts.0, timeouts.1).encode(env)
}

fn unix_ms(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_millis() as i64,
        Err(before) => -(before.duration().as_millis() as i64),
    }
}

pub fn binary<'a>(env: Env<'a>, bytes: &[u8]) -> Term<'a> {
    NewBinary::from_slice(env, bytes).into()
}

/// `{reference, payload_len, meta, label}`, where the label is `nil` if there is none.
pub fn entry<'a>(env: Env<'a>, entry: &Entry) -> Term<'a> {
    let label = entry.label.as_ref().map(|label| binary(env, label));
    (binary(env, &entry.reference.0), entry.payload_len, meta(env, &entry.meta), label).encode(env)
}

/// `[sessions: 1, ...]`
pub fn stats<'a>(env: Env<'a>, stats: &Stats) -> Term<'a> {
    [
        (atoms::sessions(), stats.sessions),
        (atoms::bytes(), stats.bytes),
        (atoms::created(), stats.created),
        (atoms::hits(), stats.hits),
        (atoms::misses(), stats.misses),
        (atoms::puts(), stats.puts),
        (atoms::deleted(), stats.deleted),
        (atoms::renewed(), stats.renewed),
        (atoms::conflicts(), stats.conflicts),
        (atoms::revoked(), stats.revoked),
        (atoms::expired(), stats.expired),
        (atoms::rejected(), stats.rejected),
        (atoms::errors(), stats.errors),
    ]
    .encode(env)
}
