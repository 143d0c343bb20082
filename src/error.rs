//! Every way to fail: the status numbers of the C ABI, their names and texts, and `Error`, which
//! carries a message of one line. A message never contains an id, a payload or a password.

use std::{borrow::Cow, error::Error as StdError, ffi::CStr, fmt, sync::Arc};

/// Success.
#[cfg_attr(not(any(feature = "capi", test)), allow(dead_code))]
pub const SSS_OK: i32 = 0;
/// An argument is wrong: the text names it.
pub const SSS_E_INVALID: i32 = -1;
/// The handle is zero, closed, or was never one of this library's.
pub const SSS_E_HANDLE: i32 = -2;
/// There is no such live session. Unknown, malformed, expired and deleted ids are not told apart.
pub const SSS_E_NOT_FOUND: i32 = -3;
/// The session has another version than the one given to sss_put_if: read again, then decide.
pub const SSS_E_CONFLICT: i32 = -4;
/// The buffer is too small: *len is what is needed.
pub const SSS_E_TOO_SMALL: i32 = -5;
/// The payload is longer than max_payload.
pub const SSS_E_TOO_LARGE: i32 = -6;
/// max_sessions or max_bytes (redis: the server's memory) is reached, and no session has expired.
pub const SSS_E_FULL: i32 = -7;
/// It is already open with another URL, clock, seal or durability.
pub const SSS_E_EXISTS: i32 = -8;
/// The URL is wrong: the text names the part.
pub const SSS_E_URL: i32 = -9;
/// This build, engine or version of the library cannot do that.
pub const SSS_E_UNSUPPORTED: i32 = -10;
/// The operating system refused an operation, or a file cannot be used: the text says why.
pub const SSS_E_IO: i32 = -11;
/// The engine cannot be reached now. The session may be live.
pub const SSS_E_UNAVAILABLE: i32 = -12;
/// The engine did not answer in time. The session may be live.
pub const SSS_E_TIMEOUT: i32 = -13;
/// A resource is in use: try again.
pub const SSS_E_BUSY: i32 = -14;
/// Stored data was damaged or edited, and is not returned.
pub const SSS_E_CORRUPT: i32 = -15;
/// The operating system gave no random bytes, so there is no id.
pub const SSS_E_RANDOM: i32 = -16;
/// Out of memory.
pub const SSS_E_NOMEM: i32 = -17;
/// The memory: store was opened before the fork and cannot be used here: open one in the child.
pub const SSS_E_FORKED: i32 = -18;
/// A bug in the library was caught. The process goes on.
pub const SSS_E_PANIC: i32 = -19;

/// The kind of a failure. Later versions may add kinds; a number is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(i32)]
pub enum ErrorKind {
    /// An argument is wrong: the message names it.
    Invalid = SSS_E_INVALID,
    /// A handle is zero, closed, or was never one of this library's (C ABI only).
    Handle = SSS_E_HANDLE,
    /// There is no such live session. Unknown, malformed, expired and deleted ids are not told
    /// apart.
    NotFound = SSS_E_NOT_FOUND,
    /// The session has another version than the one given to `put_if`.
    Conflict = SSS_E_CONFLICT,
    /// The caller's buffer is too small (C ABI only).
    TooSmall = SSS_E_TOO_SMALL,
    /// The payload is longer than `max_payload`.
    TooLarge = SSS_E_TOO_LARGE,
    /// `max_sessions` or `max_bytes` is reached, and no session has expired.
    Full = SSS_E_FULL,
    /// Already open with another URL, clock, seal or durability.
    Exists = SSS_E_EXISTS,
    /// The URL is wrong: the message names the part.
    Url = SSS_E_URL,
    /// This build, engine or version cannot do that.
    Unsupported = SSS_E_UNSUPPORTED,
    /// The operating system refused an operation, or a file cannot be used: the message says why.
    Io = SSS_E_IO,
    /// The engine cannot be reached now.
    Unavailable = SSS_E_UNAVAILABLE,
    /// The engine did not answer in time.
    Timeout = SSS_E_TIMEOUT,
    /// A resource is in use: try again.
    Busy = SSS_E_BUSY,
    /// Stored data was damaged or edited, and is not returned.
    Corrupt = SSS_E_CORRUPT,
    /// The operating system gave no random bytes.
    Random = SSS_E_RANDOM,
    /// Out of memory.
    NoMem = SSS_E_NOMEM,
    /// The `memory:` store was opened before this process was forked.
    Forked = SSS_E_FORKED,
    /// A bug in the library was caught (C ABI only).
    Panic = SSS_E_PANIC,
}

impl ErrorKind {
    /// Every kind, in the order of the numbers.
    pub const ALL: [ErrorKind; 19] = {
        use ErrorKind::*;
        [
            Invalid,
            Handle,
            NotFound,
            Conflict,
            TooSmall,
            TooLarge,
            Full,
            Exists,
            Url,
            Unsupported,
            Io,
            Unavailable,
            Timeout,
            Busy,
            Corrupt,
            Random,
            NoMem,
            Forked,
            Panic,
        ]
    };

    /// The status number of the C ABI, always negative.
    pub const fn code(self) -> i32 {
        self as i32
    }

    /// The kind with this status number.
    pub fn from_code(code: i32) -> Option<ErrorKind> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// The name of the C macro without its prefix: `"NOT_FOUND"`.
    pub fn name(self) -> &'static str {
        self.entry().0
    }

    /// One short line in English, the same for every failure of this kind.
    pub fn text(self) -> &'static CStr {
        self.entry().1
    }

    fn entry(self) -> (&'static str, &'static CStr) {
        match self {
            ErrorKind::Invalid => ("INVALID", c"invalid argument"),
            ErrorKind::Handle => ("HANDLE", c"not an open store handle"),
            ErrorKind::NotFound => ("NOT_FOUND", c"no such session"),
            ErrorKind::Conflict => ("CONFLICT", c"the session was changed in between"),
            ErrorKind::TooSmall => ("TOO_SMALL", c"buffer too small"),
            ErrorKind::TooLarge => ("TOO_LARGE", c"payload too large"),
            ErrorKind::Full => ("FULL", c"store full"),
            ErrorKind::Exists => ("EXISTS", c"already open with other settings"),
            ErrorKind::Url => ("URL", c"bad store URL"),
            ErrorKind::Unsupported => ("UNSUPPORTED", c"not supported"),
            ErrorKind::Io => ("IO", c"operating system error"),
            ErrorKind::Unavailable => ("UNAVAILABLE", c"engine unavailable"),
            ErrorKind::Timeout => ("TIMEOUT", c"engine did not answer in time"),
            ErrorKind::Busy => ("BUSY", c"busy, try again"),
            ErrorKind::Corrupt => ("CORRUPT", c"stored data is damaged"),
            ErrorKind::Random => ("RANDOM", c"no random bytes from the operating system"),
            ErrorKind::NoMem => ("NOMEM", c"out of memory"),
            ErrorKind::Forked => ("FORKED", c"store was opened before fork"),
            ErrorKind::Panic => ("PANIC", c"internal error"),
        }
    }
}

/// A failure: its kind, and a message of one line that names the cause.
///
/// `Display` prints that line. It never holds a session id, a payload or a password, so it may be
/// logged.
#[derive(Clone)]
pub struct Error {
    kind: ErrorKind,
    message: Message,
}

/// Small, because every call returns it: the usual failures have a constant text.
#[derive(Clone)]
enum Message {
    Constant(&'static str),
    Formatted(Box<Details>),
}

#[derive(Clone)]
struct Details {
    message: String,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// The result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A failure with a message of one line: characters that could break or disguise the line are
    /// escaped.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Error {
        match one_line(message.into()) {
            Cow::Borrowed(message) => Error::fixed(kind, message),
            Cow::Owned(message) => Error::formatted(kind, message, None),
        }
    }

    /// A failure that another error caused. `message` says all that a reader of the one line needs;
    /// the cause is what [`source`](StdError::source) returns.
    pub fn with_source(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl StdError + Send + Sync + 'static,
    ) -> Error {
        Error::formatted(kind, one_line(Cow::Owned(message.into())).into_owned(), Some(Arc::new(source)))
    }

    fn formatted(kind: ErrorKind, message: String, source: Option<Arc<dyn StdError + Send + Sync>>) -> Error {
        Error { kind, message: Message::Formatted(Box::new(Details { message, source })) }
    }

    pub(crate) const fn fixed(kind: ErrorKind, message: &'static str) -> Error {
        Error { kind, message: Message::Constant(message) }
    }

    pub(crate) const fn not_found() -> Error {
        Error::fixed(ErrorKind::NotFound, "no such session")
    }

    pub(crate) const fn corrupt_record() -> Error {
        Error::fixed(ErrorKind::Corrupt, "a stored record was damaged or edited")
    }

    pub(crate) const fn no_memory() -> Error {
        Error::fixed(ErrorKind::NoMem, "out of memory")
    }

    #[cfg(any(feature = "capi", test))]
    pub(crate) fn into_message(self) -> Cow<'static, str> {
        match self.message {
            Message::Constant(message) => Cow::Borrowed(message),
            Message::Formatted(details) => Cow::Owned(details.message),
        }
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The status number of the C ABI.
    pub fn code(&self) -> i32 {
        self.kind.code()
    }

    /// The line that `Display` prints.
    pub fn message(&self) -> &str {
        match &self.message {
            Message::Constant(message) => message,
            Message::Formatted(details) => &details.message,
        }
    }
}

/// Escapes every character that does not print as itself: controls, line and paragraph separators,
/// format characters such as U+202E, unassigned ones, and every space but ' '.
pub(crate) fn one_line(text: Cow<'static, str>) -> Cow<'static, str> {
    // `escape_debug` also escapes quotes and the backslash, which are harmless.
    let prints = |c: char| if c.is_ascii() { !c.is_ascii_control() } else { c.escape_debug().len() == 1 };
    if text.chars().all(prints) {
        return text;
    }
    let mut line = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if prints(c) { line.push(c) } else { line.extend(c.escape_debug()) }
    }
    line.into()
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.name(), self.message())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.message {
            Message::Constant(_) => None,
            Message::Formatted(details) => Some(details.source.as_deref()?),
        }
    }
}

/// Errors are equal if kind and message are.
impl PartialEq for Error {
    fn eq(&self, other: &Error) -> bool {
        self.kind == other.kind && self.message() == other.message()
    }
}

impl Eq for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_one_line() {
        for c in [
            '\n', '\r', '\t', '\0', '\u{1b}', '\u{85}', '\u{ad}', '\u{200b}', '\u{2028}', '\u{2029}', '\u{202e}',
            '\u{feff}',
        ] {
            let message = Error::new(ErrorKind::Io, format!("/d{c}r: no")).to_string();
            assert!(!message.contains(c) && message.ends_with("r: no"), "{message:?}");
        }
        let harmless = "/dir 'ä' \\ \" 日本";
        assert_eq!(Error::new(ErrorKind::Io, harmless).message(), harmless);
    }

    #[test]
    fn codes_are_minus_one_to_minus_nineteen_without_gaps() {
        for (i, kind) in ErrorKind::ALL.into_iter().enumerate() {
            assert_eq!(kind.code(), -(i as i32) - 1);
            assert_eq!(ErrorKind::from_code(kind.code()), Some(kind));
        }
        assert_eq!(ErrorKind::from_code(0), None);
    }

    #[test]
    fn source_is_the_cause() {
        let error = Error::with_source(ErrorKind::Io, "cannot read it", std::io::Error::other("broken"));
        assert_eq!(error.to_string(), "cannot read it");
        assert_eq!(error.source().unwrap().to_string(), "broken");
        assert!(Error::not_found().source().is_none());
        assert_eq!(error.clone(), Error::new(ErrorKind::Io, "cannot read it"));
    }
}
