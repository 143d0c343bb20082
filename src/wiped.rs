//! Secret bytes that are wiped when they go.

use std::ops::{Deref, DerefMut};

use zeroize::Zeroize;

/// Bytes (an array, a vector) that are zeroed when they are dropped: as a slice, all at once. `Zeroizing` goes through arrays and
/// vectors byte by byte, which for an id takes as long as hashing it, and for a payload longer than opening its seal.
///
/// What is moved leaves a copy behind: to be filled in place. Of a vector what it has now is wiped, not what it had.
pub(crate) struct Wiped<T: AsMut<[u8]>>(T);

impl<T: AsMut<[u8]>> Wiped<T> {
    pub(crate) fn new(bytes: T) -> Wiped<T> {
        Wiped(bytes)
    }
}

impl<T: AsMut<[u8]>> Deref for Wiped<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: AsMut<[u8]>> DerefMut for Wiped<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: AsMut<[u8]>> Drop for Wiped<T> {
    fn drop(&mut self) {
        self.0.as_mut().zeroize();
    }
}
