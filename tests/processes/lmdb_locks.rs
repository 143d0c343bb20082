//! The locks of an `lmdb:` store hold whatever else its process does with the store's files, and a
//! second copy of the library in one process is refused.
#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString, c_char, c_void},
    fs,
    path::{Path, PathBuf},
};

use crate::common::{Engine, PLAIN, TemporaryStore};
use crate::process::{ends_well, part};
use sss::{Access, ErrorKind, Store};

suite! {
    tests: [
        closed_descriptors_keep_locks,
        second_copy_in_process_is_refused,
        replaced_files_are_refused,
    ],
    parts: [rewrite, open_two_copies],
}

fn payload(number: u8) -> Vec<u8> {
    vec![number; 40_000]
}

/// The part: replaces a session's payload many times.
fn rewrite(args: &[String]) {
    let [url, sid] = args else { panic!("not the arguments: {args:?}") };
    let store = Store::open(url).unwrap();
    for number in 1..=100 {
        store.put(sid, &payload(number), &PLAIN).unwrap();
    }
}

/// As a backup or a scan does: opens each of the store's files and closes it again.
fn read_all_files(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        fs::read(entry.unwrap().path()).unwrap();
    }
}

fn closed_descriptors_keep_locks() {
    for engine in [Engine::Lmdb, Engine::LmdbPower] {
        let place = TemporaryStore::of(engine);
        let url = place.url("max_bytes=4MiB&seal=off");
        let store = Store::open(&url).unwrap();
        let (sid, _) = store.create(&payload(0), &PLAIN).unwrap();
        read_all_files(place.directory());
        store
            .read(&sid, Access::Peek, |bytes, _| -> sss::Result<()> {
                // It finds out that it is not alone, and does not use the pages again that are
                // being read here.
                let output = part("lmdb_locks::rewrite", &[&url, sid.as_str()]).output().unwrap();
                let error = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success() || error.contains("does not end a read"), "{error}");
                assert!(bytes == payload(0), "a payload has changed while it was read");
                Ok(())
            })
            .unwrap();
        read_all_files(place.directory());
        ends_well(part("lmdb_locks::rewrite", &[&url, sid.as_str()]).spawn().unwrap());
        assert!(store.get(&sid, Access::Peek).unwrap().0 == payload(100));
        store.put(&sid, &payload(0), &PLAIN).unwrap();
        assert_eq!(store.check().unwrap(), Vec::<String>::new());
    }
}

/// The shared library, beside which this test was built.
fn library() -> PathBuf {
    std::env::current_exe().unwrap().with_file_name("libsss.so")
}

fn second_copy_in_process_is_refused() {
    let place = TemporaryStore::of(Engine::Lmdb);
    let copies = ["a", "b"].map(|name| place.directory().with_extension(name));
    for copy in &copies {
        fs::copy(library(), copy).unwrap();
    }
    let [first, second] = copies.each_ref().map(|copy| copy.to_str().unwrap());
    let output = ends_well(part("lmdb_locks::open_two_copies", &[&place.url(""), first, second]).spawn().unwrap());
    copies.iter().for_each(|copy| fs::remove_file(copy).unwrap());
    assert!(output.contains("another copy of this library"), "{output}");
    assert!(output.ends_with("closed: 0\n"), "{output}");
}

/// The part: loads two copies of the library and opens the store with both; and with the second one
/// alone.
fn open_two_copies(args: &[String]) {
    let [url, first, second] = args else { panic!("not the arguments: {args:?}") };
    let [first, second] = [first, second].map(|path| Copy::load(path));
    assert_eq!(first.open(url), 0);
    let status = second.open(url);
    assert!(status < 0, "a second copy has opened the store");
    println!("{}", second.last_error());
    first.close();
    println!("closed: {}", second.open(url));
}

/// A copy of the shared library, with the last store that it has opened.
struct Copy {
    library: *mut c_void,
    store: std::cell::Cell<u64>,
}

impl Copy {
    fn load(path: &str) -> Copy {
        let path = CString::new(path).unwrap();
        // SAFETY: the library has no initializers that matter here.
        let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        assert!(!library.is_null());
        Copy { library, store: std::cell::Cell::new(0) }
    }

    fn function(&self, name: &CStr) -> *mut c_void {
        // SAFETY: a library that is loaded.
        let function = unsafe { libc::dlsym(self.library, name.as_ptr()) };
        assert!(!function.is_null());
        function
    }

    fn open(&self, url: &str) -> i32 {
        // SAFETY: the signature is that of sss.h.
        let open: unsafe extern "C" fn(*const c_char, usize, *mut u64) -> i32 =
            unsafe { std::mem::transmute(self.function(c"sss_open")) };
        // SAFETY: the URL is valid for its length, and the store is written on success.
        unsafe { open(url.as_ptr().cast(), url.len(), self.store.as_ptr()) }
    }

    fn close(&self) {
        // SAFETY: the signature is that of sss.h.
        let close: unsafe extern "C" fn(u64) -> i32 = unsafe { std::mem::transmute(self.function(c"sss_close")) };
        // SAFETY: a store that was opened.
        assert_eq!(unsafe { close(self.store.get()) }, 0);
    }

    fn last_error(&self) -> String {
        // SAFETY: the signature is that of sss.h.
        let last_error: unsafe extern "C" fn(*mut c_char, usize, *mut usize) -> i32 =
            unsafe { std::mem::transmute(self.function(c"sss_last_error")) };
        let mut buffer = [0_u8; 1000];
        let mut len = 0;
        // SAFETY: a buffer of that length.
        unsafe { last_error(buffer.as_mut_ptr().cast(), buffer.len(), &mut len) };
        String::from_utf8_lossy(&buffer[..len]).into_owned()
    }
}

fn replaced_files_are_refused() {
    for name in ["data.mdb", "lock.mdb", "state.shm"] {
        let place = TemporaryStore::of(Engine::Lmdb);
        let url = place.url("");
        let store = Store::open(&url).unwrap();
        let (sid, _) = store.create(b"hello", &PLAIN).unwrap();
        let path = place.directory().join(name);
        let copy = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, copy).unwrap();
        let output = part("lmdb_locks::rewrite", &[&url, sid.as_str()]).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains("replaced while the store"), "{name}: {error}");
        assert_eq!(store.get(&sid, Access::Peek).unwrap().0, b"hello");
        assert_eq!(store.delete(&sid).map_err(|error| error.kind()), Ok::<(), ErrorKind>(()));
    }
}
