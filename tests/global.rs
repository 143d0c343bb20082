//! The process-wide store, opened on purpose. One test, because there is one such store in a process; its opening by first
//! use is in global_default.rs.

use sss::{Access, ErrorKind, Options, global, open_global};

#[test]
fn global_store_is_opened_once_and_shared_by_all() {
    const URL: &str = "memory:?idle_timeout=5s&clock=manual";
    assert_eq!(open_global("memory:?timeout=0").unwrap_err().kind(), ErrorKind::Url);
    open_global(URL).unwrap();
    open_global(URL).unwrap();
    assert_eq!(open_global("memory:").unwrap_err().kind(), ErrorKind::Exists);
    assert_eq!(open_global("memory:?idle_timeout=6s&clock=manual").unwrap_err().kind(), ErrorKind::Exists);

    let (sid, meta) = global().unwrap().create(b"hello", &Options::default()).unwrap();
    assert_eq!(meta.expires_ms, meta.created_ms + 5000);
    let seen = std::thread::spawn(move || global().unwrap().get(&sid, Access::Slide).unwrap().0).join().unwrap();
    assert_eq!(seen, b"hello");
    open_global(URL).unwrap();
    assert_eq!(global().unwrap().stats().unwrap().sessions, 1, "opening it again changes nothing");
}
