//! The first bytes of a record without its last use: header and nonce, which no two writes share. A
//! server recognizes by them the record that a client has seen.

use crate::session::codec::{COUNTED_FROM, HEADER, LAST_SEEN, PRINCIPAL};

/// The longest header, and the sealed payload up to the end of its nonce.
pub(super) const PREFIX: usize = HEADER + PRINCIPAL + COUNTED_FROM + 17;
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
    let start = &record[..record.len().min(PREFIX)];
    (&start[..start.len().min(LAST_SEEN)], start.get(LAST_SEEN_END..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_ignores_the_last_use() {
        let record: Vec<u8> = (0..200).collect();
        let mut used = record.clone();
        used[LAST_SEEN] = 99;
        let prefix = RecordPrefix::of(&record);
        assert_eq!(prefix.as_bytes(), RecordPrefix::of(&used).as_bytes());
        let start = prefix.to_record_start();
        assert_eq!((start.len(), &start[..16], &start[24..]), (PREFIX, &record[..16], &record[24..PREFIX]));
        used[PREFIX - 1] = 0;
        assert_ne!(prefix.as_bytes(), RecordPrefix::of(&used).as_bytes());
    }
}
