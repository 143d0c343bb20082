//! With the feature `capi`: gives the shared library its SONAME (`libsss.so.0.1`: while the version is
//! 0.y, each y may change the ABI) and puts the link of that name beside it in cargo's target
//! directory, so that a program linked there also runs there. Writes nothing into the source tree.

use std::{env, path::Path};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let linux = env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux");
    if !linux || env::var_os("CARGO_FEATURE_CAPI").is_none() {
        return;
    }
    let version = |part: &str| env::var(format!("CARGO_PKG_VERSION_{part}")).expect("set by cargo");
    let soname = match version("MAJOR").as_str() {
        "0" => format!("libsss.so.0.{}", version("MINOR")),
        major => format!("libsss.so.{major}"),
    };
    // Not rustc-cdylib-link-arg: only `cargo rustc --crate-type` asks for a cdylib.
    println!("cargo:rustc-link-arg=-Wl,-soname,{soname}");

    // OUT_DIR is <target>/<profile>/build/<package>-<hash>/out.
    let out_dir = env::var("OUT_DIR").expect("set by cargo");
    if let Some(profile_dir) = Path::new(&out_dir).ancestors().nth(3) {
        let link = profile_dir.join(soname);
        if link.symlink_metadata().is_err() {
            // Only a convenience: an installed library gets its link from `make install`.
            let _ = std::os::unix::fs::symlink("libsss.so", link);
        }
    }
}
