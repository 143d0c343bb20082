//! M10 and M11: memory per session, and memory after deletions. Each case runs in a fresh process.

use sss::Store;

use crate::{
    child,
    competitors::{Dash, Lb, Moka, Papaya, Sessions, Sss},
    facts::Facts,
    sweep::STEP,
    workload::{Id, Middle, Rng, Scale, payload},
};

const STORES: [&str; 5] = ["sss", "lb", "dashmap", "papaya", "moka"];
const PAYLOAD: usize = 256;

/// M10: bytes per session beyond the payload.
pub fn per_session(scale: Scale, facts: &mut Facts) {
    let repeats = if scale.quick { 1 } else { 3 };
    for store in STORES {
        let large = scale.n.to_string();
        let bytes = |n: &str, times: usize| Middle::of((0..times).map(|_| child::number(&["m10", store, n])).collect());
        facts.set_middle(&format!("m10.{store}_large"), bytes(&large, repeats));
        facts.set_middle(&format!("m10.{store}_1000"), bytes("1000", 7));
    }
}

/// M11: resident memory over live payload after deleting nine of ten sessions at random.
pub fn after_deleting(scale: Scale, facts: &mut Facts) {
    for store in STORES {
        // One round: memory use does not vary between runs.
        let numbers = child::numbers(&["m11", store, &scale.n.to_string()]);
        for (name, number) in ["before", "after", "steps"].iter().zip(numbers) {
            facts.set(&format!("m11.{store}_{name}"), number);
        }
    }
}

/// In the child: bytes per session beyond the payload.
pub fn per_session_in_child(name: &str, n: usize) -> f64 {
    match name {
        "sss" => growth(Sss::open, n),
        "lb" => growth(Lb::new, n),
        "dashmap" => growth(Dash::new, n),
        "papaya" => growth(Papaya::new, n),
        "moka" => growth(Moka::new, n),
        _ => panic!("no such store: {name}"),
    }
}

fn growth<S: Sessions>(open: impl Fn() -> S, n: usize) -> f64 {
    let mut rng = Rng::new(10);
    let mut payload = payload(PAYLOAD, 10);
    resident();
    let before = resident();
    let mut store = open();
    for i in 0..n {
        payload[0] = i as u8;
        store.create(&rng.id(), &payload);
    }
    let grown = resident() - before;
    drop(store);
    grown / n as f64 - PAYLOAD as f64
}

/// In the child: the ratio before and after the sweeps, and the number of sweeps.
pub fn after_deleting_in_child(name: &str, n: usize) -> Vec<f64> {
    match name {
        "sss" => {
            let mut sss = Sss::open();
            let store = sss.0.clone();
            thinned(&mut sss, n, || sweep_to_the_end(&store))
        }
        "lb" => thinned(&mut Lb::new(), n, trim),
        "dashmap" => thinned(&mut Dash::new(), n, trim),
        "papaya" => thinned(&mut Papaya::new(), n, trim),
        "moka" => {
            let mut moka = Moka::new();
            let cache = moka.clone();
            thinned(&mut moka, n, || {
                cache.housekeep();
                trim()
            })
        }
        _ => panic!("no such store: {name}"),
    }
}

fn thinned<S: Sessions>(store: &mut S, n: usize, clean_up: impl FnOnce() -> Vec<f64>) -> Vec<f64> {
    let mut rng = Rng::new(11);
    // The memory of the harness itself is allocated and touched before the first reading.
    let mut ids: Vec<Id> = rng.ids(n);
    let mut payload = payload(PAYLOAD, 11);
    let before = resident();
    for (i, id) in ids.iter_mut().enumerate() {
        payload[0] = i as u8;
        *id = store.create(id, &payload);
    }
    rng.shuffle(&mut ids);
    let live = n / 10;
    for id in &ids[live..] {
        assert!(store.delete(id));
    }
    let ratio = || (resident() - before) / (live * PAYLOAD) as f64;
    let at_first = ratio();
    let steps = clean_up();
    let at_last = ratio();
    let mut out = vec![0; PAYLOAD];
    assert!(ids[..live].iter().all(|id| store.get(id, &mut out) == Some(PAYLOAD)));
    [vec![at_first, at_last], steps].concat()
}

/// Sweeps until repeated sweeps return no more memory. Returns their number.
fn sweep_to_the_end(store: &Store) -> Vec<f64> {
    const LOOK: usize = 100;
    let (mut least, mut at, mut steps) = (f64::MAX, 0, 0);
    while steps < at + 20 * LOOK {
        for _ in 0..LOOK {
            store.sweep(STEP).expect("a sweep");
        }
        steps += LOOK;
        let now = resident();
        if now < least {
            (least, at) = (now, steps);
        }
    }
    vec![at as f64]
}

/// The most that a store based on malloc can return.
fn trim() -> Vec<f64> {
    // SAFETY: no preconditions.
    unsafe { libc::malloc_trim(0) };
    Vec::new()
}

/// Resident anonymous bytes of this process.
pub fn resident() -> f64 {
    resident_of("self").expect("smaps_rollup of this process")
}

pub fn resident_of(process: &str) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? * 1024.0)
}
