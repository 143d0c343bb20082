//! M8: the cost of the C ABI over the Rust API. The shared library is loaded into this process, as
//! in a C program, and takes turns with the linked Rust API. The parts of the difference are
//! measured from outside.

use std::{
    ffi::{c_char, c_void},
    hint::black_box,
    path::Path,
    ptr,
    time::{Duration, Instant},
};

use libloading::Library;
use sss::{Access, Store};

use crate::{
    competitors::{Sessions, Sss, URL},
    facts::Facts,
    speed::{Filled, rate},
    workload::{BATCH, Batches, Id, Middle, Outcome, Race, Rng, Scale, slice, timed},
};

type Status = i32;
const NOT_FOUND: Status = -3;

/// Few enough sessions to fit the caches, so that the difference is instructions. In a large store
/// the difference in memory placement of two stores is larger.
const SMALL: usize = 1000;

/// `sss_meta`, with its size set.
#[repr(C)]
#[derive(Default)]
struct Meta {
    size: u32,
    flags: u32,
    version: u64,
    times: [i64; 3],
}

type Create = unsafe extern "C" fn(u64, *const c_void, usize, *const c_void, *mut c_char, *mut Meta) -> Status;
type Get = unsafe extern "C" fn(u64, *const c_char, usize, u32, *mut c_void, usize, *mut usize, *mut Meta) -> Status;

/// The functions that are used here.
struct C {
    handle: u64,
    manual: u64,
    open: unsafe extern "C" fn(*const c_char, usize, *mut u64) -> Status,
    get: Get,
    create: Create,
    advance_clock: unsafe extern "C" fn(u64, i64) -> Status,
    buf_free: unsafe extern "C" fn(*mut c_void),
    version: unsafe extern "C" fn() -> u32,
    _library: Library,
}

impl C {
    fn load(path: &Path) -> Result<C, libloading::Error> {
        // SAFETY: the library is libsss, whose initialisation does nothing; the types are those of
        // include/sss.h. The pointers are used only as long as the library is kept beside them.
        unsafe {
            let library = Library::new(path)?;
            let mut c = C {
                handle: 0,
                manual: 0,
                open: *library.get(b"sss_open")?,
                get: *library.get(b"sss_get")?,
                create: *library.get(b"sss_create")?,
                advance_clock: *library.get(b"sss_advance_clock")?,
                buf_free: *library.get(b"sss_buf_free")?,
                version: *library.get(b"sss_version")?,
                _library: library,
            };
            (c.handle, c.manual) = (c.open(URL), c.open("memory:?clock=manual"));
            Ok(c)
        }
    }

    fn open(&self, url: &str) -> u64 {
        let mut handle = 0;
        // SAFETY: pointers to live memory of the lengths that go with them.
        assert_eq!(unsafe { (self.open)(url.as_ptr().cast(), url.len(), &mut handle) }, 0);
        handle
    }

    fn create(&self, handle: u64, payload: &[u8]) -> Id {
        let mut sid = [0u8; 129];
        // SAFETY: pointers to live memory of the lengths that the header asks for; what is NULL may
        // be.
        let status = unsafe {
            (self.create)(
                handle,
                payload.as_ptr().cast(),
                payload.len(),
                ptr::null(),
                sid.as_mut_ptr().cast(),
                ptr::null_mut(),
            )
        };
        assert_eq!(status, 0);
        *sid.first_chunk().expect("129 is more than 128")
    }

    fn get(&self, handle: u64, id: &Id, out: &mut [u8], meta: &mut Meta) -> Status {
        let mut len = 0;
        // SAFETY: pointers to live memory of the lengths that go with them.
        unsafe {
            (self.get)(handle, id.as_ptr().cast(), id.len(), 0, out.as_mut_ptr().cast(), out.len(), &mut len, meta)
        }
    }
}

/// A store that is filled and read through its handle only.
#[derive(Clone)]
struct ThroughC<'a> {
    c: &'a C,
    handle: u64,
}

impl Sessions for ThroughC<'_> {
    fn create(&mut self, _id: &Id, payload: &[u8]) -> Id {
        self.c.create(self.handle, payload)
    }

    fn get(&mut self, id: &Id, out: &mut [u8]) -> Option<usize> {
        let mut meta = Meta { size: size_of::<Meta>() as u32, ..Meta::default() };
        (self.c.get(self.handle, id, out, &mut meta) == 0).then_some(out.len())
    }

    fn put(&mut self, _: &Id, _: &[u8]) -> bool {
        unreachable!("it is only read")
    }

    fn delete(&mut self, _: &Id) -> bool {
        unreachable!("it is only read")
    }
}

/// M8, with the shared library at `path`.
pub fn cost(scale: Scale, facts: &mut Facts, path: &Path) {
    let c = match C::load(path) {
        Ok(c) => c,
        Err(error) => return eprintln!("M8 needs the shared library (make library): {error}"),
    };
    let (c, blank) = (&c, vec![[0; 128]; SMALL]);
    let c_ids = ThroughC { c, handle: c.handle }.fill(&blank, 256);
    let (rust, ids) = fill(SMALL);
    let outcome = gets(scale, c, &c_ids, &rust, &ids);
    facts.set_middle("m8.get_rust_ns", outcome.middle("rust"));
    facts.set_middle("m8.get_c_ns", outcome.middle("c"));
    let get = minus(&outcome, "c", "rust");
    facts.set_middle("m8.get_cost_ns", get);

    let manual = Store::open("memory:?clock=manual").expect("the store opens");
    let unknown = &Rng::new(8).ids(BATCH);
    let mut race = Race::default();
    let n = scale.batches;
    // SAFETY: they take no pointers, or NULL where the header allows it; the handle is checked by
    // the library.
    unsafe {
        race.runner("call", move || slice(n, || repeated(|| black_box((c.version)()))));
        race.runner("guarded", move || slice(n, || repeated(|| (c.buf_free)(black_box(ptr::null_mut())))));
        race.runner("resolved", move || slice(n, || repeated(|| (c.advance_clock)(black_box(c.manual), 0))));
    }
    race.runner("context", || slice(n, || repeated(|| manual.advance_clock(black_box(0)).is_ok())));
    let (mut out, mut meta) = ([0; 256], Meta { size: size_of::<Meta>() as u32, ..Meta::default() });
    race.runner("c_miss", move || {
        slice(n, || timed(unknown, |id| assert_eq!(c.get(c.handle, id, &mut out, &mut meta), NOT_FOUND)))
    });
    let mut rust_out = [0; 256];
    race.runner("rust_miss", || slice(n, || timed(unknown, |id| assert!(!read(&rust, id, &mut rust_out)))));
    let outcome = race.run(scale.rounds);
    threads(scale, facts, c);
    let (call, guard) = (outcome.middle("call"), minus(&outcome, "guarded", "call"));
    let resolved = minus(&outcome, "resolved", "context");
    let handle = resolved.median - call.median - guard.median;
    facts.set_middle("m8.call_ns", call);
    facts.set_middle("m8.guard_ns", guard);
    facts.set("m8.handle_ns", handle);
    facts.set("m8.arguments_ns", get.median - resolved.median);
    facts.set_middle("m8.context_ns", outcome.middle("context"));
    facts.set_middle("m8.error_ns", minus(&outcome, "c_miss", "rust_miss"));
}

/// The throughput of two threads on one handle, relative to a handle and a store for each. There
/// are so many sessions that the threads seldom meet at one.
fn threads(scale: Scale, facts: &mut Facts, c: &C) {
    let blank = vec![[0; 128]; scale.n / 10];
    let fill = |handle| Filled::new(ThroughC { c, handle }, &blank, 256);
    let (shared, other) = (fill(c.open(URL)), fill(c.open(URL)));
    let time = Duration::from_millis(if scale.quick { 60 } else { 250 });
    let mut race = Race::default();
    race.runner("shared", || rate(&[&shared, &shared], 0, time));
    race.runner("private", || rate(&[&shared, &other], 0, time));
    facts.set_middle("m8.threads_ratio", race.run(scale.rounds).ratio("shared", "private"));
}

fn fill(n: usize) -> (Store, Vec<Id>) {
    let mut store = Sss::open();
    let ids = store.fill(&vec![[0; 128]; n], 256);
    (store.0, ids)
}

fn gets(scale: Scale, c: &C, c_ids: &[Id], rust: &Store, ids: &[Id]) -> Outcome {
    let mut race = Race::default();
    let (mut drawn, mut out) = (Batches::new(ids, 8), [0; 256]);
    race.runner("rust", move || slice(scale.batches, || timed(drawn.draw(), |id| assert!(read(rust, id, &mut out)))));
    let (mut drawn, mut out) = (Batches::new(c_ids, 8), [0; 256]);
    let mut meta = Meta { size: size_of::<Meta>() as u32, ..Meta::default() };
    race.runner("c", move || {
        slice(scale.batches, || timed(drawn.draw(), |id| assert_eq!(c.get(c.handle, id, &mut out, &mut meta), 0)))
    });
    race.run(scale.rounds)
}

/// The same answer as `sss_get` gives: the payload in the caller's memory, and the metadata.
fn read(store: &Store, id: &Id, out: &mut [u8; 256]) -> bool {
    let read = store.read::<_, sss::Error>(id, Access::Slide, |payload, meta| {
        out[..payload.len()].copy_from_slice(payload);
        Ok(*meta)
    });
    black_box(read).is_ok()
}

fn repeated<R>(mut call: impl FnMut() -> R) -> Duration {
    let begun = Instant::now();
    for _ in 0..BATCH {
        black_box(call());
    }
    begun.elapsed()
}

fn minus(outcome: &Outcome, a: &str, b: &str) -> Middle {
    outcome.compare(a, b, |a, b| a - b)
}
