//! The library that notes what a process does to the disk (shim.c), built by this test, and what it
//! has noted.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    Data,
    Map,
}

#[derive(Debug)]
pub enum Event {
    Write {
        offset: usize,
        bytes: Vec<u8>,
    },
    /// A thread begins to wait until a file is on the disk.
    Wait(File, u64),
    Waited(File, u64),
    /// A directory is on the disk.
    Directory(PathBuf),
    /// The data are to be read from the disk again.
    Forgotten,
    /// What a process of the test has noted.
    Note(String),
}

/// Where it was built to; `None`: there is no C compiler.
pub fn build() -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/processes/lmdb_power/shim.c");
    let library = env::temp_dir().join(format!("sss-shim-{}.so", std::process::id()));
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".into());
    let built = Command::new(compiler)
        .args(["-std=gnu11", "-Wall", "-Wextra", "-O1", "-fPIC", "-shared", "-o"])
        .args([&library, &source])
        .status();
    match built {
        Ok(status) if status.success() => Some(library),
        Ok(status) => panic!("shim.c does not compile: {status}"),
        Err(error) => {
            println!("SKIPPED what needs a shim before the C library: no C compiler ({error})");
            None
        }
    }
}

/// Adds to the log, for a process of the test that says what it was told.
pub fn note(log: &mut fs::File, text: &str) {
    const NOTE: u32 = 4;
    let head = [&NOTE.to_le_bytes()[..], &[0; 12], &(text.len() as u64).to_le_bytes(), text.as_bytes()];
    std::io::Write::write_all(log, &head.concat()).unwrap();
}

pub fn events(log: &Path) -> Vec<Event> {
    let bytes = fs::read(log).unwrap();
    let (mut events, mut rest) = (Vec::new(), &bytes[..]);
    while let Some((head, after)) = rest.split_first_chunk::<24>() {
        let word = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap());
        let long = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap());
        let file = if word(4) == 1 { File::Data } else { File::Map };
        let (body, after) = after.split_at(long(16) as usize);
        rest = after;
        events.push(match word(0) {
            1 => Event::Write { offset: long(8) as usize, bytes: body.to_vec() },
            2 => Event::Wait(file, long(8)),
            3 => Event::Waited(file, long(8)),
            4 => Event::Note(String::from_utf8(body.to_vec()).unwrap()),
            5 => Event::Directory(PathBuf::from(String::from_utf8(body.to_vec()).unwrap())),
            6 => Event::Forgotten,
            other => panic!("not an event: {other}"),
        });
    }
    assert!(rest.is_empty());
    events
}
