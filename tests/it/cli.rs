//! The command line, as an operator runs it: the real program on stores that this process has open, or had.

use std::process::{Command, Output};

use crate::common::{Engine, OptionsMs, Place, of};
use sss::{Access, Options, Store};

fn sss(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sss")).args(args).env_remove("SSS_URL").output().unwrap()
}

#[track_caller]
fn said(args: &[&str]) -> String {
    let output = sss(args);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[track_caller]
fn refused(args: &[&str], code: i32) -> String {
    let output = sss(args);
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// The URL without options, as an operator knows it.
fn bare(place: &Place) -> String {
    format!("lmdb:{}", place.directory().display())
}

#[test]
fn commands_reach_open_store() {
    let place = Place::of(Engine::Lmdb);
    let store = place.open("timeout=8h");
    let (sid, _) = store.create(b"hello", &of(b"alice")).unwrap();
    store.create(b"other", &of(b"bob")).unwrap();
    let url = bare(&place);
    assert!(said(&["stats", &url, "--json"]).starts_with("{\"sessions\": 2, \"bytes\": 10, \"created\": 2,"));
    let list = said(&["list", &url, "--principal", "alice"]);
    assert!(list.contains("version 1  5 bytes") && list.lines().count() == 1, "{list}");
    assert!(!list.contains(sid.as_str()));
    assert_eq!(said(&["revoke", &url, "--principal", "alice", "--json"]), "{\"revoked\": 1}");
    assert!(store.get(&sid, Access::Peek).is_err());
    assert_eq!(said(&["list", &url, "--principal", "alice", "--json"]), "[]");
}

#[test]
fn offline_sweep_keeps_timeouts() {
    let place = Place::of(Engine::Lmdb);
    let options = "timeout=infinity&idle_timeout=9h&clock=manual";
    let store = place.open(options);
    let (living, _) = store.create(b"living", &Options::default()).unwrap();
    store.create(b"dead", &Options::new().idle_timeout_ms(1000)).unwrap();
    store.advance_clock(8 * 3_600_000).unwrap();
    drop(store);
    // By the defaults of a new store, ten minutes, both would be dead.
    assert_eq!(said(&["sweep", &bare(&place)]), "1 removed");
    let store = place.open(options);
    assert_eq!(store.get(&living, Access::Peek).unwrap().0, b"living");
}

#[test]
fn commands_adopt_stored_settings() {
    let place = Place::of(Engine::Lmdb);
    let secret = place.directory().with_extension("secret");
    std::fs::write(&secret, "11".repeat(32)).unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let options = format!("durability=power&secret_file={}", secret.display());
    let store = place.open(&options);
    let (sid, _) = store.create(b"hello", &of(b"alice")).unwrap();
    drop(store);
    assert!(said(&["stats", &bare(&place)]).contains("sessions              1"));
    let tool = Store::open_existing(&bare(&place)).unwrap();
    assert_eq!(tool.list(b"alice").unwrap().len(), 1);
    assert_eq!(tool.get(&sid, Access::Peek).unwrap_err().kind(), sss::ErrorKind::Corrupt);
    drop(tool);
    assert_eq!(place.open(&options).get(&sid, Access::Peek).unwrap().0, b"hello");
    std::fs::remove_file(secret).unwrap();
}

#[test]
fn check_reports_damage() {
    let place = Place::of(Engine::Lmdb);
    let store = place.open("");
    (0..200).for_each(|_| drop(store.create(&[7; 300], &of(b"alice")).unwrap()));
    assert_eq!(said(&["check", &bare(&place)]), "whole: 200 sessions");
    drop(store);
    assert_eq!(said(&["check", &bare(&place), "--json"]), "{\"whole\": true, \"sessions\": 200}");
    let path = place.directory().join("data.mdb");
    let mut data = std::fs::read(&path).unwrap();
    // All pages but the two that begin the file.
    data[2 * 4096..].fill(0);
    std::fs::write(&path, data).unwrap();
    assert!(refused(&["check", &bare(&place)], 1).contains("data.mdb is damaged"));
}

#[test]
fn prometheus_format_is_valid() {
    let place = Place::of(Engine::Lmdb);
    let _store = place.open("");
    let text = said(&["stats", &bare(&place), "--prometheus"]);
    assert_eq!(text.lines().filter(|line| line.starts_with("# TYPE sss_")).count(), 13);
    assert!(text.contains("# TYPE sss_sessions gauge\nsss_sessions 0\n"));
    assert!(text.contains("# TYPE sss_created_total counter\nsss_created_total 0\n"));
}

#[test]
fn mistakes_create_no_store() {
    let place = Place::of(Engine::Lmdb);
    assert!(refused(&["stats", &bare(&place)], 1).contains("no lmdb: store"));
    assert!(!place.directory().exists());
    assert!(refused(&["stats", "memory:"], 1).contains("lives in the process"));
    assert!(refused(&["stats", "lmdb:/x?colour=red"], 1).contains("colour"));
    assert!(refused(&[], 2).contains("command is missing"));
    assert!(refused(&["swep", "lmdb:/x"], 2).contains("'swep'"));
    assert!(refused(&["stats"], 2).contains("URL is missing"));
    assert!(refused(&["list", "lmdb:/x"], 2).contains("--principal"));
    assert!(refused(&["stats", "lmdb:/x", "--max", "3"], 2).contains("'--max'"));
    assert!(refused(&["sweep", "lmdb:/x", "--max", "many"], 2).contains("'many'"));
    assert!(refused(&["stats", "lmdb:/x", "lmdb:/y"], 2).contains("more than one"));
    assert!(said(&["--help"]).contains("sss sweep") && said(&["--version"]).starts_with("sss 0."));
}

#[test]
fn url_comes_from_environment() {
    let place = Place::of(Engine::Lmdb);
    let _store = place.open("");
    let output = Command::new(env!("CARGO_BIN_EXE_sss")).arg("sweep").env("SSS_URL", bare(&place)).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "0 removed\n");
}
