//! M6 and M14: tail latency while a store grows and while it is swept.
//!
//! A slow call hides the calls that would have been made meanwhile (coordinated omission).
//! "Corrected" figures are what callers at a fixed rate of one every 10 µs would have seen.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use sss::{Options, Store, Timeout};

use crate::{
    child,
    competitors::{Dash, Lb, Papaya, Sessions, Sss, URL},
    facts::Facts,
    speed,
    sweep::STEP,
    workload::{Batches, Id, Middle, Rng, Scale, now_ms, payload, pin, touch_memory_once},
};

/// The interval between calls, for the correction.
const INTERVAL_NS: u64 = 10_000;
/// The percentiles of the plot.
pub const PERCENTILES: [f64; 8] = [50.0, 75.0, 90.0, 99.0, 99.9, 99.99, 99.999, 100.0];
const DAY_MS: i64 = 86_400_000;

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("valid bounds")
}

/// Microseconds at the percentiles, as measured and corrected.
fn percentiles(times: &Histogram<u64>) -> Vec<f64> {
    let corrected = times.clone_correct(INTERVAL_NS);
    let at = |of: &Histogram<u64>, percentile| of.value_at_percentile(percentile) as f64 / 1e3;
    [times, &corrected].iter().flat_map(|of| PERCENTILES.map(|percentile| at(of, percentile))).collect()
}

/// `name.p99.9` and so on, `name.corrected.p99.9`, and `name.max`, each the median over the rounds.
fn keep(facts: &mut Facts, name: &str, rounds: &[Vec<f64>]) {
    let middle = |i: usize| Middle::of(rounds.iter().map(|round| round[i]).collect());
    for (i, percentile) in PERCENTILES.iter().enumerate() {
        facts.set_middle(&format!("{name}.p{percentile}"), middle(i));
        facts.set(&format!("{name}.corrected.p{percentile}"), middle(PERCENTILES.len() + i).median);
    }
    facts.set_middle(&format!("{name}.max"), middle(PERCENTILES.len() - 1));
}

/// M6: all `n` creates of an empty store, each store in a fresh process. `machine` is no store: its
/// calls take about as long, so its percentiles show the interruptions of the machine.
pub fn growth(scale: Scale, facts: &mut Facts) {
    let stores = ["sss", "lb", "dashmap", "machine"];
    let mut rounds = [const { Vec::new() }; 4];
    for _ in 0..if scale.quick { 3 } else { 7 } {
        for (store, rounds) in stores.iter().zip(&mut rounds) {
            rounds.push(child::numbers(&["m6", store, &scale.n.to_string()]));
        }
    }
    for (store, rounds) in stores.iter().zip(&rounds) {
        keep(facts, &format!("m6.{store}"), rounds);
    }
}

pub fn growth_in_child(name: &str, n: usize) -> Vec<f64> {
    touch_memory_once(n * 600);
    match name {
        "sss" => creates(Sss::open(), n),
        "lb" => creates(Lb::new(), n),
        "dashmap" => creates(Dash::new(), n),
        "machine" => creates(Machine, n),
        _ => panic!("no such store: {name}"),
    }
}

/// Only asks the kernel for random bytes.
struct Machine;

impl Sessions for Machine {
    fn create(&mut self, id: &Id, _: &[u8]) -> Id {
        speed::make_id();
        speed::make_id();
        *id
    }
    fn get(&mut self, _: &Id, _: &mut [u8]) -> Option<usize> {
        None
    }
    fn put(&mut self, _: &Id, _: &[u8]) -> bool {
        false
    }
    fn delete(&mut self, _: &Id) -> bool {
        false
    }
}

/// Times whole calls: libsss generates the id in them, the others are given one.
fn creates(mut store: impl Sessions, n: usize) -> Vec<f64> {
    let ids = Rng::new(6).ids(n);
    let payload = payload(256, 6);
    let mut times = histogram();
    for id in &ids {
        let begun = Instant::now();
        store.create(id, &payload);
        times.saturating_record(begun.elapsed().as_nanos() as u64);
    }
    percentiles(&times)
}

/// M14: gets on `n` / 4 living sessions on one processor, while `n` expired ones are swept on the
/// other.
pub fn during_sweep(scale: Scale, facts: &mut Facts) {
    touch_memory_once(scale.n * 1500);
    let (mut quiet, mut sss, mut dash, mut papaya, mut locked) = (vec![], vec![], vec![], vec![], vec![]);
    for round in 0..if scale.quick { 3 } else { 7 } {
        let seed = round as u64;
        let (swept, undisturbed) = sss_during_sweep(scale.n, seed);
        sss.push(swept);
        quiet.push(undisturbed);
        dash.push(dash_during_retain(scale.n, seed));
        papaya.push(papaya_during_retain(scale.n, seed));
        locked.push(locked_during_retain(scale.n, seed));
    }
    let max = |times: &Vec<f64>| times[PERCENTILES.len() - 1];
    let ratios = sss.iter().zip(&dash).map(|(sss, dash)| max(sss) / max(dash)).collect();
    for (name, rounds) in [("sss", sss), ("quiet", quiet), ("dashmap", dash), ("papaya", papaya), ("locked", locked)] {
        keep(facts, &format!("m14.{name}"), &rounds);
    }
    facts.set_middle("m14.ratio_max", Middle::of(ratios));
}

/// Every fifth session lives.
fn lives(i: usize) -> bool {
    i.is_multiple_of(5)
}

fn sss_during_sweep(n: usize, seed: u64) -> (Vec<f64>, Vec<f64>) {
    let store = Store::open(&format!("{URL}&clock=manual")).expect("the store opens");
    let days = |n| Timeout::After(Duration::from_millis(n * DAY_MS as u64));
    let long = Options::new().timeout(days(10)).idle_timeout(days(5));
    let mut living = Vec::new();
    for i in 0..n + n / 4 {
        let options = if lives(i) { long } else { Options::default() };
        let (sid, _) = store.create(&payload(256, i), &options).expect("a session is created");
        if lives(i) {
            living.push(*sid.as_bytes());
        }
    }
    store.advance_clock(DAY_MS).expect("the clock moves");
    let swept = gets_while(Sss(store.clone()), &living, seed, || {
        let mut removed = 0;
        loop {
            let swept = store.sweep(STEP).expect("a sweep");
            removed += swept;
            if swept < STEP {
                break;
            }
        }
        assert_eq!(removed as usize, n + n / 4 - living.len());
    });
    let quiet = gets_while(Sss(store.clone()), &living, seed, || std::thread::sleep(Duration::from_millis(150)));
    (swept, quiet)
}

fn fill<S: Sessions>(store: &mut S, n: usize, seed: u64, mut expire: impl FnMut(&mut S, &Id)) -> Vec<Id> {
    let mut ids = Rng::new(seed).ids(n + n / 4);
    for (i, id) in ids.iter().enumerate() {
        store.create(id, &payload(256, i));
        if !lives(i) {
            expire(store, id);
        }
    }
    let mut i = 0;
    ids.retain(|_| {
        i += 1;
        lives(i - 1)
    });
    ids
}

fn text(id: &Id) -> &str {
    std::str::from_utf8(id).expect("ids are ASCII")
}

fn dash_during_retain(n: usize, seed: u64) -> Vec<f64> {
    let mut dash = Dash::new();
    let living = fill(&mut dash, n, seed, |dash, id| dash.0.get_mut(text(id)).expect("created").expire());
    let map = dash.0.clone();
    gets_while(dash, &living, seed, move || {
        let now = now_ms();
        map.retain(|_, slot| slot.survives(now));
    })
}

fn papaya_during_retain(n: usize, seed: u64) -> Vec<f64> {
    let mut papaya = Papaya::new();
    let living = fill(&mut papaya, n, seed, |papaya, id| papaya.0.pin().get(text(id)).expect("created").expire());
    let map = papaya.0.clone();
    gets_while(papaya, &living, seed, move || {
        let now = now_ms();
        map.pin().retain(|_, slot| slot.survives(now));
    })
}

/// LB behind one lock: the simplest design.
#[derive(Clone)]
struct Locked(Arc<Mutex<Lb>>);

impl Locked {
    fn with<R>(&self, f: impl FnOnce(&mut Lb) -> R) -> R {
        f(&mut self.0.lock().expect("not poisoned"))
    }
}

impl Sessions for Locked {
    fn create(&mut self, id: &Id, payload: &[u8]) -> Id {
        self.with(|lb| lb.create(id, payload))
    }
    fn get(&mut self, id: &Id, out: &mut [u8]) -> Option<usize> {
        self.with(|lb| lb.get(id, out))
    }
    fn put(&mut self, id: &Id, payload: &[u8]) -> bool {
        self.with(|lb| lb.put(id, payload))
    }
    fn delete(&mut self, id: &Id) -> bool {
        self.with(|lb| lb.delete(id))
    }
}

fn locked_during_retain(n: usize, seed: u64) -> Vec<f64> {
    let mut locked = Locked(Arc::new(Mutex::new(Lb::new())));
    let living = fill(&mut locked, n, seed, |locked, id| locked.with(|lb| lb.slot(id).expire()));
    let sweeper = locked.clone();
    gets_while(locked, &living, seed, move || sweeper.with(Lb::sweep))
}

/// The times of gets on one processor until `other` is done on another.
fn gets_while<S: Sessions + Send>(mut store: S, living: &[Id], seed: u64, other: impl FnOnce() + Send) -> Vec<f64> {
    let mut times = histogram();
    let (started, done) = (&AtomicBool::new(false), &AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(move || {
            pin(1);
            while !started.load(Relaxed) {
                std::hint::spin_loop();
            }
            other();
            done.store(true, Relaxed);
        });
        let times = &mut times;
        scope.spawn(move || {
            pin(0);
            let mut drawn = Batches::new(living, seed);
            let mut out = [0; 256];
            // Warm up.
            for _ in 0..100 {
                drawn.draw().iter().for_each(|id| assert!(store.get(id, &mut out).is_some()));
            }
            started.store(true, Relaxed);
            while !done.load(Relaxed) {
                for id in drawn.draw() {
                    let begun = Instant::now();
                    let found = store.get(id, &mut out);
                    times.saturating_record(begun.elapsed().as_nanos() as u64);
                    assert!(found.is_some());
                }
            }
        });
    });
    percentiles(&times)
}
