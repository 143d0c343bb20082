//! How a directory is opened: whoever is alone looks at what is there before it is mapped, begins anew what was torn, and
//! sets the rules; whoever comes later follows what the others agreed on.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
    sync::atomic::Ordering,
};

use super::{
    database::{Doing, MAX_BYTES, Open, Wishes, busy, salt},
    ffi::{Env, READERS},
    files::{self, Directory},
    group::Group,
    map::{self, Hold, Lock, Locks, MAGIC, Map, ShmHeader},
    verify,
};
use crate::{
    error::{Error, ErrorKind, Result, one_line},
    os::clock,
};

/// LMDB needs some room of its own, however little is to be stored.
const SMALLEST_FILE: u64 = 4 << 20;
/// No session takes less of the file, so this many bytes of it for each cell are enough.
const BYTES_PER_CELL: u64 = 256;
/// What LMDB takes for its readers, and a page for its own.
const LOCK_FILE: u64 = (READERS as u64) * 64 + 4096;

impl Open {
    pub(super) fn new(directory: &Directory, wishes: &Wishes) -> Result<Open> {
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
        let (salt, seals) = salt(&env, &map.header().gate, &wishes)?;
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
        let known = match old.as_ref().map_or(0, |old| old.header().magic.load(Ordering::Acquire)) {
            0 => None,
            MAGIC => old.as_ref().map(Map::header),
            _ => return Err(foreign("sss.map")),
        };
        if there > 0 && known.is_none() {
            // Written before any data is.
            return Err(foreign("data.mdb"));
        }
        let is_untorn = known.is_some_and(is_untorn);
        let is_whole = is_untorn || known.is_some_and(|header| header.survives_power_cut.load(Ordering::Acquire) == 1);
        if wishes.follows {
            let Some(header) = known.filter(|_| is_whole && there > 0) else {
                return Err(Error::fixed(
                    ErrorKind::Corrupt,
                    "the machine stopped while the store was open: its server will begin anew",
                ));
            };
            wishes.survives_power_cut = header.survives_power_cut.load(Ordering::Acquire) == 1;
            wishes.manual_clock = Some(header.manual_clock.load(Ordering::Acquire) == 1);
        }
        if there > 0 && !is_whole {
            set_aside(directory)?;
            there = 0;
        }
        let wanted = if wishes.follows { Some(there) } else { wishes.policy().max_bytes };
        let wanted = wanted.unwrap_or(MAX_BYTES).max(SMALLEST_FILE).next_multiple_of(64 << 10);
        let file_size = wanted.max(there);
        if let Some(header) = known.filter(|_| there > 0) {
            check_data(directory, header, wishes, file_size)?;
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
        let header = map.header();
        let before = known.filter(|_| there > 0).map(|header| header.policy.timeouts());
        let boot = files::boot();
        header.boot.iter().zip(boot).for_each(|(kept, now)| kept.store(now, Ordering::Release));
        header.clean.store(0, Ordering::Release);
        header.survives_power_cut.store(wishes.survives_power_cut.into(), Ordering::Release);
        header.manual_clock.store(u32::from(wishes.manual_clock == Some(true)), Ordering::Release);
        header.pid_namespace.store(files::pid_namespace(), Ordering::Release);
        if header.manual_ms.load(Ordering::Acquire) == 0 {
            header.manual_ms.store(clock::wall_ms(), Ordering::Release);
        }
        if !wishes.follows {
            header.policy.reset(&wishes.policy());
        } else {
            header.policy.tighten(&wishes.policy);
        }
        if there == 0 {
            header.disk_failed.store(0, Ordering::Release);
        }
        header.magic.store(MAGIC, Ordering::Release);
        // Before anything is written to the data: from now on a power cut matters.
        map.sync()?;
        directory.sync()?;

        if there == 0 {
            make_data(directory, file_size, wishes.survives_power_cut)?;
        }
        let env = Env::open(&directory.path, usize_of(file_size)?, wishes.survives_power_cut)?;
        map.header().gate.reset();
        map.header().group.reset(if wishes.survives_power_cut { env.last_transaction()? } else { 0 });
        let now = map.header().policy.timeouts();
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
        if map.header().magic.load(Ordering::Acquire) != MAGIC {
            return Err(Error::fixed(ErrorKind::Exists, "another version of the library has the lmdb: store open"));
        }
        if map.header().pid_namespace.load(Ordering::Acquire) != files::pid_namespace() {
            return Err(Error::fixed(
                ErrorKind::Unsupported,
                "the lmdb: store is open in another PID namespace (another container): let them share one, or use redis:",
            ));
        }
        let survives_power_cut = map.header().survives_power_cut.load(Ordering::Acquire) == 1;
        if wishes.follows {
            wishes.survives_power_cut = survives_power_cut;
        } else if survives_power_cut != wishes.survives_power_cut {
            return Err(Error::fixed(ErrorKind::Exists, "the store is already open with another durability"));
        }
        let file_size = length(&directory.data())?;
        let env = Env::open(&directory.path, usize_of(file_size)?, wishes.survives_power_cut)?;
        Ok((env, map, file_size, false))
    }
}

/// Whether all is as it was left: in this boot of the machine, or on the disk since.
fn is_untorn(header: &ShmHeader) -> bool {
    let here = header.boot.iter().zip(files::boot()).all(|(kept, now)| kept.load(Ordering::Acquire) == now);
    here || header.clean.load(Ordering::Acquire) == 1
}

/// Looks at the data before they are mapped, and has them on the disk where they shall outlive a power cut.
fn check_data(directory: &Directory, header: &ShmHeader, wishes: &Wishes, file_size: u64) -> Result<()> {
    let data = files::open(&directory.data())?;
    if wishes.survives_power_cut && header.disk_failed.load(Ordering::Acquire) != 0 {
        map::forget_cached(&data);
    }
    verify::verify(&data, file_size).map_err(|why| {
        let message = format!("data.mdb is damaged ({why}): move it away to begin a new store");
        Error::new(ErrorKind::Corrupt, message)
    })?;
    if wishes.survives_power_cut {
        // They may have been written without waiting for the disk, and the map is about to say that they are there.
        let synced = data.sync_data().map_err(|error| files::failed("write data.mdb to disk", error));
        header.disk_failed.store(synced.is_err().into(), Ordering::Release);
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
    let notice = format!(
        "sss: the machine stopped while the lmdb: store in {} was open with durability=process: its sessions are set aside \
         as {} and a new store begins",
        directory.path.display(),
        aside.display()
    );
    // The operator must learn why all users are logged out. `eprintln!` would panic where stderr is closed.
    let _ = writeln!(io::stderr(), "{}", one_line(notice.into()));
    Ok(())
}

pub(super) fn length(path: &Path) -> Result<u64> {
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

pub(super) fn foreign(name: &str) -> Error {
    let message = format!(
        "{name} is damaged, or not a file of this library: if the directory belongs to the store, move all files in it away"
    );
    Error::new(ErrorKind::Corrupt, message)
}
