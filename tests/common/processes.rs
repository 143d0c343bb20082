//! For tests that need several processes: a test program of this kind starts itself again, as one of its parts. It has
//! a `main` of its own (`harness = false` in Cargo.toml) and looks to cargo like any other; its tests run one by one,
//! because they kill processes and measure times.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::{
    env,
    io::{BufRead, BufReader, Read},
    panic::catch_unwind,
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Says that this process is a part, before the part's name and its arguments.
const PART: &str = "--part";

/// A process that is not at its end by then hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a process does that is a part.
type Part = fn(&[String]);

/// The body of `main`: runs the tests whose names hold one of the arguments, or the part that this process is.
pub fn run(tests: &[(&str, fn())], parts: &[(&str, Part)]) -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    if let [first, name, args @ ..] = &args[..]
        && first == PART
    {
        let (_, part) = parts.iter().find(|(part, _)| part == name).expect("one of the parts");
        part(args);
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let (begun, mut passed, mut failed) = (Instant::now(), 0, Vec::new());
    println!("\nrunning {} tests", tests.len());
    for (name, test) in tests.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|it| name.contains(*it)))
    {
        let is_ok = catch_unwind(test).is_ok();
        println!("test {name} ... {}", if is_ok { "ok" } else { "FAILED" });
        if is_ok {
            passed += 1;
        } else {
            failed.push(name);
        }
    }
    let (result, filtered) = (if failed.is_empty() { "ok" } else { "FAILED" }, tests.len() - passed - failed.len());
    failed.iter().for_each(|name| println!("    {name}"));
    println!(
        "\ntest result: {result}. {passed} passed; {} failed; 0 ignored; 0 measured; {filtered} filtered out; finished in \
         {:.2}s\n",
        failed.len(),
        begun.elapsed().as_secs_f64()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The command that runs a part of this program, with pipes to it and from it.
pub fn part(name: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args([PART, name]).args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// The first line that a part says, which it does when it is where a test wants it.
pub fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// Kills a process that goes on until then.
#[track_caller]
pub fn kill(mut child: Child) {
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(status.code().is_none(), "a process ended before it was killed: {status}");
}

/// How a process ended, which may be by a signal; `None`: it hangs, and was killed for that.
pub fn end_of(child: &mut Child) -> Option<ExitStatus> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    None
}

/// Whether a process ended by itself and well, and not by a signal or never: a hang is a failure. What it said.
#[track_caller]
pub fn ends_well(mut child: Child) -> String {
    let mut output = child.stdout.take().unwrap();
    // Read beside it, so that it does not wait for room in the pipe.
    let text = thread::spawn(move || {
        let mut text = String::new();
        output.read_to_string(&mut text).map(|_| text)
    });
    let status = end_of(&mut child).expect("a process that does not hang");
    let text = text.join().unwrap().unwrap();
    assert!(status.success(), "a process ended by {status}, having said {text:?}");
    text
}

/// How often: so much in `make test`, and so much in `make torture`, which sets SSS_TORTURE.
pub fn times(short: u64, long: u64) -> u64 {
    if env::var_os("SSS_TORTURE").is_some() { long } else { short }
}

/// Nanoseconds of a clock that all processes have in common.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}
