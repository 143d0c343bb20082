//! Files as LMDB writes them must pass; and of damaged ones, those that pass must do no harm.
//! Environment variables make the tests longer: SSS_VERIFY_HISTORIES, _KILLS, _MUTANTS, _CHILDREN
//! (with _SEED for others), _BIG (in MiB).

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use lmdb_master_sys::{MDB_CREATE, MDB_MAP_FULL, MDB_TXN_FULL};

use super::fixture::*;
use super::page::{DB_SIZE, META_SIZE, NODE_HEADER, OVERFLOW, PAGE_HEADER, u16_at, u64_at};
use super::pages::{Summary, check};

const MAP_SIZE: usize = 24 << 20;

fn verify_dir(dir: &Dir) -> Result<Summary, String> {
    check(&File::open(dir.data()).unwrap(), 0)
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |value| value.parse().unwrap())
}

#[test]
fn a_new_file_is_sound() {
    for flags in [0, WRITEMAP] {
        let dir = Dir::new();
        drop(Env::open(&dir.0, flags, MAP_SIZE).unwrap());
        assert_eq!(verify_dir(&dir), Ok(Summary { last_page: 1, ..Summary::default() }));
    }
    let dir = Dir::new();
    fs::write(dir.data(), b"").unwrap();
    assert_eq!(verify_dir(&dir), Ok(Summary::default()));
}

#[test]
fn whatever_lmdb_writes_is_sound() {
    let (mut deepest, mut past_the_end, mut lost) = (0, 0, 0);
    for seed in 0..number("SSS_VERIFY_HISTORIES", 12) as u64 {
        let dir = Dir::new();
        let random = &mut Random(seed);
        let style = [USUAL, LARGE, DEEP, NARROW][seed as usize % 4];
        for stage in 0..4 {
            let flags = if (seed / 4 + stage / 2) % 2 == 0 { 0 } else { WRITEMAP };
            let env = Env::open(&dir.0, flags, MAP_SIZE).unwrap();
            let mut reader = None;
            for _ in 0..12 {
                // Also with readers that keep old pages from being used again.
                match random.below(4) {
                    0 => reader = Some(env.read().unwrap()),
                    1 => reader = None,
                    _ => {}
                }
                let done = random_transaction(&env, random, style);
                assert!(matches!(done, Ok(()) | Err(MDB_MAP_FULL | MDB_TXN_FULL)), "{done:?}");
                let summary = env.summary().unwrap();
                let file = File::open(dir.data()).unwrap();
                past_the_end += u32::from(file.metadata().unwrap().len() / 4096 <= summary.last_page);
                lost += summary.last_page - 1 - summary.pages_in_use - summary.free_pages;
                deepest = deepest.max(env.depth().unwrap());
                assert_eq!(check(&file, MAP_SIZE as u64), Ok(summary), "seed {seed}, stage {stage}");
            }
            drop(reader);
        }
    }
    println!("depth {deepest}, files shorter than their last page {past_the_end}, lost pages {lost}");
}

/// The tests below run this one in a child process: that may die without taking them along.
#[test]
fn child() {
    let Ok(job) = std::env::var("SSS_VERIFY_CHILD") else { return };
    let [job, flags, dir] = job.splitn(3, ' ').collect::<Vec<_>>().try_into().unwrap();
    let (dir, flags) = (Path::new(dir), flags.parse().unwrap());
    if job == "write" {
        let env = Env::open(dir, flags, MAP_SIZE).unwrap();
        for turn in 0.. {
            let _ = random_transaction(&env, &mut Random(turn), LARGE);
        }
    }
    let result = put_to_the_test(dir, flags);
    println!("LMDB says {result:?}");
    let found = check(&File::open(dir.join("data.mdb")).unwrap(), 0);
    println!("and then {found:?}");
    std::process::exit(match (result, found) {
        (Ok(()), Ok(_)) => 0,
        (Err(_), Ok(_)) => LMDB_REFUSED,
        (_, Err(_)) => NOT_SOUND_ANY_MORE,
    });
}

const LMDB_REFUSED: i32 = 40;
const NOT_SOUND_ANY_MORE: i32 = 41;

fn start_child(job: &str, flags: u32, dir: &Dir) -> Child {
    let this = module_path!().split_once("::").unwrap().1;
    let quiet = || if std::env::var_os("SSS_VERIFY_LOUD").is_some() { Stdio::inherit() } else { Stdio::null() };
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("{this}::child"), "--nocapture"])
        .env("SSS_VERIFY_CHILD", format!("{job} {flags} {}", dir.0.display()))
        .stdout(quiet())
        .stderr(quiet())
        .spawn()
        .unwrap()
}

/// How a child ends that puts a copy of the file to the test. One that hangs is killed.
fn fate(file: &Path, flags: u32) -> ExitStatus {
    let dir = Dir::new();
    fs::copy(file, dir.data()).unwrap();
    let mut child = start_child("test", flags, &dir);
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        match child.try_wait().unwrap() {
            Some(status) => return status,
            None if Instant::now() > end => child.kill().unwrap(),
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

#[test]
fn what_killed_writers_leave_is_sound() {
    let random = &mut Random(number("SSS_VERIFY_SEED", 1) as u64);
    let mut lost = 0;
    for flags in [0, WRITEMAP] {
        let dir = Dir::new();
        for _ in 0..number("SSS_VERIFY_KILLS", 15) {
            let mut writer = start_child("write", flags, &dir);
            std::thread::sleep(Duration::from_micros(5000 + random.next() % 80_000));
            writer.kill().unwrap();
            writer.wait().unwrap();
            let file = match File::open(dir.data()) {
                Ok(file) => file,
                Err(_) => continue,
            };
            let found = check(&file, MAP_SIZE as u64).unwrap();
            lost += (found.last_page.max(1) - 1) - found.pages_in_use - found.free_pages;
        }
    }
    println!("lost pages {lost}");
}

/// How a copy of a file is damaged.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Damage {
    BitInUsedPage,
    BitInStructure,
    BitInMeta,
    FieldInStructure,
    FieldInMeta,
    TwoBits,
    ManyFields,
    PageSize,
    PageZeroed,
    PageRandom,
    PageSwapped,
    PageStale,
    BlockStale,
    Truncated,
}

const DAMAGES: [Damage; 14] = [
    Damage::BitInUsedPage,
    Damage::BitInStructure,
    Damage::BitInMeta,
    Damage::FieldInStructure,
    Damage::FieldInMeta,
    Damage::TwoBits,
    Damage::ManyFields,
    Damage::PageSize,
    Damage::PageZeroed,
    Damage::PageRandom,
    Damage::PageSwapped,
    Damage::PageStale,
    Damage::BlockStale,
    Damage::Truncated,
];

/// A sound file, and what it was some transactions ago.
struct Base {
    flags: u32,
    bytes: Vec<u8>,
    past: Vec<Vec<u8>>,
    used: Vec<usize>,
    last_page: usize,
}

impl Base {
    fn new(seed: u64, flags: u32, style: Style, transactions: usize) -> Base {
        let dir = Dir::new();
        let random = &mut Random(seed);
        let env = Env::open(&dir.0, flags, MAP_SIZE / 4).unwrap();
        let mut past = Vec::new();
        for turn in 0..transactions {
            let _ = random_transaction(&env, random, style);
            if turn + 6 > transactions {
                past.push(fs::read(dir.data()).unwrap());
            }
        }
        let last_page = env.summary().unwrap().last_page as usize;
        let free = env.free_pages().unwrap();
        let bytes = fs::read(dir.data()).unwrap();
        // Pages inside of overflow runs have no header, only payload bytes.
        let has_header = |page: usize| u64_at(&bytes, page * 4096) == Ok(page as u64);
        let used = (2..=last_page).filter(|page| !free.contains(&(*page as u64)) && has_header(*page)).collect();
        Base { flags, bytes, past, used, last_page }
    }

    fn used_page(&self, random: &mut Random) -> usize {
        self.used[random.below(self.used.len())] * 4096
    }

    /// Where in a used page something is that LMDB follows: the header, an offset, a node, its key,
    /// its value's beginning.
    fn place_in_structure(&self, random: &mut Random) -> usize {
        let page = self.used_page(random);
        let number = |at: usize| usize::from(u16_at(&self.bytes, at).unwrap());
        let nodes = if number(page + 10) == usize::from(OVERFLOW) { 0 } else { (number(page + 12) - PAGE_HEADER) / 2 };
        let kind = if nodes == 0 { 0 } else { random.below(5) };
        let offset = page + PAGE_HEADER + 2 * random.below(nodes.max(1));
        let node = page + number(offset).min(4080);
        let key_size = number(node + 6);
        let place = match kind {
            0 => page + random.below(PAGE_HEADER),
            1 => offset + random.below(2),
            2 => node + random.below(NODE_HEADER),
            3 => node + NODE_HEADER + random.below(key_size.max(1)),
            _ => node + NODE_HEADER + key_size + random.below(DB_SIZE),
        };
        place.min(page + 4095)
    }

    /// Bytes that take the place of others, or the length to which the file is cut.
    fn damage(&self, damage: Damage, random: &mut Random) -> (Vec<(usize, Vec<u8>)>, Option<usize>) {
        let flip = |at: usize, random: &mut Random| (at, vec![self.bytes[at] ^ 1 << random.below(8)]);
        let field = |at: usize, random: &mut Random| {
            let width = [2, 4, 8][random.below(3)];
            let old = self.bytes[at];
            let new = match random.below(8) {
                0 => 0,
                1 => u64::MAX,
                2 => self.used_page(random) as u64 / 4096,
                3 => random.next() % self.last_page as u64,
                4 => u64::from(old.wrapping_add(1)),
                5 => u64::from(old.wrapping_sub(1)),
                6 => random.next() % 4096,
                _ => random.next(),
            };
            let at = at / width * width;
            (at, new.to_ne_bytes()[..width].to_vec())
        };
        let page = self.used_page(random);
        let replaced = match damage {
            Damage::BitInUsedPage => vec![flip(page + random.below(4096), random)],
            Damage::BitInStructure => vec![flip(self.place_in_structure(random), random)],
            Damage::BitInMeta => vec![flip(4096 * random.below(2) + random.below(META_SIZE), random)],
            Damage::FieldInStructure => vec![field(self.place_in_structure(random), random)],
            Damage::FieldInMeta => vec![field(4096 * random.below(2) + random.below(META_SIZE), random)],
            Damage::TwoBits => (0..2).map(|_| flip(self.place_in_structure(random), random)).collect(),
            Damage::ManyFields => (0..9).map(|_| field(self.place_in_structure(random), random)).collect(),
            Damage::PageSize => {
                // Both meta pages agree on another one, and are where they would be then.
                let size = 512_usize << random.below(7);
                let mut metas = [&self.bytes[..META_SIZE], &self.bytes[4096..][..META_SIZE]].map(<[u8]>::to_vec);
                metas.iter_mut().for_each(|meta| meta[40..44].copy_from_slice(&(size as u32).to_ne_bytes()));
                let [even, odd] = metas;
                vec![(0, even), (size, odd)]
            }
            Damage::PageZeroed => vec![(page, vec![0; 4096])],
            Damage::PageRandom => vec![(page + [0, 16][random.below(2)], random.bytes(4080))],
            Damage::PageSwapped => {
                let other = self.used_page(random);
                // With and without its number, as if it had been written to the wrong place or
                // given out twice.
                let skip = [0, 8][random.below(2)];
                let copy = |from: usize, to: usize| (to + skip, self.bytes[from + skip..from + 4096].to_vec());
                vec![copy(page, other), copy(other, page)]
            }
            Damage::PageStale | Damage::BlockStale => {
                // Writes that were lost: pages are what they were before, here and there also the
                // meta pages.
                let past = &self.past[random.below(self.past.len())];
                let pages = if matches!(damage, Damage::PageStale) { 1 } else { 1 + random.below(16) };
                let first = if random.below(6) == 0 { random.below(2) * 4096 } else { page };
                let end = (first + pages * 4096).min(past.len()).min(self.bytes.len());
                vec![(first, past.get(first..end).unwrap_or(&[]).to_vec())]
            }
            Damage::Truncated => {
                let end = (self.last_page + 2) * 4096;
                let to = if random.below(2) == 0 { random.below(end) } else { random.below(self.last_page) * 4096 };
                return (Vec::new(), Some(to.min(self.bytes.len())));
            }
        };
        (replaced, None)
    }
}

#[test]
fn a_file_found_sound_never_kills() {
    let seed = number("SSS_VERIFY_SEED", 1) as u64;
    let (mutants, children) = (number("SSS_VERIFY_MUTANTS", 3000), number("SSS_VERIFY_CHILDREN", 300));
    let bases = [
        Base::new(seed, 0, USUAL, 20),
        Base::new(seed + 1, WRITEMAP, USUAL, 20),
        Base::new(seed + 2, 0, LARGE, 12),
        Base::new(seed + 3, WRITEMAP, DEEP, 4),
        Base::new(seed + 4, 0, DEEP, 4),
        Base::new(seed + 5, 0, TINY, 9),
    ];
    let random = &mut Random(seed);
    let mut tallies = DAMAGES.map(|_| Tally::default());
    let (mut deaths, mut killed_without) = (Vec::new(), 0);
    for base in &bases {
        let dir = Dir::new();
        let path = dir.0.join("mutant");
        fs::write(&path, &base.bytes).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        check(&file, 0).unwrap();
        let (mut children, mut controls) = (children / bases.len(), 4);
        for (damage, tally) in (0..mutants / bases.len()).map(|turn| turn % DAMAGES.len()).map(|at| (DAMAGES[at], at)) {
            let tally = &mut tallies[tally];
            let (pieces, cut) = base.damage(damage, random);
            if cut.is_none() && pieces.iter().all(|(at, bytes)| base.bytes[*at..].starts_with(bytes)) {
                continue;
            }
            pieces.iter().for_each(|(at, bytes)| file.write_all_at(bytes, *at as u64).unwrap());
            cut.inspect(|len| file.set_len(*len as u64).unwrap());
            let sound = check(&file, 0).is_ok();
            tally.refused += usize::from(!sound);
            tally.accepted += usize::from(sound);
            // A bit in a value means nothing to LMDB: a few of those are enough.
            if sound && children > 0 && (damage != Damage::BitInUsedPage || tally.accepted % 8 == 0) {
                children -= 1;
                tally.run += 1;
                let status = fate(&path, base.flags);
                match status.code() {
                    Some(0) => {}
                    Some(LMDB_REFUSED) => tally.refused_by_lmdb += 1,
                    _ => deaths.push(format!("{status} {damage:?} {:.200}", format!("{pieces:?} {cut:?}"))),
                }
            }
            // To know that this test could fail: without the verifier, something like this kills.
            if !sound && damage == Damage::PageZeroed && controls > 0 {
                controls -= 1;
                killed_without += usize::from(fate(&path, base.flags).signal().is_some());
            }
            for (at, bytes) in &pieces {
                file.write_all_at(&base.bytes[*at..*at + bytes.len()], *at as u64).unwrap();
            }
            cut.inspect(|len| file.write_all_at(&base.bytes[*len..], *len as u64).unwrap());
        }
    }
    DAMAGES.iter().zip(tallies).for_each(|(damage, tally)| println!("{damage:?}: {tally:?}"));
    assert!(deaths.is_empty(), "{deaths:#?}");
    assert!(mutants < 1000 || killed_without > 0);
}

#[derive(Debug, Default)]
#[allow(dead_code, reason = "printed")]
struct Tally {
    refused: usize,
    accepted: usize,
    run: usize,
    refused_by_lmdb: usize,
}

/// Not a test: `SSS_VERIFY_BIG=250` prints how long so many MiB take.
#[test]
fn time_for_a_large_file() {
    let mib = number("SSS_VERIFY_BIG", 0);
    if mib == 0 {
        return;
    }
    for (name, value) in [("values of 200 bytes", 200), ("values of 3000 bytes", 3000)] {
        let dir = Dir::new();
        let env = Env::open(&dir.0, 0, (2 * mib) << 20).unwrap();
        let mut random = Random(1);
        while fs::metadata(dir.data()).unwrap().len() < (mib << 20) as u64 {
            let txn = env.begin(0).unwrap();
            let dbi = txn.database(b"sessions", MDB_CREATE).unwrap();
            (0..4000).for_each(|_| txn.put(dbi, &random.bytes(32), &random.bytes(value)).unwrap());
            txn.commit().unwrap();
        }
        for _ in 0..3 {
            let begin = Instant::now();
            let found = verify_dir(&dir).unwrap();
            println!("{name}: {:?} for {found:?}", begin.elapsed());
        }
    }
}
