//! The directory of a store: which directories and file systems are accepted, and the names of the
//! files in it.
//!
//! ```text
//! data.mdb  lock.mdb      LMDB's files
//! state.shm               what the processes share beside LMDB (see `shm`)
//! data.mdb.quarantined    the data of before a power cut, if there was one
//! data.mdb.tmp            data.mdb while it is created
//! ```

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::os;
use crate::error::{Error, ErrorKind, Result};

pub(super) const DATA: &str = "data.mdb";
const LOCK: &str = "lock.mdb";
const STATE: &str = "state.shm";

/// A directory that was found acceptable.
pub(super) struct Directory {
    pub path: PathBuf,
    /// Device and inode: the same for every spelling of the path.
    pub identity: (u64, u64),
    file: File,
}

impl Directory {
    /// Opens the directory, which is created if it does not exist. Refuses a directory that other
    /// users can write to or look into, and file systems on which the promises of a store do not
    /// hold.
    pub(super) fn open(path: &Path) -> Result<Directory> {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(os::failed("create the directory", error));
            }
            Err(_) => {}
            Ok(()) => {
                // So that its name survives a power cut. Not if the parent can be written to but
                // not read.
                if let Some(parent) = path.parent().and_then(|parent| File::open(parent).ok()) {
                    parent.sync_all().map_err(|error| os::failed("write the directory to disk", error))?;
                }
            }
        }
        let file = File::open(path).map_err(|error| os::failed("open the directory", error))?;
        let about = file.metadata().map_err(|error| os::failed("look at the directory", error))?;
        if !about.is_dir() {
            return Err(refused("is not a directory"));
        }
        if about.uid() != rustix::process::geteuid().as_raw() {
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
        if let Some(reason) = unsuitable(os::file_system(&file)?) {
            return Err(Error::new(ErrorKind::Unsupported, format!("lmdb: cannot be on {reason}")));
        }
        // Not as it was spelled: the process may change its working directory, or the link may
        // change.
        let path = fs::canonicalize(path).map_err(|error| os::failed("look at the directory", error))?;
        Ok(Directory { path, identity: (about.dev(), about.ino()), file })
    }

    pub(super) fn data(&self) -> PathBuf {
        self.path.join(DATA)
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.path.join(LOCK)
    }

    pub(super) fn state(&self) -> PathBuf {
        self.path.join(STATE)
    }

    pub(super) fn data_tmp(&self) -> PathBuf {
        self.path.join("data.mdb.tmp")
    }

    pub(super) fn quarantined(&self) -> PathBuf {
        self.path.join("data.mdb.quarantined")
    }

    /// Makes the names in it survive a power cut.
    pub(super) fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|error| os::failed("write the directory to disk", error))
    }

    /// `FULL` unless its disk has this much space left.
    pub(super) fn check_space(&self, wanted: u64) -> Result<()> {
        os::check_space(&self.file, wanted)
    }

    /// Names the disk in an error that says that it is full.
    pub(super) fn name_in(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::Full {
            return error;
        }
        let path = self.path.display();
        Error::new(ErrorKind::Full, format!("the disk of {path} has no room for the lmdb: store: see max_bytes"))
    }
}

/// Whether a directory serves other purposes, as `/`, `/tmp` and `/usr` do: changing its mode would
/// break those.
fn is_shared(path: &Path, mode: u32) -> bool {
    let is_own_file = |name: &OsStr| name.to_string_lossy().contains(DATA) || name == LOCK || name == STATE;
    let is_top_level = fs::canonicalize(path).is_ok_and(|path| path.components().count() <= 2);
    let is_sticky = mode & libc::S_ISVTX != 0;
    is_top_level
        || is_sticky
        || fs::read_dir(path).is_ok_and(|list| list.flatten().any(|entry| !is_own_file(&entry.file_name())))
}

/// Why a store cannot be on a file system, by the numbers of statfs(2); `None` if it can.
fn unsuitable(kind: u64) -> Option<String> {
    const SHARES_NO_MEMORY: &str = "its processes could not share it safely";
    const COPIES_ON_WRITE: &str = "it copies on write, so a disk that fills up would end the process by a signal";
    let (name, reason) = match kind & 0xFFFF_FFFF {
        0x6969 => ("NFS", SHARES_NO_MEMORY),
        0x517B | 0xFF53_4D42 | 0xFE53_4D42 => ("SMB", SHARES_NO_MEMORY),
        0x0102_1997 => ("9P", SHARES_NO_MEMORY),
        0x6573_5546 => ("FUSE", SHARES_NO_MEMORY),
        0x00C3_6400 => ("Ceph", SHARES_NO_MEMORY),
        0x5346_414F | 0x6B41_4653 => ("AFS", SHARES_NO_MEMORY),
        0x9123_683E => ("btrfs", COPIES_ON_WRITE),
        0x2FC1_2FC1 => ("ZFS", COPIES_ON_WRITE),
        0xCA45_1A4E => ("bcachefs", COPIES_ON_WRITE),
        0x3434 => ("NILFS", COPIES_ON_WRITE),
        _ => return None,
    };
    Some(format!("{name}: {reason}"))
}

/// Opens or creates one of the files.
pub(super) fn open_file(path: &Path) -> Result<File> {
    let flags = libc::O_CLOEXEC | libc::O_NOFOLLOW;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
    let name = path.file_name().unwrap_or_default().display();
    options.open(path).map_err(|error| os::failed(&format!("open {name}"), error))
}

/// The length of one of the files, 0 if it does not exist. Fails for what is not a regular file.
pub(super) fn file_len(path: &Path) -> Result<u64> {
    match fs::symlink_metadata(path) {
        Ok(about) if about.is_file() => Ok(about.len()),
        Ok(_) => Err(unrecognized_file(&path.file_name().unwrap_or_default().to_string_lossy())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(os::failed("look at its files", error)),
    }
}

/// `CORRUPT`: a file in the directory is not what the store has written there.
pub(super) fn unrecognized_file(name: &str) -> Error {
    let message = format!(
        "{name} is damaged, or not a file of this library: if the directory belongs to the store, move all files in it away"
    );
    Error::new(ErrorKind::Corrupt, message)
}

/// `UNSUPPORTED`: a file in the directory is of a later version of the library, which a downgrade
/// leaves behind.
pub(super) fn newer_file(name: &str) -> Error {
    let message = format!(
        "{name} was written by a newer version of this library: use that one, or move all files in the directory away \
         to start with an empty store"
    );
    Error::new(ErrorKind::Unsupported, message)
}

fn refused(why: &str) -> Error {
    Error::new(ErrorKind::Io, format!("the directory of the lmdb: store {why}"))
}
