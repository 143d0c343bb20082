//! Session ids: what they look like, that no two are the same, that every bit of them counts, and
//! that nothing near an id opens anything. It cannot test that they are unguessable; that they come
//! from the operating system is src/sid.rs.

use std::collections::HashSet;

use crate::common::{PLAIN, found, open};
use sss::{Access, Options, SID_LEN, Store};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const MANY: usize = 100_000;

/// Creates or renews, and takes the id; the session is gone at once so that the store stays small.
fn mint(store: &Store, i: usize) -> String {
    let (sid, _) = store.create(b"", &PLAIN).unwrap();
    if i.is_multiple_of(2) {
        store.delete(&sid).unwrap();
        return sid.as_str().to_owned();
    }
    let (renewed, _) = store.renew(&sid, None, &PLAIN).unwrap();
    store.delete(&renewed).unwrap();
    renewed.as_str().to_owned()
}

#[test]
fn ids_are_unique_and_uniform() {
    let store = open("");
    let mut ids = HashSet::with_capacity(MANY);
    let mut counts = vec![[0_u32; 256]; SID_LEN];
    for i in 0..MANY {
        let id = mint(&store, i);
        assert_eq!(id.len(), SID_LEN);
        for (position, symbol) in id.bytes().enumerate() {
            counts[position][symbol as usize] += 1;
        }
        assert!(ids.insert(id), "an id was given twice");
    }
    // 100,000 ids put 1562 of each symbol into each position, give or take 39 (one standard
    // deviation). Ten of them is once in 10^19 runs, and a symbol or position that is preferred
    // shows at once.
    let (expected, most) = (MANY as f64 / 64.0, 10.0 * (MANY as f64 / 64.0 * 63.0 / 64.0).sqrt());
    for (position, counts) in counts.iter().enumerate() {
        assert_eq!(ALPHABET.iter().map(|&c| counts[c as usize]).sum::<u32>() as usize, MANY, "alphabet at {position}");
        for &symbol in ALPHABET {
            let off = (f64::from(counts[symbol as usize]) - expected).abs();
            assert!(off < most, "'{}' at {position}: {} times", symbol as char, counts[symbol as usize]);
        }
    }
}

/// Two positions that always agree, or differ by a constant, would pass the count above.
#[test]
fn id_symbols_are_independent() {
    let store = open("");
    let value = |symbol: u8| ALPHABET.iter().position(|&c| c == symbol).unwrap();
    let mut differences = vec![[0_u32; 64]; SID_LEN];
    for i in 0..MANY / 10 {
        let id = mint(&store, i);
        let values: Vec<usize> = id.bytes().map(value).collect();
        for position in 0..SID_LEN {
            differences[position][(64 + values[position] - values[(position + 1) % SID_LEN]) % 64] += 1;
        }
    }
    // 10,000 ids: 156 of each difference, give or take 12.4.
    assert!(differences.iter().flatten().all(|&n| (31..=281).contains(&n)));
}

#[test]
fn near_miss_id_is_not_found() {
    let store = open("");
    let (sid, _) = store.create(b"hello", &PLAIN).unwrap();
    for position in 0..SID_LEN {
        for &symbol in ALPHABET.iter().chain(b"+/= \0.\x80\xff") {
            let mut near = sid.as_str().as_bytes().to_vec();
            if near[position] == symbol {
                continue;
            }
            near[position] = symbol;
            assert!(found(store.get(&near, Access::Peek)).is_none(), "{position}");
        }
    }
    assert_eq!(store.get(&sid, Access::Peek).unwrap().0, b"hello");
}

#[test]
fn malformed_id_is_not_found() {
    let store = open("");
    let (sid, _) = store.create(b"hello", &PLAIN).unwrap();
    let id = sid.as_str();
    for len in 0..SID_LEN {
        assert!(found(store.get(&id[..len], Access::Peek)).is_none(), "the first {len}");
        assert!(found(store.get(&id[SID_LEN - len..], Access::Peek)).is_none(), "the last {len}");
    }
    for extra in ["=", "==", " ", "\0", "\n", "A", id] {
        assert!(found(store.get(format!("{id}{extra}"), Access::Peek)).is_none(), "{extra:?} behind");
        assert!(found(store.get(format!("{extra}{id}"), Access::Peek)).is_none(), "{extra:?} before");
    }
    for other in [id.to_ascii_lowercase(), id.to_ascii_uppercase(), id.chars().rev().collect()] {
        assert!(found(store.get(&other, Access::Peek)).is_none());
    }
    assert!(found(store.get(vec![b'A'; 1 << 20], Access::Peek)).is_none());
    assert_eq!(store.get(id, Access::Peek).unwrap().0, b"hello");
}

#[test]
fn id_opens_only_its_store() {
    let (store, other) = (open(""), open(""));
    let (sid, _) = store.create(b"hello", &PLAIN).unwrap();
    assert!(found(other.get(&sid, Access::Slide)).is_none());
    assert!(found(other.put(&sid, b"x", &PLAIN)).is_none());
    assert!(found(other.renew(&sid, None, &PLAIN)).is_none());
    assert!(found(other.delete(&sid)).is_none());
    assert!(found(other.delete_ref(&store.reference(&sid).unwrap(), None)).is_none());
    assert!(found(store.get(&sid, Access::Slide)).is_some());
}

#[test]
fn reference_is_not_an_id() {
    let store = open("");
    let (sid, _) = store.create(b"hello", &Options::default()).unwrap();
    let reference = store.reference(&sid).unwrap();
    assert!(found(store.get(reference.0, Access::Peek)).is_none());
    let hex: String = reference.0.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(found(store.get(&hex, Access::Peek)).is_none());
    let bytes = sid.as_str().as_bytes();
    assert!(!bytes.windows(4).any(|part| reference.0.windows(4).any(|other| other == part)));
    let mut near = reference;
    for bit in 0..256 {
        near.0[bit / 8] ^= 1 << (bit % 8);
        assert!(found(store.delete_ref(&near, None)).is_none(), "bit {bit}");
        near.0[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(found(store.delete_ref(&near, None)).is_some());
}
