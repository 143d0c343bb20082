//! Whether an LMDB data file is sound, before it is mapped. LMDB has no checksums and trusts every
//! page number and offset that it reads: with a damaged file it dies of a signal, and the process
//! with it. So the process that opens the file first reads all of it here, with plain reads, and
//! gets an error instead.
//!
//! Checked is the structure, all that LMDB follows; what keys and values say is authenticated
//! elsewhere. The format is that of mdb.master 0.9.70 (data version 1) on machines of 64 bits, and
//! of that only what the store uses: named databases in the order of bytes. Sorted duplicates and
//! all other flags are refused.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::page::{
    BRANCH, Bounds, Counts, DB_SIZE, Db, Flaw, IN_OVERFLOW, IS_DATABASE, Kind, LEAF, META_SIZE, Meta, Node, OUTSIDE,
    OVERFLOW, PAGE_HEADER, check_header, nodes, u32_at, u64_at,
};

/// The root of an empty tree.
const NO_PAGE: u64 = u64::MAX;
/// As many pages as LMDB's cursors can hold above each other.
const MAX_DEPTH: u16 = 32;

/// What a sound file holds. Pages that are neither in use nor free are lost, which does LMDB no
/// harm.
#[derive(Debug, Default, PartialEq)]
pub(in super::super) struct Summary {
    /// Pages of all trees and their values, without the two meta pages.
    pub pages_in_use: u64,
    pub free_pages: u64,
    /// The highest page number that LMDB has given out; the file may be longer, or shorter by free
    /// pages.
    pub last_page: u64,
    /// Entries of all named databases.
    pub entries: u64,
}

/// Reads the snapshot that LMDB would use, the newer one of two, of a file that no process writes
/// meanwhile. It is to be mapped with `map_size` bytes, or 0 if that is not known. An empty file is
/// sound: LMDB initializes it. The error is one line of text.
pub(in super::super) fn check(file: &File, map_size: u64) -> Result<Summary, String> {
    let length = file.metadata().map_err(|error| format!("its length cannot be read: {error}"))?.len();
    if length == 0 {
        return Ok(Summary::default());
    }
    let meta = newest_meta(file)?;
    let mut walk = Walk::new(file, length, map_size, &meta)?;
    walk.tree(&meta.main, Kind::Main)?;
    walk.tree(&meta.free, Kind::FreeList)?;
    Ok(walk.found)
}

fn newest_meta(file: &File) -> Result<Meta, String> {
    let read = |number: u64, position: u64| {
        let mut page = [0; META_SIZE];
        file.read_exact_at(&mut page, position).map_err(|error| format!("meta page {number}: {error}"))?;
        Meta::parse(&page, number).map_err(|flaw| format!("meta page {number}: {flaw}"))
    };
    let even = read(0, 0)?;
    let odd = read(1, even.page_size as u64)?;
    if even.page_size != odd.page_size {
        return Err("the two meta pages differ in the size of a page".into());
    }
    // Transaction n writes meta page n % 2, and LMDB also chooses by that: of two others it would
    // take the wrong one.
    let new = even.txn == 0 && odd.txn == 0;
    if !new && (even.txn % 2 != 0 || even.txn.abs_diff(odd.txn) != 1) {
        return Err(format!("the meta pages' transactions {} and {} do not follow each other", even.txn, odd.txn));
    }
    Ok(if even.txn < odd.txn { odd } else { even })
}

/// A walk through all trees of one snapshot. It holds one page for each level, and a bit for each
/// page of the file.
struct Walk<'f> {
    file: &'f File,
    page_size: usize,
    /// Whole pages in the file.
    pages: u64,
    txn: u64,
    /// One bit per page: something refers to it, a tree or the free list. Nothing may do so twice.
    taken: Vec<u64>,
    found: Summary,
}

/// The tree that is walked through.
struct Tree {
    kind: Kind,
    counted: Counts,
}

impl<'f> Walk<'f> {
    fn new(file: &'f File, length: u64, map_size: u64, meta: &Meta) -> Result<Self, String> {
        let (page_size, last_page) = (meta.page_size as u64, meta.last_page);
        let pages = length / page_size;
        // Only free pages may lie past the end of the file (given out, and freed before they were
        // ever written), and each of those costs the free list eight bytes inside of it. So the
        // bitmap cannot grow out of proportion.
        let most = pages.saturating_mul(1 + page_size / 8).min(meta.map_size / page_size);
        if last_page < 1 || last_page >= most {
            return Err(format!("the last page is said to be {last_page}, in a file of {pages} pages"));
        }
        if map_size > 0 && last_page >= map_size / page_size {
            return Err(format!("{last_page} pages do not fit into a map of {map_size} bytes"));
        }
        let mut taken = Vec::new();
        let words = (last_page / 64 + 1) as usize;
        taken.try_reserve_exact(words).map_err(|_| format!("no memory to check {last_page} pages"))?;
        taken.resize(words, 0);
        let found = Summary { last_page, ..Summary::default() };
        Ok(Walk { file, page_size: meta.page_size, pages, txn: meta.txn, taken, found })
    }

    fn tree(&mut self, db: &Db, kind: Kind) -> Result<(), String> {
        if !db.has_usual_flags(kind) {
            return Err(format!("a database has the flags {:#x}, which the store never sets", db.flags));
        }
        let empty = db.root == NO_PAGE;
        if (db.depth == 0) != empty || db.depth > MAX_DEPTH {
            return Err(format!("a tree is said to be {} pages deep", db.depth));
        }
        let mut tree = Tree { kind, counted: Counts::default() };
        if !empty {
            self.subtree(db.root, db.depth, (None, None), &mut tree)?;
        }
        if tree.counted != db.holds {
            return Err(format!("page {}: below it are {}, said are {}", db.root, tree.counted, db.holds));
        }
        if kind == Kind::Named {
            self.found.entries += db.holds.entries;
        }
        Ok(())
    }

    /// `height` is 1 for a leaf. It falls with every call, so that no file can lead this astray.
    fn subtree(&mut self, number: u64, height: u16, bounds: Bounds, tree: &mut Tree) -> Result<(), String> {
        let in_page = |flaw: Flaw| format!("page {number}: {flaw}");
        self.take_run(number, 1)?;
        let mut page = vec![0; self.page_size];
        self.read(&mut page, self.position(number))?;
        let flags = if height > 1 { BRANCH } else { LEAF };
        check_header(&page, number, flags).map_err(in_page)?;
        let nodes = nodes(&page, flags, bounds, tree.kind).map_err(in_page)?;
        if flags == LEAF {
            tree.counted.leaves += 1;
            tree.counted.entries += nodes.len() as u64;
            return nodes.iter().try_for_each(|node| self.value(number, node, tree));
        }
        tree.counted.branches += 1;
        let (mut from, to) = bounds;
        for (index, node) in nodes.iter().enumerate() {
            let next = nodes.get(index + 1).map(|next| next.key);
            self.subtree(node.child(), height - 1, (from, next.or(to)), tree)?;
            from = next;
        }
        Ok(())
    }

    /// What a node of the leaf `number` leads to: overflow pages, a database, a record of the free
    /// list.
    fn value(&mut self, number: u64, node: &Node, tree: &mut Tree) -> Result<(), String> {
        let in_page = |flaw: Flaw| format!("page {number}: {flaw}");
        let position = match (tree.kind, node.flags) {
            (Kind::Main, IS_DATABASE) if node.value.len() == DB_SIZE => {
                return self.tree(&Db::parse(node.value, 0).map_err(in_page)?, Kind::Named);
            }
            (Kind::FreeList | Kind::Named, 0) => self.position(number) + node.value_at as u64,
            (Kind::FreeList | Kind::Named, IN_OVERFLOW) => {
                let first = u64_at(node.value, 0).map_err(in_page)?;
                tree.counted.overflows += self.overflow(first, node.value_size)?;
                self.position(first) + PAGE_HEADER as u64
            }
            _ => return Err(in_page("an entry has flags that the store never sets")),
        };
        if tree.kind == Kind::FreeList {
            // 0 means to LMDB that it has not read a record yet: it would give out the pages of
            // such a one twice.
            let txn = u64_at(node.key, 0).map_err(in_page)?;
            if txn == 0 || txn > self.txn {
                return Err(in_page("the free list has pages of a transaction that never was"));
            }
            self.free_record(position, u64::from(node.value_size)).map_err(|what| format!("page {number}: {what}"))?;
        }
        Ok(())
    }

    /// A value of `size` bytes in a run of pages. The run may be longer than it has to be, if the
    /// value has shrunk.
    fn overflow(&mut self, first: u64, size: u32) -> Result<u64, String> {
        let in_page = |flaw: Flaw| format!("page {first}: {flaw}");
        self.take_run(first, 1)?;
        let mut header = [0; PAGE_HEADER];
        self.read(&mut header, self.position(first))?;
        check_header(&header, first, OVERFLOW).map_err(in_page)?;
        let run = u64::from(u32_at(&header, 12).map_err(in_page)?);
        let needed = (PAGE_HEADER as u64 + u64::from(size)).div_ceil(self.page_size as u64);
        if run < needed {
            return Err(in_page("an overflow run is too short for its value"));
        }
        self.take_run(first.saturating_add(1), run - 1)?;
        Ok(run)
    }

    /// A record of the free list: how many, then so many page numbers, falling.
    fn free_record(&mut self, position: u64, size: u64) -> Result<(), String> {
        if size == 0 || !size.is_multiple_of(8) {
            return Err("a record of the free list has an impossible size".into());
        }
        let mut word = [0; 8];
        self.read(&mut word, position)?;
        let count = u64::from_ne_bytes(word);
        // LMDB reserves records before it knows what to fill them with; what is left over stays,
        // with a count of 0.
        if count == 0 {
            return Ok(());
        }
        if count != size / 8 - 1 {
            return Err("a record of the free list has another length than it says".into());
        }
        let mut buffer = [0; 4096];
        let (mut left, mut position, mut above) = (count, position.saturating_add(8), u64::MAX);
        while left > 0 {
            let now = left.min(buffer.len() as u64 / 8);
            let chunk = buffer.get_mut(..now as usize * 8).ok_or(OUTSIDE)?;
            self.read(chunk, position)?;
            for page in chunk.as_chunks().0.iter().map(|word| u64::from_ne_bytes(*word)) {
                if page >= above {
                    return Err("a record of the free list is not in order".into());
                }
                self.take(page)?;
                above = page;
            }
            left -= now;
            position = position.saturating_add(now * 8);
        }
        self.found.free_pages += count;
        Ok(())
    }

    /// Marks pages of a tree, which must be in the file.
    fn take_run(&mut self, first: u64, run: u64) -> Result<(), String> {
        let end = first.saturating_add(run);
        if end > self.pages {
            return Err(format!("page {} is in use, but the file ends after {} pages", end - 1, self.pages));
        }
        (first..end).try_for_each(|page| self.take(page))?;
        self.found.pages_in_use += run;
        Ok(())
    }

    fn take(&mut self, page: u64) -> Result<(), String> {
        if page < 2 || page > self.found.last_page {
            return Err(format!("page {page} is referred to, outside of 2 to {}", self.found.last_page));
        }
        let word = self.taken.get_mut((page / 64) as usize).ok_or(OUTSIDE)?;
        let bit = 1 << (page % 64);
        if *word & bit != 0 {
            return Err(format!("page {page} is referred to twice"));
        }
        *word |= bit;
        Ok(())
    }

    fn position(&self, page: u64) -> u64 {
        page.saturating_mul(self.page_size as u64)
    }

    fn read(&self, into: &mut [u8], position: u64) -> Result<(), String> {
        self.file.read_exact_at(into, position).map_err(|error| format!("at byte {position}: {error}"))
    }
}
