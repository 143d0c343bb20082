//! What the NIFs return: conversions to Elixir terms.

use std::time::{SystemTime, UNIX_EPOCH};

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

/// `{version, created_ms, last_seen_ms, expires_ms}`, where the last may be `:infinity`.
pub fn meta<'a>(env: Env<'a>, meta: &Meta) -> Term<'a> {
    let expires = meta.expires().map_or(atoms::infinity().encode(env), |expires| unix_ms(expires).encode(env));
    (meta.version(), unix_ms(meta.created()), unix_ms(meta.last_seen()), expires).encode(env)
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

/// `{reference, payload_len, meta}`
pub fn entry<'a>(env: Env<'a>, entry: &Entry) -> Term<'a> {
    (binary(env, &entry.reference.0), entry.payload_len, meta(env, &entry.meta)).encode(env)
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
