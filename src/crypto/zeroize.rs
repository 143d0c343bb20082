//! Secret bytes that are wiped when they are dropped.

use std::ops::{Deref, DerefMut};

use zeroize::Zeroize;

/// Bytes (an array or a vector) that are zeroed on drop, as one slice. `zeroize::Zeroizing` visits arrays and vectors byte
/// by byte, which for an id takes as long as hashing it, and for a payload longer than decrypting it.
///
/// Moving the value leaves a copy behind, so fill it in place. Of a vector the current contents are wiped, not what an
/// earlier reallocation left.
pub(crate) struct ZeroizeOnDrop<T: AsMut<[u8]>>(T);

impl<T: AsMut<[u8]>> ZeroizeOnDrop<T> {
    pub(crate) fn new(bytes: T) -> ZeroizeOnDrop<T> {
        ZeroizeOnDrop(bytes)
    }
}

impl<T: AsMut<[u8]>> Deref for ZeroizeOnDrop<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: AsMut<[u8]>> DerefMut for ZeroizeOnDrop<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: AsMut<[u8]>> Drop for ZeroizeOnDrop<T> {
    fn drop(&mut self) {
        self.0.as_mut().zeroize();
    }
}
