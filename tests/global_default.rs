//! The process-wide store, opened by its first use. A program of its own: see global.rs.

use sss::{Access, ErrorKind, Options, global, open_global};

#[test]
fn global_store_is_opened_as_memory_by_its_first_use() {
    let threads: Vec<_> = (0..4)
        .map(|_| std::thread::spawn(|| global().unwrap().create(b"hello", &Options::default()).unwrap()))
        .collect();
    for thread in threads {
        let (sid, meta) = thread.join().unwrap();
        assert_eq!(global().unwrap().get(&sid, Access::Slide).unwrap().0, b"hello");
        assert_eq!(meta.expires_ms, meta.created_ms + 600_000, "the defaults");
    }
    assert_eq!(global().unwrap().stats().unwrap().sessions, 4);
    open_global("memory:").unwrap();
    assert_eq!(open_global("memory:?timeout=1h").unwrap_err().kind(), ErrorKind::Exists);
}
