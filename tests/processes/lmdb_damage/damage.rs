//! The ways in which the files of a store are damaged.

use std::{fs, os::unix::fs::FileExt, path::Path};

use crate::common::Rng;

pub const FILES: [&str; 3] = ["data.mdb", "state.shm", "lock.mdb"];

const PAGE: usize = 4096;

#[derive(Debug)]
pub enum Damage {
    Bit { at: usize, bit: u8 },
    Byte { at: usize, is: u8 },
    Word { at: usize, is: u64 },
    Page { page: usize, filled: Fill },
    Copied { from: usize, to: usize },
    Cut { to: usize },
    Longer { by: usize },
    Replaced { filled: Fill },
    Exchanged,
}

#[derive(Clone, Copy, Debug)]
pub enum Fill {
    Zeros,
    Ones,
    Noise,
}

impl Fill {
    fn any(rng: &mut Rng) -> Fill {
        rng.pick(&[Fill::Zeros, Fill::Ones, Fill::Noise])
    }

    fn fill(self, rng: &mut Rng, bytes: &mut [u8]) {
        match self {
            Fill::Zeros => bytes.fill(0),
            Fill::Ones => bytes.fill(0xFF),
            Fill::Noise => bytes.iter_mut().for_each(|byte| *byte = rng.next() as u8),
        }
    }
}

impl Damage {
    /// Some damage to one of the files of a store that is open: written over it, byte by byte where
    /// it differs. Not to the locks of LMDB, where everybody would wait.
    pub fn to_live(rng: &mut Rng, directory: &Path) -> (&'static str, Damage) {
        let sound = FILES.map(|name| fs::read(directory.join(name)).unwrap());
        loop {
            let ((name, damage), files) = Damage::any(rng, &sound);
            let Some(which) = FILES.iter().position(|file| *file == name && name != "lock.mdb") else { continue };
            if matches!(damage, Damage::Exchanged) {
                continue;
            }
            let file = fs::OpenOptions::new().write(true).open(directory.join(name)).unwrap();
            for (at, byte) in files[which].iter().enumerate().filter(|(at, byte)| sound[which].get(*at) != Some(byte)) {
                file.write_all_at(&[*byte], at as u64).unwrap();
            }
            file.set_len(files[which].len() as u64).unwrap();
            return (name, damage);
        }
    }

    /// Some damage to one of the files, and the files with it. An empty one is not there.
    pub fn any(rng: &mut Rng, sound: &[Vec<u8>; 3]) -> ((&'static str, Damage), [Vec<u8>; 3]) {
        let which = rng.pick(&[0, 0, 0, 0, 0, 1, 1, 1, 2, 2]);
        let mut files = sound.clone();
        let file = &mut files[which];
        // Where there is something: most of a file has never been written.
        let used = file.len() - file.rchunks(PAGE).take_while(|page| **page == [0; PAGE]).count() * PAGE;
        let used = used.max(1);
        // Much depends on the beginning.
        let at = if rng.one_in(4) { rng.below(used.min(PAGE * 2)) } else { rng.below(used) };
        let noise = rng.next();
        let page = |rng: &mut Rng| rng.below(used.div_ceil(PAGE));
        let damage = match rng.below(20) {
            0..6 => Damage::Bit { at, bit: rng.below(8) as u8 },
            6..9 => Damage::Byte { at, is: rng.next() as u8 },
            9..11 => Damage::Word { at: at / 8 * 8, is: rng.pick(&[0, 1, u64::MAX, 1 << 63, noise]) },
            11..13 => Damage::Page { page: page(rng), filled: Fill::any(rng) },
            13..15 => Damage::Copied { from: page(rng), to: page(rng) },
            15..17 => Damage::Cut { to: if rng.one_in(2) { rng.below(used) } else { rng.below(used) / PAGE * PAGE } },
            17 => Damage::Longer { by: rng.below(3 * PAGE) },
            18 => Damage::Replaced { filled: Fill::any(rng) },
            _ => Damage::Exchanged,
        };
        match damage {
            Damage::Bit { at, bit } => file[at] ^= 1 << bit,
            Damage::Byte { at, is } => file[at] = is,
            Damage::Word { at, is } => {
                let end = file.len().min(at + 8);
                file[at..end].copy_from_slice(&is.to_le_bytes()[..end - at]);
            }
            Damage::Page { page, filled } => {
                let end = file.len().min((page + 1) * PAGE);
                filled.fill(rng, &mut file[page * PAGE..end]);
            }
            Damage::Copied { from, to } => {
                let page: Vec<u8> = file.iter().skip(from * PAGE).take(PAGE).copied().collect();
                let end = file.len().min(to * PAGE + page.len());
                file[to * PAGE..end].copy_from_slice(&page[..end - to * PAGE]);
            }
            Damage::Cut { to } => file.truncate(to),
            Damage::Longer { by } => file.extend((0..by).map(|_| rng.next() as u8)),
            Damage::Replaced { filled } => filled.fill(rng, file),
            Damage::Exchanged => files.swap(which, (which + 1) % 3),
        }
        ((FILES[which], damage), files)
    }
}
