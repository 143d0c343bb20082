//! How the files of a store are opened. A process that is alone looks at what is there before it
//! maps anything, quarantines data that a power cut may have torn, and sets the store's settings; a
//! process that finds others adopts theirs.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::MetadataExt,
    sync::atomic::{AtomicUsize, Ordering},
};

use super::{
    check::pages,
    deadline_index,
    directory::{Directory, file_len, newer_file, open_file, unrecognized_file},
    env::{Env, MAX_LOCK_FILE_LEN, Table},
    handle::Handle,
    locks::{self, LockRange, Locks},
    options::{DEFAULT_FILE_SIZE, OpenOptions},
    os::{self, LockMode, Reservation},
    shm::{self, HEADER_LEN, Layout, SharedMemory, ShmHeader},
};
use crate::{
    crypto::{keys::SALT_LEN, random::random},
    engine::registry::check_setting,
    error::{Error, ErrorKind, Result, one_line},
    os::clock,
    session::policy::NONE_REVOKED,
};

/// LMDB needs some room of its own, however little is to be stored.
const MIN_FILE_SIZE: u64 = 4 << 20;
/// No session takes less of the file, so one slot for so many bytes of it is enough.
const BYTES_PER_SLOT: u64 = 256;

/// The files of a store, opened.
struct Opened {
    env: Env,
    shm: SharedMemory,
    file_size: u64,
    /// A timeout is shorter than it was when the sessions were written.
    has_shorter_timeout: bool,
}

/// Opens the store in a directory, which this process must not have open already.
pub(super) fn open(directory: &Directory, options: &OpenOptions) -> Result<Handle> {
    let mut options = options.clone();
    // Only regular files: opening another kind of file may have effects.
    for path in [directory.data(), directory.lock(), directory.state()] {
        file_len(&path)?;
    }
    let locks = Locks::new(directory).map_err(|error| directory.name_in(error))?;
    let state = open_file(&directory.state())?;
    let guard = locks.begin_open_close()?;
    locks.check_only_copy()?;
    let is_alone = locks.try_lock(LockRange::Open, LockMode::Exclusive)?
        && locks.try_lock(LockRange::Closing, LockMode::Exclusive)?;
    let opened = if is_alone {
        locks.check_unused()?;
        open_exclusive(directory, &mut options, &state, locks.lmdb_file()).map_err(|error| directory.name_in(error))?
    } else {
        open_shared(directory, &mut options, &state, locks.lmdb_file())?
    };
    locks.take_over_from_lmdb()?;
    // Before the other lock is released, so that no other process can believe that it is alone.
    if !locks.try_lock(LockRange::Open, LockMode::Shared)? {
        return Err(locks::busy());
    }
    locks.try_lock(LockRange::Closing, LockMode::Unlocked)?;
    drop(guard);
    let Opened { env, shm, file_size, has_shorter_timeout } = opened;
    let (salt, seals) = store_record(&env, &shm, &options)?;
    let survives_power_cut = options.survives_power_cut;
    let claimed_pages = AtomicUsize::new(0);
    let handle = Handle { env, shm, locks, salt, seals, survives_power_cut, file_size, claimed_pages };
    if has_shorter_timeout {
        request_reindex(&handle)?;
    }
    if !is_alone {
        attach(&handle, &options)?;
    }
    Ok(handle)
}

/// Applies the stricter settings of another handle. `EXISTS` if its other settings differ from
/// those of the store.
pub(super) fn attach(handle: &Handle, options: &OpenOptions) -> Result<()> {
    if !options.keeps_settings {
        check_setting("durability", options.survives_power_cut, handle.survives_power_cut)?;
    }
    if let Some(manual) = options.manual_clock {
        check_setting("clock", manual, handle.clock().is_manual())?;
    }
    store_record(&handle.env, &handle.shm, options)?;
    if handle.policy().tighten(&options.policy) {
        request_reindex(handle)?;
    }
    Ok(())
}

/// Has the next sweep look at all sessions, some of which may be due earlier than the index says.
pub(super) fn request_reindex(handle: &Handle) -> Result<()> {
    let mut txn = handle.write()?;
    deadline_index::request_reindex(&mut txn)?;
    txn.commit()
}

/// No other process has the store open: looks at the files before they are mapped, and sets the
/// settings.
fn open_exclusive(directory: &Directory, options: &mut OpenOptions, state: &File, lock: &File) -> Result<Opened> {
    remove_leftover(directory)?;
    let mut data_len = file_len(&directory.data())?;
    let state_len = file_len(&directory.state())?;
    let old = match state_len {
        0 => None,
        len if len < HEADER_LEN as u64 => return Err(unrecognized_file("state.shm")),
        len => {
            // A hole in the file would be a signal if the disk is full.
            Reservation::new(state, HEADER_LEN as u64)?.commit();
            Some(SharedMemory::new(state, usize_of(len)?)?)
        }
    };
    let known = match old.as_ref().map_or(Layout::None, SharedMemory::layout) {
        Layout::None => None,
        Layout::Current | Layout::Previous => old.as_ref(),
        Layout::Newer => return Err(newer_file("state.shm")),
        Layout::Unknown => return Err(unrecognized_file("state.shm")),
    };
    if data_len > 0 && known.is_none() {
        // It is written before any data are.
        return Err(unrecognized_file("data.mdb"));
    }
    let is_consistent = known.is_some_and(is_consistent);
    let survived_power_cut = known.is_some_and(|known| known.header().survives_power_cut.load(Ordering::Acquire) == 1);
    let is_trusted = is_consistent || survived_power_cut;
    if options.keeps_settings {
        let Some(known) = known.filter(|_| is_trusted && data_len > 0) else {
            return Err(Error::fixed(
                ErrorKind::Corrupt,
                "the machine stopped while the store was open: its server will start with an empty store",
            ));
        };
        options.survives_power_cut = survived_power_cut;
        options.manual_clock = Some(known.clock().is_manual());
    }
    if data_len > 0 && !is_trusted {
        quarantine(directory)?;
        data_len = 0;
    }
    if let Some(known) = known.filter(|_| data_len > 0) {
        data_len = take_back_growth(directory, known.header(), data_len)?;
    }
    let wanted = if options.keeps_settings { Some(data_len) } else { options.policy().max_bytes };
    let wanted = wanted.unwrap_or(DEFAULT_FILE_SIZE).max(MIN_FILE_SIZE).next_multiple_of(64 << 10);
    let file_size = wanted.max(data_len);
    if let Some(known) = known.filter(|_| data_len > 0) {
        check_data(directory, known.header(), options, file_size)?;
    }

    if data_len == 0 || !is_consistent {
        // The slots are older than the sessions, or newer.
        shm::clear_slots(state)?;
    }
    // All disk space that is wanted, before anything is written through a map, where a full disk
    // would be a signal. First the question, for all files together; what is reserved is given back
    // if a later step fails.
    let state_size = shm::len_for((file_size / BYTES_PER_SLOT) as usize) as u64;
    let data = if data_len > 0 { Some(open_file(&directory.data())?) } else { None };
    let data_missing = data.as_ref().map_or(Ok(file_size), |data| os::missing_space(data, file_size))?;
    directory.check_space(
        os::missing_space(state, state_size)? + os::missing_space(lock, MAX_LOCK_FILE_LEN)? + data_missing,
    )?;
    if state_len > state_size {
        // Left by a process that was killed while it made the store larger.
        state.set_len(state_size).map_err(|error| os::failed("truncate state.shm", error))?;
    }
    let mut reservations = vec![Reservation::new(state, state_size)?, Reservation::new(lock, MAX_LOCK_FILE_LEN)?];
    if let Some(data) = &data {
        reservations.push(Reservation::new(data, file_size)?);
    }
    let timeouts_before = known.filter(|_| data_len > 0).map(|known| known.header().policy.timeouts());
    let shm = SharedMemory::new(state, usize_of(state_size)?)?;
    set_settings(&shm, options, data_len > 0, file_size);
    // Before anything is written to the data: from now on a power cut matters.
    shm.sync()?;
    directory.sync()?;

    if data_len == 0 {
        create_data(directory, file_size, options.survives_power_cut)?;
    }
    reservations.into_iter().for_each(Reservation::commit);
    if data_len == 0 {
        fs::rename(directory.data_tmp(), directory.data()).map_err(|error| os::failed("create data.mdb", error))?;
        directory.sync()?;
    }
    for (stored, inode) in shm.header().inodes.iter().zip(inodes(directory, lock)?) {
        stored.store(inode, Ordering::Release);
    }
    let env = Env::open(directory, usize_of(file_size)?, options.survives_power_cut)?;
    let last_transaction = if options.survives_power_cut { env.last_transaction()? } else { 0 };
    shm.header().writer_queue.reset();
    shm.header().commit_state.reset(last_transaction);
    let timeouts = shm.header().policy.timeouts();
    let has_shorter_timeout =
        timeouts_before.is_some_and(|before| timeouts.absolute < before.absolute || timeouts.idle < before.idle);
    Ok(Opened { env, shm, file_size, has_shorter_timeout })
}

/// Writes the settings that hold as long as any process has the store open.
fn set_settings(shm: &SharedMemory, options: &OpenOptions, has_data: bool, file_size: u64) {
    let header = shm.header();
    header.file_size.store(file_size, Ordering::Release);
    for (stored, now) in header.boot_id.iter().zip(os::boot_id()) {
        stored.store(now, Ordering::Release);
    }
    shm.set_clean(false);
    header.survives_power_cut.store(options.survives_power_cut.into(), Ordering::Release);
    header.manual_clock.store(u32::from(options.manual_clock == Some(true)), Ordering::Release);
    header.pid_namespace.store(os::pid_namespace(), Ordering::Release);
    if header.manual_ms.load(Ordering::Acquire) == 0 {
        header.manual_ms.store(clock::wall_ms(), Ordering::Release);
    }
    if options.keeps_settings {
        header.policy.tighten(&options.policy);
    } else {
        header.policy.reset(&options.policy());
    }
    if !has_data {
        header.disk_failed.store(0, Ordering::Release);
        header.policy.set_revoked_until(NONE_REVOKED);
    }
    shm.set_layout();
}

/// Other processes have the store open: adopts their settings.
fn open_shared(directory: &Directory, options: &mut OpenOptions, state: &File, lock: &File) -> Result<Opened> {
    let len = file_len(&directory.state())?;
    if len < HEADER_LEN as u64 {
        return Err(unrecognized_file("state.shm"));
    }
    let shm = SharedMemory::new(state, usize_of(len)?)?;
    let header = shm.header();
    match shm.layout() {
        Layout::Current => {}
        Layout::Newer => return Err(newer_file("state.shm")),
        _ => {
            return Err(Error::fixed(
                ErrorKind::Exists,
                "an earlier version of the library has the lmdb: store open: stop all its servers, then start them",
            ));
        }
    }
    if header.pid_namespace.load(Ordering::Acquire) != os::pid_namespace() {
        return Err(Error::fixed(
            ErrorKind::Unsupported,
            "the lmdb: store is open in another PID namespace (another container): let them share one, or use redis:",
        ));
    }
    let inodes = inodes(directory, lock)?;
    if header.inodes.iter().zip(inodes).any(|(stored, inode)| stored.load(Ordering::Acquire) != inode) {
        return Err(Error::fixed(
            ErrorKind::Corrupt,
            "data.mdb or lock.mdb was replaced while the store is open: stop all its servers, then start them",
        ));
    }
    let survives_power_cut = header.survives_power_cut.load(Ordering::Acquire) == 1;
    if options.keeps_settings {
        options.survives_power_cut = survives_power_cut;
    } else {
        check_setting("durability", options.survives_power_cut, survives_power_cut)?;
    }
    let file_size = file_len(&directory.data())?;
    let env = Env::open(directory, usize_of(file_size)?, survives_power_cut)?;
    Ok(Opened { env, shm, file_size, has_shorter_timeout: false })
}

/// What tells data.mdb and lock.mdb from other files that may get their names.
fn inodes(directory: &Directory, lock: &File) -> Result<[u64; 2]> {
    let failed = |error| os::failed("look at its files", error);
    let data = fs::metadata(directory.data()).map_err(failed)?;
    Ok([data.ino(), lock.metadata().map_err(failed)?.ino()])
}

/// Whether data and slots are as they were left: in this boot of the machine, or on the disk since.
fn is_consistent(shm: &SharedMemory) -> bool {
    let is_this_boot =
        shm.header().boot_id.iter().zip(os::boot_id()).all(|(stored, now)| stored.load(Ordering::Acquire) == now);
    is_this_boot || shm.is_clean()
}

/// Checks the data before they are mapped, and has them on the disk if they have to survive a power
/// cut.
fn check_data(directory: &Directory, header: &ShmHeader, options: &OpenOptions, file_size: u64) -> Result<()> {
    let data = open_file(&directory.data())?;
    if options.survives_power_cut && header.disk_failed.load(Ordering::Acquire) != 0 {
        os::drop_cache(&data);
    }
    pages::check(&data, file_size).map_err(|why| {
        let message = format!("data.mdb is damaged ({why}): move it away to start with an empty store");
        Error::new(ErrorKind::Corrupt, message)
    })?;
    if options.survives_power_cut {
        // They may have been written without waiting for the disk, and the settings are about to
        // say that they are there.
        let synced = data.sync_data().map_err(|error| os::failed("write data.mdb to disk", error));
        header.disk_failed.store(synced.is_err().into(), Ordering::Release);
        synced?;
    }
    Ok(())
}

/// Takes back what a process has added to data.mdb that was killed before it had reserved all that
/// it wanted. Returns the length of the file.
fn take_back_growth(directory: &Directory, header: &ShmHeader, data_len: u64) -> Result<u64> {
    let reserved = header.file_size.load(Ordering::Acquire);
    if !(MIN_FILE_SIZE..data_len).contains(&reserved) {
        return Ok(data_len);
    }
    let data = open_file(&directory.data())?;
    // Not if the header is damaged and the file is used beyond that.
    if pages::check(&data, reserved).is_err() {
        return Ok(data_len);
    }
    data.set_len(reserved).map_err(|error| os::failed("truncate data.mdb", error))?;
    Ok(reserved)
}

/// Creates data.mdb under another name, all of it or nothing.
fn create_data(directory: &Directory, size: u64, survives_power_cut: bool) -> Result<()> {
    let created = fill_data(directory, size, survives_power_cut);
    if created.is_err() {
        let _ = fs::remove_file(directory.data_tmp());
    }
    created
}

fn fill_data(directory: &Directory, size: u64, survives_power_cut: bool) -> Result<()> {
    let path = directory.data_tmp();
    Env::create_data_file(&path, usize_of(size)?)?;
    let data = open_file(&path)?;
    Reservation::new(&data, size)?.commit();
    if survives_power_cut {
        data.sync_data().map_err(|error| os::failed("write data.mdb to disk", error))?;
    }
    Ok(())
}

/// Removes what a process has left that was killed while it created data.mdb.
fn remove_leftover(directory: &Directory) -> Result<()> {
    match fs::remove_file(directory.data_tmp()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(os::failed("remove data.mdb.tmp", error)),
        _ => Ok(()),
    }
}

/// Moves data of before a power cut out of the way.
fn quarantine(directory: &Directory) -> Result<()> {
    let quarantined = directory.quarantined();
    fs::rename(directory.data(), &quarantined).map_err(|error| os::failed("move old data away", error))?;
    let notice = format!(
        "sss: the machine stopped while the lmdb: store in {} was open with durability=process: its sessions are moved to \
         {} and the store starts empty",
        directory.path.display(),
        quarantined.display()
    );
    // The operator must learn why all users are logged out. `eprintln!` would panic if stderr is
    // closed.
    let _ = writeln!(io::stderr(), "{}", one_line(notice.into()));
    Ok(())
}

/// In `Table::Meta`: how the store was made.
const STORE: &[u8] = b"store";
const STORE_FORMAT: u8 = 2;

/// The store's salt, and whether it seals; made if the store is new. What it was made with cannot
/// be changed later.
fn store_record(env: &Env, shm: &SharedMemory, options: &OpenOptions) -> Result<([u8; SALT_LEN], bool)> {
    if let Some(record) = env.read()?.get(Table::Meta, STORE)? {
        return parse_store_record(record, options);
    }
    let mut txn = env.write(&shm.header().writer_queue)?;
    // Another process may have been here first.
    if let Some(record) = txn.get(Table::Meta, STORE)? {
        return parse_store_record(record, options);
    }
    if txn.entries(Table::Sessions)? > 0 || options.keeps_settings {
        return Err(unrecognized_file("data.mdb"));
    }
    let salt = random::<SALT_LEN>()?;
    let mut record = vec![STORE_FORMAT, options.seals.into(), options.has_secret.into()];
    record.extend_from_slice(&*salt);
    txn.put(Table::Meta, STORE, &record)?;
    txn.commit()?;
    Ok((*salt, options.seals))
}

fn parse_store_record(record: &[u8], options: &OpenOptions) -> Result<([u8; SALT_LEN], bool)> {
    let (seals, has_secret, salt) = match record.split_first_chunk() {
        Some(([STORE_FORMAT, seals, has_secret], salt)) => (seals, has_secret, salt),
        Some(([newer, ..], _)) if *newer > STORE_FORMAT => return Err(newer_file("data.mdb")),
        _ => return Err(unrecognized_file("data.mdb")),
    };
    let salt = <[u8; SALT_LEN]>::try_from(salt).map_err(|_| unrecognized_file("data.mdb"))?;
    for (name, was, is) in [("seal", *seals, options.seals), ("secret_file", *has_secret, options.has_secret)] {
        if (was == 1) != is && !options.keeps_settings {
            let (was, is) = if was == 1 { ("with", "without") } else { ("without", "with") };
            let message = format!("the store was made {was} {name} and cannot be opened {is} it");
            return Err(Error::new(ErrorKind::Exists, message));
        }
    }
    Ok((salt, *seals == 1))
}

fn usize_of(size: u64) -> Result<usize> {
    usize::try_from(size).map_err(|_| Error::fixed(ErrorKind::Unsupported, "max_bytes is too large for this machine"))
}
