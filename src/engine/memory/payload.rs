//! The bytes of one session, wiped whenever they are freed.

use zeroize::Zeroize;

use crate::error::{Error, Result};

#[derive(Default)]
pub(super) struct Payload(Box<[u8]>);

impl Payload {
    /// A copy of `bytes`. Memory that runs out is an error, not an abort: the length comes from outside.
    pub(super) fn copy_of(bytes: &[u8]) -> Result<Payload> {
        let mut copy = Vec::new();
        copy.try_reserve_exact(bytes.len()).map_err(|_| Error::no_memory())?;
        copy.extend_from_slice(bytes);
        Ok(Payload(copy.into_boxed_slice()))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Overwrites the payload with one of the same length. False, and nothing done, if the lengths differ.
    pub(super) fn overwrite(&mut self, bytes: &[u8]) -> bool {
        let same = self.len() == bytes.len();
        if same {
            self.0.copy_from_slice(bytes);
        }
        same
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
