//! Between Rust values and Elixir terms: what the NIFs take and what they return. Knows nothing of the store's rules.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustler::{Binary, Decoder, Encoder, Env, NewBinary, NifResult, Term, types::atom::Atom};
use sss::{Entry, Error, ErrorKind, Meta, Options, Principal, Ref, Stats, Timeout};

pub mod atoms {
    rustler::atoms! {
        ok, error, not_found, application, keep, clear, wait,
        sessions, bytes, created, hits, misses, puts, deleted, renewed, conflicts, revoked, expired, rejected, errors,
    }
}

/// `{timeout_ms, idle_timeout_ms, :keep | :clear | principal, grace_ms}`, numbers as in the C ABI.
pub struct GivenOptions<'a> {
    timeout_ms: i64,
    idle_timeout_ms: i64,
    principal: GivenPrincipal<'a>,
    grace_ms: u64,
}

enum GivenPrincipal<'a> {
    Keep,
    Clear,
    Set(Binary<'a>),
}

impl<'a> Decoder<'a> for GivenOptions<'a> {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        let (timeout_ms, idle_timeout_ms, principal, grace_ms) = term.decode()?;
        Ok(GivenOptions { timeout_ms, idle_timeout_ms, principal, grace_ms })
    }
}

impl<'a> Decoder<'a> for GivenPrincipal<'a> {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        if atoms::keep() == term {
            Ok(GivenPrincipal::Keep)
        } else if atoms::clear() == term {
            Ok(GivenPrincipal::Clear)
        } else {
            term.decode().map(GivenPrincipal::Set)
        }
    }
}

/// A reference of 32 bytes.
pub struct GivenRef(pub Ref);

impl<'a> Decoder<'a> for GivenRef {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        let bytes: Binary = term.decode()?;
        let bytes = bytes.as_slice().try_into().map_err(|_| rustler::Error::BadArg)?;
        Ok(GivenRef(Ref(bytes)))
    }
}

impl GivenOptions<'_> {
    pub fn as_options(&self) -> Options<'_> {
        let principal = match &self.principal {
            GivenPrincipal::Keep => Principal::Keep,
            GivenPrincipal::Clear => Principal::Clear,
            GivenPrincipal::Set(principal) => Principal::Set(principal.as_slice()),
        };
        let mut options = Options::new();
        options.timeout = timeout(self.timeout_ms);
        options.idle_timeout = timeout(self.idle_timeout_ms);
        options.principal = principal;
        options.grace = Duration::from_millis(self.grace_ms);
        options
    }
}

/// `{:ok, value}`, `{:error, :not_found}` or `{:error, {reason, code, message}}`.
pub fn answer<'a>(env: Env<'a>, result: Result<impl Encoder, Error>) -> Term<'a> {
    match result {
        Ok(value) => (atoms::ok(), value).encode(env),
        Err(error) => failure(env, &error),
    }
}

/// The same with `:ok` alone.
pub fn done<'a>(env: Env<'a>, result: Result<(), Error>) -> Term<'a> {
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

/// `{version, created_ms, last_seen_ms, expires_ms}`
pub fn meta<'a>(env: Env<'a>, meta: &Meta) -> Term<'a> {
    let expires_ms = meta.expires().map_or(FOREVER, unix_ms);
    (meta.version(), unix_ms(meta.created()), unix_ms(meta.last_seen()), expires_ms).encode(env)
}

/// The timeout and the deadline of what never ends, as in the C ABI.
const FOREVER: i64 = i64::MAX;

fn timeout(ms: i64) -> Option<Timeout> {
    match ms {
        0 => None,
        FOREVER => Some(Timeout::Never),
        ms => Some(Timeout::After(Duration::from_millis(ms.try_into().unwrap_or(0)))),
    }
}

fn unix_ms(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => after.as_millis() as i64,
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
