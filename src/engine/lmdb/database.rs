//! One directory, open in this process: found again by all handles to it, whatever the spelling of its path; opened anew by
//! a forked child; and marked as whole by whoever closes it last. (How its files are opened: `opening`.)

use std::{
    collections::HashMap,
    fs::File,
    path::Path,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    ffi::{Env, Table, WriteTxn},
    files::Directory,
    gate::Gate,
    group::{self, Group},
    map::{self, Hold, Lock, Locks, Map},
    opening::{foreign, length},
};
use crate::{
    crypto::{keys::SALT_LEN, random::random},
    engine::Context,
    error::{Error, ErrorKind, Result},
    os::{
        clock::Clock,
        fork_mark::{self},
    },
    session::policy::{Policy, PolicyOptions},
    sync::per_process::PerProcess,
    url::Url,
};

/// The file's size unless `max_bytes` says otherwise: 256 MiB.
pub(super) const MAX_BYTES: u64 = 256 << 20;
/// How long to wait for another process that is opening or closing the store; it checks or writes the whole file.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is asked for by who opens a store.
#[derive(Clone)]
pub(super) struct Wishes {
    pub policy: PolicyOptions,
    pub manual_clock: Option<bool>,
    pub survives_power_cut: bool,
    pub seals: bool,
    pub has_secret: bool,
    /// Opens only what is there, and as it is: what was not asked for stays as it was when the store was used last.
    pub follows: bool,
}

impl Wishes {
    pub(super) fn new(url: &Url, has_secret: bool) -> Wishes {
        Wishes {
            policy: url.policy,
            manual_clock: url.manual_clock,
            survives_power_cut: url.survives_power_cut,
            seals: url.seals(),
            has_secret,
            follows: false,
        }
    }

    pub(super) fn policy(&self) -> PolicyOptions {
        PolicyOptions { max_bytes: self.policy.max_bytes.or(Some(MAX_BYTES)), ..self.policy }
    }
}

pub(super) struct Database {
    /// Taken by dropping only.
    open: Option<Box<Open>>,
    /// The process that opened it: another one must not touch what it inherited.
    generation: u32,
    identity: (u64, u64),
}

pub(super) struct Open {
    // In the order in which they are dropped: LMDB's files are closed before the locks are given up.
    pub env: Env,
    pub map: Map,
    /// Where commits wait for the disk.
    pub group: Option<Group>,
    pub salt: [u8; SALT_LEN],
    pub seals: bool,
    /// In bytes.
    pub file_size: u64,
    pub locks: Locks,
}

/// A directory stays in it until it is closed: two opens of LMDB's files in one process would undo each other's locks.
type Registry = Mutex<HashMap<(u64, u64), Weak<Database>>>;
static REGISTRY: PerProcess<Registry> = PerProcess::new();

impl Database {
    /// Opens the store in a directory, or finds it if this process has it open.
    pub(super) fn open(path: &Path, wishes: &Wishes) -> Result<Arc<Database>> {
        // Not a Once: a child would wait for a thread that only its parent has. (What is to be done at exit is inherited.)
        static IS_REGISTERED: AtomicBool = AtomicBool::new(false);
        if !IS_REGISTERED.swap(true, Ordering::Relaxed) {
            map::at_exit(leave_all);
        }
        if cfg!(not(target_pointer_width = "64")) {
            return Err(Error::fixed(ErrorKind::Unsupported, "lmdb: needs a machine of 64 bits"));
        }
        if wishes.follows && length(&path.join("data.mdb"))? == 0 {
            return Err(Error::fixed(ErrorKind::Io, "there is no lmdb: store in this directory"));
        }
        let directory = Directory::open(path)?;
        let identity = directory.identity;
        loop {
            let mut registry = REGISTRY.get().lock();
            let found = match registry.get(&identity) {
                None => {
                    let open = Some(Box::new(Open::new(&directory, wishes)?));
                    let database = Arc::new(Database { open, generation: fork_mark::generation(), identity });
                    registry.insert(identity, Arc::downgrade(&database));
                    return Ok(database);
                }
                Some(database) => database.upgrade(),
            };
            // Without the lock: dropping a database takes it.
            drop(registry);
            match found {
                Some(database) => return database.get().join(wishes).map(|()| database),
                // Another thread is just closing it.
                None => thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    pub(super) fn get(&self) -> &Open {
        match &self.open {
            Some(open) => open,
            None => unreachable!("only dropping takes it"),
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let open = self.open.take();
        if self.generation != fork_mark::generation() {
            // The parent's: closing it would take its locks and its readers' slots.
            std::mem::forget(open);
            return;
        }
        let mut registry = REGISTRY.get().lock();
        if let Some(open) = open {
            // What fails here is noticed at the next open: the store does not count as closed.
            let _ = open.leave();
        }
        registry.remove(&self.identity);
    }
}

/// When the process ends without closing its stores: a restart of the machine must not look like a power cut.
extern "C" fn leave_all() {
    let Some(registry) = REGISTRY.get().try_lock() else { return };
    for database in registry.values().filter_map(Weak::upgrade) {
        let _ = database.get().leave();
        // Not closed: other threads may still be using it.
        std::mem::forget(database);
    }
}

impl Open {
    /// Takes over the stricter settings of one more who opened it.
    pub(super) fn join(&self, wishes: &Wishes) -> Result<()> {
        let header = self.map.header();
        if !wishes.follows && (header.survives_power_cut.load(Ordering::Acquire) == 1) != wishes.survives_power_cut {
            return Err(Error::fixed(ErrorKind::Exists, "the store is already open with another durability"));
        }
        if wishes.manual_clock.is_some_and(|manual| manual != self.clock().is_manual()) {
            return Err(Error::fixed(ErrorKind::Exists, "the store is already open with another clock"));
        }
        salt(&self.env, self.gate(), wishes)?;
        if self.policy().tighten(&wishes.policy) {
            self.arm_anew()?;
        }
        Ok(())
    }

    pub(super) fn policy(&self) -> &Policy {
        &self.map.header().policy
    }

    /// Where writers wait for their turn.
    pub(super) fn gate(&self) -> &Gate {
        &self.map.header().gate
    }

    /// What writers who wait for the disk tell one another.
    pub(super) fn shared(&self) -> &group::Shared {
        &self.map.header().group
    }

    fn clock(&self) -> Clock<'_> {
        match self.map.header().manual_clock.load(Ordering::Acquire) {
            0 => Clock::Wall,
            _ => Clock::Manual(&self.map.header().manual_ms),
        }
    }

    pub(super) fn context(&self) -> Context<'_> {
        Context { clock: self.clock(), policy: self.policy(), counters: &self.map.header().counters }
    }

    /// Begins to write, when nobody else does. What was whole on the disk will not be, and that is there first: in the same
    /// turn, so that `leave` either sees what is written or comes before it.
    pub(super) fn write(&self) -> Result<WriteTxn<'_>> {
        let txn = self.env.write(self.gate())?;
        let clean = &self.map.header().clean;
        if clean.load(Ordering::Acquire) != 0 {
            clean.store(0, Ordering::Release);
            // The next one has to say so, then.
            self.map.sync().inspect_err(|_| clean.store(1, Ordering::Release))?;
        }
        Ok(txn)
    }

    /// Fails if the disk has failed since the store was opened: it tells so once, and whoever asks again is told that all is
    /// well, whatever was lost.
    pub(super) fn check_disk(&self) -> Result<()> {
        match self.map.header().disk_failed.load(Ordering::Acquire) {
            0 => Ok(()),
            _ => Err(Error::fixed(
                ErrorKind::Io,
                "the disk has failed to take what was written: close the store everywhere and open it again",
            )),
        }
    }

    /// Remembers that the disk has failed, if it has.
    pub(super) fn note_failure<T>(&self, result: Result<T>) -> Result<T> {
        if result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Io) {
            self.map.header().disk_failed.store(1, Ordering::Release);
        }
        result
    }

    /// Before it is closed: the last one to come here has everything written to the disk, and says so there. That others who
    /// were here before are not gone yet does not matter: if they still write, they say so as well.
    fn leave(&self) -> Result<()> {
        let _doing = Doing::begin(&self.locks)?;
        // Not for who is called at exit in the middle of a write, as by a signal: it would wait for itself.
        if map::lock(&self.locks, Lock::Using, Hold::Alone)? && !WriteTxn::is_in_this_thread() {
            self.note_failure(self.note_whole())?;
        }
        map::lock(&self.locks, Lock::Leaving, Hold::Shared)?;
        map::lock(&self.locks, Lock::Using, Hold::Not)?;
        Ok(())
    }

    /// Has everything on the disk, and says so there.
    fn note_whole(&self) -> Result<()> {
        // Nobody writes meanwhile: what is committed later counts as written after that.
        let _turn = self.env.write(self.gate())?;
        let clean = &self.map.header().clean;
        if clean.load(Ordering::Acquire) == 0 && self.check_disk().is_ok() {
            self.env.sync()?;
            self.map.sync()?;
            clean.store(1, Ordering::Release);
            self.map.sync()?;
        }
        Ok(())
    }
}

/// The lock of who opens or closes a store.
pub(super) struct Doing<'a>(&'a File);

impl Doing<'_> {
    pub(super) fn begin(locks: &File) -> Result<Doing<'_>> {
        let end = Instant::now() + PATIENCE;
        while !map::lock(locks, Lock::Doing, Hold::Alone)? {
            if Instant::now() > end {
                return Err(busy());
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(Doing(locks))
    }
}

impl Drop for Doing<'_> {
    fn drop(&mut self) {
        // Fails only for want of memory in the kernel; closing the file gives it up as well.
        let _ = map::lock(self.0, Lock::Doing, Hold::Not);
    }
}

const STORE: &[u8] = b"store";
const STORE_FORMAT: u8 = 1;

/// The store's salt, and whether it seals; made, if the store is new. What it was made with cannot be changed later.
pub(super) fn salt(env: &Env, gate: &Gate, wishes: &Wishes) -> Result<([u8; SALT_LEN], bool)> {
    let described = |record: &[u8]| -> Result<([u8; SALT_LEN], bool)> {
        let Some(([STORE_FORMAT, seals, has_secret], salt)) = record.split_first_chunk() else {
            return Err(foreign("data.mdb"));
        };
        let salt = <[u8; SALT_LEN]>::try_from(salt).map_err(|_| foreign("data.mdb"))?;
        for (name, was, is) in [("seal", *seals, wishes.seals), ("secret_file", *has_secret, wishes.has_secret)] {
            if (was == 1) != is && !wishes.follows {
                let (was, is) = if was == 1 { ("with", "without") } else { ("without", "with") };
                let message = format!("the store was made {was} {name} and cannot be opened {is} it");
                return Err(Error::new(ErrorKind::Exists, message));
            }
        }
        Ok((salt, *seals == 1))
    };
    if let Some(record) = env.read()?.get(Table::Meta, STORE)? {
        return described(record);
    }
    let mut txn = env.write(gate)?;
    // Another process may have been here first.
    if let Some(record) = txn.get(Table::Meta, STORE)? {
        return described(record);
    }
    if txn.entries(Table::Sessions)? > 0 || wishes.follows {
        return Err(foreign("data.mdb"));
    }
    let salt = random::<SALT_LEN>()?;
    let mut record = vec![STORE_FORMAT, wishes.seals.into(), wishes.has_secret.into()];
    record.extend_from_slice(&*salt);
    txn.put(Table::Meta, STORE, &record)?;
    txn.commit()?;
    Ok((*salt, wishes.seals))
}

pub(super) fn busy() -> Error {
    Error::fixed(ErrorKind::Busy, "another process is opening or closing the store and takes too long")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::lmdb::fixture::Fixture;

    fn is_clean(open: &Open) -> bool {
        open.map.header().clean.load(Ordering::Acquire) == 1
    }

    #[test]
    fn a_store_does_not_count_as_whole_while_a_write_is_under_way() {
        let inside = Fixture::new("");
        let open = inside.open();
        let mut txn = open.write().unwrap();
        txn.put(Table::Meta, b"a key", b"a value").unwrap();
        thread::scope(|scope| {
            let leaving = scope.spawn(|| open.leave().unwrap());
            thread::sleep(Duration::from_millis(50));
            assert!(!is_clean(open), "what is being written is not on the disk");
            txn.commit().unwrap();
            leaving.join().unwrap();
        });
        assert!(is_clean(open));
        let txn = open.write().unwrap();
        assert!(!is_clean(open), "what is about to be written is not either");
        drop(txn);
    }

    #[test]
    fn who_leaves_in_the_middle_of_its_own_write_does_not_wait_for_itself() {
        let inside = Fixture::new("");
        let txn = inside.open().write().unwrap();
        inside.open().leave().unwrap();
        assert!(!is_clean(inside.open()));
        drop(txn);
        inside.open().leave().unwrap();
        assert!(is_clean(inside.open()));
    }
}
