//! The target table as text: for the terminal, as docs/BENCHMARKS.md, and as JSON for programs.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use crate::{
    Options,
    facts::Facts,
    plot,
    targets::{TARGETS, Target, Verdict},
};

const METHOD: &str = "\
Everything is a ratio against a named competitor, measured side by side: the stores live in one process and take turns, \
whoever begins changes with every round, and a figure is the median over the rounds (ratios are taken round by round; \
the range is in brackets). Within a turn the time of an operation is the median over batches of 256. Ids have 128 \
characters and are drawn at random; each batch is copied out before it is timed, so that the id is warm and the session \
is not. A get looks up, checks both deadlines, slides, and copies the payload into the caller's buffer; reading the clock \
is part of it, for everybody. All memory that is going to be used is touched once before. What is about memory or about \
growing (M5, M6, M10, M11) runs in fresh processes of the same binary. libsss makes its ids within create, the \
others are given theirs: in M5 its random bytes come from a fast generator, and what is left of making an id is taken \
off; in M6 all of it counts. M5 and M13, single long runs of one thread, count its processor time. Redis and memcached run on unix sockets with \
nothing written to disk; their protocols are spoken directly, one request at a time per connection. The call of one \
connection counts with the server on the client's own processor, where nobody has to be woken: the fastest that it \
can be.

**LB** is what a good engineer writes in an hour, for one thread: `hashbrown` keyed by SipHash-1-3-128 of the id, the \
payload in a box, replaced in place if its length stays. **IDEAL** is the practical floor: an index without collisions \
and one contiguous slot in huge pages, two cache misses. **LB behind a lock** is LB in a `parking_lot` mutex that nobody \
else wants: what several threads could share. dashmap and papaya have the id as their key, moka has both \
timeouts. Percentiles are of the calls as they were; \"one call every 10 µs\" is corrected for coordinated omission: \
what callers would have seen who come at that rate and find the store stalled.";

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

/// What the report is made of besides the facts.
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
    let mut text = String::new();
    for target in TARGETS {
        let _ = writeln!(text, "{}", line(target, &sources.facts));
    }
    let (pass, miss, not) = count(&sources.facts);
    let _ = writeln!(text, "{pass} passed, {miss} missed, {not} not measured yet{}", quick_mark(sources));
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
        true => format!(
            " (QUICK: {} sessions and few rounds, while the targets are meant for 1000000: for a first look only)",
            sessions(sources)
        ),
        false => String::new(),
    }
}

/// A measurement beside somebody's compiler is no measurement.
fn disturbed(sources: &Sources) -> String {
    match sources.facts.get("machine.others_percent") {
        Some(others) if others > 5.0 => format!(
            "**The machine was not quiet: others took {others} % of its processor time. Do not believe the times and \
             percentiles below without another run.**\n\n"
        ),
        _ => String::new(),
    }
}

fn markdown(sources: &Sources, plots: &[(&str, &str)]) -> String {
    let (pass, miss, not) = count(&sources.facts);
    let mut text = format!(
        "<!-- Written by `make bench`: do not edit. Explanations of misses are in benches/notes.txt. -->\n\
         # Benchmarks\n\n\
         `make bench` printed this: {pass} targets passed, {miss} missed, {not} not measured yet{}. They hold for this \
         machine on this day; run it on yours. \"Large\" is {} sessions.\n\n{}",
        quick_mark(sources),
        sessions(sources),
        disturbed(sources)
    );
    for (key, value) in &sources.about {
        let _ = writeln!(text, "- {key}: {value}");
    }
    text.push_str("\n## Targets\n\n| | what | target | measured | |\n|---|---|---|---|---|\n");
    for target in TARGETS {
        let (measured, verdict) = target.measured(&sources.facts);
        let verdict = match verdict {
            Verdict::Pass => "pass",
            Verdict::Miss => "**miss**",
            Verdict::NotMeasured => "",
        };
        let _ = writeln!(text, "| {} | {} | {} | {measured} | {verdict} |", target.id, target.what, target.target);
    }
    let missed = |target: &&Target| target.measured(&sources.facts).1 == Verdict::Miss;
    if TARGETS.iter().any(|target| missed(&target)) {
        text.push_str("\n## What is missed, and why\n\n");
        for target in TARGETS.iter().filter(missed) {
            let why = sources.notes.get(target.id).map_or("not explained yet.", String::as_str);
            let _ = writeln!(text, "- {}: {why}", target.id);
        }
    }
    for (file, about) in plots {
        let _ = write!(text, "\n![{about}]({file})\n");
    }
    let _ = write!(text, "\n## How it is measured\n\n{METHOD}\n\n## The figures behind the table\n\n");
    for target in TARGETS {
        let figures = target.figures(&sources.facts);
        if !figures.is_empty() {
            let _ = writeln!(text, "- {}: {figures}", target.id);
        }
    }
    text
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
                Verdict::NotMeasured => "not measured yet",
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
