//! What the commands print: text for people, JSON, and the text format of Prometheus.

use std::time::{SystemTime, UNIX_EPOCH};

use sss::{Entry, Stats};

pub fn stats(stats: &Stats, json: bool) -> String {
    let numbers = numbers(stats);
    if json {
        object(numbers.iter().map(|number| (number.name, number.value.to_string())))
    } else {
        numbers.map(|number| format!("{:<10} {:>12}", number.name, number.value)).join("\n")
    }
}

pub fn prometheus(stats: &Stats) -> String {
    numbers(stats).map(|number| number.prometheus()).concat()
}

pub fn count(name: &str, count: u64, json: bool) -> String {
    if json { format!("{{\"{name}\": {count}}}") } else { format!("{count} {name}") }
}

pub fn check_passed(sessions: u64, json: bool) -> String {
    if json { format!("{{\"ok\": true, \"sessions\": {sessions}}}") } else { format!("ok: {sessions} sessions") }
}

pub fn list(entries: &[Entry], json: bool) -> String {
    if json {
        format!("[{}]", entries.iter().map(entry_json).collect::<Vec<_>>().join(", "))
    } else {
        entries.iter().map(entry_line).collect::<Vec<_>>().join("\n")
    }
}

/// A number of `stats`.
struct Number {
    name: &'static str,
    value: u64,
    help: &'static str,
}

impl Number {
    /// The text format of Prometheus, version 0.0.4.
    fn prometheus(&self) -> String {
        let only_grows = !matches!(self.name, "sessions" | "bytes");
        let (suffix, kind) = if only_grows { ("_total", "counter") } else { ("", "gauge") };
        let name = format!("sss_{}{suffix}", self.name);
        format!("# HELP {name} {}\n# TYPE {name} {kind}\n{name} {}\n", self.help, self.value)
    }
}

fn numbers(stats: &Stats) -> [Number; 13] {
    // The name of a number is that of its field.
    macro_rules! numbers {
        ($($name:ident: $help:literal,)*) => {
            [$(Number { name: stringify!($name), value: stats.$name, help: $help }),*]
        };
    }
    numbers! {
        sessions: "Sessions in the store, including expired ones that were not removed yet.",
        bytes: "Bytes of payload in the store.",
        created: "Sessions created.",
        hits: "Reads that found a session.",
        misses: "Reads that found no session.",
        puts: "Payloads replaced.",
        deleted: "Sessions deleted.",
        renewed: "Sessions that got a new id.",
        conflicts: "Conditional writes refused because the version had changed.",
        revoked: "Sessions ended by revoke or by max_per_principal.",
        expired: "Expired sessions removed.",
        rejected: "Writes refused by a limit.",
        errors: "Failures of the store, such as an unreachable server.",
    }
}

fn object<'a>(members: impl Iterator<Item = (&'a str, String)>) -> String {
    format!("{{{}}}", members.map(|(name, value)| format!("\"{name}\": {value}")).collect::<Vec<_>>().join(", "))
}

fn entry_line(entry: &Entry) -> String {
    let [created, seen, expires] = times(entry);
    let (version, len) = (entry.meta.version(), entry.payload_len);
    format!(
        "{}  created {created}  last seen {seen}  expires {expires}  version {version}  {len} bytes",
        entry.reference
    )
}

fn entry_json(entry: &Entry) -> String {
    let quoted = |text: String| format!("\"{text}\"");
    let [created, last_seen, expires] = times(entry);
    object(
        [
            ("ref", quoted(entry.reference.to_string())),
            ("created", quoted(created)),
            ("last_seen", quoted(last_seen)),
            ("expires", quoted(expires)),
            ("version", entry.meta.version().to_string()),
            ("bytes", entry.payload_len.to_string()),
        ]
        .into_iter(),
    )
}

/// When the session was created, last used and will end.
fn times(entry: &Entry) -> [String; 3] {
    let expires = entry.meta.expires().map_or_else(|| "never".to_owned(), time);
    [time(entry.meta.created()), time(entry.meta.last_seen()), expires]
}

/// RFC 3339 in UTC.
fn time(time: SystemTime) -> String {
    let ms = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => after.as_millis() as i64,
        Err(before) => -(before.duration().as_millis() as i64),
    };
    let (days, ms) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    // Days to a date of the Gregorian calendar: Hinnant, "chrono-compatible low-level date
    // algorithms", civil_from_days.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (h, m, s) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{:03}Z", ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        let at = |ms| time(UNIX_EPOCH + std::time::Duration::from_millis(ms));
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_400_123), "2000-02-29T00:00:00.123Z");
        assert_eq!(at(1_795_593_379_117), "2026-11-25T07:56:19.117Z");
    }
}
