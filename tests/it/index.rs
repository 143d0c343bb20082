//! tests/README.md maps promises to tests. It must name only tests that exist.

use std::{fs, path::Path};

/// Where the folders of the page's names are.
const FOLDERS: [(&str, &str); 3] =
    [("python/", "bindings/python/tests/"), ("elixir/", "bindings/elixir/test/"), ("src/", "src/")];

/// How a test of this name is written in a file of this kind.
fn definition(file: &str, name: &str) -> String {
    match file.rsplit_once('.') {
        Some((_, "rs")) => format!("fn {name}("),
        Some((_, "c")) => format!("static void {name}(void) {{"),
        Some((_, "py")) => format!("def {name}("),
        Some((_, "exs")) => format!("test \"{name}\""),
        Some((_, "txt")) => format!("scenario {name}\n"),
        _ => panic!("{file} is no file of tests"),
    }
}

#[test]
fn every_test_in_readme_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("tests/README.md")).unwrap();
    // What stands between backticks is every other part.
    let names: Vec<(&str, &str)> =
        page.split('`').skip(1).step_by(2).filter_map(|code| code.split_once("::")).collect();
    let names: Vec<_> = names.into_iter().filter(|(file, name)| file.contains('/') && !name.is_empty()).collect();
    assert!(names.len() > 100, "the names in the page are found");
    let missing: Vec<String> = names
        .into_iter()
        .filter(|(file, name)| {
            let folder = FOLDERS.iter().find_map(|(short, long)| Some(format!("{long}{}", file.strip_prefix(short)?)));
            let path = root.join(folder.unwrap_or_else(|| format!("tests/{file}")));
            !fs::read_to_string(path).is_ok_and(|text| text.contains(&definition(file, name)))
        })
        .map(|(file, name)| format!("{file}::{name}"))
        .collect();
    assert!(missing.is_empty(), "tests/README.md names tests that do not exist:\n{}", missing.join("\n"));
}
