//! stub
use std::fs::File;
pub(super) fn verify(_: &File, _: u64) -> Result<(), String> {
    Ok(())
}
