//! The command line: looks after a store that its servers have open, or had. It follows the store's own settings and never
//! shows an id, which it does not know.

use std::{
    io::{self, Write},
    process::ExitCode,
    time::{SystemTime, UNIX_EPOCH},
};

use sss::{Entry, Error, Stats, Store};

const HELP: &str = "\
sss - looks after a store of sessions

    sss stats  [URL] [--json | --prometheus]    what the store holds, and its counters
    sss sweep  [URL] [--max N] [--json]         removes expired sessions (all, unless N)
    sss list   [URL] --principal P [--json]     the living sessions of a user, never their ids
    sss revoke [URL] --principal P [--json]     ends all sessions of a user
    sss check  [URL] [--json]                   whether the store is whole; the file's structure, too, if the servers are down
    sss help | --help | --version

URL is that of the server, such as lmdb:/var/lib/app/sessions; without it SSS_URL in the environment is taken. What it
does not say stays as the servers have it, so no options are needed. The store must be there: none is made. It belongs to
the user that the servers run as, so run this as that user. A memory: store cannot be reached from outside.

Exit status: 0 done, 1 the store answered an error or check found something, 2 the command line is wrong.";

enum Format {
    Text,
    Json,
    Prometheus,
}

struct Command {
    verb: String,
    url: Option<String>,
    principal: Option<String>,
    max: u64,
    format: Format,
}

fn main() -> ExitCode {
    let args: Vec<String> = match std::env::args_os().skip(1).map(|arg| arg.into_string()).collect() {
        Ok(args) => args,
        Err(_) => return wrong("an argument is not UTF-8"),
    };
    match args.first().map(String::as_str) {
        Some("help" | "--help" | "-h") => return print(HELP),
        Some("--version" | "-V") => return print(&format!("sss {}", env!("CARGO_PKG_VERSION"))),
        _ => {}
    }
    let command = match Command::parse(args) {
        Ok(command) => command,
        Err(why) => return wrong(&why),
    };
    match command.run() {
        Ok(text) => print(&text),
        Err(error) => {
            eprintln!("sss: {error}");
            ExitCode::from(1)
        }
    }
}

fn wrong(why: &str) -> ExitCode {
    eprintln!("sss: {why} (see sss --help)");
    ExitCode::from(2)
}

/// A reader that has gone, such as `head`, is no failure.
fn print(text: &str) -> ExitCode {
    match writeln!(io::stdout().lock(), "{}", text.trim_end()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::from(1),
        _ => ExitCode::SUCCESS,
    }
}

impl Command {
    fn parse(args: Vec<String>) -> Result<Command, String> {
        let mut args = args.into_iter();
        let verb = args.next().ok_or("a command is missing")?;
        if !["stats", "sweep", "list", "revoke", "check"].contains(&verb.as_str()) {
            return Err(format!("'{verb}' is not a command"));
        }
        let mut command = Command { verb, url: None, principal: None, max: u64::MAX, format: Format::Text };
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match (arg.as_str(), command.verb.as_str()) {
                ("--principal", "list" | "revoke") => command.principal = Some(value()?),
                ("--max", "sweep") => {
                    let max = value()?;
                    command.max =
                        max.parse().map_err(|_| format!("the value '{max}' of --max is not a whole number"))?;
                }
                ("--json", _) => command.format = Format::Json,
                ("--prometheus", "stats") => command.format = Format::Prometheus,
                (option, verb) if option.starts_with('-') => {
                    return Err(format!("'{option}' is not an option of {verb}"));
                }
                _ if command.url.is_none() => command.url = Some(arg),
                _ => return Err("there is more than one URL".to_owned()),
            }
        }
        command.url = command.url.or_else(|| std::env::var("SSS_URL").ok());
        if command.url.is_none() {
            return Err("the store's URL is missing".to_owned());
        }
        if matches!(command.verb.as_str(), "list" | "revoke") && command.principal.is_none() {
            return Err(format!("{} needs --principal", command.verb));
        }
        Ok(command)
    }

    /// What is to be printed.
    fn run(&self) -> Result<String, Error> {
        let store = Store::open_existing(self.url.as_deref().unwrap_or_default())?;
        let principal = self.principal.as_deref().unwrap_or_default().as_bytes();
        let count = |name: &str, count: u64| match self.format {
            Format::Json => format!("{{\"{name}\": {count}}}"),
            _ => format!("{count} {name}"),
        };
        Ok(match self.verb.as_str() {
            "stats" => {
                let numbers = numbers(&store.stats()?);
                match self.format {
                    Format::Text => {
                        numbers.map(|number| format!("{:<10} {:>12}", number.name, number.value)).join("\n")
                    }
                    Format::Json => object(numbers.iter().map(|number| (number.name, number.value.to_string()))),
                    Format::Prometheus => numbers.map(|number| number.prometheus()).concat(),
                }
            }
            "sweep" => count("removed", store.sweep(self.max)?),
            "check" => {
                let findings = store.check()?;
                if !findings.is_empty() {
                    return Err(Error::new(sss::ErrorKind::Corrupt, findings.join("\nsss: ")));
                }
                let sessions = store.stats()?.sessions;
                match self.format {
                    Format::Json => format!("{{\"whole\": true, \"sessions\": {sessions}}}"),
                    _ => format!("whole: {sessions} sessions"),
                }
            }
            "list" => {
                let entries = store.list(principal)?;
                match self.format {
                    Format::Json => format!("[{}]", entries.iter().map(json).collect::<Vec<_>>().join(", ")),
                    _ => entries.iter().map(line).collect::<Vec<_>>().join("\n"),
                }
            }
            _ => count("revoked", store.revoke(principal, None)?),
        })
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
    // A number is called as its field is.
    macro_rules! numbers {
        ($($name:ident: $help:literal,)*) => {
            [$(Number { name: stringify!($name), value: stats.$name, help: $help }),*]
        };
    }
    numbers! {
        sessions: "Sessions held, expired ones until they are cleared.",
        bytes: "Bytes of their payloads.",
        created: "Sessions created.",
        hits: "Reads that found a session.",
        misses: "Reads that found none.",
        puts: "Payloads replaced.",
        deleted: "Sessions deleted.",
        renewed: "Sessions given a new id.",
        conflicts: "Writes refused because of the version.",
        revoked: "Sessions ended by revoke or by max_per_principal.",
        expired: "Expired sessions cleared.",
        rejected: "Writes refused by a limit.",
        errors: "Failures that are not the caller's.",
    }
}

fn object<'a>(members: impl Iterator<Item = (&'a str, String)>) -> String {
    format!("{{{}}}", members.map(|(name, value)| format!("\"{name}\": {value}")).collect::<Vec<_>>().join(", "))
}

fn line(entry: &Entry) -> String {
    let [created, seen, expires] = times(entry);
    let (version, len) = (entry.meta.version(), entry.payload_len);
    format!(
        "{}  created {created}  last seen {seen}  expires {expires}  version {version}  {len} bytes",
        entry.reference
    )
}

fn json(entry: &Entry) -> String {
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
    // Days to a date of the Gregorian calendar: Hinnant, "chrono-compatible low-level date algorithms", civil_from_days.
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
    fn times_are_those_of_rfc_3339() {
        let at = |ms| time(UNIX_EPOCH + std::time::Duration::from_millis(ms));
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_400_123), "2000-02-29T00:00:00.123Z");
        assert_eq!(at(1_795_593_379_117), "2026-11-25T07:56:19.117Z");
    }
}
