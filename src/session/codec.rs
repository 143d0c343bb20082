//! The binary format of sessions and aliases outside the process: one versioned format for every
//! shared engine. docs/FORMAT.md describes it, and tests/vectors.txt has examples. Numbers are
//! little-endian.

use super::{
    alias::Alias,
    header::RecordHeader,
    key::{LookupKey, PrincipalKey, Ref},
    label::MAX_STORED_LABEL,
    policy::Timeouts,
};
use crate::{
    crypto::aead::{OVERHEAD, WRAPPED_KEY_LEN},
    error::{Error, Result},
};

const FORMAT: u8 = 2;
pub(crate) const HAS_PRINCIPAL: u8 = 1;
const SEALED: u8 = 2;
const HAS_WRAPPED_KEY: u8 = 4;
pub(crate) const HAS_COUNTED_FROM: u8 = 8;
const HAS_LABEL: u8 = 16;

const GENERATION: usize = 2;
const LAST_USED_SLOT: usize = 4;
pub(crate) const CREATED: usize = 8;
pub(crate) const LAST_SEEN: usize = 16;
const VERSION: usize = 24;
const ABSOLUTE: usize = 32;
pub(crate) const IDLE: usize = 40;
const INDEXED_DEADLINE: usize = 48;
pub(crate) const AUTHENTICATED: usize = 56;
pub(crate) const HEADER: usize = 64;
// What may follow the header, in this order.
pub(crate) const PRINCIPAL: usize = 32;
const COUNTED_FROM: usize = 8;
/// The length of the label, which follows it.
const LABEL_LEN: usize = 2;

/// So many bytes of a record, or all if it is shorter, tell where its payload begins.
pub(crate) const START: usize = HEADER + PRINCIPAL + COUNTED_FROM + LABEL_LEN;

/// What an engine keeps in a record for its own use. Not part of the session, and not sealed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EngineFields {
    /// `lmdb:`: the slot of the table of last uses; 0 for none.
    pub last_used_slot: u32,
    /// The slot's generation.
    pub generation: u16,
    /// The deadline under which the engine's index of deadlines has the session.
    pub indexed_deadline: i64,
}

/// A record, decoded.
pub(crate) struct Record<'a> {
    pub header: RecordHeader,
    pub engine_fields: EngineFields,
    /// The label as it is stored; empty if there is none.
    pub label: &'a [u8],
    /// The payload as it is stored.
    pub payload: &'a [u8],
}

/// The length of a record whose label and payload take so many bytes as they are stored.
pub(crate) fn record_len(header: &RecordHeader, label_len: usize, stored_len: usize) -> usize {
    Layout::of(header, label_len).payload + stored_len
}

fn flags_of(header: &RecordHeader, label: &[u8], sealed: bool) -> u8 {
    let mut flags = if sealed { SEALED } else { 0 };
    if header.principal.is_some() {
        flags |= HAS_PRINCIPAL;
    }
    if !label.is_empty() {
        flags |= HAS_LABEL;
    }
    if has_counted_from(header) {
        flags |= HAS_COUNTED_FROM;
    }
    flags
}

fn has_counted_from(header: &RecordHeader) -> bool {
    header.counted_from != header.recorded_start()
}

/// Where the parts of a record begin that need not be there.
struct Layout {
    counted_from: usize,
    label: usize,
    payload: usize,
}

impl Layout {
    fn new(has_principal: bool, label_len: usize, has_counted_from: bool) -> Layout {
        let counted_from = HEADER + if has_principal { PRINCIPAL } else { 0 };
        let counted_from_end = counted_from + if has_counted_from { COUNTED_FROM } else { 0 };
        let label = counted_from_end + if label_len > 0 { LABEL_LEN } else { 0 };
        Layout { counted_from, label, payload: label + label_len }
    }

    fn of(header: &RecordHeader, label_len: usize) -> Layout {
        Layout::new(header.principal.is_some(), label_len, has_counted_from(header))
    }

    /// Of a record that begins like this; `None` if it is not one.
    fn parse(start: &[u8]) -> Option<Layout> {
        let [FORMAT, flags] = *start.first_chunk()? else { return None };
        let has_principal = flags & HAS_PRINCIPAL != 0;
        let without_label = Layout::new(has_principal, 0, flags & HAS_COUNTED_FROM != 0);
        if flags & HAS_LABEL == 0 {
            return Some(without_label);
        }
        let label_len = u16::from_le_bytes(*start.get(without_label.payload..)?.first_chunk()?).into();
        // Only a session with a principal has one.
        let is_sound = has_principal && (1..=MAX_STORED_LABEL).contains(&label_len);
        is_sound.then(|| Layout::new(has_principal, label_len, flags & HAS_COUNTED_FROM != 0))
    }
}

/// Where the payload of a record begins that has this start; `None` if it is not a record.
pub(crate) fn payload_at(start: &[u8]) -> Option<usize> {
    Layout::parse(start).map(|layout| layout.payload)
}

/// The length of the stored payload in a record that has this start and length; `None` if it is not
/// a record.
pub(crate) fn stored_len(start: &[u8], record_len: usize) -> Option<usize> {
    record_len.checked_sub(payload_at(start)?)
}

/// The length of a payload that takes this many bytes as it is stored.
pub(crate) fn payload_len(stored_len: usize, sealed: bool) -> u64 {
    stored_len.saturating_sub(if sealed { OVERHEAD } else { 0 }) as u64
}

/// Writes everything but the payload into `out`, which has the length `record_len`, and returns the
/// part for the payload.
pub(crate) fn encode<'a>(
    header: &RecordHeader,
    label: &[u8],
    engine_fields: &EngineFields,
    sealed: bool,
    out: &'a mut [u8],
) -> &'a mut [u8] {
    let layout = Layout::of(header, label.len());
    let flags = flags_of(header, label, sealed);
    let (fields, payload) = out.split_at_mut(layout.payload);
    fields[0] = FORMAT;
    fields[1] = flags;
    put(fields, GENERATION, engine_fields.generation.to_le_bytes());
    put(fields, LAST_USED_SLOT, engine_fields.last_used_slot.to_le_bytes());
    put(fields, CREATED, header.created.to_le_bytes());
    put(fields, LAST_SEEN, header.last_seen.to_le_bytes());
    put(fields, VERSION, header.version.to_le_bytes());
    put(fields, ABSOLUTE, header.own.absolute.to_le_bytes());
    put(fields, IDLE, header.own.idle.to_le_bytes());
    put(fields, INDEXED_DEADLINE, engine_fields.indexed_deadline.to_le_bytes());
    put(fields, AUTHENTICATED, header.authenticated.to_le_bytes());
    if let Some(principal) = header.principal {
        put(fields, HEADER, principal.bytes());
    }
    if !label.is_empty() {
        put(fields, layout.label - LABEL_LEN, (label.len() as u16).to_le_bytes());
        fields[layout.label..].copy_from_slice(label);
    }
    if flags & HAS_COUNTED_FROM != 0 {
        put(fields, layout.counted_from, header.counted_from.to_le_bytes());
    }
    payload
}

/// Changes the parts of a record that are not sealed: the last use and the engine's own fields.
pub(crate) fn patch_header(record: &mut [u8], last_seen: i64, engine_fields: &EngineFields) -> Result<()> {
    let header = record.get_mut(..HEADER).ok_or_else(Error::corrupt_record)?;
    put(header, GENERATION, engine_fields.generation.to_le_bytes());
    put(header, LAST_USED_SLOT, engine_fields.last_used_slot.to_le_bytes());
    put(header, LAST_SEEN, last_seen.to_le_bytes());
    put(header, INDEXED_DEADLINE, engine_fields.indexed_deadline.to_le_bytes());
    Ok(())
}

/// The record in `bytes`. It must be sealed if the store seals and must not be otherwise: a record
/// that differs was planted.
pub(crate) fn decode(bytes: &[u8], sealed: bool) -> Result<Record<'_>> {
    let (&[format, flags], true) = (bytes.first_chunk().ok_or_else(Error::corrupt_record)?, bytes.len() >= HEADER)
    else {
        return Err(Error::corrupt_record());
    };
    let optional = HAS_PRINCIPAL | HAS_LABEL | HAS_COUNTED_FROM;
    if format != FORMAT || flags & !optional != if sealed { SEALED } else { 0 } {
        return Err(Error::corrupt_record());
    }
    let layout = Layout::parse(bytes).ok_or_else(Error::corrupt_record)?;
    let (fields, payload) = bytes.split_at_checked(layout.payload).ok_or_else(Error::corrupt_record)?;
    let time = |at| i64::from_le_bytes(field(fields, at));
    let principal = (flags & HAS_PRINCIPAL != 0).then(|| PrincipalKey::from(field::<PRINCIPAL>(fields, HEADER)));
    let mut header = RecordHeader {
        version: u64::from_le_bytes(field(fields, VERSION)),
        created: time(CREATED),
        authenticated: time(AUTHENTICATED),
        counted_from: 0,
        last_seen: time(LAST_SEEN),
        own: Timeouts { absolute: time(ABSOLUTE), idle: time(IDLE) },
        principal,
    };
    let has_counted_from = flags & HAS_COUNTED_FROM != 0;
    header.counted_from = if has_counted_from { time(layout.counted_from) } else { header.recorded_start() };
    Ok(Record {
        header,
        engine_fields: EngineFields {
            last_used_slot: u32::from_le_bytes(field(fields, LAST_USED_SLOT)),
            generation: u16::from_le_bytes(field(fields, GENERATION)),
            indexed_deadline: time(INDEXED_DEADLINE),
        },
        label: &fields[layout.label..],
        payload,
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
    if let Some(wrapped_key) = &alias.wrapped_key {
        out[1] = HAS_WRAPPED_KEY;
        out.extend_from_slice(wrapped_key.as_slice());
    }
    out
}

/// The alias that is stored under `key`.
pub(crate) fn decode_alias(key: LookupKey, bytes: &[u8], sealed: bool) -> Result<Alias> {
    let (fields, wrapped_key) = bytes.split_at_checked(ALIAS).ok_or_else(Error::corrupt_record)?;
    let flags = if sealed { HAS_WRAPPED_KEY } else { 0 };
    if fields[..2] != [FORMAT, flags] || wrapped_key.len() != if sealed { WRAPPED_KEY_LEN } else { 0 } {
        return Err(Error::corrupt_record());
    }
    Ok(Alias {
        key,
        target: LookupKey::from(&Ref(field(fields, TARGET))),
        until: i64::from_le_bytes(field(fields, UNTIL)),
        wrapped_key: wrapped_key.first_chunk().map(|key| Box::new(*key)),
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
        crypto::{aead, keyring::Keyring, keys::StoreKeys},
        error::ErrorKind,
        session::{
            alias::Grace,
            header::NEVER_AUTHENTICATED,
            label,
            policy::{NONE_REVOKED, StepTime},
        },
    };

    fn header(principal: Option<PrincipalKey>) -> RecordHeader {
        RecordHeader {
            version: 3,
            created: 1000,
            authenticated: 1500,
            counted_from: 1500,
            last_seen: 2000,
            own: Timeouts { absolute: -1, idle: 60_000 },
            principal,
        }
    }

    const ENGINE_FIELDS: EngineFields = EngineFields { last_used_slot: 7, generation: 9, indexed_deadline: i64::MAX };

    fn encoded(header: &RecordHeader, label: &[u8], sealed: bool) -> Vec<u8> {
        let mut out = vec![0; record_len(header, label.len(), 5)];
        encode(header, label, &ENGINE_FIELDS, sealed, &mut out).copy_from_slice(b"hello");
        out
    }

    #[test]
    fn record_round_trips() {
        let bare = RecordHeader { authenticated: NEVER_AUTHENTICATED, counted_from: 1000, ..header(None) };
        let of_principal = header(Some(PrincipalKey(1 << 100, 5)));
        let pulled_back = RecordHeader { counted_from: 900, ..of_principal };
        let records: [(RecordHeader, &[u8]); 5] = [
            (bare, b""),
            (header(None), b""),
            (of_principal, b""),
            (of_principal, b"a label"),
            (pulled_back, &[7; MAX_STORED_LABEL]),
        ];
        for (header, label) in records {
            let mut bytes = encoded(&header, label, true);
            let record = decode(&bytes, true).unwrap();
            assert_eq!(format!("{:?}", record.header), format!("{header:?}"));
            assert_eq!((record.engine_fields, record.label, record.payload), (ENGINE_FIELDS, label, &b"hello"[..]));
            assert_eq!(stored_len(&bytes[..bytes.len().min(START)], bytes.len()), Some(5));
            let changed = EngineFields { last_used_slot: 1, generation: 2, indexed_deadline: 3 };
            patch_header(&mut bytes, 4000, &changed).unwrap();
            let record = decode(&bytes, true).unwrap();
            assert_eq!((record.header.last_seen, record.engine_fields, record.payload), (4000, changed, &b"hello"[..]));
        }
    }

    #[test]
    fn malformed_record_is_corrupt() {
        let good = encoded(&header(Some(PrincipalKey(1, 2))), b"", true);
        let is_corrupt =
            |bytes: &[u8], sealed| decode(bytes, sealed).err().is_some_and(|error| error.kind() == ErrorKind::Corrupt);
        for len in 0..good.len() - 5 {
            assert!(is_corrupt(&good[..len], true), "cut to {len}");
        }
        for bit in 0..16 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            // With another flag of a field the payload begins elsewhere: for the seal to notice.
            assert!(is_corrupt(&bad, true) || [8, 11].contains(&bit), "bit {bit}");
        }
        assert!(is_corrupt(&good, false), "a sealed one in a store that does not seal");
        assert!(is_corrupt(&encoded(&header(None), b"", false), true), "a planted one that is not sealed");
    }

    #[test]
    fn malformed_label_is_corrupt() {
        let good = encoded(&header(Some(PrincipalKey(1, 2))), b"label", true);
        assert!(decode(&good, true).is_ok());
        for len in [0, MAX_STORED_LABEL as u16 + 1, u16::MAX] {
            let mut bad = good.clone();
            bad[HEADER + PRINCIPAL..][..LABEL_LEN].copy_from_slice(&len.to_le_bytes());
            assert!(decode(&bad, true).is_err(), "{len} bytes");
        }
        for len in 0..good.len() - 5 {
            assert!(decode(&good[..len], true).is_err(), "cut to {len}");
        }
        let mut without_principal = good;
        without_principal[1] &= !HAS_PRINCIPAL;
        assert!(decode(&without_principal, true).is_err());
    }

    #[test]
    fn alias_round_trips() {
        for sealed in [false, true] {
            let wrapped_key = sealed.then(|| Box::new([3; WRAPPED_KEY_LEN]));
            let alias = Alias { key: LookupKey(1, 2), target: LookupKey(3, 4), until: -5, wrapped_key };
            let bytes = encode_alias(&alias);
            let again = decode_alias(LookupKey(1, 2), &bytes, sealed).unwrap();
            assert_eq!((again.target, again.until, &again.wrapped_key), (alias.target, -5, &alias.wrapped_key));
            assert!(decode_alias(LookupKey(1, 2), &bytes, !sealed).is_err());
            assert!((0..bytes.len()).all(|len| decode_alias(LookupKey(1, 2), &bytes[..len], sealed).is_err()));
        }
    }

    /// The examples that docs/FORMAT.md refers to: the inputs are here, the outputs in the file.
    #[test]
    fn encoding_matches_golden_vectors() {
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
            let mut keyring = Keyring::default();
            assert!(!with_secret || keyring.add(&secret));
            let keys = StoreKeys::for_shared_store(&salt, Some(keyring));
            let ((old_key, from), (new_key, to)) = (keys.session(&old), keys.session(&new));
            let (from, to) = (from.unwrap(), to.unwrap());
            let (old_key, new_key) = (LookupKey::from(old_key), LookupKey::from(new_key));
            let principal = PrincipalKey::from(keys.principal(b"alice"));
            assert_eq!(hex(&old_key.bytes()), value("lookup key of A"));
            assert_eq!(hex(&new_key.bytes()), value("lookup key of B"));
            assert_eq!(hex(&principal.bytes()), value("principal key of alice"));

            let own = Timeouts { absolute: 0, idle: 60_000 };
            let header = RecordHeader {
                version: 3,
                created: 1000,
                authenticated: 1500,
                counted_from: 1500,
                last_seen: 2000,
                own,
                principal: Some(principal),
            };
            let label_key = keys.label(b"alice").unwrap();
            let label = label::seal(&label_key, nonce, principal, header.created, b"Firefox").unwrap();
            let mut record = vec![0; record_len(&header, label.len(), 5 + aead::OVERHEAD)];
            let engine_fields = EngineFields { last_used_slot: 7, generation: 9, indexed_deadline: 62_000 };
            let payload = encode(&header, &label, &engine_fields, true, &mut record);
            header.seal(&from, nonce, &old_key, b"hello", payload).unwrap();
            assert_eq!(hex(&record), value(&format!("record of A, {name}")));

            // From the deadline that the vectors name: 5000.
            let timeouts = Timeouts { absolute: 10_000, idle: 10_000 };
            let time = StepTime { now: 0, timeouts, revoked_until: NONE_REVOKED };
            let grace = Grace { ms: 5000, keys: Some((&from, &to, nonce)) };
            let alias = grace.alias((old_key, &header), (new_key, &header), &time).unwrap().unwrap();
            assert_eq!(hex(&encode_alias(&alias)), value(&format!("alias of A to B, {name}")));
        }
    }
}
