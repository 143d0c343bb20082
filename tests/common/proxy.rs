//! A proxy on loopback that treats what goes through it badly: late, byte by byte, cut off, or not
//! at all.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use super::Rng;

/// What happens to a reply.
#[derive(Clone, Copy, Debug)]
pub enum Mode {
    Pass,
    /// It does not arrive, and the connection stays open.
    Stall,
    /// The request does not even reach the server.
    Swallow,
    /// A byte at a time.
    Dribble(Duration),
    Delay(Duration),
    /// So many bytes of it arrive, and the connection is closed.
    Cut(usize),
    /// The same, and all that follow arrive.
    CutOnce(usize),
    /// One in so many is cut somewhere or comes so much too late.
    Some(usize, Duration),
}

pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    server: AtomicU16,
    mode: Mutex<Mode>,
    connections: AtomicU64,
    requests: AtomicU64,
    is_over: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
    rng: Mutex<Rng>,
}

impl Proxy {
    pub fn to(server: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            server: AtomicU16::new(server),
            mode: Mutex::new(Mode::Pass),
            connections: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            open: Mutex::default(),
            rng: Mutex::new(Rng(7)),
        });
        let mine = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                if mine.is_over.load(Ordering::Relaxed) {
                    return;
                }
                let server = TcpStream::connect(("127.0.0.1", mine.server.load(Ordering::Relaxed)));
                let (Ok(client), Ok(server)) = (client, server) else { continue };
                mine.connections.fetch_add(1, Ordering::Relaxed);
                for stream in [&client, &server] {
                    stream.set_nodelay(true).unwrap();
                    mine.open.lock().unwrap().push(stream.try_clone().unwrap());
                }
                let (up, down) = (Arc::clone(&mine), Arc::clone(&mine));
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || up.requests(from, to));
                thread::spawn(move || down.replies(server, client));
            }
        });
        Proxy { port, shared }
    }

    pub fn set(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
    }

    /// New connections lead to another server, as with a name that was given another address.
    pub fn leads_to(&self, server: u16) {
        self.shared.server.store(server, Ordering::Relaxed);
    }

    /// How many connections were made so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// How many pieces of requests have come so far: a small request is one.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for connections.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        for stream in self.shared.open.lock().unwrap().iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn requests(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut bytes = [0; 64 << 10];
        while let Ok(read @ 1..) = from.read(&mut bytes) {
            self.requests.fetch_add(1, Ordering::Relaxed);
            if !matches!(*self.mode.lock().unwrap(), Mode::Swallow) && to.write_all(&bytes[..read]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    }

    fn replies(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut bytes = [0; 64 << 10];
        while let Ok(read @ 1..) = from.read(&mut bytes) {
            if !self.reply(&mut to, &bytes[..read]) {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }

    /// False: the connection is to be closed.
    fn reply(&self, to: &mut TcpStream, bytes: &[u8]) -> bool {
        let mode = {
            let mut mode = self.mode.lock().unwrap();
            let now = *mode;
            if matches!(now, Mode::CutOnce(_)) {
                *mode = Mode::Pass;
            }
            now
        };
        match mode {
            Mode::Pass => to.write_all(bytes).is_ok(),
            Mode::Stall | Mode::Swallow => true,
            Mode::Dribble(pause) => bytes.iter().all(|byte| {
                thread::sleep(pause);
                to.write_all(&[*byte]).is_ok()
            }),
            Mode::Delay(delay) => {
                thread::sleep(delay);
                to.write_all(bytes).is_ok()
            }
            Mode::Cut(len) | Mode::CutOnce(len) => {
                let _ = to.write_all(&bytes[..len.min(bytes.len())]);
                false
            }
            Mode::Some(one_in, delay) => {
                let (badly, late, at) = {
                    let mut rng = self.rng.lock().unwrap();
                    (rng.one_in(one_in), rng.one_in(4), rng.below(bytes.len()))
                };
                if badly && late {
                    thread::sleep(delay);
                } else if badly {
                    let _ = to.write_all(&bytes[..at]);
                    return false;
                }
                to.write_all(bytes).is_ok()
            }
        }
    }
}
