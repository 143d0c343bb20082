//! Link flags that a NIF needs. Writes no files.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    match env::var("CARGO_CFG_TARGET_OS").as_deref() {
        // The VM unloads a NIF library when its module is purged; a store that is being dropped on a thread of its own
        // (src/handle.rs) must not lose its code. So the library stays mapped.
        Ok("linux") => println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete"),
        // The VM itself has the enif_* symbols.
        Ok("macos") => println!("cargo:rustc-cdylib-link-arg=-Wl,-undefined,dynamic_lookup"),
        _ => {}
    }
}
