//! The process-wide store. There is one in a process, so each test looks at it in a process of its
//! own.

use crate::common::ToPlain;
use sss::{Access, ErrorKind, Options, global, open_global};

use crate::process::{ends_well, part};

suite! {
    tests: [open_global_shares_one_store, first_use_opens_memory],
    parts: [open_before_use, use_before_open],
}

fn open_global_shares_one_store() {
    ends_well(part("global::open_before_use", &[]).spawn().unwrap());
}

fn first_use_opens_memory() {
    ends_well(part("global::use_before_open", &[]).spawn().unwrap());
}

fn open_before_use(_: &[String]) {
    const URL: &str = "memory:?idle_timeout=5s&clock=manual";
    assert_eq!(open_global("memory:?timeout=0").unwrap_err().kind(), ErrorKind::Url);
    open_global(URL).unwrap();
    open_global(URL).unwrap();
    assert_eq!(open_global("memory:").unwrap_err().kind(), ErrorKind::Exists);
    assert_eq!(open_global("memory:?idle_timeout=6s&clock=manual").unwrap_err().kind(), ErrorKind::Exists);

    let (sid, meta) = global().unwrap().create(b"hello", &Options::default()).unwrap();
    assert_eq!(meta.plain().expires_ms, meta.plain().created_ms + 5000);
    let seen = std::thread::spawn(move || global().unwrap().get(&sid, Access::Slide).unwrap().0).join().unwrap();
    assert_eq!(seen, b"hello");
    open_global(URL).unwrap();
    assert_eq!(global().unwrap().stats().unwrap().sessions, 1, "opening it again changes nothing");
}

fn use_before_open(_: &[String]) {
    let threads: Vec<_> = (0..4)
        .map(|_| std::thread::spawn(|| global().unwrap().create(b"hello", &Options::default()).unwrap()))
        .collect();
    for thread in threads {
        let (sid, meta) = thread.join().unwrap();
        assert_eq!(global().unwrap().get(&sid, Access::Slide).unwrap().0, b"hello");
        assert_eq!(meta.plain().expires_ms, meta.plain().created_ms + 600_000, "the defaults");
    }
    assert_eq!(global().unwrap().stats().unwrap().sessions, 4);
    open_global("memory:").unwrap();
    assert_eq!(open_global("memory:?timeout=1h").unwrap_err().kind(), ErrorKind::Exists);
}
