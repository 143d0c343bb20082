//! The directory of an `lmdb:` store: what is in it counts only if it is this library's, this
//! user's, and was not torn by a machine that stopped. Whatever is refused is left as it was, and
//! the text says what it is.

use std::{
    fs,
    os::unix::fs::{FileExt, PermissionsExt, chown, symlink},
    path::Path,
    process::Command,
};

use crate::common::{Engine, PLAIN, TemporaryStore};
use sss::{Access, ErrorKind, Sid, Store};

const FILES: [&str; 3] = ["data.mdb", "lock.mdb", "state.shm"];

/// Where the slots begin in state.shm, and where it says in which of its lives the machine was, and
/// that all is on the disk.
const SLOTS: usize = 8 << 10;
const BOOT: usize = 8;
/// The number of the file's layout.
const LAYOUT: usize = 7;
const CLEAN: usize = 24;

fn file(place: &TemporaryStore, name: &str) -> std::path::PathBuf {
    place.directory().join(name)
}

/// A store that is closed again, with one session.
fn filled(engine: Engine) -> (TemporaryStore, Sid) {
    let place = TemporaryStore::of(engine);
    let (sid, _) = place.open("").create(b"hello", &PLAIN).unwrap();
    (place, sid)
}

#[track_caller]
fn refused(url: &str, kind: ErrorKind, text: &str) {
    let error = Store::open(url).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.message().contains(text), "{error}");
}

#[track_caller]
fn holds(place: &TemporaryStore, sid: &Sid) {
    assert_eq!(place.open("").get(sid, Access::Peek).unwrap().0, b"hello");
}

/// The only test of this file that such a machine passes: `cargo test --target
/// i686-unknown-linux-gnu --test it lmdb_directory::open_refuses_32`.
#[test]
#[cfg(not(target_pointer_width = "64"))]
fn open_refuses_32_bit_machine() {
    let place = TemporaryStore::of(Engine::Lmdb);
    refused(&place.url(""), ErrorKind::Unsupported, "64 bits");
    assert!(!place.directory().exists());
}

#[test]
fn open_advises_no_chmod_of_shared_directory() {
    let place = TemporaryStore::of(Engine::Lmdb);
    let sticky = place.directory().with_extension("sticky");
    let busy = place.directory().with_extension("busy");
    for (directory, mode) in [(&sticky, 0o1777), (&busy, 0o755)] {
        fs::create_dir(directory).unwrap();
        fs::set_permissions(directory, fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::write(busy.join("README"), "").unwrap();
    let system = ["/", "/tmp", "/usr", "/var", "/etc", "/home", "/mnt"].map(Path::new);
    for directory in system.into_iter().chain([&*sticky, &*busy]).filter(|directory| directory.is_dir()) {
        let error = Store::open(&format!("lmdb:{}", directory.display())).unwrap_err();
        let text = error.message();
        assert!(error.kind() == ErrorKind::Io && !text.contains("chmod"), "{}: {text}", directory.display());
        assert!(text.contains("of its own") || text.contains("another user"), "{}: {text}", directory.display());
    }
    fs::remove_dir(sticky).unwrap();
    fs::remove_dir_all(busy).unwrap();
}

#[test]
fn open_refuses_directory_open_to_others() {
    let (place, sid) = filled(Engine::Lmdb);
    let set_mode = |mode| fs::set_permissions(place.directory(), fs::Permissions::from_mode(mode)).unwrap();
    for mode in [0o701, 0o704, 0o710, 0o720, 0o740, 0o777] {
        set_mode(mode);
        refused(&place.url(""), ErrorKind::Io, "chmod it to 0700");
    }
    set_mode(0o700);
    holds(&place, &sid);
}

/// The number of the layout of state.shm before, which is raised by so much.
fn raise_layout(place: &TemporaryStore, by: i8) -> u8 {
    let path = file(place, "state.shm");
    let mut bytes = fs::read(&path).unwrap();
    let before = bytes[LAYOUT];
    bytes[LAYOUT] = before.wrapping_add_signed(by);
    fs::write(&path, bytes).unwrap();
    before
}

#[test]
fn previous_layout_is_read_and_replaced() {
    for engine in [Engine::Lmdb, Engine::LmdbPower] {
        let (place, sid) = filled(engine);
        let (ended, _) = place.open("").create(b"ended", &PLAIN).unwrap();
        place.open("").delete(&ended).unwrap();
        let current = raise_layout(&place, -1);
        holds(&place, &sid);
        assert!(place.open("").get(&ended, Access::Peek).is_err());
        assert_eq!(fs::read(file(&place, "state.shm")).unwrap()[LAYOUT], current);
    }
}

#[test]
fn newer_layout_is_refused_and_kept() {
    let (place, sid) = filled(Engine::Lmdb);
    raise_layout(&place, 1);
    let before = FILES.map(|name| fs::read(file(&place, name)).unwrap());
    refused(&place.url(""), ErrorKind::Unsupported, "state.shm was written by a newer version");
    assert!(before == FILES.map(|name| fs::read(file(&place, name)).unwrap()), "a refused store has changed");
    raise_layout(&place, -1);
    holds(&place, &sid);
}

#[test]
fn layout_before_previous_is_unrecognized() {
    let (place, _) = filled(Engine::Lmdb);
    raise_layout(&place, -2);
    refused(&place.url(""), ErrorKind::Corrupt, "not a file of this library");
}

/// The server that is running wrote the older layout, and goes on using it.
#[test]
fn open_store_of_previous_layout_is_not_shared() {
    let (place, sid) = filled(Engine::Lmdb);
    let store = place.open("");
    let path = file(&place, "state.shm");
    let output = Command::new(env!("CARGO_BIN_EXE_sss")).args(["stats", &place.url("")]).output().unwrap();
    assert!(output.status.success());
    let state = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mut layout = [0];
    state.read_exact_at(&mut layout, LAYOUT as u64).unwrap();
    state.write_all_at(&[layout[0] - 1], LAYOUT as u64).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_sss")).args(["stats", &place.url("")]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("an earlier version of the library"), "{error}");
    assert_eq!(store.get(&sid, Access::Peek).unwrap().0, b"hello");
}

#[test]
fn new_files_are_private() {
    let (place, _) = filled(Engine::LmdbPower);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(place.directory()), 0o700);
    FILES.iter().for_each(|name| assert_eq!(mode(&file(&place, name)), 0o600, "{name}"));
}

#[test]
fn open_refuses_other_users_directory() {
    const NOBODY: u32 = 65534;
    let (place, sid) = filled(Engine::Lmdb);
    if chown(place.directory(), Some(NOBODY), None).is_err() {
        println!("SKIPPED a directory of another user: only root can give one away");
        return;
    }
    refused(&place.url(""), ErrorKind::Io, "belongs to another user");
    chown(place.directory(), Some(0), None).unwrap();
    holds(&place, &sid);
}

#[test]
fn open_refuses_non_directory() {
    let place = TemporaryStore::of(Engine::Lmdb);
    fs::write(place.directory(), b"something else").unwrap();
    refused(&place.url(""), ErrorKind::Io, "is not a directory");
    fs::remove_file(place.directory()).unwrap();
    symlink("/nowhere/at/all", place.directory()).unwrap();
    refused(&place.url(""), ErrorKind::Io, "");
    fs::remove_file(place.directory()).unwrap();
}

#[test]
fn symlinked_directory_is_same_store() {
    let (place, link) = (TemporaryStore::of(Engine::Lmdb), TemporaryStore::of(Engine::Lmdb));
    let (sid, _) = place.open("").create(b"hello", &PLAIN).unwrap();
    symlink(place.directory(), link.directory()).unwrap();
    let both = (place.open(""), link.open(""));
    let (other, _) = both.1.create(b"hello", &PLAIN).unwrap();
    assert_eq!(both.0.get(&other, Access::Peek).unwrap().0, b"hello");
    drop(both);
    holds(&link, &sid);
    fs::remove_file(link.directory()).unwrap();
}

#[test]
fn open_refuses_irregular_files() {
    let (place, sid) = filled(Engine::Lmdb);
    let aside = file(&place, "elsewhere");
    for name in FILES {
        let path = file(&place, name);
        fs::rename(&path, &aside).unwrap();
        symlink(&aside, &path).unwrap();
        refused(&place.url(""), ErrorKind::Corrupt, name);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        refused(&place.url(""), ErrorKind::Corrupt, name);
        fs::remove_dir(&path).unwrap();
        // Opening one would wait for a writer.
        assert!(Command::new("mkfifo").arg("-m600").arg(&path).status().unwrap().success());
        refused(&place.url(""), ErrorKind::Corrupt, name);
        fs::remove_file(&path).unwrap();
        fs::rename(&aside, &path).unwrap();
        holds(&place, &sid);
    }
}

#[test]
fn open_refuses_foreign_files() {
    for name in ["data.mdb", "state.shm"] {
        for contents in [&b"x"[..], b"a note of somebody", &[0; 100_000], &[7; 100_000]] {
            let place = TemporaryStore::of(Engine::Lmdb);
            drop(place.open(""));
            FILES.iter().for_each(|name| fs::remove_file(file(&place, name)).unwrap());
            let write = || {
                fs::write(file(&place, name), contents).unwrap();
                fs::set_permissions(file(&place, name), fs::Permissions::from_mode(0o600)).unwrap();
            };
            write();
            if name == "state.shm" && contents.iter().all(|&byte| byte == 0) {
                // As a process leaves it that is killed before it wrote anything.
                drop(place.open(""));
                continue;
            }
            refused(&place.url(""), ErrorKind::Corrupt, name);
            assert_eq!(fs::read(file(&place, name)).unwrap(), contents);
        }
    }
}

/// As if the machine had restarted since the store was used.
fn start_machine_anew(place: &TemporaryStore, is_clean: bool) {
    let mut map = fs::read(file(place, "state.shm")).unwrap();
    map[BOOT..CLEAN].iter_mut().for_each(|byte| *byte ^= 0xFF);
    map[CLEAN] = is_clean.into();
    fs::write(file(place, "state.shm"), map).unwrap();
}

#[test]
fn unclean_shutdown_quarantines_data() {
    let (place, sid) = filled(Engine::Lmdb);
    for round in 0..2 {
        let before = fs::read(file(&place, "data.mdb")).unwrap();
        start_machine_anew(&place, false);
        let store = place.open("");
        assert_eq!(store.get(&sid, Access::Peek).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(store.stats().unwrap().sessions, 0, "round {round}");
        assert!(fs::read(file(&place, "data.mdb.quarantined")).unwrap() == before, "round {round}");
        store.create(b"hello", &PLAIN).unwrap();
    }
}

#[test]
fn clean_or_durable_store_survives_reboot() {
    let (place, sid) = filled(Engine::Lmdb);
    start_machine_anew(&place, true);
    holds(&place, &sid);
    let (place, sid) = filled(Engine::LmdbPower);
    start_machine_anew(&place, false);
    holds(&place, &sid);
    assert!(!file(&place, "data.mdb.quarantined").exists());
}

#[test]
fn new_store_ignores_old_last_used() {
    let slots = |place: &TemporaryStore| {
        let map = fs::read(file(place, "state.shm")).unwrap();
        map[SLOTS..].chunks(8).filter(|slot| slot.iter().any(|&byte| byte != 0)).count()
    };
    // Set aside, and moved away by an operator; and where the slots may be older than the sessions.
    type Move = fn(&TemporaryStore);
    let moves: [(Engine, Move); 3] = [
        (Engine::Lmdb, |place| start_machine_anew(place, false)),
        (Engine::Lmdb, |place| fs::remove_file(file(place, "data.mdb")).unwrap()),
        (Engine::LmdbPower, |place| start_machine_anew(place, false)),
    ];
    for (engine, moved) in moves {
        let (place, _) = filled(engine);
        assert_eq!(slots(&place), 1);
        moved(&place);
        drop(place.open(""));
        assert_eq!(slots(&place), 0);
    }
}
