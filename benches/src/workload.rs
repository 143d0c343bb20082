//! The workload, the same for every store: session ids, payloads, batches of timed operations, and
//! rounds in which the stores take turns. It knows no store.

use std::{
    ffi::c_void,
    hint::black_box,
    ptr,
    time::{Duration, Instant},
};

/// A session id, as given to every store.
pub type Id = [u8; 128];

/// Ids are copied before they are used, so that they are in the cache, as after a server has read
/// them from a request.
pub const BATCH: usize = 256;

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Scale {
    /// Live sessions in the large cases.
    pub n: usize,
    /// Rounds in which the stores take turns.
    pub rounds: usize,
    /// Batches per store and round.
    pub batches: usize,
    /// Fewer competitors, fewer repetitions.
    pub quick: bool,
}

impl Scale {
    pub const FULL: Scale = Scale { n: 1_000_000, rounds: 11, batches: 400, quick: false };
    pub const QUICK: Scale = Scale { n: 200_000, rounds: 7, batches: 100, quick: true };
}

/// SplitMix64: fast, and the same sequence in every run. Nothing here is secret.
#[derive(Clone)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    /// A well-formed id that no store made.
    pub fn id(&mut self) -> Id {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut id = [0; 128];
        for chunk in id.chunks_exact_mut(8) {
            let mut bits = self.next();
            for c in chunk {
                *c = ALPHABET[(bits & 63) as usize];
                bits >>= 6;
            }
        }
        id
    }

    pub fn ids(&mut self, n: usize) -> Vec<Id> {
        (0..n).map(|_| self.id()).collect()
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

/// A payload of this length, different for every `i`.
pub fn payload(len: usize, i: usize) -> Vec<u8> {
    let mut bytes = vec![0x5a; len];
    let number = i.to_le_bytes();
    let n = number.len().min(len);
    bytes[..n].copy_from_slice(&number[..n]);
    bytes
}

/// Random ids out of many, copied out in batches.
pub struct Batches<'a> {
    ids: &'a [Id],
    rng: Rng,
    batch: Vec<Id>,
}

impl<'a> Batches<'a> {
    pub fn new(ids: &'a [Id], seed: u64) -> Batches<'a> {
        Batches { ids, rng: Rng::new(seed), batch: vec![[0; 128]; BATCH] }
    }

    pub fn draw(&mut self) -> &[Id] {
        for id in &mut self.batch {
            *id = self.ids[self.rng.below(self.ids.len())];
        }
        black_box(&self.batch)
    }

    /// A batch of ids that no store made.
    pub fn draw_unknown(&mut self) -> &[Id] {
        for id in &mut self.batch {
            *id = self.rng.id();
        }
        black_box(&self.batch)
    }
}

/// One store's turn: the time of one operation, as the median over the batches, after some batches
/// that warm up the caches after the turn of another store.
pub fn slice(batches: usize, mut one_batch: impl FnMut() -> Duration) -> f64 {
    for _ in 0..batches / 5 {
        one_batch();
    }
    let mut times: Vec<f64> = (0..batches).map(|_| one_batch().as_nanos() as f64 / BATCH as f64).collect();
    median(&mut times)
}

/// Times `op` over one batch.
pub fn timed(batch: &[Id], mut op: impl FnMut(&Id)) -> Duration {
    let start = Instant::now();
    for id in batch {
        op(id);
    }
    start.elapsed()
}

pub fn median(values: &mut [f64]) -> f64 {
    assert!(!values.is_empty(), "a median of nothing");
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

/// Stores that take turns, each turn giving one number.
#[derive(Default)]
pub struct Race<'a> {
    names: Vec<&'static str>,
    runners: Vec<Box<dyn FnMut() -> f64 + 'a>>,
}

impl<'a> Race<'a> {
    pub fn runner(&mut self, name: &'static str, turn: impl FnMut() -> f64 + 'a) {
        self.names.push(name);
        self.runners.push(Box::new(turn));
    }

    /// Runs the rounds. The order rotates, so that no runner always follows the same one.
    pub fn run(mut self, rounds: usize) -> Outcome {
        let n = self.runners.len();
        let mut turns = vec![Vec::with_capacity(rounds); n];
        for round in 0..rounds {
            for i in 0..n {
                let i = (round + i) % n;
                turns[i].push((self.runners[i])());
            }
        }
        Outcome { names: self.names, turns }
    }
}

/// The result of a race: for every store one number per round.
pub struct Outcome {
    names: Vec<&'static str>,
    turns: Vec<Vec<f64>>,
}

/// A median with its range.
#[derive(Clone, Copy)]
pub struct Middle {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Middle {
    pub fn of(mut values: Vec<f64>) -> Middle {
        let median = median(&mut values);
        Middle { median, min: values[0], max: values[values.len() - 1] }
    }
}

impl Outcome {
    fn turns(&self, name: &str) -> &[f64] {
        let i = self.names.iter().position(|n| *n == name);
        &self.turns[i.unwrap_or_else(|| panic!("{name} did not run"))]
    }

    pub fn names(&self) -> &[&'static str] {
        &self.names
    }

    pub fn middle(&self, name: &str) -> Middle {
        Middle::of(self.turns(name).to_vec())
    }

    /// The ratio of two stores, taken round by round.
    pub fn ratio(&self, name: &str, to: &str) -> Middle {
        self.compare(name, to, |a, b| a / b)
    }

    /// Two stores compared round by round.
    pub fn compare(&self, a: &str, b: &str, by: impl Fn(f64, f64) -> f64) -> Middle {
        Middle::of(self.turns(a).iter().zip(self.turns(b)).map(|(a, b)| by(*a, *b)).collect())
    }
}

/// Touches the memory that will be used, so that no store pays for the first touch: in a virtual
/// machine that costs microseconds per page, once. Small and huge pages come from different pools,
/// so both are touched, at the same time.
pub fn touch_memory_once(bytes: usize) {
    let bytes = bytes.min(available_memory() / 4).next_multiple_of(2 << 20);
    let touched = [libc::MADV_HUGEPAGE, libc::MADV_NOHUGEPAGE].map(|pages| {
        // SAFETY: a new private anonymous mapping touches no existing memory; advice and writing
        // concern only it.
        unsafe {
            let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            let address = libc::mmap(ptr::null_mut::<c_void>(), bytes, access, kind, -1, 0);
            assert!(address != libc::MAP_FAILED, "no memory to touch");
            libc::madvise(address, bytes, pages);
            for page in (0..bytes).step_by(4096) {
                address.cast::<u8>().add(page).write_volatile(1);
            }
            address
        }
    });
    for address in touched {
        // SAFETY: mapped above, and nothing points into it.
        unsafe { libc::munmap(address, bytes) };
    }
}

fn available_memory() -> usize {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    kib.unwrap_or(2 << 20) * 1024
}

/// Binds the calling thread to one processor.
pub fn pin(cpu: usize) {
    bind(0, &[cpu]);
}

/// Binds a thread (0: the calling one) to these processors, or to all if the list is empty.
pub fn bind(thread: libc::pid_t, cpus: &[usize]) {
    // SAFETY: an all-zero cpu_set_t is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for cpu in 0..libc::CPU_SETSIZE as usize {
        if cpus.is_empty() || cpus.contains(&cpu) {
            // SAFETY: `cpu` is within the size of the set.
            unsafe { libc::CPU_SET(cpu, &mut set) };
        }
    }
    // SAFETY: the set is a valid one of that size. A failure leaves all as it was.
    unsafe { libc::sched_setaffinity(thread, size_of::<libc::cpu_set_t>(), &set) };
}

/// Nanoseconds of processor time that this thread spends in `work`: for long work that other
/// processes interrupt. It must run on one thread and wait for no other.
pub fn processor_time(work: impl FnOnce()) -> f64 {
    let now = || {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `now` is a valid timespec to write to.
        unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut now) };
        now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
    };
    let begun = now();
    work();
    now() - begun
}

/// Milliseconds of the clock that libsss reads, which is the cheapest one of sufficient precision.
/// Every competitor reads it.
pub fn now_ms() -> u32 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut now) };
    // Wraps after 49 days of uptime, long after this has ended.
    (now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000) as u32
}
