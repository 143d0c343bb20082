//! The words of a conformance step: options, times, payloads, names. See README.md here for what
//! they mean.

use crate::common::{FOREVER, INHERIT, OptionsMs};
use sss::{Error, ErrorKind, Options, Principal, Stats};

/// The options of a step, owned.
#[derive(Default)]
pub struct Opts {
    timeout_ms: i64,
    idle_timeout_ms: i64,
    grace_ms: i64,
    principal: Option<Vec<u8>>,
    clear_principal: bool,
    label: Option<Vec<u8>>,
    reauthenticated: bool,
    pub data: Option<Vec<u8>>,
}

impl Opts {
    pub fn parse(words: &[&str]) -> Result<Opts, String> {
        let mut opts = Opts::default();
        for word in words {
            match word.split_once('=') {
                Some(("timeout", value)) => opts.timeout_ms = timeout(value)?,
                Some(("idle_timeout", value)) => opts.idle_timeout_ms = timeout(value)?,
                Some(("grace", value)) => opts.grace_ms = duration(value)?,
                Some(("principal", value)) => opts.principal = Some(bytes(value)?),
                Some(("label", value)) => opts.label = Some(bytes(value)?),
                Some(("data", value)) => opts.data = Some(bytes(value)?),
                None if *word == "clear_principal" => opts.clear_principal = true,
                None if *word == "reauthenticated" => opts.reauthenticated = true,
                _ => return Err(format!("unknown option: {word}")),
            }
        }
        if opts.clear_principal && opts.principal.is_some() {
            return Err("cannot clear and set a principal at once in Rust (needs flags)".into());
        }
        Ok(opts)
    }

    /// `INVALID` where the C ABI says so of what a Rust caller cannot even write.
    pub fn get(&self) -> Result<Options<'_>, Error> {
        if self.grace_ms < 0 {
            return Err(Error::new(ErrorKind::Invalid, "a Duration cannot be negative"));
        }
        let principal = match &self.principal {
            Some(principal) => Principal::Set(principal),
            None if self.clear_principal => Principal::Clear,
            None => Principal::Keep,
        };
        let mut options = Options::new()
            .timeout_ms(self.timeout_ms)
            .idle_timeout_ms(self.idle_timeout_ms)
            .with_principal(principal)
            .grace_ms(self.grace_ms);
        options.label = self.label.as_deref();
        options.reauthenticated = self.reauthenticated;
        Ok(options)
    }
}

fn timeout(word: &str) -> Result<i64, String> {
    match word {
        "infinity" => Ok(FOREVER),
        "dead" => Ok(-1),
        "inherit" => Ok(INHERIT),
        _ => duration(word),
    }
}

pub fn duration(word: &str) -> Result<i64, String> {
    let unit_at = word.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(word.len());
    let unit_ms = match &word[unit_at..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(format!("bad time: {word}")),
    };
    let number: Option<i64> = word[..unit_at].parse().ok();
    number.and_then(|number| number.checked_mul(unit_ms)).ok_or_else(|| format!("bad time: {word}"))
}

/// DATA and PRINCIPAL.
pub fn bytes(word: &str) -> Result<Vec<u8>, String> {
    let bad = || format!("bad data: {word}");
    if word == "empty" {
        return Ok(Vec::new());
    }
    if let Some(len) = word.strip_prefix("fill:") {
        let len: usize = len.parse().map_err(|_| bad())?;
        return Ok((0..len).map(|i| (i % 251) as u8).collect());
    }
    if let Some(hex) = word.strip_prefix("hex:") {
        let digits: Option<Vec<u8>> = hex.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
        let digits = digits.filter(|digits| digits.len().is_multiple_of(2)).ok_or_else(bad)?;
        return Ok(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect());
    }
    let plain = word.bytes().all(|c| c.is_ascii_alphanumeric() || b"_.-".contains(&c));
    if plain && !word.is_empty() { Ok(word.into()) } else { Err(bad()) }
}

pub fn brief(data: &[u8]) -> String {
    let shown = &data[..data.len().min(40)];
    format!("{} bytes \"{}{}\"", data.len(), shown.escape_ascii(), if shown.len() < data.len() { "..." } else { "" })
}

pub fn name(kind: ErrorKind) -> String {
    kind.name().to_ascii_lowercase()
}

pub fn counter(stats: &Stats, name: &str) -> Option<u64> {
    Some(match name {
        "sessions" => stats.sessions,
        "bytes" => stats.bytes,
        "created" => stats.created,
        "hits" => stats.hits,
        "misses" => stats.misses,
        "puts" => stats.puts,
        "deleted" => stats.deleted,
        "renewed" => stats.renewed,
        "conflicts" => stats.conflicts,
        "revoked" => stats.revoked,
        "expired" => stats.expired,
        "rejected" => stats.rejected,
        "errors" => stats.errors,
        _ => return None,
    })
}
