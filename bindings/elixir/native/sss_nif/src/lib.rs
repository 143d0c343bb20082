//! The functions of `SessionServerStore.Native`: decode, call `sss::Store`, encode, nothing else. No rule of the store
//! lives here.
//!
//! Operations on one session run on the calling scheduler where the store's engine waits for nobody. Where it may wait they
//! answer `:wait`, and their twins `*_waiting` do them, on a dirty scheduler, as are all operations on many sessions.

mod handle;
mod sessions;
mod terms;

use handle::{Given, Handle};
use rustler::{Binary, Encoder, Env, ResourceArc, Term};
use sss::{ErrorKind, Store};
use terms::{answer, done};

rustler::init!("Elixir.SessionServerStore.Native");

// Opening may check a whole file, or wait for other processes, or connect.
#[rustler::nif(schedule = "DirtyIo")]
fn open<'a>(env: Env<'a>, url: &str) -> Term<'a> {
    answer(env, Store::open(url).map(|store| ResourceArc::new(Handle::new(store))))
}

#[rustler::nif(schedule = "DirtyIo")]
fn open_application<'a>(env: Env<'a>, url: &str) -> Term<'a> {
    done(env, handle::open_application(url))
}

// The last handle frees and wipes every session in memory, or writes a file to the disk.
#[rustler::nif(schedule = "DirtyIo")]
fn close<'a>(env: Env<'a>, store: Given) -> Term<'a> {
    done(env, store.close().map(drop))
}

#[rustler::nif(schedule = "DirtyIo")]
fn sweep<'a>(env: Env<'a>, store: Given, max: u64) -> Term<'a> {
    answer(env, store.store().and_then(|store| store.sweep(max)))
}

#[rustler::nif(schedule = "DirtyIo")]
fn list<'a>(env: Env<'a>, store: Given, principal: Binary<'a>) -> Term<'a> {
    let entries = store.store().and_then(|store| store.list(&principal));
    answer(env, entries.map(|entries| entries.iter().map(|entry| terms::entry(env, entry)).collect::<Vec<_>>()))
}

#[rustler::nif(schedule = "DirtyIo")]
fn revoke<'a>(env: Env<'a>, store: Given, principal: Binary<'a>, except: Option<Binary<'a>>) -> Term<'a> {
    let except = except.as_ref().map(Binary::as_slice);
    answer(env, store.store().and_then(|store| store.revoke(&principal, except)))
}

#[rustler::nif(schedule = "DirtyIo")]
fn advance_clock<'a>(env: Env<'a>, store: Given, ms: i64) -> Term<'a> {
    done(env, store.store().and_then(|store| store.advance_clock(ms)))
}

/// `[{reason, code, text}, ...]`: the status numbers of the C ABI.
#[rustler::nif]
fn reasons(env: Env) -> Term {
    let reason = |kind: ErrorKind| (terms::reason(env, kind), kind.code(), kind.text().to_string_lossy().into_owned());
    ErrorKind::ALL.map(reason).as_slice().encode(env)
}
