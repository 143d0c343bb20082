//! What a person sees and is asked on a terminal.

use super::{bare, terminal::Terminal};
use crate::common::{Engine, TemporaryStore, of};
use sss::{Options, Timeout};
use std::time::Duration;

#[track_caller]
fn shown(args: &[&str], columns: u16) -> String {
    let (status, text) = Terminal::run(env!("CARGO_BIN_EXE_sss"), args, columns).end();
    assert_eq!(status.code(), Some(0), "{text}");
    text
}

#[test]
fn list_is_table_with_relative_times() {
    let place = TemporaryStore::of(Engine::Lmdb);
    let store = place.open("");
    let hour = Timeout::After(Duration::from_secs(3601));
    for timeout in [hour, Timeout::Never] {
        let options = Options::new().principal(b"alice").timeout(timeout).idle_timeout(timeout);
        store.create(&[7; 3000], &options).unwrap();
    }
    let text = shown(&["list", &bare(&place), "--principal", "alice"], 100);
    let [head, rows @ ..] = &text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
    // Created in the same millisecond they are in any order.
    let row = |text| *rows.iter().find(|row| row.contains(text)).unwrap();
    let columns = |line: &str| -> Vec<String> {
        line.split("  ").map(|cell| cell.trim().to_owned()).filter(|cell| !cell.is_empty()).collect()
    };
    assert_eq!(columns(head)[..6], ["REF", "CREATED", "LOGIN", "LAST USED", "EXPIRES", "SIZE"]);
    let (hour, never) = (columns(row(" in ")), columns(row("never")));
    assert!((hour[4] == "in 1 h" || hour[4].starts_with("in 59 min")) && hour[5] == "2.9 KiB", "{text}");
    assert_eq!((rows.len(), never[0].len(), never[4].as_str()), (2, 8, "never"), "{text}");
    // A reference as short as it is shown.
    assert!(
        shown(&["revoke", &bare(&place), "--principal", "alice", "--ref", &never[0]], 100)
            .contains("1 session revoked")
    );
    assert_eq!(store.list(b"alice").unwrap().len(), 1);
}

#[test]
fn other_commands_speak_plainly() {
    let place = TemporaryStore::of(Engine::Lmdb);
    let store = place.open("");
    (0..1000).for_each(|_| drop(store.create(&[7; 100], &of(b"alice")).unwrap()));
    let url = bare(&place);
    let stats = shown(&["stats", &url], 80);
    assert!(stats.starts_with("NUMBER") && stats.contains("1,000") && stats.contains("98 KiB"), "{stats}");
    assert_eq!(shown(&["sweep", &url], 80), "0 sessions removed\n");
    assert_eq!(shown(&["check", &url], 80), "1,000 sessions checked, no damage found\n");
    assert_eq!(shown(&["revoke", &url, "--principal", "alice"], 80), "1,000 sessions revoked\n");
    // JSON does not change.
    assert_eq!(shown(&["sweep", &url, "--json"], 80), "{\"removed\":0}\n");
}

#[test]
fn narrow_terminal_wraps_no_watch_line() {
    let place = TemporaryStore::of(Engine::Lmdb);
    let _store = place.open("");
    for columns in [40, 80] {
        let text = shown(&["watch", &bare(&place), "--count", "1"], columns);
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(
            text.starts_with(" SESSIONS     SIZE CREATE/s") && text.lines().all(|line| line.len() <= columns.into()),
            "{text}"
        );
    }
}
