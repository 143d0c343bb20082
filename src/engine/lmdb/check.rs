//! Whether the tables of a store agree with one another, in one snapshot: for an operator who wants to know. (The file's
//! own structure is looked at by whoever opens it alone: see `verify`.)

use std::collections::{BTreeMap, BTreeSet};

use super::{
    database::Open,
    expiry,
    ffi::{ReadTxn, Table},
    step::{self, Row},
};
use crate::{
    error::Result,
    session::{
        alias::Alias,
        codec,
        key::{LookupKey, PrincipalKey, Ref},
    },
};

/// As many findings as are listed: a store that is damaged all over needs no longer list.
const MOST: usize = 100;

/// What is wrong, a line each; nothing if all is well.
pub(super) fn check(open: &Open, txn: &ReadTxn, seals: bool) -> Result<Vec<String>> {
    let mut findings = Findings(Vec::new());
    let (mut armed, mut bound, mut bytes, mut cells) = (BTreeMap::new(), BTreeSet::new(), 0_u64, BTreeSet::new());
    each(txn, Table::Sessions, |key, value| {
        let Some(key) = key_of(key) else { return findings.add("a session has a key that is none") };
        let Ok((row, _)) = Row::read(key, value, &open.map.touches(), seals) else {
            return findings.of("the record", key, "cannot be read");
        };
        bytes += row.payload_len(seals);
        if row.private.indexed_deadline != i64::MAX {
            armed.insert(key, row.private.indexed_deadline);
        }
        if let Some(principal) = row.header.principal {
            bound.insert((principal, key));
        }
        if row.private.last_used_slot != 0 && !row.is_stale() && !cells.insert(row.private.last_used_slot) {
            findings.of("the session", key, "has the cell of another one");
        }
    })?;
    let mut aliases: BTreeMap<LookupKey, Alias> = BTreeMap::new();
    each(txn, Table::Aliases, |key, value| match key_of(key) {
        None => findings.add("an alias has a key that is none"),
        Some(key) => match codec::decode_alias(key, value, seals) {
            Ok(alias) => drop(aliases.insert(key, alias)),
            Err(_) => findings.of("the alias", key, "cannot be read"),
        },
    })?;
    each(txn, Table::Expiry, |entry, value| {
        let Ok((deadline, key)) = expiry::parse_deadline_key(entry) else {
            return findings.add("a deadline has a key that is none");
        };
        let known = match value.is_empty() {
            true => armed.get(&key) == Some(&deadline) && armed.remove(&key).is_some(),
            false => aliases.remove(&key).is_some_and(|alias| alias.until == deadline),
        };
        if !known {
            findings.of("a deadline of", key, "is not that of a session or an alias");
        }
    })?;
    armed
        .into_keys()
        .for_each(|key| findings.of("the session", key, "has no deadline noted, and would never be swept"));
    aliases
        .into_keys()
        .for_each(|key| findings.of("the alias", key, "has no deadline noted, and would never be swept"));
    each(txn, Table::Principals, |pair, _| {
        let halves = pair.split_first_chunk::<32>().and_then(|(principal, key)| Some((*principal, key_of(key)?)));
        let Some((principal, key)) = halves else { return findings.add("a principal has a key that is none") };
        if !bound.remove(&(PrincipalKey::from(principal), key)) {
            findings.of("a principal has a session", key, "that is not there or not of that principal");
        }
    })?;
    bound.into_iter().for_each(|(_, key)| findings.of("the session", key, "is not found by its principal"));
    let noted = step::bytes_held(txn)?;
    if noted != bytes {
        findings.add(&format!("{noted} bytes of payload are noted, but there are {bytes}"));
    }
    Ok(findings.0)
}

struct Findings(Vec<String>);

impl Findings {
    fn add(&mut self, finding: &str) {
        if self.0.len() < MOST {
            self.0.push(finding.to_owned());
        }
    }

    /// A key is a session's reference: no secret.
    fn of(&mut self, what: &str, key: LookupKey, how: &str) {
        self.add(&format!("{what} {:?} {how}", Ref::from(key)));
    }
}

fn each(txn: &ReadTxn, table: Table, mut f: impl FnMut(&[u8], &[u8])) -> Result<()> {
    let mut next = Vec::new();
    while let Some((key, value)) = txn.first_from(table, &next)? {
        f(key, value);
        next = step::successor(key);
    }
    Ok(())
}

fn key_of(bytes: &[u8]) -> Option<LookupKey> {
    <[u8; 32]>::try_from(bytes).ok().map(|bytes| LookupKey::from(&Ref(bytes)))
}

#[cfg(test)]
mod tests {
    use crate::{
        Options, Timeout,
        engine::lmdb::{ffi::Table, fixture::Fixture},
    };

    fn filled() -> (Fixture, [u8; 32]) {
        let inside = Fixture::new("");
        let alice = Options::new().principal("alice");
        let (sid, _) = inside.store.create(b"one", &alice).unwrap();
        let (other, _) = inside.store.create(b"two", &Options::default()).unwrap();
        inside.store.renew(&other, None, &alice.grace(std::time::Duration::from_secs(60))).unwrap();
        inside.store.create(b"", &alice.timeout(Timeout::Never).idle_timeout(Timeout::Never)).unwrap();
        let key = inside.store.reference(&sid).unwrap().0;
        assert_eq!(inside.store.check().unwrap(), Vec::<String>::new());
        (inside, key)
    }

    #[test]
    fn every_kind_of_disagreement_is_found() {
        type Damage = fn(&Fixture, &[u8; 32]);
        let damages: [(&str, Damage); 6] = [
            ("cannot be read", |inside, key| inside.put(Table::Sessions, key, b"\x01\x02")),
            ("is not found by its principal", |inside, key| {
                let (pair, _) = inside.first(Table::Principals, key);
                inside.write(|txn| assert!(txn.delete(Table::Principals, &pair).unwrap()));
            }),
            ("never be swept", |inside, key| {
                let (entry, _) = inside.first(Table::Expiry, key);
                inside.write(|txn| assert!(txn.delete(Table::Expiry, &entry).unwrap()));
            }),
            ("not that of a session or an alias", |inside, key| {
                inside.put(Table::Expiry, &[&[0x80; 8][..], key].concat(), b"");
            }),
            ("not there or not of that principal", |inside, _| inside.put(Table::Principals, &[7; 64], b"")),
            ("bytes of payload are noted", |inside, _| inside.put(Table::Meta, b"bytes", &1_u64.to_le_bytes())),
        ];
        for (finding, damage) in damages {
            let (inside, key) = filled();
            damage(&inside, &key);
            let found = inside.store.check().unwrap();
            assert!(found.iter().any(|line| line.contains(finding)), "{finding}: {found:?}");
        }
    }
}
