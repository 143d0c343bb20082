//! The binary interface as its sources say it: the header is fresh and declares the listed functions,
//! and no export can be reached without its guard. tests/packages/test_library.py looks at the library.

use std::{collections::BTreeSet, fs, path::Path};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn generated_header() -> String {
    let mut config = cbindgen::Config::from_file(root().join("cbindgen.toml")).expect("cbindgen.toml");
    let macros = config.after_includes.unwrap_or_default();
    config.after_includes = Some(format!(
        "\n/** The version of this header; sss_version() is that of the library. */\n\
         #define SSS_VERSION_MAJOR {major}\n#define SSS_VERSION_MINOR {minor}\n#define SSS_VERSION_PATCH {patch}\n\
         #define SSS_VERSION ((SSS_VERSION_MAJOR << 16) | (SSS_VERSION_MINOR << 8) | SSS_VERSION_PATCH)\n\
         #define SSS_VERSION_STRING \"{version}\"\n\n{macros}",
        major = env!("CARGO_PKG_VERSION_MAJOR"),
        minor = env!("CARGO_PKG_VERSION_MINOR"),
        patch = env!("CARGO_PKG_VERSION_PATCH"),
        version = env!("CARGO_PKG_VERSION"),
    ));
    let bindings = cbindgen::Builder::new().with_crate(root()).with_config(config).generate().expect("cbindgen");
    let mut header = Vec::new();
    bindings.write(&mut header);
    tightened(&String::from_utf8(header).expect("the header is text"))
}

/// One-line comments on one line, none with an empty end, flags unsigned, and negative numbers in
/// parentheses.
fn tightened(header: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in header.lines() {
        let last = |back: usize| lines.len().checked_sub(back).map(|i| lines[i].trim());
        if line.trim() == "*/" && last(1) == Some("*") {
            lines.pop();
        }
        let last = |back: usize| lines.len().checked_sub(back).map(|i| lines[i].trim());
        if line.trim() == "*/" && last(2) == Some("/**") {
            let text = lines.pop().unwrap_or_default();
            let open = lines.pop().unwrap_or_default();
            lines.push(format!("{open} {} */", text.trim().trim_start_matches("* ")));
        } else if line.starts_with("#define SSS_")
            && !line.contains("VERSION")
            && [" 1", " 2"].iter().any(|flag| line.ends_with(flag))
        {
            lines.push(format!("{line}u"));
        } else if let Some((define, number)) = line.split_once(" -").filter(|(_, number)| number.parse::<u32>().is_ok())
        {
            lines.push(format!("{define} (-{number})"));
        } else {
            lines.push(line.to_owned());
        }
    }
    lines.join("\n") + "\n"
}

/// With SSS_BLESS=1 (`make header`) the committed header is rewritten instead.
#[test]
fn committed_header_is_fresh() {
    let path = root().join("include/sss.h");
    let generated = generated_header();
    if std::env::var_os("SSS_BLESS").is_some() {
        fs::write(&path, &generated).expect("include/sss.h");
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == generated, "include/sss.h is stale: run `make header` and commit it");
}

/// The file lists what the shared library may export: tests/packages/test_library.py compares the two.
#[test]
fn header_declares_listed_functions() {
    let header = fs::read_to_string(root().join("include/sss.h")).expect("include/sss.h");
    let declared: BTreeSet<_> = header
        .lines()
        .filter(|line| line.starts_with(|first: char| first.is_ascii_lowercase()))
        .filter_map(|line| line.split_once('(')?.0.rsplit([' ', '*']).next())
        .collect();
    let listed: BTreeSet<_> = include_str!("../exports.txt").lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(declared, listed);
}

#[test]
fn exports_begin_with_guard() {
    let exports = include_str!("../exports.txt").lines().filter(|line| !line.starts_with('#'));
    let sources: String = fs::read_dir(root().join("src/capi"))
        .expect("src/capi")
        .map(|entry| fs::read_to_string(entry.expect("an entry").path()).expect("source"))
        .collect();
    for name in exports {
        let signature = format!("extern \"C\" fn {name}(");
        let (_, rest) = sources.split_once(&signature).unwrap_or_else(|| panic!("{name} is not in src/capi"));
        let (_, body) = rest.split_once("{\n").expect("a body");
        let body = &body[..body.find("\n}").expect("an end")];
        // The body is one statement, or constants and a closure before it, none of which run code.
        let guarded = body.lines().any(|line| line.starts_with("    guard(") || line.starts_with("    guard_or("));
        assert!(guarded, "{name} does not run under a guard");
    }
}
