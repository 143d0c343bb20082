//! M12 and M13: the cost of a sweep when nothing is due and when everything is.

use std::{hint::black_box, time::Instant};

use sss::{Options, Store};

use crate::{
    competitors::{Dash, Sessions, Sss, URL},
    facts::Facts,
    ideal::Huge,
    workload::{Batches, Id, Middle, Rng, Scale, median, now_ms, payload, processor_time, timed, touch_memory_once},
};

/// Sessions per bounded sweep: the step of the bindings.
pub const STEP: u64 = 1000;
/// Header and payload.
const SESSION: usize = 48 + 256;

/// M12: a sweep with nothing due, of a large and of a small store.
pub fn nothing_due(scale: Scale, facts: &mut Facts) {
    let ids = Rng::new(12).ids(scale.n);
    touch_memory_once(scale.n * 1000);
    let mut small = Sss::open();
    let small_n = scale.n / 10;
    let small_ids = small.fill(&ids[..small_n], 256);
    let mut large = Sss::open();
    let large_ids = large.fill(&ids, 256);
    let mut dash = Dash::new();
    let dash_ids = dash.fill(&ids, 256);
    drop(ids);

    let (mut times, mut slopes) = ([Vec::new(), Vec::new(), Vec::new()], Vec::new());
    for round in 0..scale.rounds {
        let of_small = one(&mut small, &small_ids, round, 100, sweep);
        let of_large = one(&mut large, &large_ids, round, 100, sweep);
        slopes.push((of_large - of_small) / (scale.n - small_n) as f64);
        times[0].push(of_small);
        times[1].push(of_large);
        times[2].push(one(&mut dash, &dash_ids, round, 2, |dash| {
            let now = now_ms();
            dash.0.retain(|_, slot| slot.survives(now));
        }));
    }
    let [small, large, dash] = times.map(Middle::of);
    facts.set_middle("m12.small_ns", small);
    facts.set_middle("m12.sss_ns", large);
    facts.set_middle("m12.dashmap_ns", dash);
    facts.set_middle("m12.slope_ns", Middle::of(slopes));
}

fn sweep(store: &mut Sss) {
    assert_eq!(store.0.sweep(STEP).expect("a sweep"), 0);
}

/// Nanoseconds of a sweep after many gets, as in a server.
fn one<S: Sessions>(store: &mut S, ids: &[Id], round: usize, times: usize, sweep: impl Fn(&mut S)) -> f64 {
    let mut drawn = Batches::new(ids, round as u64);
    let mut out = [0; 256];
    let mut spent: Vec<f64> = (0..times)
        .map(|_| {
            timed(drawn.draw(), |id| assert!(store.get(id, &mut out).is_some()));
            let begun = Instant::now();
            sweep(store);
            begun.elapsed().as_nanos() as f64
        })
        .collect();
    median(&mut spent)
}

/// M13: everything expired, in one call and in bounded steps; nanoseconds per session.
pub fn all_expired(scale: Scale, facts: &mut Facts) {
    touch_memory_once(scale.n * 600);
    let (mut at_once, mut bounded, mut dash) = (Vec::new(), Vec::new(), Vec::new());
    let (mut wiping, mut with_table) = (Vec::new(), Vec::new());
    for round in 0..scale.rounds.min(7) {
        wiping.push(wipe(scale.n));
        with_table.push(wipe_and_clear(scale.n));
        at_once.push(expire_and_sweep(scale.n, u64::MAX));
        bounded.push(expire_and_sweep(scale.n, STEP));
        if !scale.quick || round < 3 {
            dash.push(expire_and_retain(scale.n));
        }
    }
    facts.set_middle("m13.full_ns", Middle::of(at_once));
    facts.set_middle("m13.bounded_ns", Middle::of(bounded));
    facts.set_middle("m13.dashmap_ns", Middle::of(dash));
    facts.set_middle("m13.wiping_ns", Middle::of(wiping));
    facts.set_middle("m13.with_table_ns", Middle::of(with_table));
}

/// The minimum of a sweep that wipes: zeros over header and payload of every session, in the order
/// of their addresses.
fn wipe(n: usize) -> f64 {
    let mut memory = Huge::new(n * SESSION);
    memory.bytes().fill(0x5a);
    let spent = processor_time(|| memory.bytes().chunks_exact_mut(SESSION).for_each(|slot| black_box(slot).fill(0)));
    spent / n as f64
}

/// The same in the order of a sweep that blocks no caller: eight sessions of a shard, then eight of
/// the next, with one index line for each session, under a lock. Nothing is looked up, counted or
/// returned.
fn wipe_and_clear(n: usize) -> f64 {
    const SHARDS: usize = 16;
    const HOLD: usize = 8;
    const LINE: usize = 64;
    let mut memory = Huge::new(n * SESSION);
    // The average load of an index, at eight bytes per session.
    let mut table = Huge::new(n * 8 * 10 / 6);
    let lines = (table.bytes().len() / LINE) as u64;
    let mut random = Rng::new(14);
    memory.bytes().fill(0x5a);
    for slot in memory.bytes().chunks_exact_mut(SESSION) {
        slot[..8].copy_from_slice(&(random.next() % lines).to_le_bytes());
    }
    let holds = n / SHARDS / HOLD;
    let lock = parking_lot::Mutex::new(());
    let spent = processor_time(|| {
        for hold in 0..holds {
            for shard in 0..SHARDS {
                let _locked = lock.lock();
                let slots = &mut memory.bytes()[(shard * holds + hold) * HOLD * SESSION..][..HOLD * SESSION];
                // First all that is read, so that the memory of all eight is on its way at once.
                for slot in slots.chunks_exact(SESSION) {
                    let line = u64::from_le_bytes(slot[..8].try_into().expect("eight bytes"));
                    table.bytes()[line as usize * LINE..][..8].fill(0);
                }
                slots.chunks_exact_mut(SESSION).for_each(|slot| black_box(slot).fill(0));
            }
        }
    });
    spent / (holds * SHARDS * HOLD) as f64
}

fn expire_and_sweep(n: usize, step: u64) -> f64 {
    let store = Store::open(&format!("{URL}&clock=manual")).expect("the store opens");
    for i in 0..n {
        store.create(&payload(256, i), &Options::default()).expect("a session is created");
    }
    store.advance_clock(86_400_000).expect("the clock moves");
    let mut removed = 0;
    let spent = processor_time(|| {
        loop {
            let swept = store.sweep(step).expect("a sweep");
            removed += swept;
            if swept < step {
                break;
            }
        }
    });
    assert_eq!(removed, n as u64);
    spent / n as f64
}

fn expire_and_retain(n: usize) -> f64 {
    let mut dash = Dash::new();
    dash.fill(&Rng::new(13).ids(n), 256);
    dash.0.iter_mut().for_each(|mut slot| slot.expire());
    let now = now_ms();
    let spent = processor_time(|| dash.0.retain(|_, slot| slot.survives(now)));
    assert!(dash.0.is_empty());
    spent / n as f64
}
