//! What this process has seen last of some sessions: so much of a record that a write can be made up from it without reading
//! it again. Only of what was found genuine, and only a guess: the server compares.

use parking_lot::Mutex;

use super::calls;
use crate::session::key::LookupKey;

/// Each has about 150 bytes.
const COUNT: usize = 4096;

/// A session and the first bytes of its record.
type Place = Mutex<Option<(LookupKey, Box<[u8]>)>>;

pub(super) struct Heads(Box<[Place]>);

impl Heads {
    pub(super) fn new() -> Heads {
        Heads((0..COUNT).map(|_| Mutex::new(None)).collect())
    }

    pub(super) fn get(&self, key: &LookupKey) -> Option<Box<[u8]>> {
        self.place(key).lock().as_ref().filter(|(seen, _)| seen == key).map(|(_, header)| header.clone())
    }

    /// Takes over the first bytes of a record. The last one that has the place stays.
    pub(super) fn put(&self, key: &LookupKey, record: &[u8]) {
        let (before, after) = calls::first_parts(record);
        let mut place = self.place(key).lock();
        match &mut *place {
            // Every get comes here: no memory is taken for what fits.
            Some((seen, header)) if header.len() == before.len() + after.len() => {
                *seen = *key;
                header[..before.len()].copy_from_slice(before);
                header[before.len()..].copy_from_slice(after);
            }
            place => *place = Some((*key, [before, after].concat().into())),
        }
    }

    pub(super) fn forget(&self, key: &LookupKey) {
        let mut place = self.place(key).lock();
        if place.as_ref().is_some_and(|(seen, _)| seen == key) {
            *place = None;
        }
    }

    fn place(&self, key: &LookupKey) -> &Place {
        &self.0[(key.0 % COUNT as u128) as usize]
    }
}
