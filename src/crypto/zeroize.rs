//! Secret bytes that are wiped when they are dropped, and the stack below a call that handles
//! secrets.

use std::{
    hint::black_box,
    ops::{Deref, DerefMut},
};

use zeroize::Zeroize;

/// Bytes (an array or a vector) that are zeroed on drop, as one slice. `zeroize::Zeroizing` visits
/// arrays and vectors byte by byte, which for an id takes as long as hashing it, and for a payload
/// longer than decrypting it.
///
/// Moving the value leaves a copy behind, so fill it in place. Of a vector the current contents are
/// wiped, not what an earlier reallocation left.
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

/// Runs `f`, and wipes the `LEN` bytes of stack that it used. Hashes and ciphers leave blocks of
/// their input in their frames. tests/c/secrets.c fails if `LEN` is not enough in a release build.
pub(crate) fn with_stack_wiped<const LEN: usize, T>(f: impl FnOnce() -> T) -> T {
    let result = in_own_frame(f);
    wipe_stack::<LEN>();
    result
}

#[inline(never)]
fn in_own_frame<T>(f: impl FnOnce() -> T) -> T {
    f()
}

/// Its frame covers those of the call before it.
#[inline(never)]
fn wipe_stack<const LEN: usize>() {
    black_box(&mut [0_u8; LEN]);
}
