//! What the commands print of what they have found: tables, lines of fields, JSON, and the text
//! format of Prometheus. sss(1), in manual.rs, describes the last three: they are stable.

use std::{io, time::SystemTime};

use base64ct::{Base64, Encoding};
use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Row, Table};
use serde::Serialize;
use sss::{Entry, Stats};

use crate::{
    output::{Format, json},
    text::{escaped, grouped, relative, rfc_3339, size},
};

/// Whether the counters of a store are those of all its processes: those of `redis:` are not, and
/// are left out.
pub fn counts_all_processes(url: &str) -> bool {
    !url.starts_with("redis")
}

/// A number of `stats`.
#[derive(Clone, Copy)]
pub struct Number {
    pub name: &'static str,
    pub value: u64,
    help: &'static str,
}

impl Number {
    /// Whether it is a state, which can become smaller, and not a count of events.
    pub fn is_gauge(&self) -> bool {
        matches!(self.name, "sessions" | "bytes")
    }

    /// The text format of Prometheus, version 0.0.4.
    fn prometheus(&self) -> String {
        let (suffix, kind) = if self.is_gauge() { ("", "gauge") } else { ("_total", "counter") };
        let name = format!("sss_{}{suffix}", self.name);
        format!("# HELP {name} {}\n# TYPE {name} {kind}\n{name} {}\n", self.help, self.value)
    }
}

/// The numbers of a store; only the gauges if its counters are not those of all its processes.
pub fn numbers(stats: &Stats, url: &str) -> Vec<Number> {
    // The name of a number is that of its field.
    macro_rules! numbers {
        ($($name:ident: $help:literal,)*) => {
            [$(Number { name: stringify!($name), value: stats.$name, help: $help }),*]
        };
    }
    let numbers = numbers! {
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
    };
    let has_counters = counts_all_processes(url);
    numbers.into_iter().filter(|number| has_counters || number.is_gauge()).collect()
}

pub fn stats(numbers: &[Number], format: Format) -> io::Result<String> {
    match format {
        Format::Json => json(&NumberMap(numbers.iter().map(|number| (number.name, number.value)).collect())),
        Format::Lines => Ok(lines(numbers.iter().map(|number| [number.name.to_owned(), number.value.to_string()]))),
        Format::Terminal(width) => {
            let mut table = table(width, ["NUMBER", "VALUE"]);
            for number in numbers {
                let value = if number.name == "bytes" { size(number.value) } else { grouped(number.value) };
                table.add_row([number.name, &value]);
            }
            align_right(&mut table, 1);
            Ok(shown(&table))
        }
    }
}

pub fn prometheus(numbers: &[Number]) -> String {
    numbers.iter().map(Number::prometheus).collect()
}

/// How many sessions a command has removed or revoked.
pub fn count(verb: &'static str, count: u64, format: Format) -> io::Result<String> {
    match format {
        Format::Json => json(&NumberMap(vec![(verb, count)])),
        Format::Lines => Ok(format!("{verb}\t{count}\n")),
        Format::Terminal(_) => Ok(format!("{} {verb}\n", sessions(count))),
    }
}

/// A number of sessions, in words.
pub fn sessions(count: u64) -> String {
    format!("{} session{}", grouped(count), if count == 1 { "" } else { "s" })
}

pub fn check(findings: &[String], sessions_checked: u64, format: Format) -> io::Result<String> {
    #[derive(Serialize)]
    struct Check<'a> {
        ok: bool,
        sessions: u64,
        findings: &'a [String],
    }
    let finding_lines = || lines(findings.iter().map(|finding| [escaped(finding.as_bytes())]));
    match format {
        Format::Json => json(&Check { ok: findings.is_empty(), sessions: sessions_checked, findings }),
        _ if !findings.is_empty() => Ok(finding_lines()),
        Format::Lines => Ok(format!("sessions\t{sessions_checked}\n")),
        Format::Terminal(_) => Ok(format!("{} checked, no damage found\n", sessions(sessions_checked))),
    }
}

pub fn list(entries: &[Entry], format: Format) -> io::Result<String> {
    let rows: Vec<ListRow> = entries.iter().map(ListRow::from).collect();
    match format {
        Format::Json => json(&rows),
        Format::Lines => Ok(lines(rows.iter().map(ListRow::fields))),
        Format::Terminal(width) => {
            let mut table = table(width, ["REF", "CREATED", "LOGIN", "LAST USED", "EXPIRES", "SIZE", "LABEL"]);
            let digits = reference_digits(entries);
            let now = SystemTime::now();
            for entry in entries {
                table.add_row(table_row(entry, digits, now));
            }
            align_right(&mut table, 5);
            Ok(shown(&table))
        }
    }
}

/// A session of `list`, as JSON has it.
#[derive(Serialize)]
struct ListRow {
    #[serde(rename = "ref")]
    reference: String,
    label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label_base64: Option<String>,
    created: Option<String>,
    authenticated: Option<String>,
    last_seen: Option<String>,
    expires: Option<String>,
    version: u64,
    bytes: u64,
    #[serde(skip)]
    escaped_label: String,
}

impl From<&Entry> for ListRow {
    fn from(entry: &Entry) -> ListRow {
        let label = entry.label.as_deref();
        let text = label.and_then(|label| str::from_utf8(label).ok());
        ListRow {
            reference: entry.reference.to_string(),
            label: text.map(str::to_owned),
            label_base64: label.filter(|_| text.is_none()).map(Base64::encode_string),
            created: rfc_3339(entry.meta.created()),
            authenticated: entry.meta.authenticated().and_then(rfc_3339),
            last_seen: rfc_3339(entry.meta.last_seen()),
            expires: entry.meta.expires().and_then(rfc_3339),
            version: entry.meta.version(),
            bytes: entry.payload_len,
            escaped_label: escaped(label.unwrap_or_default()),
        }
    }
}

impl ListRow {
    fn fields(&self) -> [String; 8] {
        let time = |time: &Option<String>| time.as_deref().unwrap_or("never").to_owned();
        [
            self.reference.clone(),
            time(&self.created),
            time(&self.authenticated),
            time(&self.last_seen),
            time(&self.expires),
            self.version.to_string(),
            self.bytes.to_string(),
            self.escaped_label.clone(),
        ]
    }
}

fn table_row(entry: &Entry, digits: usize, now: SystemTime) -> Row {
    let time = |time: Option<SystemTime>, never: &str| time.map_or(never.to_owned(), |time| relative(time, now));
    let mut row = Row::from([
        entry.reference.to_string()[..digits].to_owned(),
        relative(entry.meta.created(), now),
        time(entry.meta.authenticated(), "-"),
        relative(entry.meta.last_seen(), now),
        time(entry.meta.expires(), "never"),
        size(entry.payload_len),
        escaped(entry.label.as_deref().unwrap_or_default()),
    ]);
    // A label that does not fit is cut, not wrapped.
    row.max_height(1);
    row
}

/// The fewest digits by which all references of a list differ, but at least 8.
fn reference_digits(entries: &[Entry]) -> usize {
    const MIN_DIGITS: usize = 8;
    let mut references: Vec<String> = entries.iter().map(|entry| entry.reference.to_string()).collect();
    references.sort_unstable();
    let common = |pair: &[String]| pair[0].bytes().zip(pair[1].bytes()).take_while(|(a, b)| a == b).count();
    references.windows(2).map(common).max().map_or(MIN_DIGITS, |common| (common + 1).max(MIN_DIGITS))
}

/// What the table of sessions needs to show the beginning of a label.
const MIN_WIDTH: u16 = 76;

/// An empty table of a terminal with this many columns. Its last column has what the others leave.
fn table<const N: usize>(width: u16, heads: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_width(width.max(MIN_WIDTH)).set_content_arrangement(ContentArrangement::Dynamic).set_header(heads);
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if at + 1 < N { 2 } else { 0 }));
        if at + 1 < N {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    table
}

fn align_right(table: &mut Table, column: usize) {
    if let Some(column) = table.column_mut(column) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

fn shown(table: &Table) -> String {
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn lines<const N: usize>(rows: impl Iterator<Item = [String; N]>) -> String {
    rows.map(|fields| format!("{}\n", fields.join("\t"))).collect()
}

/// Numbers by name, in their order.
pub struct NumberMap<T>(pub Vec<(&'static str, T)>);

impl<T: Serialize> Serialize for NumberMap<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}
