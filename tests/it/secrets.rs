//! Whatever may end up in a log shows no id, no payload, no principal and no password: Debug and
//! Display of everything public, and the message of every failure that can be had.

use crate::common::{Engine, OptionsMs, PLAIN, TemporaryStore, of, open};
use sss::{Access, Error, ErrorKind, Principal, Store};

const PAYLOAD: &[u8] = b"xK91-hidden-Zt07-bytes";
const PRINCIPAL: &[u8] = b"qV42-nobody-Wm63-knows";

/// Fails if a text holds part of a secret, plain or as a list of numbers or as hex.
fn assert_silent(text: &str, secrets: &[&[u8]]) {
    for secret in secrets {
        for part in secret.windows(8) {
            let plain = String::from_utf8_lossy(part);
            let numbers = part.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
            let hex: String = part.iter().map(|byte| format!("{byte:02x}")).collect();
            for form in [plain.as_ref(), &numbers, &hex] {
                assert!(!text.contains(form), "{text} shows {form}");
            }
        }
    }
    assert!(!text.contains('\n') || text.contains("{\n"), "not one line: {text}");
}

#[test]
fn debug_shows_no_secrets() {
    let store = open("");
    let options = of(PRINCIPAL);
    let (sid, meta) = store.create(PAYLOAD, &options).unwrap();
    let secrets = [sid.as_ref(), PAYLOAD, PRINCIPAL];
    let list = store.list(PRINCIPAL).unwrap();
    for text in [
        format!("{store:?} {store:#?}"),
        format!("{sid:?} {sid:#?}"),
        format!("{options:?} {options:#?}"),
        format!("{:?}", Principal::Set(PRINCIPAL)),
        format!("{meta:?} {list:?} {:?}", store.stats().unwrap()),
        format!("{:?}", store.create(PAYLOAD, &options)),
        format!("{:?}", store.reference(&sid)),
        format!("{:?}", store.renew(&sid, None, &PLAIN)),
    ] {
        assert_silent(&text, &secrets);
    }
    // The new id is hidden as well as the old one.
    let renewed = store.create(PAYLOAD, &PLAIN).unwrap();
    assert_silent(&format!("{renewed:?}"), &[renewed.0.as_ref()]);
}

#[test]
fn errors_show_no_secrets() {
    let store = open("max_payload=32&max_sessions=1");
    let (sid, _) = store.create(PAYLOAD, &PLAIN).unwrap();
    let dead = [b'Z'; 128];
    let large = PAYLOAD.repeat(4);
    let grace = PLAIN.grace_ms(1).principal(PRINCIPAL);
    let failures: Vec<Error> = [
        store.create(&large, &of(PRINCIPAL)).map(drop),
        store.create(PAYLOAD, &of(PRINCIPAL)).map(drop),
        store.create(PAYLOAD, &grace).map(drop),
        store.create(PAYLOAD, &PLAIN.clear_principal()).map(drop),
        store.get(dead, Access::Slide).map(drop),
        store.put(dead, PAYLOAD, &of(PRINCIPAL)).map(drop),
        store.put(&sid, &large, &PLAIN).map(drop),
        store.put(&sid, PAYLOAD, &grace).map(drop),
        store.put_if(&sid, 9, PAYLOAD, &of(PRINCIPAL)).map(drop),
        store.touch(dead).map(drop),
        store.renew(dead, Some(PAYLOAD), &PLAIN).map(drop),
        store.delete(dead),
        store.list(b"").map(drop),
        store.revoke(b"", Some(sid.as_ref())).map(drop),
        store.reference(dead).map(drop),
        store.advance_clock(1),
    ]
    .into_iter()
    .map(Result::unwrap_err)
    .collect();
    for error in failures {
        assert!(!error.to_string().is_empty());
        assert_silent(&format!("{error} {error:?}"), &[sid.as_ref(), &dead, PAYLOAD, PRINCIPAL]);
    }
}

#[test]
fn url_errors_show_no_password() {
    for url in [
        "redis://user:hunter2-secret@host/x",
        "rediss://:hunter2-secret@host:port",
        "redis+sentinel://user:hunter2-secret@h1,h2",
        "redis://user:hunter2-secret@host?timeout=0",
        "redis://host?password=hunter2-secret",
        "memory:user:hunter2-secret@host",
        "memory://user:hunter2-secret@host",
        "memory:?password=hunter2-secret",
        "memory:?timeout=1s&secret=hunter2-secret",
        "memory:?secret_key=hunter2-secret&timeout=0",
        "redsi://user:hunter2-secret@host",
        "://user:hunter2-secret@host",
    ] {
        let error = Store::open(url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Url, "{url}: {error:?}");
        assert_silent(&format!("{error} {error:?}"), &[b"hunter2-secret"]);
    }
}

#[test]
fn url_errors_are_one_short_line() {
    let long = "x".repeat(100_000);
    for url in [
        format!("memory:?{long}=1"),
        format!("memory:?timeout={long}"),
        format!("memory:{long}/"),
        format!("{long}:"),
        long,
        "memory:?a\nb=1".into(),
        "memory:?timeout=1\r\n0".into(),
        "memory:a\nb".into(),
        "me\nmory:".into(),
        "memory:?\u{1b}[2J=1".into(),
        "memory:?timeout=\u{2028}5".into(),
    ] {
        let message = Store::open(&url).unwrap_err().to_string();
        assert!(message.len() < 500, "{} bytes", message.len());
        assert!(!message.contains(|c: char| c.is_control()), "{message:?}");
    }
}

const LABEL: &[u8] = b"hJ58-Firefox-on-Linux-Dn21";

/// What a copy of a store's files shows of what was given to it, as `strings` would.
fn shown_by_files(place: &TemporaryStore, secrets: &[&[u8]]) -> Vec<String> {
    let mut shown = Vec::new();
    for entry in std::fs::read_dir(place.directory()).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        for secret in secrets {
            let (start, end) = (&secret[..8], &secret[secret.len() - 8..]);
            if bytes.windows(8).any(|window| window == start || window == end) {
                shown.push(format!("{} shows {}", path.display(), String::from_utf8_lossy(secret)));
            }
        }
    }
    shown
}

#[test]
fn files_show_no_labels_or_principals() {
    for engine in [Engine::Lmdb, Engine::LmdbPower] {
        for seal in ["on", "off"] {
            let place = TemporaryStore::of(engine);
            let store = place.open(&format!("max_bytes=4MiB&seal={seal}"));
            let labelled = of(PRINCIPAL).label(LABEL);
            let (sid, _) = store.create(PAYLOAD, &labelled).unwrap();
            let (deleted, _) = store.create(PAYLOAD, &labelled).unwrap();
            let (old, _) = store.create(PAYLOAD, &PLAIN).unwrap();
            let (renewed, _) = store.renew(&old, None, &labelled).unwrap();
            assert_eq!(store.list(PRINCIPAL).unwrap()[0].label.as_deref(), Some(LABEL));
            let secrets = [sid.as_ref(), deleted.as_ref(), old.as_ref(), renewed.as_ref(), PAYLOAD, PRINCIPAL, LABEL];
            let shown = shown_by_files(&place, &secrets);
            assert_eq!(shown.is_empty(), seal == "on", "{shown:?}");
            if seal == "off" {
                // This test can fail: without a seal the payload and the label are there, and no more.
                assert!(shown.len() == 2 && shown.iter().all(|text| !text.contains("qV42")), "{shown:?}");
                continue;
            }
            store.put(&sid, PAYLOAD, &labelled).unwrap();
            store.put(&renewed, b"other", &of(PRINCIPAL).label(b"")).unwrap();
            store.delete(&deleted).unwrap();
            store.delete_ref(&store.reference(&sid).unwrap(), Some(PRINCIPAL)).unwrap();
            store.create(PAYLOAD, &labelled).unwrap();
            assert_eq!(store.revoke_all().unwrap(), 2);
            store.sweep(u64::MAX).unwrap();
            drop(store);
            assert_eq!(shown_by_files(&place, &secrets), Vec::<String>::new());
        }
    }
}
