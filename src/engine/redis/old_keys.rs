//! The old keys of a session, whose aliases end with it. They follow its record in its value, so
//! that a session is one key of a Cluster; common.lua writes them and describes their layout.

use crate::session::{
    codec::HEADER,
    key::{LookupKey, Ref},
};

/// Of the second byte of a record, which tells that old keys follow it.
pub(super) const FLAG: u8 = 128;
/// A key, and when its alias ends.
pub(super) const ENTRY: usize = 40;

/// Removes the old keys from behind a record.
pub(super) fn strip(value: &mut Vec<u8>) {
    let len = value.len();
    if let Some(&last) = value.last()
        && let Some(record_len) = strip_start(value, len, last)
    {
        value.truncate(record_len);
    }
}

/// The length of the record in a value with this start, length and last byte, whose flag is
/// cleared; `None` if the value is damaged.
pub(super) fn strip_start(start: &mut [u8], value_len: usize, last: u8) -> Option<usize> {
    let flags = start.get_mut(1)?;
    if *flags & FLAG == 0 {
        return Some(value_len);
    }
    let record_len = value_len.checked_sub(usize::from(last) * ENTRY + 1).filter(|len| *len >= HEADER)?;
    *flags &= !FLAG;
    Some(record_len)
}

/// Old keys as a script answers them.
#[derive(Default)]
pub(super) struct OldKeys(pub Vec<u8>);

impl OldKeys {
    pub(super) fn iter(&self) -> impl Iterator<Item = LookupKey> {
        let key = |entry: &[u8; ENTRY]| entry.first_chunk().map(|key| LookupKey::from(&Ref(*key)));
        self.0.as_chunks::<ENTRY>().0.iter().filter_map(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strip_leaves_the_record() {
        let record = [&[2, 3][..], &[7; 70]].concat();
        let mut plain = record.clone();
        strip(&mut plain);
        assert_eq!(plain, record);
        let entries = [[1; ENTRY], [2; ENTRY]].concat();
        let mut value = [&record[..], &entries, &[2]].concat();
        value[1] |= FLAG;
        strip(&mut value);
        assert_eq!(value, record);
        assert_eq!(
            OldKeys(entries).iter().collect::<Vec<_>>(),
            [[1; 32], [2; 32]].map(|key| LookupKey::from(&Ref(key)))
        );
    }

    #[test]
    fn strip_leaves_a_damaged_value() {
        for len in [0, 1, 2, 3, HEADER, HEADER + 40] {
            let damaged = vec![FLAG | 2; len];
            let mut value = damaged.clone();
            strip(&mut value);
            assert_eq!(value, damaged);
        }
    }
}
