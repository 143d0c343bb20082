//! Standard output whose every failure is reported, and standard error whose failures are ignored.

use std::{
    io::{self, IsTerminal, Write},
    sync::atomic::{AtomicBool, Ordering},
};

use serde::Serialize;
use serde_json::{Serializer, ser::Formatter};

use crate::text::is_safe;

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

/// How a command prints what it has found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people, on a terminal with this many columns.
    Terminal(u16),
    /// Fields separated by tabs.
    Lines,
    Json,
}

impl Format {
    pub fn new(json: bool) -> Format {
        match json {
            true => Format::Json,
            false if io::stdout().is_terminal() => Format::Terminal(columns()),
            false => Format::Lines,
        }
    }
}

/// The columns of the terminal; many if it does not know.
fn columns() -> u16 {
    terminal_size::terminal_size_of(io::stdout()).map_or(u16::MAX, |(width, _)| width.0)
}

/// Writes text to standard output, at once.
pub fn write(text: &[u8]) -> io::Result<()> {
    if !WAS_OPEN.load(Ordering::Relaxed) {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    let mut stdout = io::stdout().lock();
    stdout.write_all(text)?;
    stdout.flush()
}

/// Writes a message to standard error. `eprintln!` would panic where that fails.
pub fn write_error(message: &str) {
    let _ = writeln!(io::stderr(), "sss: {}", message.trim_end());
}

/// A value as one line of JSON.
pub fn json(value: &impl Serialize) -> io::Result<String> {
    let mut line = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut line, SafeJson))?;
    line.push(b'\n');
    String::from_utf8(line).map_err(io::Error::other)
}

/// Compact JSON in which what a terminal would obey is escaped, so that it can be shown on one.
struct SafeJson;

impl Formatter for SafeJson {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        for c in fragment.chars() {
            let mut units = [0; 2];
            match c {
                c if is_safe(c) => write!(writer, "{c}")?,
                c => c.encode_utf16(&mut units).iter().try_for_each(|unit| write!(writer, "\\u{unit:04x}"))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_safe_and_lossless() {
        let text = "\u{1b}[2J \u{9b}m \u{202e}\u{e0041} \u{7f} \"é\\\n日本";
        let line = json(&text).unwrap();
        assert_eq!(line, "\"\\u001b[2J \\u009bm \\u202e\\udb40\\udc41 \\u007f \\\"é\\\\\\n日本\"\n");
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
    }
}
