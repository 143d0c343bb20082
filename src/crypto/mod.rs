//! Random bytes, keyed hashes, authenticated encryption and the wiping of secrets. Works on bytes:
//! it knows neither sessions nor records.

pub(crate) mod aead;
pub(crate) mod keyring;
pub(crate) mod keys;
pub(crate) mod random;
#[cfg(any(feature = "lmdb", feature = "redis"))]
pub(crate) mod secret_file;
pub(crate) mod zeroize;
