//! Runs cases in fresh processes of this binary: memory use and growth would be distorted by
//! earlier cases.

use std::process::{Command, Stdio};

/// Runs a case in a child and returns the numbers that it prints.
pub fn numbers(args: &[&str]) -> Vec<f64> {
    let this = std::env::current_exe().expect("the path of this binary");
    let output = Command::new(this).arg("child").args(args).stderr(Stdio::inherit()).output().expect("a child starts");
    assert!(output.status.success(), "the case {args:?} failed");
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_whitespace().map(|number| number.parse().expect("a number")).collect()
}

pub fn number(args: &[&str]) -> f64 {
    numbers(args)[0]
}
