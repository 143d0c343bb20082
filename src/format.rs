//! How sessions and aliases are laid out where they leave the process: one versioned format for every engine that has it.
//! docs/FORMAT.md is its description, and tests/vectors.txt its examples. Numbers are little-endian.

use crate::{
    error::Result,
    key::{Key, PrincipalKey, Ref},
    policy::Timeouts,
    record::{Alias, Head},
    seal::{TOKEN, corrupt},
};

const FORMAT: u8 = 1;
const HAS_PRINCIPAL: u8 = 1;
const SEALED: u8 = 2;
const HAS_TOKEN: u8 = 4;

const GENERATION: usize = 2;
const CELL: usize = 4;
const CREATED: usize = 8;
pub(crate) const LAST_SEEN: usize = 16;
const VERSION: usize = 24;
const ABSOLUTE: usize = 32;
pub(crate) const IDLE: usize = 40;
const ARMED: usize = 48;
pub(crate) const HEADER: usize = 56;
pub(crate) const PRINCIPAL: usize = 32;

/// What an engine keeps in a record for itself: not part of the session, and not sealed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Private {
    pub cell: u32,
    pub generation: u16,
    pub armed: i64,
}

/// A record, decoded.
pub(crate) struct Record<'a> {
    pub head: Head,
    pub private: Private,
    /// The payload as it is stored.
    pub bytes: &'a [u8],
}

/// The length of a record whose payload takes `stored_len` bytes.
pub(crate) fn record_len(head: &Head, stored_len: usize) -> usize {
    header_len(head.principal.is_some()) + stored_len
}

fn header_len(has_principal: bool) -> usize {
    HEADER + if has_principal { PRINCIPAL } else { 0 }
}

/// How long the stored payload is in a record of this length that begins so; `None`: it is no record.
pub(crate) fn stored_len(start: &[u8], record_len: usize) -> Option<usize> {
    match *start.first_chunk()? {
        [FORMAT, flags] => record_len.checked_sub(header_len(flags & HAS_PRINCIPAL != 0)),
        _ => None,
    }
}

/// Writes everything but the payload into `out`, which is as long as `record_len` says, and returns where the payload goes.
pub(crate) fn encode<'a>(head: &Head, private: &Private, sealed: bool, out: &'a mut [u8]) -> &'a mut [u8] {
    let (header, bytes) = out.split_at_mut(header_len(head.principal.is_some()));
    header[0] = FORMAT;
    header[1] = if head.principal.is_some() { HAS_PRINCIPAL } else { 0 } | if sealed { SEALED } else { 0 };
    put(header, GENERATION, private.generation.to_le_bytes());
    put(header, CELL, private.cell.to_le_bytes());
    put(header, CREATED, head.created.to_le_bytes());
    put(header, LAST_SEEN, head.last_seen.to_le_bytes());
    put(header, VERSION, head.version.to_le_bytes());
    put(header, ABSOLUTE, head.own.absolute.to_le_bytes());
    put(header, IDLE, head.own.idle.to_le_bytes());
    put(header, ARMED, private.armed.to_le_bytes());
    if let Some(principal) = head.principal {
        put(header, HEADER, principal.bytes());
    }
    bytes
}

/// Changes in a record what is not sealed: the last use, and what is the engine's own.
pub(crate) fn amend(record: &mut [u8], last_seen: i64, private: &Private) -> Result<()> {
    let header = record.get_mut(..HEADER).ok_or_else(corrupt)?;
    put(header, GENERATION, private.generation.to_le_bytes());
    put(header, CELL, private.cell.to_le_bytes());
    put(header, LAST_SEEN, last_seen.to_le_bytes());
    put(header, ARMED, private.armed.to_le_bytes());
    Ok(())
}

/// The record in `bytes`, which must be sealed or not as the store is: a record that says otherwise was planted.
pub(crate) fn decode(bytes: &[u8], sealed: bool) -> Result<Record<'_>> {
    let (&[format, flags], true) = (bytes.first_chunk().ok_or_else(corrupt)?, bytes.len() >= HEADER) else {
        return Err(corrupt());
    };
    if format != FORMAT || flags & !HAS_PRINCIPAL != if sealed { SEALED } else { 0 } {
        return Err(corrupt());
    }
    let has_principal = flags & HAS_PRINCIPAL != 0;
    let (header, payload) = bytes.split_at_checked(header_len(has_principal)).ok_or_else(corrupt)?;
    let time = |at| i64::from_le_bytes(field(header, at));
    Ok(Record {
        head: Head {
            version: u64::from_le_bytes(field(header, VERSION)),
            created: time(CREATED),
            last_seen: time(LAST_SEEN),
            own: Timeouts { absolute: time(ABSOLUTE), idle: time(IDLE) },
            principal: has_principal.then(|| PrincipalKey::from(field::<PRINCIPAL>(header, HEADER))),
        },
        private: Private {
            cell: u32::from_le_bytes(field(header, CELL)),
            generation: u16::from_le_bytes(field(header, GENERATION)),
            armed: time(ARMED),
        },
        bytes: payload,
    })
}

const TARGET: usize = 2;
const UNTIL: usize = TARGET + 32;
const ALIAS: usize = UNTIL + 8;

/// The alias as it is stored under its key.
pub(crate) fn encode_alias(alias: &Alias) -> Vec<u8> {
    let mut out = vec![0; ALIAS];
    out[0] = FORMAT;
    put(&mut out, TARGET, alias.target.bytes());
    put(&mut out, UNTIL, alias.until.to_le_bytes());
    if let Some(token) = &alias.token {
        out[1] = HAS_TOKEN;
        out.extend_from_slice(token.as_slice());
    }
    out
}

/// The alias that is stored under `key`.
pub(crate) fn decode_alias(key: Key, bytes: &[u8], sealed: bool) -> Result<Alias> {
    let (head, token) = bytes.split_at_checked(ALIAS).ok_or_else(corrupt)?;
    let flags = if sealed { HAS_TOKEN } else { 0 };
    if head[..2] != [FORMAT, flags] || token.len() != if sealed { TOKEN } else { 0 } {
        return Err(corrupt());
    }
    Ok(Alias {
        key,
        target: Key::from(&Ref(field(head, TARGET))),
        until: i64::from_le_bytes(field(head, UNTIL)),
        token: token.first_chunk().map(|token| Box::new(*token)),
    })
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

fn put<const N: usize>(out: &mut [u8], at: usize, bytes: [u8; N]) {
    out[at..at + N].copy_from_slice(&bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::ErrorKind,
        key::Keys,
        seal::{self, Ring},
    };

    fn head(principal: Option<PrincipalKey>) -> Head {
        Head { version: 3, created: 1000, last_seen: 2000, own: Timeouts { absolute: -1, idle: 60_000 }, principal }
    }

    const PRIVATE: Private = Private { cell: 7, generation: 9, armed: i64::MAX };

    fn encoded(principal: Option<PrincipalKey>, sealed: bool) -> Vec<u8> {
        let mut out = vec![0; record_len(&head(principal), 5)];
        encode(&head(principal), &PRIVATE, sealed, &mut out).copy_from_slice(b"hello");
        out
    }

    #[test]
    fn a_record_comes_back_as_it_was() {
        for principal in [None, Some(PrincipalKey(1 << 100, 5))] {
            let mut bytes = encoded(principal, true);
            let record = decode(&bytes, true).unwrap();
            assert_eq!(format!("{:?}", record.head), format!("{:?}", head(principal)));
            assert_eq!((record.private, record.bytes), (PRIVATE, &b"hello"[..]));
            let private = Private { cell: 1, generation: 2, armed: 3 };
            amend(&mut bytes, 4000, &private).unwrap();
            let record = decode(&bytes, true).unwrap();
            assert_eq!((record.head.last_seen, record.private, record.bytes), (4000, private, &b"hello"[..]));
        }
    }

    #[test]
    fn what_is_no_record_is_corrupt() {
        let good = encoded(Some(PrincipalKey(1, 2)), true);
        let is_corrupt =
            |bytes: &[u8], sealed| decode(bytes, sealed).err().is_some_and(|error| error.kind() == ErrorKind::Corrupt);
        for len in 0..good.len() - 5 {
            assert!(is_corrupt(&good[..len], true), "cut to {len}");
        }
        for bit in 0..16 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            // Without the flag of the principal it is a shorter record: for the seal to notice.
            assert!(is_corrupt(&bad, true) || bit == 8, "bit {bit}");
        }
        assert!(is_corrupt(&good, false), "a sealed one in a store that does not seal");
        assert!(is_corrupt(&encoded(None, false), true), "a planted one that is not sealed");
    }

    #[test]
    fn an_alias_comes_back_as_it_was() {
        for sealed in [false, true] {
            let token = sealed.then(|| Box::new([3; TOKEN]));
            let alias = Alias { key: Key(1, 2), target: Key(3, 4), until: -5, token };
            let bytes = encode_alias(&alias);
            let again = decode_alias(Key(1, 2), &bytes, sealed).unwrap();
            assert_eq!((again.target, again.until, &again.token), (alias.target, -5, &alias.token));
            assert!(decode_alias(Key(1, 2), &bytes, !sealed).is_err());
            assert!((0..bytes.len()).all(|len| decode_alias(Key(1, 2), &bytes[..len], sealed).is_err()));
        }
    }

    /// The examples that docs/FORMAT.md promises: what they give is in the file, what is asked here.
    #[test]
    fn the_vectors_are_what_the_library_writes() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors.txt");
        let text = std::fs::read_to_string(path).unwrap();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
            line.unwrap_or_else(|| panic!("tests/vectors.txt has no {name}")).to_owned()
        };
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let number = |i: usize| u8::try_from(i).unwrap();
        let salt: [u8; 32] = std::array::from_fn(number);
        let secret: [u8; 32] = std::array::from_fn(|i| 0x80 + number(i));
        let nonce = std::array::from_fn(|i| 0xF0 + number(i));
        let (old, new) = ([b'A'; 128], [b'B'; 128]);
        for (name, with_secret) in [("without secret", false), ("with secret", true)] {
            let mut ring = Ring::default();
            assert!(!with_secret || ring.add(&secret));
            let keys = Keys::of_store(&salt, Some(ring));
            let ((old_key, from), (new_key, to)) = (keys.session(&old), keys.session(&new));
            let (from, to) = (from.unwrap(), to.unwrap());
            let principal = keys.principal(b"alice");
            assert_eq!(hex(&old_key.bytes()), value("lookup key of A"));
            assert_eq!(hex(&new_key.bytes()), value("lookup key of B"));
            assert_eq!(hex(&principal.bytes()), value("principal key of alice"));

            let own = Timeouts { absolute: 0, idle: 60_000 };
            let head = Head { version: 3, created: 1000, last_seen: 2000, own, principal: Some(principal) };
            let mut record = vec![0; record_len(&head, 5 + seal::OVERHEAD)];
            let private = Private { cell: 7, generation: 9, armed: 62_000 };
            let payload = encode(&head, &private, true, &mut record);
            seal::seal(&from, nonce, &old_key, &head, b"hello", payload).unwrap();
            assert_eq!(hex(&record), value(&format!("record of A, {name}")));

            let token = seal::token(&from, &to, nonce, &old_key, &new_key, 5000).unwrap();
            let alias = Alias { key: old_key, target: new_key, until: 5000, token: Some(Box::new(token)) };
            assert_eq!(hex(&encode_alias(&alias)), value(&format!("alias of A to B, {name}")));
        }
    }
}
