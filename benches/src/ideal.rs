//! IDEAL, the floor: two cache misses per get. It is not a store, but a bound for all stores.

use siphasher::sip128::SipHasher13;

use crate::{
    competitors::{ABSOLUTE_MS, IDLE_MS, Sessions, copy},
    workload::{Id, now_ms, payload},
};

/// A collision-free index and one contiguous slot per session, both in huge pages, for one thread,
/// of a fixed size.
pub struct Ideal {
    /// The upper half is a tag, the lower half a slot number; 0 is empty.
    index: Huge,
    slots: Huge,
    slot_len: usize,
    mask: u64,
    hasher: SipHasher13,
}

/// A slot's header: the digest, both deadlines, the length of the payload.
const HEADER: usize = 32;

impl Ideal {
    /// Fills it with those of the ids whose index entry is free, so that it has no collisions.
    pub fn filled(n: usize, payload_len: usize, mut new_id: impl FnMut() -> Id) -> (Ideal, Vec<Id>) {
        let places = (2 * n).next_power_of_two();
        let slot_len = HEADER + payload_len.next_multiple_of(32);
        let mut ideal = Ideal {
            index: Huge::new(places * 8),
            slots: Huge::new((n + 1) * slot_len),
            slot_len,
            mask: places as u64 - 1,
            hasher: SipHasher13::new_with_keys(0x0123, 0x4567),
        };
        let mut ids = Vec::with_capacity(n);
        while ids.len() < n {
            let id = new_id();
            let hash = ideal.hasher.hash(&id);
            let place = (hash.h1 & ideal.mask) as usize;
            let index = ideal.index.words();
            if index[place] != 0 {
                continue;
            }
            ids.push(id);
            index[place] = (hash.h2 >> 32) << 32 | ids.len() as u64;
            let now = now_ms();
            let slot = &mut ideal.slots.bytes()[ids.len() * slot_len..][..slot_len];
            slot[..16].copy_from_slice(&hash.as_bytes());
            slot[16..20].copy_from_slice(&(now + IDLE_MS).to_le_bytes());
            slot[20..24].copy_from_slice(&(now + ABSOLUTE_MS).to_le_bytes());
            slot[24..28].copy_from_slice(&(payload_len as u32).to_le_bytes());
            slot[HEADER..][..payload_len].copy_from_slice(&payload(payload_len, ids.len()));
        }
        (ideal, ids)
    }

    /// The living session's slot, slid.
    fn live(&mut self, id: &Id) -> Option<&mut [u8]> {
        let hash = self.hasher.hash(id);
        let entry = self.index.words()[(hash.h1 & self.mask) as usize];
        if entry == 0 || entry >> 32 != hash.h2 >> 32 {
            return None;
        }
        let slot = &mut self.slots.bytes()[(entry as u32) as usize * self.slot_len..][..self.slot_len];
        let deadline = |at: usize| u32::from_le_bytes(slot[at..at + 4].try_into().expect("four bytes"));
        let now = now_ms();
        if slot[..16] != hash.as_bytes() || now >= deadline(16) || now >= deadline(20) {
            return None;
        }
        slot[16..20].copy_from_slice(&(now + IDLE_MS).to_le_bytes());
        Some(slot)
    }
}

impl Sessions for Ideal {
    fn create(&mut self, _: &Id, _: &[u8]) -> Id {
        unreachable!("IDEAL is born full")
    }

    fn get(&mut self, id: &Id, out: &mut [u8]) -> Option<usize> {
        let slot = self.live(id)?;
        let len = u32::from_le_bytes(slot[24..28].try_into().expect("four bytes")) as usize;
        Some(copy(&slot[HEADER..][..len], out))
    }

    fn put(&mut self, id: &Id, payload: &[u8]) -> bool {
        let Some(slot) = self.live(id) else { return false };
        slot[24..28].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        slot[HEADER..][..payload.len()].copy_from_slice(payload);
        true
    }

    fn delete(&mut self, _: &Id) -> bool {
        unreachable!("IDEAL stays full")
    }
}

/// Zeroed memory in huge pages.
pub struct Huge {
    address: *mut u8,
    len: usize,
}

impl Huge {
    const ALIGN: usize = 2 << 20;

    pub fn new(len: usize) -> Huge {
        let len = len.next_multiple_of(Huge::ALIGN);
        let layout = Huge::layout(len);
        // SAFETY: the layout is not empty. Advice about memory that was just allocated, before it
        // is written.
        let address = unsafe {
            let address = std::alloc::alloc(layout);
            assert!(!address.is_null(), "out of memory");
            libc::madvise(address.cast(), len, libc::MADV_HUGEPAGE);
            address.write_bytes(0, len);
            address
        };
        Huge { address, len }
    }

    fn layout(len: usize) -> std::alloc::Layout {
        std::alloc::Layout::from_size_align(len, Huge::ALIGN).expect("a valid layout")
    }

    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: allocated and zeroed with this length in `new`, and borrowed as long as `self`
        // is.
        unsafe { std::slice::from_raw_parts_mut(self.address, self.len) }
    }

    fn words(&mut self) -> &mut [u64] {
        // SAFETY: as in `bytes`; the address is aligned to far more than 8, and every bit pattern
        // is a number.
        unsafe { std::slice::from_raw_parts_mut(self.address.cast(), self.len / 8) }
    }
}

impl Drop for Huge {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { std::alloc::dealloc(self.address, Huge::layout(self.len)) };
    }
}
