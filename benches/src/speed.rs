//! M1 to M5 and M7: the time of an operation. The stores take turns in one process; M5, which is
//! about growth, runs each in a fresh process.

use std::{
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use base64ct::{Base64UrlUnpadded, Encoding};

use crate::{
    child,
    competitors::{Dash, Lb, LockedLb, Moka, Papaya, Sessions, SharedLb, Sss},
    facts::Facts,
    ideal::Ideal,
    random,
    workload::{
        BATCH, Batches, Id, Middle, Race, Rng, Scale, median, now_ms, payload, pin, processor_time, slice, timed,
        touch_memory_once,
    },
};

/// A full store with its ids.
pub struct Filled<S> {
    pub store: S,
    pub ids: Vec<Id>,
    payload_len: usize,
}

impl<S: Sessions> Filled<S> {
    pub fn new(mut store: S, ids: &[Id], payload_len: usize) -> Filled<S> {
        let ids = store.fill(ids, payload_len);
        let mut filled = Filled { store, ids, payload_len };
        filled.check();
        filled
    }

    /// Checks before timing: every id is found, and an unknown one is not.
    fn check(&mut self) {
        let mut out = vec![0; self.payload_len];
        for id in self.ids.iter().step_by(997) {
            assert_eq!(self.store.get(id, &mut out), Some(self.payload_len));
        }
        assert_eq!(self.store.get(&Rng::new(1).id(), &mut out), None);
    }

    pub fn get(&mut self, batches: usize, seed: u64) -> f64 {
        let mut drawn = Batches::new(&self.ids, seed);
        let mut out = vec![0; self.payload_len];
        slice(batches, || {
            timed(drawn.draw(), |id| {
                assert!(self.store.get(id, &mut out).is_some());
            })
        })
    }

    pub fn put(&mut self, batches: usize, seed: u64) -> f64 {
        let mut drawn = Batches::new(&self.ids, seed);
        let payload = payload(self.payload_len, seed as usize);
        slice(batches, || {
            timed(drawn.draw(), |id| {
                assert!(self.store.put(id, &payload));
            })
        })
    }

    fn miss(&mut self, batches: usize, seed: u64) -> f64 {
        let mut drawn = Batches::new(&self.ids, seed);
        let mut out = vec![0; self.payload_len];
        slice(batches, || {
            timed(drawn.draw_unknown(), |id| {
                assert!(self.store.get(id, &mut out).is_none());
            })
        })
    }
}

/// The operations that are timed.
#[derive(Clone, Copy)]
enum Op {
    Get,
    Put,
    Miss,
}

/// M1, M3, M4 (256 B) or M2 (1 KiB), those that are wanted. The stores are filled once.
pub fn table(scale: Scale, facts: &mut Facts, payload_len: usize, rows: &[&str]) {
    let mut rng = Rng::new(payload_len as u64);
    let ids = rng.ids(scale.n);
    touch_memory_once(scale.n * (payload_len + 300) * 3);

    let mut sss = Filled::new(Sss::open(), &ids, payload_len);
    let mut lb = Filled::new(Lb::new(), &ids, payload_len);
    let mut locked = Filled::new(LockedLb::new(), &ids, payload_len);
    let (ideal, ideal_ids) = Ideal::filled(scale.n, payload_len, || rng.id());
    let mut ideal = Filled { store: ideal, ids: ideal_ids, payload_len };
    ideal.check();
    let mut dash = Filled::new(Dash::new(), &ids, payload_len);
    let mut others = (!scale.quick)
        .then(|| (Filled::new(Papaya::new(), &ids, payload_len), Filled::new(Moka::new(), &ids, payload_len)));
    drop(ids);

    for (row, op) in [("m1", Op::Get), ("m2", Op::Get), ("m3", Op::Put), ("m4", Op::Miss)] {
        if !rows.contains(&row) {
            continue;
        }
        let mut race = Race::default();
        add(&mut race, "sss", &mut sss, op, scale.batches);
        add(&mut race, "lb", &mut lb, op, scale.batches);
        add(&mut race, "locked_lb", &mut locked, op, scale.batches);
        add(&mut race, "ideal", &mut ideal, op, scale.batches);
        add(&mut race, "dashmap", &mut dash, op, scale.batches);
        if let Some((papaya, moka)) = &mut others {
            add(&mut race, "papaya", papaya, op, scale.batches);
            add(&mut race, "moka", moka, op, scale.batches);
        }
        let outcome = race.run(scale.rounds);
        facts.set_outcome(row, "ns", &outcome);
    }
}

fn add<'a, S: Sessions>(race: &mut Race<'a>, name: &'static str, filled: &'a mut Filled<S>, op: Op, batches: usize) {
    let mut seed = 0;
    race.runner(name, move || {
        seed += 1;
        match op {
            Op::Get => filled.get(batches, seed),
            Op::Put => filled.put(batches, seed),
            Op::Miss => filled.miss(batches, seed),
        }
    });
}

/// M5: creating `n` sessions in an empty store, each store in a fresh process.
pub fn bulk_create(scale: Scale, facts: &mut Facts) {
    let mut race = Race::default();
    let n = scale.n;
    for name in ["sss", "lb", "shared_lb", "dashmap"] {
        race.runner(name, move || child::number(&["m5", name, &n.to_string()]));
    }
    facts.set_outcome("m5", "ns", &race.run(7));
    let mut race = Race::default();
    for name in ["sss", "lb", "shared_lb"] {
        race.runner(name, move || child::number(&["m5-in-cache", name, "256"]));
    }
    facts.set_outcome("m5.cached", "ns", &race.run(7));
    facts.set_middle("m5.id_ns", Middle::of((0..7).map(|_| child::number(&["m5", "id", "100000"])).collect()));
}

/// In the child: nanoseconds per create, without generating the id.
pub fn bulk_create_in_child(name: &str, n: usize) -> f64 {
    touch_memory_once(n * 600);
    match name {
        "sss" => {
            random::make_predictable();
            let mut store = Sss::open();
            let ids: Vec<f64> = (0..9).map(|_| time_of_ids(10_000)).collect();
            let (unused, payload) = ([0; 128], payload(256, 7));
            let spent = processor_time(|| {
                for _ in 0..n {
                    store.create(&unused, &payload);
                }
            });
            spent / n as f64 - Middle::of(ids).median
        }
        "lb" => bulk_create_by(Lb::new(), n),
        "shared_lb" => bulk_create_by(SharedLb::new(), n),
        "dashmap" => bulk_create_by(Dash::new(), n),
        "id" => time_of_ids(n),
        _ => panic!("no such store: {name}"),
    }
}

fn bulk_create_by(mut store: impl Sessions, n: usize) -> f64 {
    let ids = Rng::new(5).ids(n);
    let payload = payload(256, 7);
    let spent = processor_time(|| {
        for id in &ids {
            store.create(id, &payload);
        }
    });
    spent / n as f64
}

/// In the child: the same in a small store whose sessions are replaced. The difference to a large
/// one is memory latency.
pub fn create_in_cache_in_child(name: &str, few: usize) -> f64 {
    match name {
        "sss" => {
            random::make_predictable();
            let ids: Vec<f64> = (0..9).map(|_| time_of_ids(10_000)).collect();
            create_in_cache(Sss::open(), few) - Middle::of(ids).median
        }
        "lb" => create_in_cache(Lb::new(), few),
        "shared_lb" => create_in_cache(SharedLb::new(), few),
        _ => panic!("no such store: {name}"),
    }
}

fn create_in_cache(mut store: impl Sessions, few: usize) -> f64 {
    let (ids, payload) = (Rng::new(5).ids(few), payload(256, 7));
    let mut created = Vec::with_capacity(few);
    let mut spent: Vec<f64> = (0..400)
        .map(|_| {
            let begun = Instant::now();
            created.extend(ids.iter().map(|id| store.create(id, &payload)));
            let spent = begun.elapsed();
            created.drain(..).for_each(|id| assert!(store.delete(&id)));
            spent.as_nanos() as f64 / few as f64
        })
        .collect();
    median(&mut spent)
}

/// Nanoseconds to generate an id as libsss does: 96 bytes from the operating system (or from
/// `random`), base64url in constant time.
fn time_of_ids(n: usize) -> f64 {
    processor_time(|| (0..n).for_each(|_| make_id())) / n as f64
}

pub fn make_id() {
    let (mut random, mut id) = ([0u8; 96], [0u8; 128]);
    // SAFETY: the buffer has as many bytes as are asked for.
    let got = unsafe { libc::getrandom(random.as_mut_ptr().cast(), random.len(), 0) };
    assert_eq!(got, 96);
    Base64UrlUnpadded::encode(&random, &mut id).expect("96 bytes are 128 characters");
    std::hint::black_box(&id);
}

/// M7: two threads on two processors on one store, against the same threads on a private store
/// each. The private stores are of the same size, and in a second comparison of half the size.
pub fn threads(scale: Scale, facts: &mut Facts) {
    let mut rng = Rng::new(7);
    let ids = rng.ids(scale.n);
    touch_memory_once(scale.n * 2000);
    let fill = |ids: &[Id]| Filled::new(Sss::open(), ids, 256);
    let half = scale.n / 2;
    let (shared, other) = (fill(&ids), fill(&ids));
    let halves = (fill(&ids[..half]), fill(&ids[half..]));
    let dash = Filled::new(Dash::new(), &ids, 256);
    drop(ids);

    for (op, puts) in [("get", 0), ("mix", 10)] {
        let time = Duration::from_millis(if scale.quick { 60 } else { 250 });
        let mut race = Race::default();
        race.runner("sss", || rate(&[&shared, &shared], puts, time));
        race.runner("private", || rate(&[&shared, &other], puts, time));
        race.runner("halves", || rate(&[&halves.0, &halves.1], puts, time));
        race.runner("one", || rate(&[&shared], puts, time));
        race.runner("dashmap", || rate(&[&dash, &dash], puts, time));
        let outcome = race.run(scale.rounds);
        for name in outcome.names() {
            facts.set_middle(&format!("m7.{op}_{name}_mops"), outcome.middle(name));
        }
        facts.set_middle(&format!("m7.{op}_ratio"), outcome.ratio("sss", "private"));
        facts.set_middle(&format!("m7.{op}_ratio_halves"), outcome.ratio("sss", "halves"));
        facts.set_middle(&format!("m7.{op}_scaling"), outcome.ratio("sss", "one"));
        facts.set_middle(&format!("m7.{op}_ratio_dashmap"), outcome.ratio("sss", "dashmap"));
    }
}

/// Millions of operations per second of one thread per store, all at once, `puts` of a hundred
/// being puts. The copying of the ids is not counted.
pub fn rate<S: Sessions + Clone + Send + Sync>(stores: &[&Filled<S>], puts: usize, time: Duration) -> f64 {
    let (barrier, stop) = (Barrier::new(stores.len()), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let threads: Vec<_> = stores
            .iter()
            .enumerate()
            .map(|(thread, filled)| {
                let (barrier, stop) = (&barrier, &stop);
                let mut store = filled.store.clone();
                scope.spawn(move || {
                    pin(thread);
                    let mut drawn = Batches::new(&filled.ids, u64::from(now_ms()) + thread as u64);
                    let mut choice = Rng::new(thread as u64);
                    let payload = payload(filled.payload_len, thread);
                    let mut out = vec![0; filled.payload_len];
                    barrier.wait();
                    let (begun, mut spent, mut ops) = (Instant::now(), Duration::ZERO, 0);
                    // The first thread that finishes stops all, so that no thread is measured
                    // alone.
                    loop {
                        spent += timed(drawn.draw(), |id| {
                            if puts > 0 && choice.below(100) < puts {
                                assert!(store.put(id, &payload));
                            } else {
                                assert!(store.get(id, &mut out).is_some());
                            }
                        });
                        ops += BATCH;
                        if begun.elapsed() > time {
                            stop.store(true, Relaxed);
                        }
                        if stop.load(Relaxed) {
                            break;
                        }
                    }
                    ops as f64 / spent.as_secs_f64() / 1e6
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread that measures")).sum()
    })
}
