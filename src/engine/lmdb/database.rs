//! One directory, open in this process: found again by all handles to it, whatever the spelling of its path; opened anew by
//! a forked child; checked before it is mapped by whoever opens it alone; and marked as whole by whoever closes it last.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
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
    ffi::{Env, READERS, Table, WriteTxn},
    files::{self, Directory},
    gate::Gate,
    group::{self, Group},
    map::{self, Head, Hold, Lock, Locks, MAGIC, Map},
    verify,
};
use crate::{
    clock::{self, Clock},
    engine::Context,
    error::{Error, ErrorKind, Result},
    fork::{self, PerProcess},
    key::{self, SALT},
    policy::{Policy, PolicyOptions},
    url::Url,
};

/// The file's size unless `max_bytes` says otherwise: 256 MiB.
const MAX_BYTES: u64 = 256 << 20;
/// LMDB needs some room of its own, however little is to be stored.
const SMALLEST_FILE: u64 = 4 << 20;
/// No session takes less of the file, so this many bytes of it for each cell are enough.
const BYTES_PER_CELL: u64 = 256;
/// What LMDB takes for its readers, and a page for its own.
const LOCK_FILE: u64 = (READERS as u64) * 64 + 4096;
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

    fn policy(&self) -> PolicyOptions {
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
    pub salt: [u8; SALT],
    pub seals: bool,
    /// In bytes.
    pub file_size: u64,
    locks: Locks,
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
                    let database = Arc::new(Database { open, generation: fork::generation(), identity });
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
        if self.generation != fork::generation() {
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
    fn new(directory: &Directory, wishes: &Wishes) -> Result<Open> {
        let mut wishes = wishes.clone();
        // Only files: opening something else may do more than that.
        [directory.data(), directory.lock(), directory.map()].iter().try_for_each(|path| length(path).map(drop))?;
        let open_map = || files::open(&directory.map()).map_err(|error| files::on_full_disk(directory, error));
        // Opened twice: a map keeps the file open that it is of, also in a forked child, and with it the locks.
        let (locks, file) = (Locks::new(open_map()?), open_map()?);
        let doing = Doing::begin(&locks)?;
        let alone = map::lock(&locks, Lock::Using, Hold::Alone)? && map::lock(&locks, Lock::Leaving, Hold::Alone)?;
        let (env, map, file_size, is_shorter) = match alone {
            true => {
                Open::alone(directory, &mut wishes, &file).map_err(|error| files::on_full_disk(directory, error))?
            }
            false => Open::beside_others(directory, &mut wishes, &file)?,
        };
        // Before the other lock is given up, so that nobody else can believe to be alone.
        if !map::lock(&locks, Lock::Using, Hold::Shared)? {
            return Err(busy());
        }
        map::lock(&locks, Lock::Leaving, Hold::Not)?;
        drop(doing);
        let (salt, seals) = salt(&env, &map.head().gate, &wishes)?;
        let group = match wishes.survives_power_cut {
            true => Some(Group::new(files::open(&directory.data())?)),
            false => None,
        };
        let open = Open { env, map, group, salt, seals, file_size, locks };
        if is_shorter {
            open.arm_anew()?;
        }
        if !alone {
            open.join(&wishes)?;
        }
        Ok(open)
    }

    /// Nobody else has the store open: looks at what is there before it is mapped, and sets the rules.
    fn alone(directory: &Directory, wishes: &mut Wishes, file: &File) -> Result<(Env, Map, u64, bool)> {
        let mut there = length(&directory.data())?;
        let map_len = length(&directory.map())?;
        let old = match map_len {
            0 => None,
            len if len < map::size_for(0) as u64 => return Err(foreign("sss.map")),
            len => Some(Map::new(file, usize_of(len)?)?),
        };
        let known = match old.as_ref().map_or(0, |old| old.head().magic.load(Ordering::Acquire)) {
            0 => None,
            MAGIC => old.as_ref().map(Map::head),
            _ => return Err(foreign("sss.map")),
        };
        if there > 0 && known.is_none() {
            // Written before any data is.
            return Err(foreign("data.mdb"));
        }
        let is_untorn = known.is_some_and(is_untorn);
        let is_whole = is_untorn || known.is_some_and(|head| head.survives_power_cut.load(Ordering::Acquire) == 1);
        if wishes.follows {
            let Some(head) = known.filter(|_| is_whole && there > 0) else {
                return Err(Error::fixed(
                    ErrorKind::Corrupt,
                    "the machine stopped while the store was open: its server will begin anew",
                ));
            };
            wishes.survives_power_cut = head.survives_power_cut.load(Ordering::Acquire) == 1;
            wishes.manual_clock = Some(head.manual_clock.load(Ordering::Acquire) == 1);
        }
        if there > 0 && !is_whole {
            set_aside(directory)?;
            there = 0;
        }
        let wanted = if wishes.follows { Some(there) } else { wishes.policy().max_bytes };
        let wanted = wanted.unwrap_or(MAX_BYTES).max(SMALLEST_FILE).next_multiple_of(64 << 10);
        let file_size = wanted.max(there);
        if let Some(head) = known.filter(|_| there > 0) {
            check_data(directory, head, wishes, file_size)?;
        }

        if there == 0 || !is_untorn {
            // They are older than the sessions, or newer.
            map::clear_cells(file)?;
        }
        // All of the disk that is wanted, before anything is written to it through a map: there it would be a signal if the
        // disk is full.
        let cells = (file_size / BYTES_PER_CELL) as usize;
        let len = map::size_for(cells).max(map_len as usize);
        map::reserve(file, len as u64)?;
        // LMDB makes what of it is missing in a map.
        map::reserve(&files::open(&directory.lock())?, LOCK_FILE)?;
        if there > 0 {
            let data = files::open(&directory.data())?;
            // As it was; that this fails as well is no worse.
            map::reserve(&data, file_size).inspect_err(|_| _ = data.set_len(there))?;
        }
        let map = Map::new(file, len)?;
        let head = map.head();
        let before = known.filter(|_| there > 0).map(|head| head.policy.timeouts());
        let boot = files::boot();
        head.boot.iter().zip(boot).for_each(|(kept, now)| kept.store(now, Ordering::Release));
        head.clean.store(0, Ordering::Release);
        head.survives_power_cut.store(wishes.survives_power_cut.into(), Ordering::Release);
        head.manual_clock.store(u32::from(wishes.manual_clock == Some(true)), Ordering::Release);
        head.pid_namespace.store(files::pid_namespace(), Ordering::Release);
        if head.manual_ms.load(Ordering::Acquire) == 0 {
            head.manual_ms.store(clock::wall_ms(), Ordering::Release);
        }
        if !wishes.follows {
            head.policy.reset(&wishes.policy());
        } else {
            head.policy.tighten(&wishes.policy);
        }
        if there == 0 {
            head.disk_failed.store(0, Ordering::Release);
        }
        head.magic.store(MAGIC, Ordering::Release);
        // Before anything is written to the data: from now on a power cut matters.
        map.sync()?;
        directory.sync()?;

        if there == 0 {
            make_data(directory, file_size, wishes.survives_power_cut)?;
        }
        let env = Env::open(&directory.path, usize_of(file_size)?, wishes.survives_power_cut)?;
        map.head().gate.reset();
        map.head().group.reset(if wishes.survives_power_cut { env.last_transaction()? } else { 0 });
        let now = map.head().policy.timeouts();
        let is_shorter = before.is_some_and(|before| now.absolute < before.absolute || now.idle < before.idle);
        Ok((env, map, file_size, is_shorter))
    }

    /// Others have the store open: follows what they agreed on.
    fn beside_others(directory: &Directory, wishes: &mut Wishes, file: &File) -> Result<(Env, Map, u64, bool)> {
        let len = length(&directory.map())?;
        if len < map::size_for(0) as u64 {
            return Err(foreign("sss.map"));
        }
        let map = Map::new(file, usize_of(len)?)?;
        if map.head().magic.load(Ordering::Acquire) != MAGIC {
            return Err(Error::fixed(ErrorKind::Exists, "another version of the library has the lmdb: store open"));
        }
        if map.head().pid_namespace.load(Ordering::Acquire) != files::pid_namespace() {
            return Err(Error::fixed(
                ErrorKind::Unsupported,
                "the lmdb: store is open in another PID namespace (another container): let them share one, or use redis:",
            ));
        }
        let survives_power_cut = map.head().survives_power_cut.load(Ordering::Acquire) == 1;
        if wishes.follows {
            wishes.survives_power_cut = survives_power_cut;
        } else if survives_power_cut != wishes.survives_power_cut {
            return Err(Error::fixed(ErrorKind::Exists, "the store is already open with another durability"));
        }
        let file_size = length(&directory.data())?;
        let env = Env::open(&directory.path, usize_of(file_size)?, wishes.survives_power_cut)?;
        Ok((env, map, file_size, false))
    }

    /// Takes over the stricter settings of one more who opened it.
    fn join(&self, wishes: &Wishes) -> Result<()> {
        let head = self.map.head();
        if !wishes.follows && (head.survives_power_cut.load(Ordering::Acquire) == 1) != wishes.survives_power_cut {
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
        &self.map.head().policy
    }

    /// Where writers wait for their turn.
    pub(super) fn gate(&self) -> &Gate {
        &self.map.head().gate
    }

    /// What writers who wait for the disk tell one another.
    pub(super) fn shared(&self) -> &group::Shared {
        &self.map.head().group
    }

    fn clock(&self) -> Clock<'_> {
        match self.map.head().manual_clock.load(Ordering::Acquire) {
            0 => Clock::Wall,
            _ => Clock::Manual(&self.map.head().manual_ms),
        }
    }

    pub(super) fn context(&self) -> Context<'_> {
        Context { clock: self.clock(), policy: self.policy(), counters: &self.map.head().counters }
    }

    /// Begins to write, when nobody else does. What was whole on the disk will not be, and that is there first: in the same
    /// turn, so that `leave` either sees what is written or comes before it.
    pub(super) fn write(&self) -> Result<WriteTxn<'_>> {
        let txn = self.env.write(self.gate())?;
        let clean = &self.map.head().clean;
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
        match self.map.head().disk_failed.load(Ordering::Acquire) {
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
            self.map.head().disk_failed.store(1, Ordering::Release);
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
        let clean = &self.map.head().clean;
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
struct Doing<'a>(&'a File);

impl Doing<'_> {
    fn begin(locks: &File) -> Result<Doing<'_>> {
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
fn salt(env: &Env, gate: &Gate, wishes: &Wishes) -> Result<([u8; SALT], bool)> {
    let described = |record: &[u8]| -> Result<([u8; SALT], bool)> {
        let Some(([STORE_FORMAT, seals, has_secret], salt)) = record.split_first_chunk() else {
            return Err(foreign("data.mdb"));
        };
        let salt = <[u8; SALT]>::try_from(salt).map_err(|_| foreign("data.mdb"))?;
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
    let salt = key::random::<SALT>()?;
    let mut record = vec![STORE_FORMAT, wishes.seals.into(), wishes.has_secret.into()];
    record.extend_from_slice(&*salt);
    txn.put(Table::Meta, STORE, &record)?;
    txn.commit()?;
    Ok((*salt, wishes.seals))
}

/// Whether all is as it was left: in this boot of the machine, or on the disk since.
fn is_untorn(head: &Head) -> bool {
    let here = head.boot.iter().zip(files::boot()).all(|(kept, now)| kept.load(Ordering::Acquire) == now);
    here || head.clean.load(Ordering::Acquire) == 1
}

/// Looks at the data before they are mapped, and has them on the disk where they shall outlive a power cut.
fn check_data(directory: &Directory, head: &Head, wishes: &Wishes, file_size: u64) -> Result<()> {
    let data = files::open(&directory.data())?;
    if wishes.survives_power_cut && head.disk_failed.load(Ordering::Acquire) != 0 {
        map::forget_cached(&data);
    }
    verify::verify(&data, file_size).map_err(|why| {
        let message = format!("data.mdb is damaged ({why}): move it away to begin a new store");
        Error::new(ErrorKind::Corrupt, message)
    })?;
    if wishes.survives_power_cut {
        // They may have been written without waiting for the disk, and the map is about to say that they are there.
        let synced = data.sync_data().map_err(|error| files::failed("write data.mdb to disk", error));
        head.disk_failed.store(synced.is_err().into(), Ordering::Release);
        synced?;
    }
    Ok(())
}

/// Makes the data, all of them or none.
fn make_data(directory: &Directory, size: u64, survives_power_cut: bool) -> Result<()> {
    let making = directory.making();
    match fs::remove_file(&making) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(files::failed("remove making.mdb", error)),
        _ => {}
    }
    let made = Env::make(&making, usize_of(size)?)
        .and_then(|()| files::open(&making))
        .and_then(|data| {
            map::reserve(&data, size)?;
            let synced = if survives_power_cut { data.sync_data() } else { Ok(()) };
            synced.map_err(|error| files::failed("write data.mdb to disk", error))
        })
        .and_then(|()| fs::rename(&making, directory.data()).map_err(|error| files::failed("make data.mdb", error)))
        .and_then(|()| directory.sync());
    if made.is_err() {
        let _ = fs::remove_file(&making);
    }
    made
}

/// Puts data of before a power cut out of the way.
fn set_aside(directory: &Directory) -> Result<()> {
    let aside = directory.set_aside();
    fs::rename(directory.data(), &aside).map_err(|error| files::failed("set old data aside", error))?;
    // An operator must know why everybody is logged out, and no caller asks.
    eprintln!(
        "sss: the machine stopped while the lmdb: store in {} was open with durability=process: its sessions are set aside \
         as {} and a new store begins",
        directory.path.display(),
        aside.display()
    );
    Ok(())
}

fn length(path: &Path) -> Result<u64> {
    match fs::symlink_metadata(path) {
        Ok(about) if about.is_file() => Ok(about.len()),
        Ok(_) => Err(foreign(&path.file_name().unwrap_or_default().to_string_lossy())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(files::failed("look at its files", error)),
    }
}

fn usize_of(size: u64) -> Result<usize> {
    usize::try_from(size).map_err(|_| Error::fixed(ErrorKind::Unsupported, "max_bytes is too large for this machine"))
}

fn foreign(name: &str) -> Error {
    let message = format!(
        "{name} is damaged, or not a file of this library: if the directory belongs to the store, move all files in it away"
    );
    Error::new(ErrorKind::Corrupt, message)
}

fn busy() -> Error {
    Error::fixed(ErrorKind::Busy, "another process is opening or closing the store and takes too long")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::lmdb::fixture::Fixture;

    fn is_clean(open: &Open) -> bool {
        open.map.head().clean.load(Ordering::Acquire) == 1
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
