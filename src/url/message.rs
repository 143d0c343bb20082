//! The messages about a wrong URL, and the one rule about what they repeat of it. Where a separator
//! is mistyped, a password can stand anywhere. So a message shows a scheme or the name of an
//! option, and never a value, a host or a path.

use std::borrow::Cow;

use crate::error::{Error, ErrorKind};

/// The scheme of every engine.
const ENGINES: [&str; 7] = ["memory", "lmdb", "redis", "rediss", "redis+unix", "redis+cluster", "redis+sentinel"];

/// The name of every option of any engine.
pub(super) const OPTIONS: [&str; 21] = [
    "timeout",
    "idle_timeout",
    "max_payload",
    "max_sessions",
    "max_bytes",
    "max_per_principal",
    "clock",
    "seal",
    "secret_file",
    "durability",
    "prefix",
    "deadline",
    "pool",
    "wait",
    "db",
    "sentinel_user",
    "sentinel_password",
    "tls",
    "cafile",
    "cert",
    "key",
];

/// Longer than any scheme or option, so that a misspelt one is shown.
const LONGEST_NAME: usize = 24;

pub(super) fn url_error(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Url, message)
}

/// `key` is one of [`OPTIONS`]. The value is not shown: what follows a mistyped `&` is a part of
/// it.
pub(super) fn bad_value(key: &str, expected: &str) -> Error {
    url_error(format!("the value of '{key}' is not {expected}"))
}

/// A scheme that no engine has. `rest` is what follows its ':'.
pub(super) fn unknown_scheme(scheme: &str, rest: &str) -> Error {
    let leading = scheme.find(|c: char| !(c.is_ascii_alphabetic() || c == '+')).map_or(scheme, |at| &scheme[..at]);
    if leading != scheme && ENGINES.iter().any(|known| leading.eq_ignore_ascii_case(known)) {
        return url_error(format!("the scheme '{leading}' is not followed by ':'"));
    }
    // With an '@' it may be a user or a password.
    if is_name(scheme) && !rest.contains('@') {
        return url_error(format!("the scheme '{scheme}' is unknown: it is one of {}", ENGINES.join(", ")));
    }
    url_error(format!("the URL does not begin with a scheme: it is one of {}", ENGINES.join(", ")))
}

/// An option without '='.
pub(super) fn no_value(option: &str) -> Error {
    // The longest one: some options begin with the name of another.
    let known = OPTIONS.into_iter().filter(|known| option.starts_with(known)).max_by_key(|known| known.len());
    url_error(match known {
        Some(known) if known == option => format!("the option '{known}' has no value"),
        Some(known) => format!("the option '{known}' is not followed by '='"),
        None => "an option is not of the form 'name=value'".to_owned(),
    })
}

/// An option that no engine has.
pub(super) fn unknown_option(key: &str, scheme: &str) -> Error {
    if is_name(key) && !key.to_ascii_lowercase().contains("password") {
        return url_error(format!("the option '{key}' is not one of {scheme}:"));
    }
    url_error(format!("an option is not one of {scheme}:"))
}

/// Whether text can be the misspelt name of a scheme or an option.
fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '+');
    !text.is_empty() && text.len() <= LONGEST_NAME && text.chars().all(allowed)
}
