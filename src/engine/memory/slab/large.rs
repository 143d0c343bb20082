//! Payloads that are too large for a slot: pages of their own, wiped when they are freed. The slot
//! keeps the number.

use zeroize::Zeroize;

use super::super::alloc::mapping::Mapping;
use crate::error::{Error, Result};

#[derive(Default)]
pub(super) struct LargePayloads {
    payloads: Vec<Option<LargePayload>>,
    unused_numbers: Vec<u32>,
}

struct LargePayload(Mapping);

impl LargePayloads {
    /// Adds a payload of zeros, and returns its number. Running out of memory is an error, not an
    /// abort, because the length comes from the caller.
    pub(super) fn add(&mut self, len: usize) -> Result<u32> {
        let payload = Some(LargePayload(Mapping::new(len).ok_or_else(Error::no_memory)?));
        if let Some(number) = self.unused_numbers.pop() {
            self.payloads[number as usize] = payload;
            return Ok(number);
        }
        self.payloads.try_reserve(1).map_err(|_| Error::no_memory())?;
        // So that removing one never allocates.
        self.unused_numbers.try_reserve(self.payloads.len() + 1).map_err(|_| Error::no_memory())?;
        self.payloads.push(payload);
        Ok((self.payloads.len() - 1) as u32)
    }

    pub(super) fn get(&self, number: u32) -> &[u8] {
        self.payloads[number as usize].as_ref().map_or(&[], |payload| &payload.0)
    }

    pub(super) fn get_mut(&mut self, number: u32) -> &mut [u8] {
        self.payloads[number as usize].as_mut().map_or(&mut [], |payload| &mut payload.0)
    }

    pub(super) fn remove(&mut self, number: u32) {
        self.payloads[number as usize] = None;
        self.unused_numbers.push(number);
    }
}

impl Drop for LargePayload {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
