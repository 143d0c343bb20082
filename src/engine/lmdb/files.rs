//! The directory of a store: who may have it, what kind of disk it may be on, and the names in it.
//!
//! ```text
//! data.mdb  lock.mdb    LMDB's
//! sss.map               what the processes share beside it (see `map`)
//! set-aside.mdb         the data of before a power cut, if there was one
//! making.mdb            data.mdb while it is made
//! ```

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::map;
use crate::error::{Error, ErrorKind, Result};

/// A directory that was looked at.
pub(super) struct Directory {
    pub path: PathBuf,
    /// Device and inode: the same for every spelling of the path.
    pub identity: (u64, u64),
    file: File,
}

impl Directory {
    /// Opens the directory, which is made if it is not there. Refuses one that others may write to or look into, and file
    /// systems that cannot share a map or its locks between processes.
    pub(super) fn open(path: &Path) -> Result<Directory> {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("make the directory", error));
            }
            Err(_) => {}
            Ok(()) => {
                // So that its name survives a power cut. Not where its parent may be written to and not be read.
                if let Some(parent) = path.parent().and_then(|parent| File::open(parent).ok()) {
                    parent.sync_all().map_err(|error| failed("write the directory to disk", error))?;
                }
            }
        }
        let file = File::open(path).map_err(|error| failed("open the directory", error))?;
        let about = file.metadata().map_err(|error| failed("look at the directory", error))?;
        if !about.is_dir() {
            return Err(refused("is not a directory"));
        }
        if about.uid() != map::user() {
            return Err(refused("belongs to another user"));
        }
        if about.mode() & 0o077 != 0 && is_shared(path, about.mode()) {
            return Err(refused(
                "is used for other files too: name a directory of its own, which is created if missing",
            ));
        }
        if about.mode() & 0o077 != 0 {
            return Err(refused("is open to other users: chmod it to 0700"));
        }
        if let Some(name) = unfit(map::file_system(&file)?) {
            let message = format!("lmdb: cannot be on {name}: its processes could not share it safely");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        // Not as it was spelled: the process may change its own directory, or the link may change.
        let path = fs::canonicalize(path).map_err(|error| failed("look at the directory", error))?;
        Ok(Directory { path, identity: (about.dev(), about.ino()), file })
    }

    pub(super) fn data(&self) -> PathBuf {
        self.path.join("data.mdb")
    }

    pub(super) fn map(&self) -> PathBuf {
        self.path.join("sss.map")
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.path.join("lock.mdb")
    }

    pub(super) fn making(&self) -> PathBuf {
        self.path.join("making.mdb")
    }

    pub(super) fn set_aside(&self) -> PathBuf {
        self.path.join("set-aside.mdb")
    }

    /// Makes the names in it survive a power cut.
    pub(super) fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|error| failed("write the directory to disk", error))
    }
}

/// Whether a directory serves other purposes, as `/`, `/tmp` and `/usr` do: changing its mode would break those.
fn is_shared(path: &Path, mode: u32) -> bool {
    let is_ours = |name: &OsStr| name.to_string_lossy().contains(".mdb") || name == "sss.map";
    let is_top_level = fs::canonicalize(path).is_ok_and(|path| path.components().count() <= 2);
    let is_sticky = mode & libc::S_ISVTX != 0;
    is_top_level
        || is_sticky
        || fs::read_dir(path).is_ok_and(|list| list.flatten().any(|entry| !is_ours(&entry.file_name())))
}

/// File systems on which memory maps or locks are not shared as they must be, by the numbers of statfs(2).
fn unfit(kind: u64) -> Option<&'static str> {
    Some(match kind & 0xFFFF_FFFF {
        0x6969 => "NFS",
        0x517B | 0xFF53_4D42 | 0xFE53_4D42 => "SMB",
        0x0102_1997 => "9P",
        0x6573_5546 => "FUSE",
        0x00C3_6400 => "Ceph",
        0x5346_414F | 0x6B41_4653 => "AFS",
        _ => return None,
    })
}

/// The number of this boot of the machine; zeros where the system has none.
pub(super) fn boot() -> [u64; 2] {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let half = |range| digits.get(range).and_then(|half| u64::from_str_radix(half, 16).ok()).unwrap_or(0);
    [half(0..16), half(16..32)]
}

/// The namespace in which this process's number counts. LMDB tells processes apart by their numbers.
pub(super) fn pid_namespace() -> u64 {
    fs::metadata("/proc/self/ns/pid").map_or(0, |about| about.ino())
}

/// Opens or makes one of the files.
pub(super) fn open(path: &Path) -> Result<File> {
    let flags = libc::O_CLOEXEC | libc::O_NOFOLLOW;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
    let name = path.file_name().unwrap_or_default().display();
    options.open(path).map_err(|error| failed(&format!("open {name}"), error))
}

/// Says which disk it is that is full.
pub(super) fn on_full_disk(directory: &Directory, error: Error) -> Error {
    if error.kind() != ErrorKind::Full {
        return error;
    }
    let path = directory.path.display();
    Error::new(ErrorKind::Full, format!("the disk of {path} has no room for the lmdb: store: see max_bytes"))
}

pub(super) fn failed(what: &str, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
        io::ErrorKind::OutOfMemory => ErrorKind::NoMem,
        _ => ErrorKind::Io,
    };
    Error::with_source(kind, format!("the lmdb: store failed to {what}: {error}"), error)
}

fn refused(why: &str) -> Error {
    Error::new(ErrorKind::Io, format!("the directory of the lmdb: store {why}"))
}
