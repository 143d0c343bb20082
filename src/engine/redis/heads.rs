//! What this process has seen last of some sessions: so much of a record that a write can be made up from it without reading
//! it again. Only of what was found genuine, and only a guess: the server compares.

use parking_lot::Mutex;

use super::calls;
use crate::key::Key;

/// Each has about 150 bytes.
const COUNT: usize = 4096;

/// A session and the first bytes of its record.
type Place = Mutex<Option<(Key, Box<[u8]>)>>;

pub(super) struct Heads(Box<[Place]>);

impl Heads {
    pub(super) fn new() -> Heads {
        Heads((0..COUNT).map(|_| Mutex::new(None)).collect())
    }

    pub(super) fn get(&self, key: &Key) -> Option<Box<[u8]>> {
        self.place(key).lock().as_ref().filter(|(seen, _)| seen == key).map(|(_, head)| head.clone())
    }

    /// Takes over the first bytes of a record. The last one that has the place stays.
    pub(super) fn put(&self, key: &Key, record: &[u8]) {
        let (before, after) = calls::first_parts(record);
        let mut place = self.place(key).lock();
        match &mut *place {
            // Every get comes here: no memory is taken for what fits.
            Some((seen, head)) if head.len() == before.len() + after.len() => {
                *seen = *key;
                head[..before.len()].copy_from_slice(before);
                head[before.len()..].copy_from_slice(after);
            }
            place => *place = Some((*key, [before, after].concat().into())),
        }
    }

    pub(super) fn forget(&self, key: &Key) {
        let mut place = self.place(key).lock();
        if place.as_ref().is_some_and(|(seen, _)| seen == key) {
            *place = None;
        }
    }

    fn place(&self, key: &Key) -> &Place {
        &self.0[(key.0 % COUNT as u128) as usize]
    }
}
