//! Standard output whose every failure is reported, and standard error whose failures are ignored.

use std::{
    io::{self, Write},
    sync::atomic::{AtomicBool, Ordering},
};

/// Whether standard output was open when the program started. Before `main`, the standard library
/// opens /dev/null in place of closed standard streams, and writes to it succeed.
static WAS_OPEN: AtomicBool = AtomicBool::new(false);

/// The dynamic loader calls this before the standard library starts.
// SAFETY: `.init_array` holds pointers to C functions, and `record` neither allocates nor unwinds.
#[used]
#[allow(unsafe_code)]
#[unsafe(link_section = ".init_array")]
static RECORD: extern "C" fn() = record;

#[allow(unsafe_code)]
extern "C" fn record() {
    // SAFETY: F_GETFD takes no further argument and accepts any number as a descriptor.
    let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
    WAS_OPEN.store(flags != -1, Ordering::Relaxed);
}

/// Writes lines to standard output, or nothing if there are none.
pub fn write(text: &str) -> io::Result<()> {
    if !WAS_OPEN.load(Ordering::Relaxed) {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    let mut stdout = io::stdout().lock();
    for line in text.trim_end().lines() {
        writeln!(stdout, "{line}")?;
    }
    stdout.flush()
}

/// Writes a message to standard error. `eprintln!` would panic where that fails.
pub fn write_error(message: &str) {
    let _ = writeln!(io::stderr(), "sss: {}", message.trim_end());
}
