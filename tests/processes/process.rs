//! Runs the tests of this binary one by one, and the processes that they are made of: it starts
//! itself again as a *part*, with the name of the part and its arguments. To cargo it looks like
//! any other test binary.
#![allow(unsafe_code)]

use std::{
    env,
    io::{BufRead, BufReader, Read},
    panic::{AssertUnwindSafe, catch_unwind},
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::common::from_env;

/// Says that this process is a part, before the part's name and its arguments.
const PART: &str = "--part";

/// A process that is not at its end by then hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a process does that is a part, with its arguments.
type Part = fn(&[String]);

/// What a module has: see the macro `suite` in main.rs.
pub struct Suite {
    pub module: &'static str,
    pub tests: &'static [(&'static str, fn())],
    pub parts: &'static [(&'static str, Part)],
}

impl Suite {
    /// The full name of one of its tests or parts, without the name of the binary.
    fn name_of(&self, item: &str) -> String {
        let (_, module) = self.module.split_once("::").expect("a module of this binary");
        format!("{module}::{item}")
    }
}

/// The body of `main`: runs the tests whose names contain one of the arguments, or the part that
/// this process is.
pub fn run(args: &[String], suites: &[Suite]) -> ExitCode {
    if let [first, name, args @ ..] = args
        && first == PART
    {
        // A part does not outlive the tests, however they end.
        // SAFETY: no preconditions.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        let mut parts = suites.iter().flat_map(|suite| suite.parts.iter().map(|part| (suite.name_of(part.0), part.1)));
        let (_, part) = parts.find(|(part, _)| part == name).expect("one of the parts");
        part(args);
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let tests: Vec<(String, fn())> =
        suites.iter().flat_map(|suite| suite.tests.iter().map(|test| (suite.name_of(test.0), test.1))).collect();
    let begun = Instant::now();
    let mut passed = 0;
    let mut failed = Vec::new();
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

/// Runs `work` in a forked child, which must end well and must not hang. Returns when it has ended.
#[track_caller]
pub fn in_child(work: impl FnOnce()) {
    // SAFETY: what is called in the child is meant to work there, which is what is tested.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: no preconditions.
            unsafe { libc::alarm(PATIENCE.as_secs() as u32) };
            let is_ok = catch_unwind(AssertUnwindSafe(work)).is_ok();
            // SAFETY: no preconditions. What the parent's tests would do at exit is not for the
            // child.
            unsafe { libc::_exit(i32::from(!is_ok)) };
        }
        child => {
            assert!(child > 0, "fork failed");
            let mut status = 0;
            // SAFETY: a child of this process, and `status` is where its end goes.
            let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
            assert!(waited == child && status == 0, "a child ended with {status:#x}: 0xe is a hang");
        }
    }
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

/// Kills a process that runs until then.
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

/// Whether a process ended by itself and well, and not by a signal or never: a hang is a failure.
/// What it said.
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
    if is_torture() { long } else { short }
}

/// The seed of a test's random choices: SSS_TEST_SEED, or another one each time. It is printed at
/// once, because a failure in another process may not be able to.
pub fn seed() -> u64 {
    let seed = from_env("SSS_TEST_SEED", now());
    println!("SSS_TEST_SEED={seed}");
    seed
}

/// Whether this is `make torture`, on a machine that has nothing else to do.
pub fn is_torture() -> bool {
    env::var_os("SSS_TORTURE").is_some()
}

/// Nanoseconds of a clock that all processes have in common.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}
