//! A payload that is too large for a slot: memory of its own, wiped when it is freed.

use zeroize::Zeroize;

use crate::error::{Error, Result};

#[derive(Default)]
pub(super) struct Payload(Box<[u8]>);

impl Payload {
    /// Zeros. Memory that runs out is an error, not an abort: the length comes from outside.
    pub(super) fn zeroed(len: usize) -> Result<Payload> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).map_err(|_| Error::no_memory())?;
        bytes.resize(len, 0);
        Ok(Payload(bytes.into_boxed_slice()))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
