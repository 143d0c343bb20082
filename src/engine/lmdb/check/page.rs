//! One page of LMDB's file, parsed: every byte of it may be damaged.

use std::cmp::Ordering;
use std::fmt;

// Page: number u64, nothing u16, flags u16, then lower u16 and upper u16, or the number of pages in
// the run u32. Behind that grow the offsets of the nodes, u16 each; the nodes themselves grow down
// from the end of the page.
pub(super) const PAGE_HEADER: usize = 16;
pub(super) const BRANCH: u16 = 0x01;
pub(super) const LEAF: u16 = 0x02;
pub(super) const OVERFLOW: u16 = 0x04;
const META: u16 = 0x08;

// Node: size of the value u32 and flags u16 (in a branch together the number of the page below),
// size of the key u16, key, value. A value that is too large stands in a run of overflow pages; the
// node has the number of the first.
pub(super) const NODE_HEADER: usize = 8;
pub(super) const IN_OVERFLOW: u16 = 0x01;
pub(super) const IS_DATABASE: u16 = 0x02;
const MAX_KEY: usize = 511;

// Meta page: behind the page header MDB_meta, with the records of the free list and of the main
// database in it.
pub(super) const META_SIZE: usize = PAGE_HEADER + 136;
const MAGIC: u32 = 0xBEEF_C0DE;
const VERSION: u32 = 1;
pub(super) const DB_SIZE: usize = 48;
/// Flags of the free list: its keys are integers; the file was made without a directory of its own.
const INTEGER_KEY: u16 = 0x08;
const NO_SUBDIR: u16 = 0x4000;

/// What is wrong in a page; the caller adds the page's number.
pub(super) type Flaw = &'static str;
pub(super) const OUTSIDE: Flaw = "something reaches out of it";

pub(super) struct Meta {
    pub page_size: usize,
    pub map_size: u64,
    pub free: Db,
    pub main: Db,
    pub last_page: u64,
    pub txn: u64,
}

impl Meta {
    pub(super) fn parse(page: &[u8], number: u64) -> Result<Meta, Flaw> {
        check_header(page, number, META)?;
        let meta = page.get(PAGE_HEADER..).ok_or(OUTSIDE)?;
        if u32_at(meta, 0)? != MAGIC {
            return Err("it was not written by LMDB on a machine like this one");
        }
        if u32_at(meta, 4)? != VERSION {
            return Err("it was written by another version of LMDB");
        }
        let (free, main) = (Db::parse(meta, 24)?, Db::parse(meta, 24 + DB_SIZE)?);
        let page_size = free.pad as usize;
        if !page_size.is_power_of_two() || !(512..=32768).contains(&page_size) {
            return Err("the size of a page is impossible");
        }
        let (map_size, last_page, txn) = (u64_at(meta, 16)?, u64_at(meta, 120)?, u64_at(meta, 128)?);
        Ok(Meta { page_size, map_size, free, main, last_page, txn })
    }
}

/// MDB_db, the record of one tree.
pub(super) struct Db {
    /// In the free list's record the size of a page.
    pad: u32,
    pub flags: u16,
    pub depth: u16,
    pub holds: Counts,
    pub root: u64,
}

impl Db {
    pub(super) fn parse(bytes: &[u8], at: usize) -> Result<Db, Flaw> {
        let bytes = bytes.get(at..).ok_or(OUTSIDE)?;
        let (pad, flags, depth) = (u32_at(bytes, 0)?, u16_at(bytes, 4)?, u16_at(bytes, 6)?);
        let (branches, leaves, overflows) = (u64_at(bytes, 8)?, u64_at(bytes, 16)?, u64_at(bytes, 24)?);
        let holds = Counts { branches, leaves, overflows, entries: u64_at(bytes, 32)? };
        Ok(Db { pad, flags, depth, holds, root: u64_at(bytes, 40)? })
    }

    pub(super) fn has_usual_flags(&self, kind: Kind) -> bool {
        match kind {
            Kind::FreeList => self.flags & !NO_SUBDIR == INTEGER_KEY,
            Kind::Main | Kind::Named => self.flags == 0 && self.pad == 0,
        }
    }
}

#[derive(Default, PartialEq)]
pub(super) struct Counts {
    pub branches: u64,
    pub leaves: u64,
    pub overflows: u64,
    pub entries: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Counts { branches, leaves, overflows, entries } = self;
        write!(f, "{entries} entries in {branches} branch, {leaves} leaf and {overflows} overflow pages")
    }
}

/// The three kinds of tree.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    /// Transaction → pages that it freed.
    FreeList,
    /// Name → database.
    Main,
    Named,
}

impl Kind {
    fn compare(self, a: &[u8], b: &[u8]) -> Ordering {
        match self {
            Kind::FreeList => u64_at(a, 0).cmp(&u64_at(b, 0)),
            Kind::Main | Kind::Named => a.cmp(b),
        }
    }

    fn allows(self, key: &[u8]) -> bool {
        match self {
            Kind::FreeList => key.len() == 8,
            Kind::Main | Kind::Named => (1..=MAX_KEY).contains(&key.len()),
        }
    }
}

/// The bounds of a subtree's keys, none for the outermost ones: not less than the first, less than
/// the second.
pub(super) type Bounds<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

pub(super) fn check_header(page: &[u8], number: u64, flags: u16) -> Result<(), Flaw> {
    match (u64_at(page, 0)? == number, u16_at(page, 10)? == flags) {
        (true, true) => Ok(()),
        (true, false) => Err("it is not of the kind that belongs here"),
        (false, _) => Err("it has the number of another page"),
    }
}

/// The nodes of a branch or leaf page in the order of their keys, which is checked.
pub(super) fn nodes<'p>(page: &'p [u8], flags: u16, bounds: Bounds, kind: Kind) -> Result<Vec<Node<'p>>, Flaw> {
    let (lower, upper) = (usize::from(u16_at(page, 12)?), usize::from(u16_at(page, 14)?));
    if lower < PAGE_HEADER || lower % 2 != 0 || lower > upper || upper > page.len() {
        return Err("the bounds of its free space are impossible");
    }
    let count = (lower - PAGE_HEADER) / 2;
    // LMDB asserts this of a branch, and does not leave a leaf empty.
    if count < (if flags == BRANCH { 2 } else { 1 }) {
        return Err("it has too few nodes");
    }
    let mut nodes = Vec::with_capacity(count);
    let mut sizes = vec![0_u16; page.len() / 2];
    for index in 0..count {
        let at = usize::from(u16_at(page, PAGE_HEADER + 2 * index)?);
        let node = Node::parse(page, at, flags)?;
        let size = sizes.get_mut(at / 2).ok_or(OUTSIDE)?;
        if at % 2 != 0 || at < upper || *size != 0 {
            return Err("a node is where none can be");
        }
        *size = node.size() as u16;
        nodes.push(node);
    }
    // LMDB closes every gap, so a walk from node to node meets all of them, and then the end of the
    // page.
    let mut at = upper;
    for _ in 0..count {
        at += match sizes.get(at / 2) {
            Some(&size) if size > 0 => usize::from(size),
            _ => return Err("its nodes overlap or leave gaps"),
        };
    }
    if at != page.len() {
        return Err("its nodes overlap or leave gaps");
    }
    check_keys(&nodes, flags, bounds, kind)?;
    Ok(nodes)
}

/// The first key of a branch means nothing: LMDB never looks at it, and leaves it empty or stale.
fn check_keys(nodes: &[Node], flags: u16, (from, to): Bounds, kind: Kind) -> Result<(), Flaw> {
    let (unused, used) = nodes.split_at_checked(usize::from(flags == BRANCH)).ok_or(OUTSIDE)?;
    if unused.iter().any(|node| node.key.len() > MAX_KEY) || used.iter().any(|node| !kind.allows(node.key)) {
        return Err("a key has an impossible size");
    }
    let rises = used.iter().is_sorted_by(|a, b| kind.compare(a.key, b.key) == Ordering::Less);
    let first = used.first().zip(from).is_none_or(|(node, from)| kind.compare(node.key, from) != Ordering::Less);
    let last = used.last().zip(to).is_none_or(|(node, to)| kind.compare(node.key, to) == Ordering::Less);
    if rises && first && last { Ok(()) } else { Err("its keys are not in order") }
}

pub(super) struct Node<'p> {
    pub key: &'p [u8],
    pub flags: u16,
    /// Of the whole value, wherever it is.
    pub value_size: u32,
    /// What of it is in the node: all, the number of its first overflow page, or in a branch
    /// nothing.
    pub value: &'p [u8],
    /// Where in the page that is.
    pub value_at: usize,
}

impl<'p> Node<'p> {
    fn parse(page: &'p [u8], at: usize, page_flags: u16) -> Result<Self, Flaw> {
        let node = page.get(at..).ok_or(OUTSIDE)?;
        let (value_size, flags, key_size) = (u32_at(node, 0)?, u16_at(node, 4)?, usize::from(u16_at(node, 6)?));
        let in_node = match (page_flags, flags) {
            (BRANCH, _) => 0,
            (_, IN_OVERFLOW) => 8,
            _ => value_size as usize,
        };
        // LMDB puts larger values into overflow pages, and counts on finding room for two nodes in
        // every page.
        let most = (page.len() - PAGE_HEADER) / 4 * 2 - 2;
        if page_flags != BRANCH && flags != IN_OVERFLOW && NODE_HEADER + key_size + in_node > most {
            return Err("a value is too large to be in a leaf");
        }
        let (key, value) = node.get(NODE_HEADER..).and_then(|rest| rest.split_at_checked(key_size)).ok_or(OUTSIDE)?;
        let value = value.get(..in_node).ok_or(OUTSIDE)?;
        Ok(Node { key, flags, value_size, value, value_at: at + NODE_HEADER + key_size })
    }

    /// In the page; nodes begin at even offsets.
    fn size(&self) -> usize {
        (NODE_HEADER + self.key.len() + self.value.len()).next_multiple_of(2)
    }

    /// In a branch: the page below.
    pub(super) fn child(&self) -> u64 {
        u64::from(self.value_size) | u64::from(self.flags) << 32
    }
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Flaw> {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map(|chunk| u16::from_ne_bytes(*chunk)).ok_or(OUTSIDE)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Result<u32, Flaw> {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map(|chunk| u32::from_ne_bytes(*chunk)).ok_or(OUTSIDE)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Result<u64, Flaw> {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map(|chunk| u64::from_ne_bytes(*chunk)).ok_or(OUTSIDE)
}
