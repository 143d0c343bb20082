//! The values of options: durations, sizes, numbers, choices and paths.

use std::path::PathBuf;

use super::message::bad_value;
use crate::{error::Result, session::policy::FOREVER};

/// Milliseconds of `500ms`, `10s`, `5m`, `3h`, `7d`, a bare number of seconds, or `infinity`.
pub(super) fn duration(key: &str, value: &str) -> Result<i64> {
    if value == "infinity" {
        return Ok(FOREVER);
    }
    let (number, unit) = split_number(value);
    let unit_ms = match unit {
        "ms" => 1,
        "s" | "" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => 0,
    };
    match number.and_then(|n| i64::try_from(n).ok()).and_then(|n| n.checked_mul(unit_ms)) {
        Some(ms) if ms > 0 => Ok(ms),
        _ => Err(bad_value(key, "a duration above zero such as 500ms, 10s, 5m, 3h, 7d, 600 (seconds) or infinity")),
    }
}

/// Bytes: `1048576`, `64KiB`, `1MiB`, `2GiB` or `infinity`.
pub(super) fn size(key: &str, value: &str) -> Result<u64> {
    let (number, unit) = split_number(value);
    let shift = match unit {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => u32::MAX,
    };
    match number.and_then(|n| n.checked_mul(1_u64.checked_shl(shift)?)) {
        Some(bytes) if bytes > 0 => Ok(bytes),
        _ if value == "infinity" => Ok(u64::MAX),
        _ => Err(bad_value(key, "a size above zero such as 65536, 64KiB, 1MiB, 2GiB or infinity")),
    }
}

pub(super) fn number(key: &str, value: &str) -> Result<u64> {
    match split_number(value) {
        (Some(n), "") if n > 0 => Ok(n),
        _ if value == "infinity" => Ok(u64::MAX),
        _ => Err(bad_value(key, "a whole number above zero, or infinity")),
    }
}

pub(super) fn choice(key: &str, value: &str, choices: [&'static str; 2]) -> Result<&'static str> {
    let found = choices.into_iter().find(|choice| *choice == value);
    found.ok_or_else(|| bad_value(key, &choices.join(" or ")))
}

/// Leading digits, and what follows them.
pub(super) fn split_number(value: &str) -> (Option<u64>, &str) {
    let digits = value.bytes().take_while(u8::is_ascii_digit).count();
    (value[..digits].parse().ok(), &value[digits..])
}

pub(super) fn absolute_path(key: &str, value: &str) -> Result<PathBuf> {
    if value.starts_with('/') && !value.contains('\0') {
        Ok(PathBuf::from(value))
    } else {
        Err(bad_value(key, "a path that begins with '/'"))
    }
}

/// The value of an option, decoded.
pub(super) fn decoded(key: &str, value: &str) -> Result<String> {
    percent_decoded(value)
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| bad_value(key, "valid percent-encoded UTF-8: '%' is followed by two hex digits"))
}

/// Percent-decoding (RFC 3986 section 2.1).
pub(super) fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut hex = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        bytes.push((hex()? * 16 + hex()?) as u8);
    }
    Some(bytes)
}
