//! Runs the scenarios of tests/conformance/*.txt through the safe Rust API; README.md there has the
//! format. It knows the format and nothing of the contract: what must happen is written in the data
//! and only there. SSS_TEST_ENGINE picks the engine: memory (the default), lmdb, lmdb-power, redis,
//! redis-unix, redis-tls, redis-sentinel or redis-cluster.

mod words;
mod world;

use std::{
    collections::BTreeSet,
    fs,
    io::{Write, stderr},
    path::{Path, PathBuf},
    sync::Mutex,
};

use crate::common::Engine;
use world::World;

const KNOWN_ABILITIES: [&str; 9] =
    ["buffers", "handles", "close", "fork", "options", "flags", "memory", "processes", "limits"];

/// One test per file, and one that no file is forgotten.
macro_rules! files {
    ($($name:ident)*) => {
        const FILES: &[&str] = &[$(stringify!($name)),*];
        $(#[test] fn $name() { run_file(stringify!($name)); })*
    };
}

files! {
    delete fork get grace handles id labels limits list login max_per_principal memory payload principal put put_if
    references renew reopen revoke revoke_all seal stats status sweep time timeouts url
}

#[test]
fn files_and_scenario_names_are_complete() {
    let found: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "txt"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(found, FILES.iter().map(|&name| name.to_owned()).collect());

    let mut names = BTreeSet::new();
    for scenario in FILES.iter().flat_map(|file| scenarios(file)) {
        assert!(
            !scenario.name.is_empty()
                && scenario.name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_'),
            "{}: bad scenario name",
            scenario.place
        );
        assert!(!scenario.steps.is_empty(), "{}: a scenario without steps", scenario.place);
        for need in &scenario.needs {
            assert!(KNOWN_ABILITIES.contains(&need.as_str()), "{}: unknown ability {need}", scenario.place);
        }
        assert!(names.insert(scenario.name.clone()), "{}: {} exists already", scenario.place, scenario.name);
    }
    assert!(names.len() >= 90, "only {} scenarios", names.len());
}

/// Languages whose create and renew return the id alone read the metadata with a peek, which counts
/// as a hit.
#[test]
fn hit_counts_exclude_metadata_checks() {
    for scenario in FILES.iter().flat_map(|file| scenarios(file)) {
        let has = |words: &[&str]| scenario.steps.iter().any(|(_, step)| words.iter().any(|word| step.contains(word)));
        if !has(&[" hits=", " misses="]) {
            continue;
        }
        assert!(!has(&[" created=0ms", " seen=", " expires="]), "{}: times and hits", scenario.place);
        for (place, step) in &scenario.steps {
            let returns_an_id = step.starts_with("create ") || step.starts_with("renew ");
            assert!(!returns_an_id || step.ends_with("-> ok") || !step.contains("-> ok"), "{place}: checks and hits");
        }
    }
}

struct Scenario {
    place: String,
    name: String,
    needs: Vec<String>,
    /// Where, and the line.
    steps: Vec<(String, String)>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance")
}

fn scenarios(file: &str) -> Vec<Scenario> {
    let text = fs::read_to_string(folder().join(format!("{file}.txt"))).unwrap();
    let mut scenarios: Vec<Scenario> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let place = format!("tests/conformance/{file}.txt:{}", number + 1);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix("scenario ") {
            scenarios.push(Scenario { place, name: name.to_owned(), needs: Vec::new(), steps: Vec::new() });
            continue;
        }
        let Some(scenario) = scenarios.last_mut() else { panic!("{place}: a step before the first scenario") };
        match line.strip_prefix("needs ") {
            Some(needs) => {
                assert!(scenario.needs.is_empty() && scenario.steps.is_empty(), "{place}: `needs` comes first, once");
                scenario.needs = needs.split(' ').map(str::to_owned).collect();
            }
            None => scenario.steps.push((place, line.to_owned())),
        }
    }
    scenarios
}

fn run_file(file: &'static str) {
    let (mut passed, mut skipped, mut failures) = (0, BTreeSet::new(), Vec::new());
    let mut not_applicable = 0;
    // What scenarios may need of this driver and of the engine under test.
    let in_memory = Engine::under_test() == Engine::Memory;
    let in_redis = Engine::under_test().is_redis();
    let has = |need: &str| match need {
        "options" => true,
        "memory" => in_memory,
        "processes" => !in_memory && !in_redis,
        "limits" => !in_redis,
        _ => false,
    };
    for scenario in scenarios(file) {
        let lacking: Vec<&String> = scenario.needs.iter().filter(|need| !has(need)).collect();
        if !lacking.is_empty() {
            not_applicable += 1;
            skipped.extend(lacking.into_iter().cloned());
            continue;
        }
        match run_scenario(&scenario) {
            Ok(()) => passed += 1,
            Err(failure) => failures.push(failure),
        }
    }
    report(file, passed, not_applicable, &skipped);
    assert!(failures.is_empty(), "{} scenarios failed\n{}", failures.len(), failures.join("\n"));
}

/// Prints the counts past the harness's capture, and the sum after the last file.
fn report(file: &'static str, passed: u32, not_applicable: u32, reasons: &BTreeSet<String>) {
    static TOTAL: Mutex<(BTreeSet<&str>, u32, u32)> = Mutex::new((BTreeSet::new(), 0, 0));
    let line = |name: &str, passed: u32, not_applicable: u32, reasons: &str| {
        let _ = writeln!(stderr(), "{name}: {passed} scenarios passed, {not_applicable} not applicable{reasons}");
    };
    let needs = reasons.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let needs = if needs.is_empty() { needs } else { format!(" (needs {needs})") };
    line(&format!("conformance {file}"), passed, not_applicable, &needs);
    let mut total = TOTAL.lock().unwrap();
    total.0.insert(file);
    total.1 += passed;
    total.2 += not_applicable;
    if total.0.len() == FILES.len() {
        line("conformance, all files", total.1, total.2, " (not in this language)");
    }
}

fn run_scenario(scenario: &Scenario) -> Result<(), String> {
    let mut world = World::new();
    for (place, step) in &scenario.steps {
        world.step(step).map_err(|why| format!("{place}: {step}\n    in {}: {why}", scenario.name))?;
    }
    Ok(())
}
