//! What a person sees and is asked on a terminal.

use super::{bare, terminal::Terminal};
use crate::common::{Engine, TemporaryStore, of};
use sss::{Options, Timeout};
use std::{net::TcpListener, time::Duration};

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
        let label = "Firefox \u{202e}on Linux, 127.0.0.1";
        let options = Options::new().principal(b"alice").label(label).timeout(timeout).idle_timeout(timeout);
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
    assert_eq!((never[2].as_str(), never[6].as_str()), ("now", "Firefox \\u{202e}on Linux, 127.0.0.1"), "{text}");
    // What does not fit is cut, and no line wraps.
    let narrow = shown(&["list", &bare(&place), "--principal", "alice"], 80);
    assert!(narrow.lines().count() == 3 && narrow.lines().all(|line| line.chars().count() <= 80), "{narrow}");
    assert!(narrow.contains("Firefox") && narrow.contains('…'), "{narrow}");
    assert_eq!(shown(&["list", &bare(&place), "--principal", "alice"], 20).lines().count(), 3);
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
fn revoke_all_asks_first() {
    let place = TemporaryStore::of(Engine::Lmdb);
    let store = place.open("");
    (0..1200).for_each(|_| drop(store.create(b"hello", &of(b"alice")).unwrap()));
    let url = bare(&place);
    // The last one is the end of the input.
    for (answer, revokes) in [("n\n", false), ("\n", false), ("yess\n", false), ("\x04", false), ("y\n", true)] {
        let mut terminal = Terminal::run(env!("CARGO_BIN_EXE_sss"), &["revoke", &url, "--all"], 80);
        terminal.wait_for("which has 1,200 sessions. Continue? [y/N] ");
        terminal.type_keys(answer);
        let (status, text) = terminal.end();
        assert_eq!(status.code(), Some(i32::from(!revokes)), "{text}");
        assert!(text.contains(if revokes { "1,200 sessions revoked" } else { "nothing was revoked" }), "{text}");
        assert_eq!(store.stats().unwrap().sessions, if revokes { 0 } else { 1200 }, "{text}");
    }
    assert_eq!(shown(&["revoke", &url, "--all", "--yes"], 80), "0 sessions revoked\n");
}

/// A server that never answers keeps the command waiting.
#[test]
fn progress_is_for_terminals() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}?deadline=3s", server.local_addr().unwrap());
    let mut terminal = Terminal::run(env!("CARGO_BIN_EXE_sss"), &["sweep", &url], 80);
    terminal.wait_for("sweeping: 0 sessions removed (");
    let (status, text) = terminal.end();
    assert_eq!(status.code(), Some(1), "{text}");
    // It is erased before anything else is shown.
    let last = text.rsplit("\r\x1b[K").next().unwrap();
    assert!(last.starts_with("sss: ") && last.lines().count() == 1, "{text}");
    let piped = super::refused(&["sweep", &url], 1);
    assert!(piped.starts_with("sss: ") && piped.lines().count() == 1, "{piped}");
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
