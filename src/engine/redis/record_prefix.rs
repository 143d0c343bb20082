//! The first bytes of a record without its last use: header and nonce, which no two writes share. A
//! server recognizes by them the record that a client has seen.

use crate::session::{
    codec::{self, LAST_SEEN, START},
    label::MAX_STORED_LABEL,
};

/// The sealed payload up to the end of its nonce.
const NONCE_END: usize = 17;
/// The longest prefix.
pub(super) const PREFIX: usize = START + MAX_STORED_LABEL + NONCE_END;
const LAST_SEEN_END: usize = LAST_SEEN + 8;

#[derive(Clone, Default)]
pub(super) struct RecordPrefix(Vec<u8>);

impl RecordPrefix {
    pub(super) fn of(record: &[u8]) -> RecordPrefix {
        let (before, after) = split(record);
        RecordPrefix([before, after].concat())
    }

    /// Takes over another record's, without allocating if it fits.
    pub(super) fn set(&mut self, record: &[u8]) {
        let (before, after) = split(record);
        self.0.clear();
        self.0.extend_from_slice(before);
        self.0.extend_from_slice(after);
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The start of a record with this prefix, last used at any time.
    pub(super) fn to_record_start(&self) -> Vec<u8> {
        let (before, after) = self.0.split_at(self.0.len().min(LAST_SEEN));
        [before, &[0; 8], after].concat()
    }
}

/// The parts of a record's prefix before and behind the last use.
fn split(record: &[u8]) -> (&[u8], &[u8]) {
    let len = codec::payload_at(record).map_or(PREFIX, |at| at + NONCE_END);
    let start = &record[..record.len().min(len)];
    (&start[..start.len().min(LAST_SEEN)], start.get(LAST_SEEN_END..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_ignores_the_last_use() {
        let mut record: Vec<u8> = (0..200).collect();
        // Sealed and with a principal.
        record[..2].copy_from_slice(&[2, 3]);
        let len = codec::payload_at(&record).unwrap() + NONCE_END;
        let mut used = record.clone();
        used[LAST_SEEN] = 99;
        let prefix = RecordPrefix::of(&record);
        assert_eq!(prefix.as_bytes(), RecordPrefix::of(&used).as_bytes());
        let start = prefix.to_record_start();
        assert_eq!((start.len(), &start[..16], &start[24..]), (len, &record[..16], &record[24..len]));
        used[len] = 0;
        assert_eq!(prefix.as_bytes(), RecordPrefix::of(&used).as_bytes());
        used[len - 1] = 0;
        assert_ne!(prefix.as_bytes(), RecordPrefix::of(&used).as_bytes());
    }
}
