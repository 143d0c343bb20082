//! Whether the tables of a store agree with one another, in one snapshot: for an operator. (The
//! structure of the file is checked by the process that opens it alone: see `pages`.)

use std::collections::{BTreeMap, BTreeSet};

use super::super::{
    deadline_index::{alias_entry, parse_deadline_key, successor},
    env::{ReadTxn, Table},
    handle::Handle,
    old_keys,
    session_txn::{SessionRow, payload_bytes},
};
use crate::{
    error::Result,
    session::{
        alias::{Alias, MAX_ALIASES},
        codec,
        key::{LookupKey, PrincipalKey, Ref},
    },
};

/// How many findings are listed: a store that is damaged all over needs no longer list.
const MAX_FINDINGS: usize = 100;

/// What is wrong, a line each; nothing if all is well.
pub(in super::super) fn check(handle: &Handle, txn: &ReadTxn, seals: bool) -> Result<Vec<String>> {
    let last_used = handle.shm.last_used();
    let mut findings = Findings(Vec::new());
    let mut deadlines = BTreeMap::new();
    let mut principals = BTreeSet::new();
    let mut slots = BTreeSet::new();
    let mut bytes = 0_u64;
    for_each(txn, Table::Sessions, |key, value| {
        let Some(key) = to_key(key) else { return findings.add("a session has an impossible key") };
        let Ok((row, _)) = SessionRow::read(key, value, &last_used, seals) else {
            return findings.add_key("the record", key, "cannot be read");
        };
        bytes += row.payload_len(seals);
        if row.engine_fields.indexed_deadline != i64::MAX {
            deadlines.insert(key, row.engine_fields.indexed_deadline);
        }
        if let Some(principal) = row.header.principal {
            principals.insert((principal, key));
        }
        let slot = row.engine_fields.last_used_slot;
        if slot != 0 && !row.is_stale() && !slots.insert(slot) {
            findings.add_key("the session", key, "has the slot of another one");
        }
    })?;
    let mut aliases: BTreeMap<LookupKey, Alias> = BTreeMap::new();
    for_each(txn, Table::Aliases, |key, value| match to_key(key) {
        None => findings.add("an alias has an impossible key"),
        Some(key) => match codec::decode_alias(key, value, seals) {
            Ok(alias) => drop(aliases.insert(key, alias)),
            Err(_) => findings.add_key("the alias", key, "cannot be read"),
        },
    })?;
    let mut unlisted: BTreeSet<_> = aliases.values().map(alias_entry).collect();
    for_each(txn, Table::OldKeys, |key, list| {
        if !matches!(txn.get(Table::Sessions, key), Ok(Some(_))) {
            findings.add("old keys are listed for a session that does not exist");
        }
        let entries = old_keys::entries(list);
        if entries.as_flattened().len() != list.len() || entries.len() > MAX_ALIASES {
            findings.add("a list of old keys has an impossible length");
        }
        for entry in entries {
            unlisted.remove(entry);
        }
    })?;
    for entry in unlisted {
        let (_, key) = parse_deadline_key(&entry)?;
        findings.add_key("the alias", key, "is not among the old keys of a session, and would outlive it");
    }
    for_each(txn, Table::Expiry, |entry, value| {
        let Ok((deadline, key)) = parse_deadline_key(entry) else {
            return findings.add("a deadline has an impossible key");
        };
        let is_known = if value.is_empty() {
            deadlines.get(&key) == Some(&deadline) && deadlines.remove(&key).is_some()
        } else {
            aliases.remove(&key).is_some_and(|alias| alias.until == deadline)
        };
        if !is_known {
            findings.add_key("a deadline of", key, "is not that of a session or an alias");
        }
    })?;
    for key in deadlines.into_keys() {
        findings.add_key("the session", key, "is not in the index of deadlines, and would never be swept");
    }
    for key in aliases.into_keys() {
        findings.add_key("the alias", key, "is not in the index of deadlines, and would never be swept");
    }
    for_each(txn, Table::Principals, |entry, _| {
        let parts = entry.split_first_chunk::<32>().and_then(|(principal, key)| Some((*principal, to_key(key)?)));
        let Some((principal, key)) = parts else { return findings.add("a principal has an impossible key") };
        if !principals.remove(&(PrincipalKey::from(principal), key)) {
            findings.add_key("a principal has a session", key, "that does not exist or is not of that principal");
        }
    })?;
    for (_, key) in principals {
        findings.add_key("the session", key, "is not found by its principal");
    }
    let counted = payload_bytes(txn)?;
    if counted != bytes {
        findings.add(&format!("{counted} bytes of payload are counted, but there are {bytes}"));
    }
    Ok(findings.0)
}

struct Findings(Vec<String>);

impl Findings {
    fn add(&mut self, finding: &str) {
        if self.0.len() < MAX_FINDINGS {
            self.0.push(finding.to_owned());
        }
    }

    /// A key is a session's reference: no secret.
    fn add_key(&mut self, what: &str, key: LookupKey, how: &str) {
        self.add(&format!("{what} {:?} {how}", Ref::from(key)));
    }
}

fn for_each(txn: &ReadTxn, table: Table, mut f: impl FnMut(&[u8], &[u8])) -> Result<()> {
    let mut next = Vec::new();
    while let Some((key, value)) = txn.first_from(table, &next)? {
        f(key, value);
        next = successor(key);
    }
    Ok(())
}

fn to_key(bytes: &[u8]) -> Option<LookupKey> {
    <[u8; 32]>::try_from(bytes).ok().map(|bytes| LookupKey::from(&Ref(bytes)))
}

#[cfg(test)]
mod tests {
    use crate::{
        Options, Timeout,
        engine::lmdb::{env::Table, fixture::Fixture},
    };

    fn filled_store() -> (Fixture, [u8; 32]) {
        let fixture = Fixture::new("");
        let alice = Options::new().principal("alice");
        let (sid, _) = fixture.store.create(b"one", &alice).unwrap();
        let (other, _) = fixture.store.create(b"two", &alice).unwrap();
        fixture.store.renew(&other, None, &alice.grace(std::time::Duration::from_secs(60))).unwrap();
        fixture.store.create(b"", &alice.timeout(Timeout::Never).idle_timeout(Timeout::Never)).unwrap();
        let key = fixture.store.reference(&sid).unwrap().0;
        assert_eq!(fixture.store.check().unwrap(), Vec::<String>::new());
        (fixture, key)
    }

    #[test]
    fn disagreement_between_tables_is_found() {
        type Damage = fn(&Fixture, &[u8; 32]);
        let damages: [(&str, Damage); 9] = [
            ("cannot be read", |fixture, key| fixture.put(Table::Sessions, key, b"\x01\x02")),
            ("is not found by its principal", |fixture, key| {
                let (pair, _) = fixture.first(Table::Principals, key);
                fixture.write(|txn| assert!(txn.delete(Table::Principals, &pair).unwrap()));
            }),
            ("never be swept", |fixture, key| {
                let (entry, _) = fixture.first(Table::Expiry, key);
                fixture.write(|txn| assert!(txn.delete(Table::Expiry, &entry).unwrap()));
            }),
            ("not that of a session or an alias", |fixture, key| {
                fixture.put(Table::Expiry, &[&[0x80; 8][..], key].concat(), b"");
            }),
            ("that does not exist or is not of that principal", |fixture, _| {
                fixture.put(Table::Principals, &[7; 64], b"")
            }),
            ("would outlive it", |fixture, _| {
                let (session, _) = fixture.first(Table::OldKeys, &[]);
                fixture.write(|txn| assert!(txn.delete(Table::OldKeys, &session).unwrap()));
            }),
            ("impossible length", |fixture, key| fixture.put(Table::OldKeys, key, &[0; 41])),
            ("session that does not exist", |fixture, _| fixture.put(Table::OldKeys, &[7; 32], &[0; 40])),
            ("bytes of payload are counted", |fixture, _| fixture.put(Table::Meta, b"bytes", &1_u64.to_le_bytes())),
        ];
        for (finding, damage) in damages {
            let (fixture, key) = filled_store();
            damage(&fixture, &key);
            let found = fixture.store.check().unwrap();
            assert!(found.iter().any(|line| line.contains(finding)), "{finding}: {found:?}");
        }
    }
}
