//! The functions of `SessionServerStore.Native`: decode, call `sss::Store`, encode, nothing else. No rule of the store
//! lives here. Operations on one session run on the calling scheduler, all others on a dirty one.

mod handle;
mod terms;

use handle::{Given, Handle};
use rustler::{Binary, Encoder, Env, ResourceArc, Term, schedule::consume_timeslice};
use sss::{Access, ErrorKind, Ref, Store};
use terms::{GivenOptions, answer, binary, done, meta};

rustler::init!("Elixir.SessionServerStore.Native");

/// Tells the scheduler what a payload cost: copying (and wiping) a MiB takes about as long as a process may run at all.
fn account(env: Env, payload: &[u8]) {
    const WHOLE_TIMESLICE: usize = 1 << 20;
    let percent = payload.len().saturating_mul(100) / WHOLE_TIMESLICE;
    if percent > 0 {
        consume_timeslice(env, percent.min(100) as i32);
    }
}

// Connecting may take as long as the URL allows.
#[rustler::nif(schedule = "DirtyIo")]
fn open<'a>(env: Env<'a>, url: &str) -> Term<'a> {
    answer(env, Store::open(url).map(|store| ResourceArc::new(Handle::new(store))))
}

#[rustler::nif(schedule = "DirtyIo")]
fn open_application<'a>(env: Env<'a>, url: &str) -> Term<'a> {
    done(env, handle::open_application(url))
}

// The last handle frees and wipes every session.
#[rustler::nif(schedule = "DirtyCpu")]
fn close<'a>(env: Env<'a>, store: Given) -> Term<'a> {
    done(env, store.close().map(drop))
}

#[rustler::nif]
fn create<'a>(env: Env<'a>, store: Given, payload: Binary<'a>, options: GivenOptions<'a>) -> Term<'a> {
    account(env, &payload);
    let created = store.with(|store| store.create(&payload, &options.as_options()));
    answer(env, created.map(|(sid, m)| (binary(env, sid.as_ref()), meta(env, &m))))
}

#[rustler::nif]
fn get<'a>(env: Env<'a>, store: Given, sid: Binary<'a>, peek: bool) -> Term<'a> {
    let access = if peek { Access::Peek } else { Access::Slide };
    // The payload is copied once, from the store into the binary that Elixir gets.
    let found = store.with(|store| {
        store.read(sid.as_slice(), access, |payload, m| {
            account(env, payload);
            Ok((binary(env, payload), meta(env, m)))
        })
    });
    answer(env, found)
}

#[rustler::nif]
fn put<'a>(env: Env<'a>, store: Given, sid: Binary<'a>, payload: Binary<'a>, options: GivenOptions<'a>) -> Term<'a> {
    account(env, &payload);
    let stored = store.with(|store| store.put(sid.as_slice(), &payload, &options.as_options()));
    answer(env, stored.map(|m| meta(env, &m)))
}

#[rustler::nif]
fn put_if<'a>(
    env: Env<'a>,
    store: Given,
    sid: Binary<'a>,
    version: u64,
    payload: Binary<'a>,
    options: GivenOptions<'a>,
) -> Term<'a> {
    account(env, &payload);
    let stored = store.with(|store| store.put_if(sid.as_slice(), version, &payload, &options.as_options()));
    answer(env, stored.map(|m| meta(env, &m)))
}

#[rustler::nif]
fn touch<'a>(env: Env<'a>, store: Given, sid: Binary<'a>) -> Term<'a> {
    let touched = store.with(|store| store.touch(sid.as_slice()));
    answer(env, touched.map(|m| meta(env, &m)))
}

#[rustler::nif]
fn renew<'a>(
    env: Env<'a>,
    store: Given,
    sid: Binary<'a>,
    payload: Option<Binary<'a>>,
    options: GivenOptions<'a>,
) -> Term<'a> {
    let payload = payload.as_ref().map(Binary::as_slice);
    account(env, payload.unwrap_or_default());
    let renewed = store.with(|store| store.renew(sid.as_slice(), payload, &options.as_options()));
    answer(env, renewed.map(|(sid, m)| (binary(env, sid.as_ref()), meta(env, &m))))
}

#[rustler::nif]
fn delete<'a>(env: Env<'a>, store: Given, sid: Binary<'a>) -> Term<'a> {
    done(env, store.with(|store| store.delete(sid.as_slice())))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn sweep<'a>(env: Env<'a>, store: Given, max: u64) -> Term<'a> {
    answer(env, store.store().and_then(|store| store.sweep(max)))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn list<'a>(env: Env<'a>, store: Given, principal: Binary<'a>) -> Term<'a> {
    let entries = store.store().and_then(|store| store.list(&principal));
    answer(env, entries.map(|entries| entries.iter().map(|entry| terms::entry(env, entry)).collect::<Vec<_>>()))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn revoke<'a>(env: Env<'a>, store: Given, principal: Binary<'a>, except: Option<Binary<'a>>) -> Term<'a> {
    let except = except.as_ref().map(Binary::as_slice);
    answer(env, store.store().and_then(|store| store.revoke(&principal, except)))
}

#[rustler::nif]
fn reference<'a>(env: Env<'a>, store: Given, sid: Binary<'a>) -> Term<'a> {
    let reference = store.with(|store| store.reference(sid.as_slice()));
    answer(env, reference.map(|reference| binary(env, &reference.0)))
}

#[rustler::nif]
fn delete_ref<'a>(env: Env<'a>, store: Given, reference: Binary<'a>) -> rustler::NifResult<Term<'a>> {
    let reference: [u8; 32] = reference.as_slice().try_into().map_err(|_| rustler::Error::BadArg)?;
    Ok(done(env, store.with(|store| store.delete_ref(&Ref(reference)))))
}

#[rustler::nif]
fn stats<'a>(env: Env<'a>, store: Given) -> Term<'a> {
    answer(env, store.with(Store::stats).map(|stats| terms::stats(env, &stats)))
}

#[rustler::nif]
fn advance_clock<'a>(env: Env<'a>, store: Given, ms: i64) -> Term<'a> {
    done(env, store.with(|store| store.advance_clock(ms)))
}

/// `[{reason, code, text}, ...]`: the status numbers of the C ABI.
#[rustler::nif]
fn reasons(env: Env) -> Term {
    let reason = |kind: ErrorKind| (terms::reason(env, kind), kind.code(), kind.text().to_string_lossy().into_owned());
    ErrorKind::ALL.map(reason).as_slice().encode(env)
}
