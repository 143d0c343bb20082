//! The NIFs on one session. Most are pairs: the first runs on the scheduler of its caller, unless
//! the call may take too long there, and returns `:would_block` then; the second, `*_dirty`, runs
//! on a dirty scheduler.

use rustler::{Binary, Encoder, Env, Term, schedule::consume_timeslice};
use sss::{Access, Error, ErrorKind, Principal, Store};

use crate::{
    args::{HandleArg, OptionsArg, RefArg},
    atoms,
    replies::{self, binary, meta, ok, ok_value},
};

/// The longest payload and principal for a normal scheduler: decrypting or copying it takes about
/// 100 microseconds.
const MAX_INPUT_LEN: usize = 128 << 10;

/// The longest payload that a write may free on a normal scheduler: wiping it takes about 250
/// microseconds.
const MAX_FREED_LEN: u64 = 1 << 20;

/// The most sessions of a principal that a write may compare on a normal scheduler: it takes about
/// 250 microseconds.
const MAX_COMPARED_SESSIONS: u64 = 1000;

/// Which of the two NIFs of a pair runs.
#[derive(Clone, Copy)]
enum Scheduler {
    Normal,
    Dirty,
}

impl Scheduler {
    fn max_len(self) -> usize {
        match self {
            Scheduler::Normal => MAX_INPUT_LEN,
            Scheduler::Dirty => usize::MAX,
        }
    }
}

/// What a normal scheduler answers instead of handling more than it may. `read_up_to` uses the same
/// error.
fn would_block() -> Error {
    Error::new(ErrorKind::TooSmall, "the call takes too long for a normal scheduler")
}

fn read_may_block(store: &Store) -> bool {
    store.may_block().reads
}

/// A write frees the payload that it replaces or ends, whose length is not known before.
fn write_may_block(store: &Store) -> bool {
    store.may_block().writes || store.max_payload().is_ok_and(|max| max > MAX_FREED_LEN)
}

fn access(peek: bool) -> Access {
    if peek { Access::Peek } else { Access::Slide }
}

/// The payload, if this scheduler may store it with these options.
fn admit<'p>(
    env: Env,
    scheduler: Scheduler,
    store: &Store,
    payload: &'p Binary,
    options: &OptionsArg,
) -> Result<&'p [u8], Error> {
    let mut input_len = payload.len();
    if let Principal::Set(principal) = options.to_options().principal {
        input_len = input_len.saturating_add(principal.len());
        // With a limit, the store looks for the least recently used session of the principal.
        let max_sessions = store.max_per_principal()?;
        if matches!(scheduler, Scheduler::Normal) && (MAX_COMPARED_SESSIONS + 1..u64::MAX).contains(&max_sessions) {
            return Err(would_block());
        }
    }
    if input_len > scheduler.max_len() {
        return Err(would_block());
    }
    count_reductions(env, payload.len());
    Ok(payload.as_slice())
}

/// Tells the scheduler the cost of handling `len` bytes: for a MiB it is the whole timeslice of the
/// process.
fn count_reductions(env: Env, len: usize) {
    const TIMESLICE_LEN: usize = 1 << 20;
    let percent = len.saturating_mul(100) / TIMESLICE_LEN;
    if percent > 0 {
        consume_timeslice(env, percent.min(100) as i32);
    }
}

/// Defines pairs of NIFs: the predicate that sends a call to a dirty scheduler, the two names, the
/// arguments, the function that encodes the result, and the operation. The types are in brackets
/// because rustler has to see their tokens, and it knows only an `env` of its own.
macro_rules! nif_pairs {
    ($($may_block:ident $name:ident $name_dirty:ident
        |$env:ident, $store:ident, $scheduler:ident $(, $argument:ident: [$($type:tt)+])*| -> $encode:ident $operation:block)*) => {$(
        #[rustler::nif]
        fn $name<'a>(env: Env<'a>, handle: HandleArg $(, $argument: $($type)+)*) -> Term<'a> {
            let $env = env;
            let $scheduler = Scheduler::Normal;
            match handle.run_unless($may_block, |$store: &Store| $operation) {
                Some(Err(error)) if error.kind() == ErrorKind::TooSmall => atoms::would_block().encode($env),
                Some(result) => $encode($env, result),
                None => atoms::would_block().encode($env),
            }
        }

        #[rustler::nif(schedule = "DirtyIo")]
        fn $name_dirty<'a>(env: Env<'a>, handle: HandleArg $(, $argument: $($type)+)*) -> Term<'a> {
            let $env = env;
            let $scheduler = Scheduler::Dirty;
            let operation = |$store: &Store| $operation;
            $encode($env, handle.store().and_then(|store| operation(&store)))
        }
    )*};
}

nif_pairs! {
    write_may_block create create_dirty
    |env, store, scheduler, payload: [Binary<'a>], options: [OptionsArg<'a>]| -> ok_value {
        let payload = admit(env, scheduler, store, &payload, &options)?;
        store.create(payload, &options.to_options()).map(|(sid, m)| (binary(env, sid.as_ref()), meta(env, &m)))
    }

    read_may_block get get_dirty |env, store, scheduler, sid: [Binary<'a>], peek: [bool]| -> ok_value {
        // The payload is copied once, from the store to the binary that Elixir gets.
        store.read_up_to(sid.as_slice(), access(peek), scheduler.max_len(), |payload, m| {
            count_reductions(env, payload.len());
            Ok((binary(env, payload), meta(env, m), store.authenticates()))
        })
    }

    write_may_block put put_dirty
    |env, store, scheduler, sid: [Binary<'a>], payload: [Binary<'a>], options: [OptionsArg<'a>]| -> ok_value {
        let payload = admit(env, scheduler, store, &payload, &options)?;
        store.put(sid.as_slice(), payload, &options.to_options()).map(|m| meta(env, &m))
    }

    write_may_block put_if put_if_dirty
    |env, store, scheduler, sid: [Binary<'a>], version: [u64], payload: [Binary<'a>], options: [OptionsArg<'a>]|
    -> ok_value {
        let payload = admit(env, scheduler, store, &payload, &options)?;
        store.put_if(sid.as_slice(), version, payload, &options.to_options()).map(|m| meta(env, &m))
    }

    read_may_block touch touch_dirty |env, store, _scheduler, sid: [Binary<'a>]| -> ok_value {
        store.touch(sid.as_slice()).map(|m| meta(env, &m))
    }

    write_may_block delete delete_dirty |env, store, _scheduler, sid: [Binary<'a>]| -> ok {
        store.delete(sid.as_slice())
    }

    read_may_block reference reference_dirty |env, store, _scheduler, sid: [Binary<'a>]| -> ok_value {
        store.reference(sid.as_slice()).map(|reference| binary(env, &reference.0))
    }

    read_may_block touch_ref touch_ref_dirty |env, store, _scheduler, reference: [RefArg], peek: [bool]| -> ok_value {
        store.touch_ref(&reference.0, access(peek)).map(|m| meta(env, &m))
    }

    write_may_block delete_ref delete_ref_dirty
    |env, store, scheduler, reference: [RefArg], principal: [Option<Binary<'a>>]| -> ok {
        if principal.as_ref().is_some_and(|principal| principal.len() > scheduler.max_len()) {
            return Err(would_block());
        }
        store.delete_ref(&reference.0, principal.as_ref().map(Binary::as_slice))
    }

    read_may_block stats stats_dirty |env, store, _scheduler| -> ok_value {
        store.stats().map(|stats| replies::stats(env, &stats))
    }
}

/// Always on a dirty scheduler: it copies the payload that it keeps, however long that is, and is
/// called once for a login.
#[rustler::nif(schedule = "DirtyIo")]
fn renew<'a>(
    env: Env<'a>,
    handle: HandleArg,
    sid: Binary<'a>,
    payload: Option<Binary<'a>>,
    options: OptionsArg<'a>,
) -> Term<'a> {
    let payload = payload.as_ref().map(Binary::as_slice);
    let renewed = handle.store().and_then(|store| store.renew(sid.as_slice(), payload, &options.to_options()));
    ok_value(env, renewed.map(|(sid, m)| (binary(env, sid.as_ref()), meta(env, &m))))
}
