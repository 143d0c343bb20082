//! Payloads that are too large for a slot: memory of their own, wiped when it is freed. The slot keeps the number.

use zeroize::Zeroize;

use crate::error::{Error, Result};

#[derive(Default)]
pub(super) struct LargePayloads {
    payloads: Vec<LargePayload>,
    unused_numbers: Vec<u32>,
}

#[derive(Default)]
struct LargePayload(Box<[u8]>);

impl LargePayloads {
    /// Adds a payload of zeros, and returns its number. Running out of memory is an error, not an abort, because the length
    /// comes from the caller.
    pub(super) fn add(&mut self, len: usize) -> Result<u32> {
        let payload = LargePayload::zeroed(len)?;
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
        &self.payloads[number as usize].0
    }

    pub(super) fn get_mut(&mut self, number: u32) -> &mut [u8] {
        &mut self.payloads[number as usize].0
    }

    pub(super) fn remove(&mut self, number: u32) {
        self.payloads[number as usize] = LargePayload::default();
        self.unused_numbers.push(number);
    }
}

impl LargePayload {
    fn zeroed(len: usize) -> Result<LargePayload> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).map_err(|_| Error::no_memory())?;
        bytes.resize(len, 0);
        Ok(LargePayload(bytes.into_boxed_slice()))
    }
}

impl Drop for LargePayload {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
