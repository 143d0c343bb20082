//! The command line, as an operator runs it: the real program on stores that this process has open,
//! or had.

mod on_terminal;
mod terminal;
mod watch;

use std::{
    fs::File,
    io,
    process::{Command, Output},
};

use crate::common::{Engine, OptionsMs, TemporaryStore, of};
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
fn bare(place: &TemporaryStore) -> String {
    format!("lmdb:{}", place.directory().display())
}

#[test]
fn commands_reach_open_store() {
    let place = TemporaryStore::of(Engine::Lmdb);
    let store = place.open("timeout=8h");
    let (sid, _) = store.create(b"hello", &of(b"alice")).unwrap();
    store.create(b"other", &of(b"bob")).unwrap();
    let url = bare(&place);
    assert!(said(&["stats", &url, "--json"]).starts_with("{\"sessions\":2,\"bytes\":10,\"created\":2,"));
    let list = said(&["list", &url, "--principal", "alice"]);
    assert!(!list.contains(sid.as_str()));
    assert_eq!(said(&["revoke", &url, "--principal", "alice", "--json"]), "{\"revoked\":1}");
    assert!(store.get(&sid, Access::Peek).is_err());
    assert_eq!(said(&["list", &url, "--principal", "alice", "--json"]), "[]");
}

/// The fields of the lines that a command prints into a pipe.
#[track_caller]
fn fields(args: &[&str]) -> Vec<Vec<String>> {
    let output = sss(args);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| line.split('\t').map(str::to_owned).collect())
        .collect()
}

#[track_caller]
fn json(args: &[&str]) -> serde_json::Value {
    serde_json::from_str(&said(args)).unwrap()
}

#[test]
fn list_fields_are_tab_separated() {
    let place = TemporaryStore::of(Engine::Lmdb);
    let store = place.open("timeout=infinity&idle_timeout=infinity");
    let (sid, _) = store.create(b"hello", &of(b"alice")).unwrap();
    let reference = store.reference(&sid).unwrap().to_string();
    let [row] = &fields(&["list", &bare(&place), "--principal", "alice"])[..] else { panic!("one line") };
    assert_eq!((row.len(), row[0].as_str()), (8, reference.as_str()));
    assert!(row[1].starts_with("20") && row[1].ends_with('Z'), "{row:?}");
    assert_eq!((row[4].as_str(), row[5].as_str(), row[6].as_str()), ("never", "1", "5"));
    let list = json(&["list", &bare(&place), "--principal", "alice", "--json"]);
    let entry = &list[0];
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert_eq!((entry["ref"].as_str(), entry["bytes"].as_u64()), (Some(reference.as_str()), Some(5)));
    assert_eq!((entry["created"].as_str(), entry["expires"].as_str()), (Some(row[1].as_str()), None));
}

#[test]
fn revoke_takes_references() {
    let place = TemporaryStore::of(Engine::Lmdb);
    let store = place.open("");
    let [first, second, bobs] = [b"alice", &b"alice"[..], b"bob"].map(|user| {
        let (sid, _) = store.create(b"hello", &of(user)).unwrap();
        (store.reference(&sid).unwrap().to_string(), sid)
    });
    let url = bare(&place);
    let revoke = |args: &[&str]| sss(&[&["revoke", &url][..], args].concat());
    let fails = |args: &[&str], code: i32, text: &str| {
        let output = revoke(args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(code) && stderr.contains(text), "{args:?}: {stderr}");
    };
    fails(&["--ref", &first.0[..20]], 2, "only with --principal");
    fails(&["--ref", "xyz"], 2, "hexadecimal");
    fails(&[], 2, "--all");
    fails(&["--all", "--principal", "alice"], 2, "cannot be used with");
    fails(&["--principal", "alice", "--yes"], 2, "--all");
    // Of another user, even as a whole.
    fails(&["--principal", "alice", "--ref", &bobs.0], 1, "no such session");
    fails(&["--principal", "alice", "--ref", &bobs.0[..20]], 1, "no session");
    fails(&["--principal", "nobody", "--ref", &first.0], 1, "no such session");
    let common = first.0.bytes().zip(second.0.bytes()).take_while(|(a, b)| a == b).count();
    if common > 0 {
        fails(&["--principal", "alice", "--ref", &first.0[..common]], 1, "of 2 sessions");
    }
    assert_eq!(store.stats().unwrap().sessions, 3);
    assert!(revoke(&["--principal", "alice", "--ref", &first.0[..common + 1].to_uppercase()]).status.success());
    assert!(store.get(&first.1, Access::Peek).is_err() && store.get(&second.1, Access::Peek).is_ok());
    assert_eq!(revoke(&["--ref", &second.0, "--json"]).stdout, b"{\"revoked\":1}\n");
    fails(&["--ref", &second.0], 1, "no such session");
    assert!(store.get(&bobs.1, Access::Peek).is_ok());
}

#[test]
fn revoke_all_needs_yes_without_terminal() {
    let place = TemporaryStore::of(Engine::Lmdb);
    let store = place.open("");
    let (sid, _) = store.create(b"hello", &of(b"alice")).unwrap();
    store.create(b"hello", &Options::new()).unwrap();
    let url = bare(&place);
    assert!(refused(&["revoke", &url, "--all"], 2).contains("needs --yes"));
    assert!(store.get(&sid, Access::Peek).is_ok());
    assert_eq!(said(&["revoke", &url, "--all", "--yes"]), "revoked\t2");
    assert!(store.get(&sid, Access::Peek).is_err());
    assert_eq!(said(&["revoke", &url, "--all", "--yes", "--json"]), "{\"revoked\":0}");
}

/// Labels come from clients: a terminal must not obey them, and JSON must not change them.
#[test]
fn labels_are_escaped_and_lossless() {
    let place = TemporaryStore::of(Engine::Lmdb);
    let store = place.open("");
    for (label, field, json) in [
        (&b"Firefox on Linux, 127.0.0.1"[..], "Firefox on Linux, 127.0.0.1", Some("Firefox on Linux, 127.0.0.1")),
        (b"\x1b[2J\tx\n\\", "\\u{1b}[2J\\tx\\n\\\\", Some("\u{1b}[2J\tx\n\\")),
        ("\u{202e}\u{9b}1m é 日本".as_bytes(), "\\u{202e}\\u{9b}1m é 日本", Some("\u{202e}\u{9b}1m é 日本")),
        (b"\xff\x00", "\\xff\\0", None),
    ] {
        store.create(b"hello", &of(b"alice").label(label)).unwrap();
        let args = ["list", &bare(&place), "--principal", "alice"];
        assert_eq!(fields(&args)[0][7], field);
        let line = said(&[&args[..], &["--json"]].concat());
        assert!(!line.contains(|c: char| c.is_control() || c == '\u{202e}'), "{line}");
        let list: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(list[0]["label"].as_str(), json);
        assert_eq!(list[0]["label_base64"].as_str(), if json.is_none() { Some("/wA=") } else { None });
        assert_eq!((list[0]["authenticated"].as_str(), fields(&args)[0][2].as_str()), {
            let created = list[0]["created"].as_str().unwrap();
            (Some(created), created)
        });
        store.revoke(b"alice", None).unwrap();
    }
    store.create(b"hello", &of(b"alice")).unwrap();
    let list = json(&["list", &bare(&place), "--principal", "alice", "--json"]);
    assert!(list[0]["label"].is_null() && list[0].get("label_base64").is_none());
}

#[test]
fn manual_and_completions_name_every_command() {
    let texts = [said(&["man"]), said(&["completions", "bash"]), said(&["completions", "zsh"])];
    for text in &texts {
        for word in ["stats", "watch", "sweep", "list", "revoke", "check", "prometheus", "principal"] {
            assert!(text.contains(word), "{word} is missing in {text:.200}");
        }
    }
    assert!(said(&["completions", "fish"]).contains("principal"));
    assert!(texts[0].starts_with(".ie") && texts[0].contains(".TH SSS 1") && texts[0].contains(".SH EXIT STATUS"));
    // `help` is not a command of the page, and its parts have no heads of their own.
    assert_eq!(texts[0].matches(".SH OPTIONS").count(), 1);
}

#[test]
fn offline_sweep_keeps_timeouts() {
    let place = TemporaryStore::of(Engine::Lmdb);
    let options = "timeout=infinity&idle_timeout=9h&clock=manual";
    let store = place.open(options);
    let (living, _) = store.create(b"living", &Options::default()).unwrap();
    store.create(b"dead", &Options::new().idle_timeout_ms(1000)).unwrap();
    store.advance_clock(8 * 3_600_000).unwrap();
    drop(store);
    // By the defaults of a new store, ten minutes, both would be dead.
    assert_eq!(said(&["sweep", &bare(&place)]), "removed\t1");
    let store = place.open(options);
    assert_eq!(store.get(&living, Access::Peek).unwrap().0, b"living");
}

#[test]
fn commands_adopt_stored_settings() {
    let place = TemporaryStore::of(Engine::Lmdb);
    let secret = place.directory().with_extension("secret");
    std::fs::write(&secret, "11".repeat(32)).unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let options = format!("durability=power&secret_file={}", secret.display());
    let store = place.open(&options);
    let (sid, _) = store.create(b"hello", &of(b"alice")).unwrap();
    drop(store);
    assert!(said(&["stats", &bare(&place)]).contains("sessions\t1\n"));
    let tool = Store::open_existing(&bare(&place)).unwrap();
    assert_eq!(tool.list(b"alice").unwrap().len(), 1);
    assert_eq!(tool.get(&sid, Access::Peek).unwrap_err().kind(), sss::ErrorKind::Corrupt);
    drop(tool);
    assert_eq!(place.open(&options).get(&sid, Access::Peek).unwrap().0, b"hello");
    std::fs::remove_file(secret).unwrap();
}

#[test]
fn check_reports_damage() {
    let place = TemporaryStore::of(Engine::Lmdb);
    let store = place.open("");
    (0..200).for_each(|_| drop(store.create(&[7; 300], &of(b"alice")).unwrap()));
    assert_eq!(said(&["check", &bare(&place)]), "sessions\t200");
    drop(store);
    assert_eq!(said(&["check", &bare(&place), "--json"]), "{\"ok\":true,\"sessions\":200,\"findings\":[]}");
    let path = place.directory().join("data.mdb");
    let mut data = std::fs::read(&path).unwrap();
    // All pages but the two that begin the file.
    data[2 * 4096..].fill(0);
    std::fs::write(&path, data).unwrap();
    assert!(refused(&["check", &bare(&place)], 1).contains("data.mdb is damaged"));
}

#[test]
fn prometheus_format_is_valid() {
    let place = TemporaryStore::of(Engine::Lmdb);
    let _store = place.open("");
    let text = said(&["stats", &bare(&place), "--prometheus"]);
    assert_eq!(text.lines().filter(|line| line.starts_with("# TYPE sss_")).count(), 13);
    assert!(text.contains("# TYPE sss_sessions gauge\nsss_sessions 0\n"));
    assert!(text.contains("# TYPE sss_created_total counter\nsss_created_total 0\n"));
}

#[test]
fn mistakes_create_no_store() {
    let place = TemporaryStore::of(Engine::Lmdb);
    assert!(refused(&["stats", &bare(&place)], 1).contains("no lmdb: store"));
    assert!(!place.directory().exists());
    assert!(refused(&["stats", "memory:"], 1).contains("lives in the process"));
    assert!(refused(&["stats", "lmdb:/x?colour=red"], 1).contains("colour"));
    assert!(refused(&[], 2).contains("requires a subcommand"));
    assert!(refused(&["swep", "lmdb:/x"], 2).contains("'swep'"));
    assert!(refused(&["stats"], 2).contains("<URL>"));
    assert!(refused(&["list", "lmdb:/x"], 2).contains("--principal"));
    assert!(refused(&["stats", "lmdb:/x", "--max", "3"], 2).contains("'--max'"));
    assert!(refused(&["sweep", "lmdb:/x", "--max", "many"], 2).contains("'many'"));
    assert!(refused(&["stats", "lmdb:/x", "lmdb:/y"], 2).contains("unexpected argument"));
    assert!(said(&["--help"]).contains("  sweep ") && said(&["--version"]).starts_with("sss 0."));
}

#[test]
fn url_comes_from_environment() {
    let place = TemporaryStore::of(Engine::Lmdb);
    let _store = place.open("");
    let output = Command::new(env!("CARGO_BIN_EXE_sss")).arg("sweep").env("SSS_URL", bare(&place)).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "removed\t0\n");
}

#[test]
fn options_take_equals_and_double_dash() {
    let place = TemporaryStore::of(Engine::Lmdb);
    let store = place.open("");
    store.create(b"hello", &of(b"alice")).unwrap();
    let url = bare(&place);
    assert_eq!(said(&["sweep", "--max=5", &url]), "removed\t0");
    assert_eq!(said(&["list", "--principal=alice", &url]).lines().count(), 1);
    assert!(said(&["stats", "--json", "--", &url]).contains("\"sessions\":1,"));
    assert_eq!(said(&["revoke", "--json", "--principal=alice", "--", &url]), "{\"revoked\":1}");
    for command in ["stats", "watch", "sweep", "list", "revoke", "check"] {
        assert!(said(&[command, "--help"]).contains("--json"), "{command}");
        assert_eq!(said(&["help", command]), said(&[command, "--help"]), "{command}");
    }
}

/// What must be said of a standard output that cannot be written to.
#[track_caller]
fn output_is_lost(program: &mut Command) {
    let output = program.env_remove("SSS_URL").output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{program:?}: {stderr}");
    assert!(stderr.starts_with("sss: ") && stderr.contains("standard output"), "{program:?}: {stderr}");
}

#[test]
fn lost_output_is_an_error() {
    let place = TemporaryStore::of(Engine::Lmdb);
    let store = place.open("");
    store.create(b"hello", &of(b"alice")).unwrap();
    let url = bare(&place);
    let program = env!("CARGO_BIN_EXE_sss");
    for args in [
        &["stats", &url][..],
        &["stats", &url, "--prometheus"],
        &["list", &url, "--principal", "alice"],
        &["sweep", &url, "--json"],
        &["check", &url],
        &["watch", &url],
        &["completions", "bash"],
        &["man"],
        &["--help"],
        &["stats", "--help"],
        &["--version"],
    ] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        output_is_lost(Command::new(program).args(args).stdout(full));
        output_is_lost(Command::new("sh").args(["-c", "exec \"$0\" \"$@\" >&-", program]).args(args));
        // A reader that is gone is how a watch ends.
        if args[0] != "watch" {
            let (reader, writer) = io::pipe().unwrap();
            drop(reader);
            output_is_lost(Command::new(program).args(args).stdout(writer));
        }
    }
    // /dev/null is open, for reading too where a parent opened it so.
    for options in [File::options().write(true), File::options().read(true).write(true)] {
        let null = options.open("/dev/null").unwrap();
        assert!(Command::new(program).args(["stats", &url]).stdout(null).status().unwrap().success());
    }
}

#[test]
fn lost_messages_keep_exit_status() {
    let full = || File::options().write(true).open("/dev/full").unwrap();
    for (args, code) in [(&["stats", "memory:"][..], 1), (&["stats", "lmdb:/x", "--max"], 2), (&[], 2)] {
        let run = |program: &mut Command| program.args(args).env_remove("SSS_URL").status().unwrap().code();
        assert_eq!(run(Command::new(env!("CARGO_BIN_EXE_sss")).stderr(full())), Some(code), "{args:?}");
        assert_eq!(run(Command::new(env!("CARGO_BIN_EXE_sss")).stdout(full()).stderr(full())), Some(code), "{args:?}");
    }
}

#[test]
fn usage_errors_show_no_url() {
    let url = "redis://user:SECRET@host";
    for args in [
        &[url][..],
        &["stats", "lmdb:/x", url],
        &["sweep", "--max", url],
        &["sweep", &format!("--max={url}")],
        &["stats", &format!("--url={url}")],
        &[&format!("--{url}"), "stats"],
        &["list", url],
        &["help", url],
    ] {
        assert!(!refused(args, 2).contains("SECRET"), "{args:?}");
    }
    let help = Command::new(env!("CARGO_BIN_EXE_sss")).args(["stats", "--help"]).env("SSS_URL", url).output().unwrap();
    assert!(!String::from_utf8(help.stdout).unwrap().contains("SECRET"));
    let output =
        Command::new(env!("CARGO_BIN_EXE_sss")).arg("sweep").env("SSS_URL", "redis;//u:SECRET@h").output().unwrap();
    assert!(!String::from_utf8(output.stderr).unwrap().contains("SECRET"));
}
