//! The benchmark suite: `sss-bench [M1 M3 ...] [--quick]` measures and prints rows of the target
//! table, `sss-bench report` writes the report. `run.sh` runs everything, including the parts in
//! other languages.

mod bare_lmdb;
mod capi;
mod child;
mod competitors;
mod facts;
mod ideal;
mod latency;
mod lmdb;
mod memory;
mod plot;
mod random;
mod redis;
mod remote;
mod report;
mod speed;
mod sweep;
mod targets;
mod workload;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use crate::{facts::Facts, targets::TARGETS, workload::Scale};

const USAGE: &str = "\
sss-bench [ROW...] [--quick] [--n SESSIONS] [--rounds N] [--facts FILE] [--library FILE]
    measures the rows (M1 to M14, L1 to L6, R1 to R3; all if none is named) and prints them; with --facts also keeps the numbers
sss-bench report --facts FILE [--quick] [--about FILE] [--notes FILE] [--json FILE] [--markdown FILE]
    prints the whole table, and writes it; beside the markdown the plots";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.first().map(String::as_str) {
        Some("child") => {
            child(&args[1..]);
            Ok(())
        }
        Some("worker") => {
            lmdb::work(&args[1..]);
            Ok(())
        }
        Some("report") => Options::parse(&args[1..]).and_then(|options| report::write(&options)),
        _ => Options::parse(&args).map(|options| measure(&options)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("sss-bench: {message}\n{USAGE}");
            ExitCode::FAILURE
        }
    }
}

/// The command line.
#[derive(Default)]
pub struct Options {
    rows: Vec<String>,
    pub quick: bool,
    n: Option<usize>,
    rounds: Option<usize>,
    pub facts: Option<PathBuf>,
    library: Option<PathBuf>,
    pub markdown: Option<PathBuf>,
    pub json: Option<PathBuf>,
    pub about: Option<PathBuf>,
    pub notes: Option<PathBuf>,
}

impl Options {
    fn parse(args: &[String]) -> Result<Options, String> {
        let mut options = Options::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            let number = |text: &String| text.parse().map_err(|_| format!("{text} is not a number"));
            match arg.as_str() {
                "--quick" => options.quick = true,
                "--n" => options.n = Some(number(value()?)?),
                "--rounds" => options.rounds = Some(number(value()?)?),
                "--facts" => options.facts = Some(value()?.into()),
                "--library" => options.library = Some(value()?.into()),
                "--markdown" => options.markdown = Some(value()?.into()),
                "--json" => options.json = Some(value()?.into()),
                "--about" => options.about = Some(value()?.into()),
                "--notes" => options.notes = Some(value()?.into()),
                row if TARGETS.iter().any(|target| target.id.eq_ignore_ascii_case(row)) => {
                    options.rows.push(row.to_lowercase())
                }
                other => return Err(format!("what is {other}?")),
            }
        }
        Ok(options)
    }

    /// The shared library, where `make library` puts it.
    fn library(&self) -> &Path {
        self.library.as_deref().unwrap_or(Path::new("target/release/libsss.so"))
    }

    fn scale(&self) -> Scale {
        let scale = if self.quick { Scale::QUICK } else { Scale::FULL };
        Scale { n: self.n.unwrap_or(scale.n), rounds: self.rounds.unwrap_or(scale.rounds), ..scale }
    }
}

/// Measures the wanted rows. Rows that share a store are measured together.
fn measure(options: &Options) {
    let scale = options.scale();
    let mut facts = Facts::new(options.facts.clone());
    facts.set("scale.n", scale.n as f64);
    facts.set("scale.rounds", scale.rounds as f64);
    let wanted = |row: &str| options.rows.is_empty() || options.rows.iter().any(|r| r == row);
    let mut part = |rows: &[&str], run: &dyn Fn(&mut Facts, &[&str])| {
        let rows: Vec<&str> = rows.iter().copied().filter(|row| wanted(row)).collect();
        if rows.is_empty() {
            return;
        }
        let begun = Instant::now();
        run(&mut facts, &rows);
        for target in TARGETS.iter().filter(|target| rows.contains(&target.id.to_lowercase().as_str())) {
            println!("{}", report::line(target, &facts));
        }
        eprintln!("  ({:.0} s)", begun.elapsed().as_secs_f64());
    };
    part(&["m1", "m3", "m4"], &|facts, rows| speed::table(scale, facts, 256, rows));
    part(&["m2"], &|facts, rows| speed::table(scale, facts, 1024, rows));
    part(&["m5"], &|facts, _| speed::bulk_create(scale, facts));
    part(&["m6"], &|facts, _| latency::growth(scale, facts));
    part(&["m7"], &|facts, _| speed::threads(scale, facts));
    part(&["m8"], &|facts, _| capi::cost(scale, facts, options.library()));
    part(&["m9"], &|facts, _| remote::servers(scale, facts));
    part(&["m10"], &|facts, _| memory::per_session(scale, facts));
    part(&["m11"], &|facts, _| memory::after_deleting(scale, facts));
    part(&["m12"], &|facts, _| sweep::nothing_due(scale, facts));
    part(&["m13"], &|facts, _| sweep::all_expired(scale, facts));
    part(&["m14"], &|facts, _| latency::during_sweep(scale, facts));
    part(&["l1", "l2", "l4", "l5"], &|facts, rows| lmdb::large(scale, facts, rows));
    part(&["l3"], &|facts, _| lmdb::group_commit(scale, facts));
    part(&["l6"], &|facts, _| lmdb::share_of_writes(scale, facts));
    part(&["r1", "r2", "r3"], &|facts, _| redis::beside_bare_connections(scale, facts));
}

/// A case in a fresh process: prints its numbers.
fn child(args: &[String]) {
    let (name, n) = (args[1].as_str(), args[2].parse().expect("a number of sessions"));
    let numbers = match args[0].as_str() {
        "m5" => vec![speed::bulk_create_in_child(name, n)],
        "m5-in-cache" => vec![speed::create_in_cache_in_child(name, n)],
        "m6" => latency::growth_in_child(name, n),
        "m10" => vec![memory::per_session_in_child(name, n)],
        "m11" => memory::after_deleting_in_child(name, n),
        other => panic!("no such case: {other}"),
    };
    println!("{}", numbers.iter().map(f64::to_string).collect::<Vec<_>>().join(" "));
}
