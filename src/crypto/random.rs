//! Random bytes, always straight from the operating system: a generator in user space repeats its
//! output after `fork`.

use rand::{TryRng, rngs::SysRng};

use super::zeroize::ZeroizeOnDrop;
use crate::error::{Error, ErrorKind, Result};

/// Fills `bytes`. Blocks only while the system's source is not yet seeded, early at boot.
pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<()> {
    SysRng
        .try_fill_bytes(bytes)
        .map_err(|_| Error::fixed(ErrorKind::Random, "the operating system gave no random bytes"))
}

/// A random secret of `N` bytes.
pub(crate) fn random<const N: usize>() -> Result<ZeroizeOnDrop<[u8; N]>> {
    let mut bytes = ZeroizeOnDrop::new([0; N]);
    fill_random(bytes.as_mut_slice())?;
    Ok(bytes)
}
