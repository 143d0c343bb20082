//! What a person at a terminal is shown and asked while a command runs: on standard error, so that
//! standard output has only what the command has found.

use std::{
    io::{self, IsTerminal, Write},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

/// What takes longer shows its progress.
const DELAY: Duration = Duration::from_secs(1);
const REDRAW: Duration = Duration::from_millis(200);

/// Does `work`. If it takes long and standard error is a terminal, shows there meanwhile what
/// `describe` says, and for how long it has been going on.
pub fn with_progress<T>(describe: impl Fn() -> String + Send, work: impl FnOnce() -> T) -> T {
    if !io::stderr().is_terminal() {
        return work();
    }
    let (done, is_done) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let begun = Instant::now();
            let mut wait = DELAY;
            let mut is_shown = false;
            while is_done.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                let text = format!("{} ({} s)", describe(), begun.elapsed().as_secs());
                is_shown = true;
                wait = REDRAW;
                redraw(&text);
            }
            if is_shown {
                redraw("");
            }
        });
        let result = work();
        drop(done);
        result
    })
}

/// Replaces the line on which the cursor is.
fn redraw(text: &str) {
    let columns = terminal_size::terminal_size_of(io::stderr()).map_or(80, |(width, _)| usize::from(width.0));
    // Not as wide as the terminal: a line that wraps would not be erased.
    let shown = &text[..text.floor_char_boundary(columns.saturating_sub(1))];
    let _ = write!(io::stderr(), "\r\x1b[K{shown}");
}

/// Whether a person can be asked.
pub fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks for a confirmation; only "y" and "yes" are one.
pub fn confirms(question: &str) -> bool {
    let _ = write!(io::stderr(), "{question} [y/N] ");
    let mut answer = String::new();
    // An error is no answer.
    let _ = io::stdin().read_line(&mut answer);
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}
