//! A program on a pseudo-terminal of its own: what it shows there, and what a person types.

use std::{
    fs::File,
    io::{Read, Write},
    process::{Child, Command, ExitStatus},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{Mode, OFlags, open},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

/// A program that has not shown or done what a test waits for by then hangs.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Terminal {
    child: Child,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    /// What was shown so far.
    pub shown: String,
}

impl Terminal {
    /// Starts a program whose standard streams are a terminal with this many columns, which Ctrl-C
    /// reaches it through.
    pub fn run(program: &str, args: &[&str], columns: u16) -> Terminal {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        tcsetwinsize(&keyboard, Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let name = ptsname(&keyboard, Vec::new()).unwrap();
        let stream = || open(&name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        // `setsid` makes it the controlling terminal, and becomes the program.
        let child = Command::new("setsid")
            .args(["--ctty", program])
            .args(args)
            .env_remove("SSS_URL")
            .stdin(stream())
            .stdout(stream())
            .stderr(stream())
            .spawn()
            .unwrap();
        let keyboard = File::from(keyboard);
        let mut output = keyboard.try_clone().unwrap();
        let (sender, screen) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The kernel reports the end as an error.
            while let Ok(len @ 1..) = output.read(&mut buffer)
                && sender.send(buffer[..len].to_vec()).is_ok()
            {}
        });
        Terminal { child, keyboard, screen, shown: String::new() }
    }

    /// Waits until the screen has shown this.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.shown.contains(text) {
            let wait = end.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(wait) {
                Ok(bytes) => self.shown.push_str(&String::from_utf8(bytes).unwrap()),
                Err(RecvTimeoutError::Timeout) => panic!("not shown within {PATIENCE:?}: {text:?}: {:?}", self.shown),
                Err(RecvTimeoutError::Disconnected) => panic!("{text:?} was never shown: {:?}", self.shown),
            }
        }
    }

    pub fn type_keys(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for the end of the program: how it ended, and all that it showed.
    #[track_caller]
    pub fn end(mut self) -> (ExitStatus, String) {
        let end = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() > end => {
                    self.child.kill().unwrap();
                    panic!("the program hangs, having shown {:?}", self.shown);
                }
                None => thread::sleep(Duration::from_millis(1)),
            }
        };
        while let Ok(bytes) = self.screen.recv_timeout(PATIENCE) {
            self.shown.push_str(&String::from_utf8(bytes).unwrap());
        }
        (status, self.shown.replace("\r\n", "\n"))
    }
}
