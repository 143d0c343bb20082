//! libsss and its in-process competitors behind one trait, so that all run through the same loops.
//! Each competitor does what a session store must do on a get: look up, check both deadlines,
//! slide, copy out.

use std::{
    hash::{BuildHasherDefault, Hasher},
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use dashmap::DashMap;
use parking_lot::Mutex;
use siphasher::sip128::SipHasher13;
use sss::{Access, Options, Store};

use crate::workload::{Id, now_ms, payload};

/// Timeouts of the competitors, in milliseconds: nothing expires while it is measured.
pub const IDLE_MS: u32 = 3_600_000;
pub const ABSOLUTE_MS: u32 = 10_800_000;
/// libsss with the same timeouts.
pub const URL: &str = "memory:?timeout=3h&idle_timeout=1h";

/// A store under measurement by one thread.
pub trait Sessions {
    /// Stores a session. Returns the id to use: libsss generates its own.
    fn create(&mut self, id: &Id, payload: &[u8]) -> Id;
    /// Copies the payload out and returns its length; `None` if there is no living session.
    fn get(&mut self, id: &Id, out: &mut [u8]) -> Option<usize>;
    /// Replaces the payload of a living session.
    fn put(&mut self, id: &Id, payload: &[u8]) -> bool;
    fn delete(&mut self, id: &Id) -> bool;

    /// Fills an empty store and returns the ids.
    fn fill(&mut self, ids: &[Id], payload_len: usize) -> Vec<Id> {
        ids.iter().enumerate().map(|(i, id)| self.create(id, &payload(payload_len, i))).collect()
    }
}

/// Copies a payload to the caller.
pub fn copy(payload: &[u8], out: &mut [u8]) -> usize {
    out[..payload.len()].copy_from_slice(payload);
    payload.len()
}

// --- libsss ---

#[derive(Clone)]
pub struct Sss(pub Store);

impl Sss {
    pub fn open() -> Sss {
        Sss::open_url(URL)
    }

    pub fn open_url(url: &str) -> Sss {
        Sss(Store::open(url).expect("the store opens"))
    }
}

impl Sessions for Sss {
    fn create(&mut self, _id: &Id, payload: &[u8]) -> Id {
        *self.0.create(payload, &Options::default()).expect("a session is created").0.as_bytes()
    }

    fn get(&mut self, id: &Id, out: &mut [u8]) -> Option<usize> {
        self.0.read::<_, sss::Error>(id, Access::Slide, |payload, _meta| Ok(copy(payload, out))).ok()
    }

    fn put(&mut self, id: &Id, payload: &[u8]) -> bool {
        self.0.put(id, payload, &Options::default()).is_ok()
    }

    fn delete(&mut self, id: &Id) -> bool {
        self.0.delete(id).is_ok()
    }
}

// --- LB: what a good engineer writes in an hour, for one thread ---

/// `hashbrown` keyed by SipHash-1-3-128 of the id, the payload in a box.
pub struct Lb {
    map: hashbrown::HashMap<u128, Slot, BuildHasherDefault<Hashed>>,
    hasher: SipHasher13,
}

/// A session in LB, in dashmap and behind the mutex.
pub struct Slot {
    idle_deadline: u32,
    deadline: u32,
    payload: Box<[u8]>,
}

impl Slot {
    fn new(payload: &[u8]) -> Slot {
        let now = now_ms();
        Slot { idle_deadline: now + IDLE_MS, deadline: now + ABSOLUTE_MS, payload: payload.into() }
    }

    fn alive(&self, now: u32) -> bool {
        now < self.idle_deadline && now < self.deadline
    }

    fn get(&mut self, out: &mut [u8]) -> Option<usize> {
        let now = now_ms();
        if !self.alive(now) {
            return None;
        }
        self.idle_deadline = now + IDLE_MS;
        Some(copy(&self.payload, out))
    }

    fn put(&mut self, payload: &[u8]) -> bool {
        let now = now_ms();
        if !self.alive(now) {
            return false;
        }
        self.idle_deadline = now + IDLE_MS;
        if self.payload.len() == payload.len() {
            // A third faster than a new box.
            self.payload.copy_from_slice(payload);
        } else {
            self.payload = payload.into();
        }
        true
    }

    /// Makes the session expired.
    pub fn expire(&mut self) {
        self.deadline = 0;
    }

    pub fn survives(&self, now: u32) -> bool {
        self.alive(now)
    }
}

/// The key is a hash already.
#[derive(Default)]
pub struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("the keys are numbers")
    }
    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
}

impl Lb {
    pub fn new() -> Lb {
        Lb { map: hashbrown::HashMap::default(), hasher: SipHasher13::new_with_keys(0x0123, 0x4567) }
    }

    fn key(&self, id: &Id) -> u128 {
        self.hasher.hash(id).as_u128()
    }

    pub fn slot(&mut self, id: &Id) -> &mut Slot {
        let key = self.key(id);
        self.map.get_mut(&key).expect("a session that was created")
    }

    pub fn sweep(&mut self) {
        let now = now_ms();
        self.map.retain(|_, slot| slot.survives(now));
    }
}

impl Sessions for Lb {
    fn create(&mut self, id: &Id, payload: &[u8]) -> Id {
        self.map.insert(self.key(id), Slot::new(payload));
        *id
    }

    fn get(&mut self, id: &Id, out: &mut [u8]) -> Option<usize> {
        let key = self.key(id);
        self.map.get_mut(&key)?.get(out)
    }

    fn put(&mut self, id: &Id, payload: &[u8]) -> bool {
        let key = self.key(id);
        self.map.get_mut(&key).is_some_and(|slot| slot.put(payload))
    }

    fn delete(&mut self, id: &Id) -> bool {
        self.map.remove(&self.key(id)).is_some()
    }
}

/// LB as several threads could use it: behind an uncontended lock.
pub struct LockedLb(Mutex<Lb>);

impl LockedLb {
    pub fn new() -> LockedLb {
        LockedLb(Mutex::new(Lb::new()))
    }
}

impl Sessions for LockedLb {
    fn create(&mut self, id: &Id, payload: &[u8]) -> Id {
        self.0.lock().create(id, payload)
    }

    fn get(&mut self, id: &Id, out: &mut [u8]) -> Option<usize> {
        self.0.lock().get(id, out)
    }

    fn put(&mut self, id: &Id, payload: &[u8]) -> bool {
        self.0.lock().put(id, payload)
    }

    fn delete(&mut self, id: &Id) -> bool {
        self.0.lock().delete(id)
    }
}

/// LB with what a create needs in a shared store: a lock, limits on sessions and bytes that hold
/// under concurrency, a counter, and an allocated id that is wiped.
pub struct SharedLb {
    lb: LockedLb,
    sessions: AtomicU64,
    bytes: AtomicU64,
    created: AtomicU64,
}

impl SharedLb {
    pub fn new() -> SharedLb {
        let [sessions, bytes, created] = [const { AtomicU64::new(0) }; 3];
        SharedLb { lb: LockedLb::new(), sessions, bytes, created }
    }
}

impl Sessions for SharedLb {
    fn create(&mut self, id: &Id, payload: &[u8]) -> Id {
        let mut own_id = Box::new(*id);
        let add = |held: &AtomicU64, more: u64| {
            let fits = |held: u64| held.checked_add(more).filter(|held| *held < u64::MAX / 2);
            held.fetch_update(Relaxed, Relaxed, fits).expect("a limit that nothing reaches")
        };
        add(&self.sessions, 1);
        add(&self.bytes, payload.len() as u64);
        self.lb.create(&own_id, payload);
        self.created.fetch_add(1, Relaxed);
        let id = *own_id;
        own_id.fill(0);
        black_box(&own_id);
        id
    }

    fn get(&mut self, id: &Id, out: &mut [u8]) -> Option<usize> {
        self.lb.get(id, out)
    }

    fn put(&mut self, id: &Id, payload: &[u8]) -> bool {
        self.lb.put(id, payload)
    }

    fn delete(&mut self, id: &Id) -> bool {
        self.lb.delete(id)
    }
}

// --- concurrent maps, used as their users use them: the id is the key ---

fn text(id: &Id) -> &str {
    std::str::from_utf8(id).expect("ids are ASCII")
}

#[derive(Clone)]
pub struct Dash(pub Arc<DashMap<String, Slot>>);

impl Dash {
    pub fn new() -> Dash {
        Dash(Arc::new(DashMap::new()))
    }
}

impl Sessions for Dash {
    fn create(&mut self, id: &Id, payload: &[u8]) -> Id {
        self.0.insert(text(id).to_owned(), Slot::new(payload));
        *id
    }

    fn get(&mut self, id: &Id, out: &mut [u8]) -> Option<usize> {
        self.0.get_mut(text(id))?.get(out)
    }

    fn put(&mut self, id: &Id, payload: &[u8]) -> bool {
        self.0.get_mut(text(id)).is_some_and(|mut slot| slot.put(payload))
    }

    fn delete(&mut self, id: &Id) -> bool {
        self.0.remove(text(id)).is_some()
    }
}

/// Values of papaya are shared and cannot be changed in place: a put makes a new one.
pub struct Shared {
    idle_deadline: AtomicU32,
    deadline: AtomicU32,
    payload: Box<[u8]>,
}

impl Shared {
    fn new(payload: &[u8]) -> Shared {
        let now = now_ms();
        Shared {
            idle_deadline: AtomicU32::new(now + IDLE_MS),
            deadline: AtomicU32::new(now + ABSOLUTE_MS),
            payload: payload.into(),
        }
    }

    pub fn survives(&self, now: u32) -> bool {
        now < self.idle_deadline.load(Relaxed) && now < self.deadline.load(Relaxed)
    }

    pub fn expire(&self) {
        self.deadline.store(0, Relaxed);
    }
}

#[derive(Clone)]
pub struct Papaya(pub Arc<papaya::HashMap<String, Shared>>);

impl Papaya {
    pub fn new() -> Papaya {
        Papaya(Arc::new(papaya::HashMap::new()))
    }
}

impl Sessions for Papaya {
    fn create(&mut self, id: &Id, payload: &[u8]) -> Id {
        self.0.pin().insert(text(id).to_owned(), Shared::new(payload));
        *id
    }

    fn get(&mut self, id: &Id, out: &mut [u8]) -> Option<usize> {
        let map = self.0.pin();
        let slot = map.get(text(id))?;
        let now = now_ms();
        if !slot.survives(now) {
            return None;
        }
        slot.idle_deadline.store(now + IDLE_MS, Relaxed);
        Some(copy(&slot.payload, out))
    }

    fn put(&mut self, id: &Id, payload: &[u8]) -> bool {
        self.0.pin().update(text(id).to_owned(), |_old| Shared::new(payload)).is_some()
    }

    fn delete(&mut self, id: &Id) -> bool {
        self.0.pin().remove(text(id)).is_some()
    }
}

/// A cache with its own expiry and clock.
#[derive(Clone)]
pub struct Moka(moka::sync::Cache<String, Arc<[u8]>>);

impl Moka {
    pub fn new() -> Moka {
        let timeouts = moka::sync::Cache::builder()
            .time_to_idle(Duration::from_millis(IDLE_MS.into()))
            .time_to_live(Duration::from_millis(ABSOLUTE_MS.into()));
        Moka(timeouts.build())
    }

    /// Runs the pending maintenance.
    pub fn housekeep(&self) {
        self.0.run_pending_tasks();
    }
}

impl Sessions for Moka {
    fn create(&mut self, id: &Id, payload: &[u8]) -> Id {
        self.0.insert(text(id).to_owned(), payload.into());
        *id
    }

    fn get(&mut self, id: &Id, out: &mut [u8]) -> Option<usize> {
        Some(copy(&self.0.get(text(id))?, out))
    }

    fn put(&mut self, id: &Id, payload: &[u8]) -> bool {
        self.0.insert(text(id).to_owned(), payload.into());
        true
    }

    fn delete(&mut self, id: &Id) -> bool {
        self.0.remove(text(id)).is_some()
    }
}
