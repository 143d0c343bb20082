//! `sss watch`: samples a store's numbers once a second and prints what has changed, until Ctrl-C.

use std::{
    io,
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    time::{Duration, Instant, SystemTime},
};

use serde::Serialize;
use sss::{ErrorKind, Store};

use crate::{
    Failure,
    output::{self, Format},
    report::{Number, NumberMap, numbers},
    text::{rfc_3339, size},
};

const INTERVAL: Duration = Duration::from_secs(1);
/// A terminal shows the heads again after so many lines.
const LINES_PER_HEAD: u64 = 20;

/// Prints lines until `count` of them are printed, Ctrl-C is pressed, or nothing reads them.
pub fn watch(store: &Store, url: &str, count: u64, format: Format) -> Result<(), Failure> {
    let interrupt = interrupts()?;
    let mut before = sample(store, url)?;
    let mut due = before.at + INTERVAL;
    let mut lines = 0;
    while lines < count && !is_interrupted(&interrupt, due) {
        // Each second, but not two lines at once after a pause.
        due = (due + INTERVAL).max(Instant::now() + INTERVAL / 2);
        let now = match sample(store, url) {
            Ok(now) => now,
            // It may come back.
            Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) => {
                output::write_error(error.message());
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let mut text = String::new();
        if let Format::Terminal(columns) = format
            && lines % LINES_PER_HEAD == 0
        {
            text.push_str(&cut(&head(&now), columns));
        }
        text.push_str(&line(&before, &now, format)?);
        match output::write(text.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written?,
        }
        lines += 1;
        before = now;
    }
    Ok(())
}

/// A channel that Ctrl-C sends to. From now on it does not end the process.
fn interrupts() -> Result<Receiver<()>, Failure> {
    let (sender, receiver) = mpsc::channel();
    // Without a receiver the watch has ended.
    let handler = move || _ = sender.send(());
    ctrlc::set_handler(handler).map_err(|error| Failure::Output(io::Error::other(error)))?;
    Ok(receiver)
}

/// Waits until `due`. True: Ctrl-C came before.
fn is_interrupted(interrupt: &Receiver<()>, due: Instant) -> bool {
    let wait = due.saturating_duration_since(Instant::now());
    interrupt.recv_timeout(wait) != Err(RecvTimeoutError::Timeout)
}

/// The numbers of a store at some time.
struct Sample {
    at: Instant,
    time: SystemTime,
    numbers: Vec<Number>,
}

fn sample(store: &Store, url: &str) -> sss::Result<Sample> {
    let stats = store.stats()?;
    Ok(Sample { at: Instant::now(), time: SystemTime::now(), numbers: numbers(&stats, url) })
}

impl Sample {
    fn gauge(&self, name: &str) -> u64 {
        self.numbers.iter().find(|number| number.name == name).map_or(0, |number| number.value)
    }

    /// What was counted since `before`, per second.
    fn rates(&self, before: &Sample) -> Vec<(&'static str, f64)> {
        let seconds = (self.at - before.at).as_secs_f64().max(0.001);
        let pairs = self.numbers.iter().zip(&before.numbers).filter(|(now, _)| !now.is_gauge());
        // Counters begin again when the store does.
        let rate = |now: u64, before: u64| (now.saturating_sub(before) as f64 / seconds * 10.0).round() / 10.0;
        pairs.map(|(now, before)| (now.name, rate(now.value, before.value))).collect()
    }
}

fn line(before: &Sample, now: &Sample, format: Format) -> io::Result<String> {
    #[derive(Serialize)]
    struct Line {
        time: Option<String>,
        sessions: u64,
        bytes: u64,
        rates: NumberMap<f64>,
    }
    let (sessions, bytes, rates) = (now.gauge("sessions"), now.gauge("bytes"), now.rates(before));
    let time = rfc_3339(now.time);
    match format {
        Format::Json => output::json(&Line { time, sessions, bytes, rates: NumberMap(rates) }),
        Format::Lines => {
            let gauges = [time.unwrap_or_default(), sessions.to_string(), bytes.to_string()];
            let fields: Vec<String> =
                gauges.into_iter().chain(rates.iter().map(|(_, rate)| rate.to_string())).collect();
            Ok(fields.join("\t") + "\n")
        }
        Format::Terminal(columns) => {
            let mut line = format!("{sessions:>9} {:>8}", size(bytes));
            for column in columns_of(now) {
                let rate: f64 =
                    rates.iter().filter(|(name, _)| column.counters.contains(name)).map(|(_, rate)| rate).sum();
                line += &format!(" {rate:>0$.0}", column.width());
            }
            Ok(cut(&line, columns))
        }
    }
}

fn head(sample: &Sample) -> String {
    let mut line = format!("{:>9} {:>8}", "SESSIONS", "SIZE");
    for column in columns_of(sample) {
        line += &format!(" {:>1$}", column.head, column.width());
    }
    line
}

/// A column of the terminal: the sum of some rates. All columns fit into a width of 80.
struct Column {
    head: &'static str,
    counters: &'static [&'static str],
}

const COLUMNS: [Column; 8] = [
    Column { head: "CREATE/s", counters: &["created"] },
    Column { head: "HIT/s", counters: &["hits"] },
    Column { head: "MISS/s", counters: &["misses"] },
    Column { head: "PUT/s", counters: &["puts"] },
    Column { head: "RENEW/s", counters: &["renewed"] },
    Column { head: "END/s", counters: &["deleted", "revoked"] },
    Column { head: "EXPIRE/s", counters: &["expired"] },
    Column { head: "FAIL/s", counters: &["conflicts", "rejected", "errors"] },
];

impl Column {
    fn width(&self) -> usize {
        self.head.len().max(6)
    }
}

/// The columns for which a store has counters.
fn columns_of(sample: &Sample) -> impl Iterator<Item = &'static Column> {
    let has_counters = sample.numbers.iter().any(|number| !number.is_gauge());
    COLUMNS.iter().filter(move |_| has_counters)
}

/// The line as far as the terminal shows it in one row.
fn cut(line: &str, columns: u16) -> String {
    format!("{}\n", &line[..line.floor_char_boundary(columns.into())])
}
