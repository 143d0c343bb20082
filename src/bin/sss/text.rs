//! Values as text: times, sizes, and bytes that come from outside.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// RFC 3339 in UTC; `None` for a time that the format cannot express.
pub fn rfc_3339(time: SystemTime) -> Option<String> {
    const YEAR_10000: Duration = Duration::from_secs(253_402_300_800);
    let is_expressible = time.duration_since(UNIX_EPOCH).is_ok_and(|since| since < YEAR_10000);
    is_expressible.then(|| humantime::format_rfc3339_millis(time).to_string())
}

/// A time as seen from `now`: "2 min ago", "in 9 min".
pub fn relative(time: SystemTime, now: SystemTime) -> String {
    match time.duration_since(now) {
        Ok(ahead) if ahead < SECOND => "now".to_owned(),
        Ok(ahead) => format!("in {}", rounded_down(ahead)),
        Err(error) if error.duration() < SECOND => "now".to_owned(),
        Err(error) => format!("{} ago", rounded_down(error.duration())),
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// A duration in its largest unit of which there is one, but hours up to two days.
fn rounded_down(duration: Duration) -> String {
    const UNITS: [(u64, u64, &str); 4] =
        [(2 * 365 * 86_400, 365 * 86_400, "y"), (2 * 86_400, 86_400, "d"), (3600, 3600, "h"), (60, 60, "min")];
    let seconds = duration.as_secs();
    let unit = UNITS.iter().find(|(from, ..)| seconds >= *from);
    unit.map_or_else(|| format!("{seconds} s"), |(_, unit, name)| format!("{} {name}", seconds / unit))
}

/// A number of bytes: "512 B", "1.5 KiB".
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    // 999.95 and more would be shown with five digits.
    while value >= 999.95 {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 9.95);
    format!("{value:.digits$} {}", UNITS[unit])
}

/// A number with separators: "1,234,567".
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes as text without characters that a terminal obeys or that cannot be seen. Different bytes
/// give different text.
pub fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                c if is_safe(c) => text.push(c),
                c => text.extend(c.escape_debug()),
            }
        }
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

/// Whether a character can be shown as it is: not a control character, nor one that changes the
/// direction of writing or cannot be seen.
pub fn is_safe(c: char) -> bool {
    // What `Debug` escapes in a string, but for what it escapes because of its own syntax.
    matches!(c, '\'' | '"' | '\\') || c.escape_debug().len() == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extreme_times_are_not_expressible() {
        let at = |ms| rfc_3339(UNIX_EPOCH + Duration::from_millis(ms));
        assert_eq!(at(0).unwrap(), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_400_123).unwrap(), "2000-02-29T00:00:00.123Z");
        assert_eq!(at(253_402_300_799_999).unwrap(), "9999-12-31T23:59:59.999Z");
        assert_eq!(at(253_402_300_800_000), None);
        assert_eq!(at(i64::MAX as u64), None);
        assert_eq!(rfc_3339(UNIX_EPOCH - Duration::from_millis(1)), None);
    }

    #[test]
    fn relative_times_round_down() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let cases = [
            (0, "now", "now"),
            (59, "59 s ago", "in 59 s"),
            (179, "2 min ago", "in 2 min"),
            (3599, "59 min ago", "in 59 min"),
            (47 * 3600, "47 h ago", "in 47 h"),
            (86_400 * 3, "3 d ago", "in 3 d"),
            (86_400 * 800, "2 y ago", "in 2 y"),
        ];
        for (seconds, past, future) in cases {
            let distance = Duration::from_secs(seconds);
            assert_eq!(
                (relative(now - distance, now).as_str(), relative(now + distance, now).as_str()),
                (past, future)
            );
        }
    }

    #[test]
    fn sizes_have_few_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 KiB"),
            (10_000, "9.8 KiB"),
            (10_240, "10 KiB"),
            (1 << 20, "1.0 MiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!((grouped(0), grouped(999), grouped(1_234_567)), ("0".into(), "999".into(), "1,234,567".into()));
    }

    #[test]
    fn escaped_text_is_safe_and_unambiguous() {
        for (bytes, text) in [
            (&b"Firefox on Linux, 127.0.0.1"[..], "Firefox on Linux, 127.0.0.1"),
            ("Zoë's \"PC\" 日本 🦊".as_bytes(), "Zoë's \"PC\" 日本 🦊"),
            (b"a\tb\nc\\t", "a\\tb\\nc\\\\t"),
            (b"\x1b[2J\x07\x7f", "\\u{1b}[2J\\u{7}\\u{7f}"),
            (
                "\u{9b}31m \u{202e}evil\u{2066} \u{200b}\u{2028}".as_bytes(),
                "\\u{9b}31m \\u{202e}evil\\u{2066} \\u{200b}\\u{2028}",
            ),
            (b"\xff\x80ok", "\\xff\\x80ok"),
        ] {
            assert_eq!(escaped(bytes), text);
            assert!(escaped(bytes).chars().all(is_safe));
        }
    }
}
