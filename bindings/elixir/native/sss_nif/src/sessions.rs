//! The operations on one session. Each is two NIFs: the first runs on the scheduler of the caller, unless the store's engine
//! may wait there or the payload is large, and answers `:wait` then; the second, `*_waiting`, runs on a dirty one.

use rustler::{Binary, Encoder, Env, Term, schedule::consume_timeslice};
use sss::{Access, Error, ErrorKind, Store};

use crate::{
    handle::Given,
    terms::{self, GivenOptions, GivenRef, answer, atoms, binary, done, meta},
};

/// The longest payload for which a scheduler may be used: to decrypt it or to copy it takes about 100 microseconds. A MiB
/// takes a millisecond, which is as long as a NIF may run.
const MOST: usize = 128 << 10;

/// Tells the scheduler what a payload cost: copying (and wiping) a MiB takes about as long as a process may run at all.
fn account(env: Env, payload: &[u8]) {
    const WHOLE_TIMESLICE: usize = 1 << 20;
    let percent = payload.len().saturating_mul(100) / WHOLE_TIMESLICE;
    if percent > 0 {
        consume_timeslice(env, percent.min(100) as i32);
    }
}

/// The payload that an operation is given, if it is not longer than `most`.
fn given<'p>(env: Env, payload: &'p Binary, most: usize) -> Result<&'p [u8], Error> {
    if payload.len() > most {
        return Err(Error::new(ErrorKind::TooSmall, "the payload is too long for a scheduler"));
    }
    account(env, payload);
    Ok(payload.as_slice())
}

/// `reads` or `writes` (of `sss::Blocking`), the names of the two, the arguments, the operation and what makes an answer of its
/// result. `most` is the longest payload that the operation may handle; to a longer one its result is `TooSmall`. The types
/// are in brackets because rustler has to see their tokens, and it knows an `env` of its own only.
macro_rules! operations {
    ($($waits:ident $name:ident $waiting:ident
        |$env:ident, $store:ident, $most:ident $(, $argument:ident: [$($type:tt)+])*| -> $answer:ident $operation:block)*) => {$(
        #[rustler::nif]
        fn $name<'a>(env: Env<'a>, handle: Given $(, $argument: $($type)+)*) -> Term<'a> {
            let ($env, $most) = (env, MOST);
            match handle.with(|waits| waits.$waits, |$store: &Store| $operation) {
                Some(Err(error)) if error.kind() == ErrorKind::TooSmall => atoms::wait().encode($env),
                Some(result) => $answer($env, result),
                None => atoms::wait().encode($env),
            }
        }

        #[rustler::nif(schedule = "DirtyIo")]
        fn $waiting<'a>(env: Env<'a>, handle: Given $(, $argument: $($type)+)*) -> Term<'a> {
            let ($env, $most) = (env, usize::MAX);
            let operation = |$store: Store| $operation;
            $answer($env, handle.store().and_then(operation))
        }
    )*};
}

operations! {
    writes create create_waiting |env, store, most, payload: [Binary<'a>], options: [GivenOptions<'a>]| -> answer {
        let payload = given(env, &payload, most)?;
        store.create(payload, &options.as_options()).map(|(sid, m)| (binary(env, sid.as_ref()), meta(env, &m)))
    }

    reads get get_waiting |env, store, most, sid: [Binary<'a>], peek: [bool]| -> answer {
        let access = if peek { Access::Peek } else { Access::Slide };
        // The payload is copied once, from the store into the binary that Elixir gets.
        store.read_up_to(sid.as_slice(), access, most, |payload, m| {
            account(env, payload);
            Ok((binary(env, payload), meta(env, m), store.authenticates()))
        })
    }

    writes put put_waiting
    |env, store, most, sid: [Binary<'a>], payload: [Binary<'a>], options: [GivenOptions<'a>]| -> answer {
        let payload = given(env, &payload, most)?;
        store.put(sid.as_slice(), payload, &options.as_options()).map(|m| meta(env, &m))
    }

    writes put_if put_if_waiting
    |env, store, most, sid: [Binary<'a>], version: [u64], payload: [Binary<'a>], options: [GivenOptions<'a>]| -> answer {
        let payload = given(env, &payload, most)?;
        store.put_if(sid.as_slice(), version, payload, &options.as_options()).map(|m| meta(env, &m))
    }

    reads touch touch_waiting |env, store, _most, sid: [Binary<'a>]| -> answer {
        store.touch(sid.as_slice()).map(|m| meta(env, &m))
    }

    writes renew renew_waiting
    |env, store, most, sid: [Binary<'a>], payload: [Option<Binary<'a>>], options: [GivenOptions<'a>]| -> answer {
        let payload = payload.as_ref().map(|payload| given(env, payload, most)).transpose()?;
        let renewed = store.renew(sid.as_slice(), payload, &options.as_options());
        renewed.map(|(sid, m)| (binary(env, sid.as_ref()), meta(env, &m)))
    }

    writes delete delete_waiting |env, store, _most, sid: [Binary<'a>]| -> done {
        store.delete(sid.as_slice())
    }

    reads reference reference_waiting |env, store, _most, sid: [Binary<'a>]| -> answer {
        store.reference(sid.as_slice()).map(|reference| binary(env, &reference.0))
    }

    writes delete_ref delete_ref_waiting |env, store, _most, reference: [GivenRef]| -> done {
        store.delete_ref(&reference.0)
    }

    reads stats stats_waiting |env, store, _most| -> answer {
        store.stats().map(|stats| terms::stats(env, &stats))
    }
}
