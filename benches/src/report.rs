//! Writes the results: to the terminal, as docs/BENCHMARKS.md, and as JSON.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use crate::{
    Options,
    facts::Facts,
    plot,
    targets::{TARGETS, Target, Unit, Verdict},
};

/// A comparison that a user understands without the target table: one session read, by this library
/// and by another store.
struct Headline {
    other: &'static str,
    other_fact: &'static str,
    own: &'static str,
    own_fact: &'static str,
    times: fn(&Facts) -> Option<f64>,
}

const HEADLINES: [Headline; 3] = [
    Headline {
        other: "Redis over a Unix socket",
        other_fact: "m9.redis_ns",
        own: "`memory:`",
        own_fact: "m9.sss_ns",
        times: |facts| facts.get("m9.redis_times"),
    },
    Headline {
        other: "dashmap, a concurrent hash map without expiry",
        other_fact: "m1.dashmap_ns",
        own: "`memory:`",
        own_fact: "m1.sss_ns",
        times: |facts| Some(1.0 / facts.get("m1.ratio.dashmap")?),
    },
    Headline {
        other: "Django's database sessions on SQLite",
        other_fact: "django.django_read_ns",
        own: "`lmdb:` from Python",
        own_fact: "django.lmdb_read_ns",
        times: |facts| facts.get("django.lmdb_read_times"),
    },
];

const COMPETITORS: &str = "\
| competitor | |
|---|---|
| hashbrown | a single-threaded `hashbrown` map keyed by SipHash-1-3-128 of the id, with the payload in a box that is \
overwritten if the length stays: what a good engineer writes in an hour |
| hashbrown behind a lock | the same in an uncontended `parking_lot` mutex: what several threads could share |
| floor | the practical minimum: an index without collisions and one contiguous slot in huge pages, two cache misses |
| dashmap, papaya | concurrent maps with the id as key |
| moka | a cache with both timeouts |
| Redis, memcached | on Unix sockets, without persistence; their protocols are spoken directly, one request at a time per \
connection. For a single connection the server runs on the client's processor, which avoids wake-ups and is its fastest case |";

const METHOD: &str = "\
All stores of a row run in the same process and take turns; the order changes with every round. A figure is the median over \
the rounds. A ratio is computed within each round; its range is in brackets. Within a turn, the time of an operation is the \
median over batches of 256.

- Ids have 128 characters and are drawn at random. Each batch is copied before it is timed, so the id is in the cache and \
the session is not.
- A get looks up the id, checks both deadlines, slides the idle deadline and copies the payload to the caller. Every \
competitor reads the clock too.
- All memory is touched before the measurement.
- Rows about memory or growth (M5, M6, M10, M11) run in fresh processes.
- libsss generates ids in create; the others are given ids. M5 uses a fast generator for the random bytes and subtracts the \
rest of generating an id. M6 counts everything.
- M5 and M13 are single long runs of one thread and count processor time.
- Percentiles are those of the calls as they ran. \"One call every 10 µs\" is corrected for coordinated omission: the \
latency that callers at that rate would see.
- The comparison with Django reads one key of a session of 256 bytes, from Python, without a web request. \
`make bench` runs `benches/python/django_sessions.py` for it.";

/// A row of the table for the terminal.
pub fn line(target: &Target, facts: &Facts) -> String {
    let (measured, verdict) = target.measured(facts);
    let figures = target.figures(facts);
    let figures = if figures.is_empty() { figures } else { format!("\n          {figures}") };
    format!("{:4} {:4} {measured}   (target {})   {}{figures}", target.id, word(verdict), target.target, target.what)
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Miss => "MISS",
        Verdict::NotMeasured => "-",
    }
}

/// Everything the report is made from.
struct Sources {
    facts: Facts,
    /// Date, machine and versions, in order.
    about: Vec<(String, String)>,
    /// Explanations of misses, by row.
    notes: BTreeMap<String, String>,
    quick: bool,
}

pub fn write(options: &Options) -> Result<(), String> {
    let mut facts = Facts::default();
    let file = options.facts.as_ref().ok_or("a report needs --facts")?;
    facts.read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let about = options.about.as_deref().map(pairs).transpose()?.unwrap_or_default();
    let notes = options.notes.as_deref().map(pairs).transpose()?.unwrap_or_default().into_iter().collect();
    let sources = Sources { facts, about, notes, quick: options.quick };

    print!("{}", terminal(&sources));
    if let Some(file) = &options.json {
        save(file, &json(&sources))?;
    }
    let Some(file) = &options.markdown else { return Ok(()) };
    let directory = file.parent().unwrap_or(Path::new("."));
    let mut plots = Vec::new();
    for (name, about, plot) in [
        ("read-a-session.svg", "Time to read one session", plot::reads(&sources.facts)),
        (
            "latency-during-sweep.svg",
            "Latency of a get while expired sessions are swept",
            plot::latency(&sources.facts),
        ),
        ("memory-per-session.svg", "Memory per session beyond the payload", plot::memory(&sources.facts)),
    ] {
        if let Some(plot) = plot {
            save(&directory.join(name), &plot)?;
            plots.push((name, about));
        }
    }
    save(file, &markdown(&sources, &plots))
}

fn save(file: &Path, text: &str) -> Result<(), String> {
    fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}

/// Lines of `key: value`; `#` begins a comment.
fn pairs(file: &Path) -> Result<Vec<(String, String)>, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    lines
        .map(|line| match line.split_once(':') {
            Some((key, value)) => Ok((key.trim().to_owned(), value.trim().to_owned())),
            None => Err(format!("{}: not `key: value`: {line}", file.display())),
        })
        .collect()
}

fn terminal(sources: &Sources) -> String {
    let mut text = headlines(&sources.facts).replace('`', "") + "\n";
    for target in TARGETS {
        let _ = writeln!(text, "{}", line(target, &sources.facts));
    }
    let (pass, miss, not) = count(&sources.facts);
    let _ = writeln!(text, "{pass} passed, {miss} missed, {not} not measured{}", quick_mark(sources));
    text + &disturbed(sources).replace("**", "")
}

fn count(facts: &Facts) -> (usize, usize, usize) {
    let of = |verdict| TARGETS.iter().filter(|target| target.measured(facts).1 == verdict).count();
    (of(Verdict::Pass), of(Verdict::Miss), of(Verdict::NotMeasured))
}

fn sessions(sources: &Sources) -> f64 {
    sources.facts.get("scale.n").unwrap_or_default()
}

fn quick_mark(sources: &Sources) -> String {
    match sources.quick {
        true => format!(" (QUICK: {} sessions and few rounds; the targets are for 1000000)", sessions(sources)),
        false => String::new(),
    }
}

/// A measurement next to a busy compiler is no measurement.
fn disturbed(sources: &Sources) -> String {
    match sources.facts.get("machine.others_percent") {
        Some(others) if others > 5.0 => format!(
            "**The machine was busy: other programs used {others} % of its processor time. Repeat the run before you rely on \
             these times and percentiles.**\n\n"
        ),
        _ => String::new(),
    }
}

fn rounded(ns: f64) -> String {
    if ns < 1000.0 { Unit::Ns.show(ns) } else { Unit::Us.show(ns / 1e3) }
}

/// The rows of [`HEADLINES`] that were measured, as a table.
fn headlines(facts: &Facts) -> String {
    let mut text = "| time to read one session | | libsss | |\n|---|---|---|---|\n".to_owned();
    for row in &HEADLINES {
        let figures = || Some((facts.get(row.other_fact)?, facts.get(row.own_fact)?, (row.times)(facts)?));
        let Some((other, own, times)) = figures() else { continue };
        let _ = writeln!(
            text,
            "| {} | {} | {} {} | **{} as fast** |",
            row.other,
            rounded(other),
            row.own,
            rounded(own),
            Unit::Times.show(times)
        );
    }
    text
}

fn markdown(sources: &Sources, plots: &[(&str, &str)]) -> String {
    let (pass, miss, not) = count(&sources.facts);
    let picture = |text: &mut String, wanted: bool| {
        for (file, about) in plots.iter().filter(|(file, _)| (*file == "read-a-session.svg") == wanted) {
            let _ = write!(text, "\n![{about}]({file})\n");
        }
    };
    let mut text = format!(
        "<!-- Written by `make bench`: do not edit. Explanations of misses are in benches/notes.txt. -->\n\
         # Benchmarks\n\n{}",
        headlines(&sources.facts)
    );
    picture(&mut text, true);
    let _ = write!(
        text,
        "\nPayloads have 256 bytes. The `memory:` and dashmap figures are those of one thread and {} sessions (against Redis: a tenth). \
         Run `make bench` for the figures of your machine.\n\n## Targets\n\n\
         {pass} targets passed, {miss} missed, {not} not measured{}.\n\n{}\
         | | what | target | measured | |\n|---|---|---|---|---|\n",
        sessions(sources),
        quick_mark(sources),
        disturbed(sources)
    );
    for target in TARGETS {
        let (measured, verdict) = target.measured(&sources.facts);
        let verdict = match verdict {
            Verdict::Pass => "pass",
            Verdict::Miss => "**miss**",
            Verdict::NotMeasured => "",
        };
        let _ = writeln!(text, "| {} | {} | {} | {measured} | {verdict} |", target.id, target.what, target.target);
    }
    let _ = write!(text, "\n{COMPETITORS}\n");
    picture(&mut text, false);
    let missed = |target: &&Target| target.measured(&sources.facts).1 == Verdict::Miss;
    if TARGETS.iter().any(|target| missed(&target)) {
        text.push_str("\n## Missed targets\n\n");
        for target in TARGETS.iter().filter(missed) {
            let why = sources.notes.get(target.id).map_or("Not explained yet.", String::as_str);
            let _ = writeln!(text, "- {}: {why}", target.id);
        }
    }
    text.push_str("\n## Machine and versions\n\n");
    for (key, value) in &sources.about {
        let _ = writeln!(text, "- {key}: {value}");
    }
    let _ = write!(text, "\n## Method\n\n{METHOD}\n\n## All figures\n\n");
    for target in TARGETS {
        let figures = target.figures(&sources.facts);
        if !figures.is_empty() {
            let _ = writeln!(text, "- {}: {figures}", target.id);
        }
    }
    let _ = writeln!(text, "- Django: {}", django(&sources.facts));
    text
}

/// The facts of `benches/python/django_sessions.py`, which belong to no target.
fn django(facts: &Facts) -> String {
    const STORES: [(&str, &str); 3] = [("django", "Django"), ("lmdb", "lmdb:"), ("memory", "memory:")];
    let mut figures = Vec::new();
    for step in ["read", "write"] {
        for (store, name) in STORES {
            if let Some(ns) = facts.get(&format!("django.{store}_{step}_ns")) {
                figures.push(format!("{step}, {name} {}", Unit::Ns.show(ns)));
            }
        }
    }
    if figures.is_empty() { "not measured".into() } else { figures.join(", ") }
}

fn json(sources: &Sources) -> String {
    let about: Vec<String> =
        sources.about.iter().map(|(key, value)| format!("    {}: {}", quoted(key), quoted(value))).collect();
    let rows: Vec<String> = TARGETS
        .iter()
        .map(|target| {
            let (measured, verdict) = target.measured(&sources.facts);
            let verdict = match verdict {
                Verdict::Pass => "pass",
                Verdict::Miss => "miss",
                Verdict::NotMeasured => "not measured",
            };
            let fields = [
                ("id", target.id),
                ("what", target.what),
                ("target", target.target),
                ("measured", &measured),
                ("verdict", verdict),
            ];
            let fields = fields.map(|(key, value)| format!("{}: {}", quoted(key), quoted(value)));
            format!("    {{{}}}", fields.join(", "))
        })
        .collect();
    let facts: Vec<String> = sources
        .facts
        .all()
        .filter(|(_, value)| value.is_finite())
        .map(|(name, value)| format!("    {}: {value}", quoted(name)))
        .collect();
    format!(
        "{{\n  \"quick\": {},\n  \"about\": {{\n{}\n  }},\n  \"rows\": [\n{}\n  ],\n  \"facts\": {{\n{}\n  }}\n}}\n",
        sources.quick,
        about.join(",\n"),
        rows.join(",\n"),
        facts.join(",\n")
    )
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c < ' ' => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted + "\""
}
