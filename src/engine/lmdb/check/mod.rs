//! Whether the data of a store are sound: the structure of the file, before LMDB maps it (`pages`,
//! one at a time: `page`), and whether the tables agree with one another (`tables`).

#[cfg(test)]
mod fixture;
mod page;
pub(super) mod pages;
pub(super) mod tables;
#[cfg(test)]
mod tests;
