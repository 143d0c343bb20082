//! The NIFs on a whole store. All run on dirty schedulers: they may block, or their cost grows with
//! the number of sessions.

use rustler::{Binary, Encoder, Env, LocalPid, Term, types::atom::Atom};
use sss::ErrorKind;

use crate::{
    args::HandleArg,
    handle::{NamedStore, StoreResource},
    replies::{self, ok, ok_value},
};

#[rustler::nif(schedule = "DirtyIo")]
fn open<'a>(env: Env<'a>, url: &str) -> Term<'a> {
    ok_value(env, StoreResource::open(url))
}

#[rustler::nif(schedule = "DirtyIo")]
fn open_named<'a>(env: Env<'a>, name: Atom, url: &str, supervisor: LocalPid) -> Term<'a> {
    ok(env, NamedStore::get(env, name).open(url, supervisor))
}

#[rustler::nif(schedule = "DirtyIo")]
fn stopped<'a>(env: Env<'a>, name: Atom, supervisor: LocalPid) -> Term<'a> {
    NamedStore::get(env, name).stopped(supervisor);
    ok(env, Ok(()))
}

#[rustler::nif(schedule = "DirtyIo")]
fn close_stopped<'a>(env: Env<'a>, name: Atom, supervisor: LocalPid) -> Term<'a> {
    NamedStore::get(env, name).close_stopped(supervisor);
    ok(env, Ok(()))
}

#[rustler::nif(schedule = "DirtyIo")]
fn close<'a>(env: Env<'a>, handle: HandleArg) -> Term<'a> {
    ok(env, handle.close().map(drop))
}

#[rustler::nif(schedule = "DirtyIo")]
fn sweep<'a>(env: Env<'a>, handle: HandleArg, max: u64) -> Term<'a> {
    ok_value(env, handle.store().and_then(|store| store.sweep(max)))
}

#[rustler::nif(schedule = "DirtyIo")]
fn list<'a>(env: Env<'a>, handle: HandleArg, principal: Binary<'a>) -> Term<'a> {
    let entries = handle.store().and_then(|store| store.list(&principal));
    ok_value(env, entries.map(|entries| entries.iter().map(|entry| replies::entry(env, entry)).collect::<Vec<_>>()))
}

#[rustler::nif(schedule = "DirtyIo")]
fn revoke<'a>(env: Env<'a>, handle: HandleArg, principal: Binary<'a>, except: Option<Binary<'a>>) -> Term<'a> {
    let except = except.as_ref().map(Binary::as_slice);
    ok_value(env, handle.store().and_then(|store| store.revoke(&principal, except)))
}

#[rustler::nif(schedule = "DirtyIo")]
fn revoke_all<'a>(env: Env<'a>, handle: HandleArg) -> Term<'a> {
    ok_value(env, handle.store().and_then(|store| store.revoke_all()))
}

#[rustler::nif(schedule = "DirtyIo")]
fn advance_clock<'a>(env: Env<'a>, handle: HandleArg, ms: i64) -> Term<'a> {
    ok(env, handle.store().and_then(|store| store.advance_clock(ms)))
}

/// `[{reason, code, text}, ...]`: the status codes of the C ABI.
#[rustler::nif]
fn reasons(env: Env) -> Term {
    let row = |kind: ErrorKind| (replies::reason(env, kind), kind.code(), kind.text().to_string_lossy().into_owned());
    ErrorKind::ALL.map(row).as_slice().encode(env)
}
