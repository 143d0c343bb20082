//! `sss watch` in a pipe and on a terminal, and how it ends.

use super::{bare, terminal::Terminal};
use crate::common::{Engine, PLAIN, TemporaryStore};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
};

fn start(args: &[&str]) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sss"))
        .arg("watch")
        .args(args)
        .env_remove("SSS_URL")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    (child, output)
}

fn next_line(output: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    line
}

/// Ends it as Ctrl-C does. Whether it ended by itself, and with which status.
#[track_caller]
fn interrupt(mut child: Child) {
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn watch_shows_rates_in_pipe() {
    let place = TemporaryStore::of(Engine::Lmdb);
    let store = place.open("");
    let url = bare(&place);
    let (child, mut output) = start(&[&url, "--json"]);
    let mut parsed = || serde_json::from_str::<serde_json::Value>(&next_line(&mut output)).unwrap();
    let first = parsed();
    assert_eq!((first["sessions"].as_u64(), first["rates"]["created"].as_f64()), (Some(0), Some(0.0)));
    (0..20).for_each(|_| drop(store.create(b"hello", &PLAIN).unwrap()));
    let mut created = 0.0;
    loop {
        let line = parsed();
        assert!(line["time"].as_str().unwrap().ends_with('Z') && line["rates"].as_object().unwrap().len() == 11);
        created += line["rates"]["created"].as_f64().unwrap();
        if line["sessions"] == 20 {
            break assert_eq!(line["bytes"], 100);
        }
    }
    // Per second, and a line is for half a second or more.
    assert!(created > 0.0 && created <= 40.0, "{created}");
    interrupt(child);
    let (child, mut output) = start(&[&url]);
    let line = next_line(&mut output);
    let fields: Vec<&str> = line.trim_end().split('\t').collect();
    assert!(fields.len() == 14 && fields[0].ends_with('Z') && fields[1..3] == ["20", "100"], "{line}");
    assert!(fields[3..].iter().all(|rate| rate.parse::<f64>().is_ok()), "{line}");
    interrupt(child);
}

#[test]
fn watch_ends_with_its_reader() {
    let place = TemporaryStore::of(Engine::Lmdb);
    let _store = place.open("");
    let (mut child, mut output) = start(&[&bare(&place)]);
    next_line(&mut output);
    drop(output);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn ctrl_c_ends_watch_on_terminal() {
    let place = TemporaryStore::of(Engine::Lmdb);
    let _store = place.open("");
    let mut terminal = Terminal::run(env!("CARGO_BIN_EXE_sss"), &["watch", &bare(&place)], 80);
    terminal.wait_for("0 B");
    terminal.type_keys("\x03");
    let (status, text) = terminal.end();
    assert_eq!(status.code(), Some(0), "{text}");
    assert!(text.contains("SESSIONS") && text.contains("CREATE/s"), "{text}");
}
