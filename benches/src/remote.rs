//! M9: Redis and memcached on Unix sockets, started and ended here, in a temporary directory. Their
//! protocols are spoken directly, one request at a time, so that no client library is measured.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::{
    competitors::Sss,
    facts::Facts,
    memory::resident_of,
    speed::{Filled, rate},
    workload::{Batches, Id, Race, Rng, Scale, bind, median, payload},
};

const PAYLOAD: usize = 256;
pub const CONNECTIONS: usize = 16;

/// M9, and the servers' share of M10.
pub fn servers(scale: Scale, facts: &mut Facts) {
    let n = (scale.n / 10).max(1000);
    let directory = Directory::new().expect("a directory for the sockets");
    let started = Server::redis(&directory.0).and_then(|redis| Ok((redis, Server::memcached(&directory.0)?)));
    let (redis, memcached) = match started {
        Ok(servers) => servers,
        Err(error) => return eprintln!("M9 needs redis-server and memcached: {error}"),
    };
    let ids = Rng::new(9).ids(n);
    for (name, server) in [("redis", &redis), ("memcached", &memcached)] {
        let bytes = server.fill(&ids).expect("the server takes the sessions");
        facts.set(&format!("m10.{name}_large"), bytes / n as f64 - PAYLOAD as f64);
    }
    let sss = Filled::new(Sss::open(), &ids, PAYLOAD);

    let calls = if scale.quick { 1000 } else { 4000 };
    let mut race = Race::default();
    let (mut one, mut seed) = (Filled::new(Sss::open(), &ids, PAYLOAD), 0);
    race.runner("sss", move || {
        seed += 1;
        one.get(scale.batches, seed)
    });
    for (names, server) in [(["redis", "redis_free"], &redis), (["memcached", "memcached_free"], &memcached)] {
        for (name, together) in names.into_iter().zip([true, false]) {
            let mut connection = server.connect().expect("a connection");
            let mut drawn = Batches::new(&ids, 9);
            race.runner(name, move || {
                server.place(together);
                let time = time_each(calls, &mut drawn, |id| connection.get(id));
                server.place(false);
                time
            });
        }
    }
    let outcome = race.run(scale.rounds);
    facts.set_outcome("m9", "ns", &outcome);
    facts.set_middle("m9.redis_times", outcome.compare("redis", "sss", |redis, sss| redis / sss));
    facts.set_middle("m9.memcached_times", outcome.compare("memcached", "sss", |memcached, sss| memcached / sss));

    let time = Duration::from_millis(if scale.quick { 150 } else { 500 });
    let mut race = Race::default();
    race.runner("sss_2", || 1e3 / rate(&[&sss, &sss], 0, time));
    for (name, server) in [("redis_16", &redis), ("memcached_16", &memcached)] {
        let ids = &ids;
        race.runner(name, move || {
            together(ids, time, || {
                let mut connection = server.connect().expect("a connection");
                move |id: &Id| connection.get(id)
            })
        });
    }
    let outcome = race.run(scale.rounds);
    for name in outcome.names() {
        facts.set_middle(&format!("m9.{name}_ns"), outcome.middle(name));
    }
    facts.set_middle("m9.redis_times_16", outcome.compare("redis_16", "sss_2", |redis, sss| redis / sss));
    facts.set_middle("m9.memcached_times_16", outcome.compare("memcached_16", "sss_2", |other, sss| other / sss));
}

/// The median of nanoseconds per call.
pub fn time_each(calls: usize, drawn: &mut Batches, mut call: impl FnMut(&Id)) -> f64 {
    let mut times = Vec::with_capacity(calls);
    while times.len() < calls {
        for id in drawn.draw() {
            let begun = Instant::now();
            call(id);
            times.push(begun.elapsed().as_nanos() as f64);
        }
    }
    median(&mut times)
}

/// Nanoseconds per get of all threads together, each with a connection of its own and waiting for
/// its answer.
pub fn together<F: FnMut(&Id)>(ids: &[Id], time: Duration, connect: impl Fn() -> F + Sync) -> f64 {
    let (barrier, stop, gets) = (Barrier::new(CONNECTIONS + 1), AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for seed in 0..CONNECTIONS as u64 {
            let (barrier, stop, gets, connect) = (&barrier, &stop, &gets, &connect);
            scope.spawn(move || {
                let mut get = connect();
                let mut drawn = Batches::new(ids, seed);
                barrier.wait();
                while !stop.load(Relaxed) {
                    for id in drawn.draw().iter().take(64) {
                        get(id);
                        gets.fetch_add(1, Relaxed);
                    }
                }
            });
        }
        barrier.wait();
        let (begun, before) = (Instant::now(), gets.load(Relaxed));
        std::thread::sleep(time);
        let (done, spent) = (gets.load(Relaxed) - before, begun.elapsed());
        stop.store(true, Relaxed);
        assert!(done > 0, "the server answers no call");
        spent.as_nanos() as f64 / done as f64
    })
}

#[derive(Clone, Copy)]
enum Protocol {
    Redis,
    Memcached,
}

/// A server that is ended on drop.
pub struct Server {
    process: Child,
    pub socket: PathBuf,
    protocol: Protocol,
}

impl Server {
    pub fn redis(directory: &Path) -> io::Result<Server> {
        let socket = directory.join("redis");
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--daemonize", "no", "--dir"]);
        command.arg(directory).arg("--unixsocket").arg(&socket);
        Server::start(command, socket, Protocol::Redis)
    }

    fn memcached(directory: &Path) -> io::Result<Server> {
        let socket = directory.join("memcached");
        let mut command = Command::new("memcached");
        command.args(["-m", "1024", "-u", "root", "-s"]).arg(&socket);
        Server::start(command, socket, Protocol::Memcached)
    }

    fn start(mut command: Command, socket: PathBuf, protocol: Protocol) -> io::Result<Server> {
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let server = Server { process, socket, protocol };
        for _ in 0..500 {
            if UnixStream::connect(&server.socket).is_ok() {
                return Ok(server);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(io::Error::other(format!("{:?} does not listen", server.socket)))
    }

    pub fn connect(&self) -> io::Result<Connection> {
        let stream = UnixStream::connect(&self.socket)?;
        Ok(Connection { stream, protocol: self.protocol, request: Vec::new(), reply: vec![0; 4096] })
    }

    /// Binds the server and the calling thread to one processor, which avoids wake-ups between
    /// processors and is the fastest case of one client; or leaves the placement to the kernel,
    /// whose cost varies between runs in a virtual machine.
    pub fn place(&self, together: bool) {
        let cpus: &[usize] = if together { &[0] } else { &[] };
        bind(0, cpus);
        let threads = fs::read_dir(format!("/proc/{}/task", self.process.id())).expect("the server runs");
        for thread in threads.flatten() {
            let id = thread.file_name().to_str().and_then(|id| id.parse().ok());
            bind(id.expect("a thread has a number"), cpus);
        }
    }

    /// Stores the sessions, many in one write; not measured. Returns the growth of the server in
    /// bytes.
    pub fn fill(&self, ids: &[Id]) -> io::Result<f64> {
        let pid = self.process.id().to_string();
        let resident = || resident_of(&pid).ok_or(io::Error::other("no smaps_rollup of the server"));
        let mut connection = self.connect()?;
        let before = resident()?;
        for (chunk, ids) in ids.chunks(100).enumerate() {
            let mut request = Vec::new();
            for (i, id) in ids.iter().enumerate() {
                let payload = payload(PAYLOAD, chunk * 100 + i);
                match self.protocol {
                    Protocol::Redis => {
                        write!(request, "*5\r\n$3\r\nSET\r\n$128\r\n")?;
                        request.extend_from_slice(id);
                        write!(request, "\r\n${PAYLOAD}\r\n")?;
                        request.extend_from_slice(&payload);
                        write!(request, "\r\n$2\r\nEX\r\n$4\r\n3600\r\n")?;
                    }
                    Protocol::Memcached => {
                        request.extend_from_slice(b"ms ");
                        request.extend_from_slice(id);
                        write!(request, " {PAYLOAD} T3600\r\n")?;
                        request.extend_from_slice(&payload);
                        request.extend_from_slice(b"\r\n");
                    }
                }
            }
            connection.stream.write_all(&request)?;
            let ok: &[u8] = match self.protocol {
                Protocol::Redis => b"+OK\r\n",
                Protocol::Memcached => b"HD\r\n",
            };
            let mut replies = vec![0; ok.len() * ids.len()];
            connection.stream.read_exact(&mut replies)?;
            if !replies.chunks(ok.len()).all(|reply| reply == ok) {
                return Err(io::Error::other(String::from_utf8_lossy(&replies).into_owned()));
            }
        }
        Ok(resident()? - before)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It persists nothing, so it can be killed in any state.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub struct Connection {
    stream: UnixStream,
    protocol: Protocol,
    request: Vec<u8>,
    reply: Vec<u8>,
}

impl Connection {
    /// A get that slides the session's deadline: one write, one answer.
    pub fn get(&mut self, id: &Id) {
        self.request.clear();
        let (head, tail): (&[u8], &[u8]) = match self.protocol {
            Protocol::Redis => (b"*4\r\n$5\r\nGETEX\r\n$128\r\n", b"\r\n$2\r\nEX\r\n$4\r\n3600\r\n"),
            Protocol::Memcached => (b"mg ", b" v T3600\r\n"),
        };
        self.request.extend_from_slice(head);
        self.request.extend_from_slice(id);
        self.request.extend_from_slice(tail);
        self.stream.write_all(&self.request).expect("the server takes a request");
        let wanted = match self.protocol {
            Protocol::Redis => "$256\r\n".len() + PAYLOAD + 2,
            Protocol::Memcached => "VA 256\r\n".len() + PAYLOAD + 2,
        };
        self.stream.read_exact(&mut self.reply[..wanted]).expect("the server answers");
        assert!(self.reply.starts_with(match self.protocol {
            Protocol::Redis => b"$256\r\n".as_slice(),
            Protocol::Memcached => b"VA 256\r\n",
        }));
    }
}

impl Connection {
    /// The number of reads by Redis, over all clients.
    pub fn reads(&mut self) -> u64 {
        self.stream.write_all(b"*2\r\n$4\r\nINFO\r\n$5\r\nstats\r\n").expect("the server takes a request");
        let mut reply = Vec::new();
        // It ends with an empty line.
        while !reply.ends_with(b"\r\n\r\n") {
            let len = self.stream.read(&mut self.reply).expect("the server answers");
            reply.extend_from_slice(&self.reply[..len]);
        }
        let reply = String::from_utf8_lossy(&reply);
        let count = reply.lines().find_map(|line| line.strip_prefix("total_reads_processed:"));
        count.and_then(|count| count.trim().parse().ok()).expect("Redis counts its reads since 6.0")
    }

    /// A get of Redis with the commands of libsss: four in one write.
    pub fn get_and_slide(&mut self, id: &Id) {
        self.request.clear();
        for (head, tail) in [
            (b"*2\r\n$11\r\nPEXPIRETIME\r\n".as_slice(), b"\r\n".as_slice()),
            (b"*2\r\n$3\r\nGET\r\n", b"\r\n"),
            (b"*4\r\n$7\r\nPEXPIRE\r\n", b"\r\n$7\r\n3600000\r\n$2\r\nGT\r\n"),
            (b"*2\r\n$11\r\nPEXPIRETIME\r\n", b"\r\n"),
        ] {
            self.request.extend_from_slice(head);
            self.request.extend_from_slice(b"$128\r\n");
            self.request.extend_from_slice(id);
            self.request.extend_from_slice(tail);
        }
        self.stream.write_all(&self.request).expect("the server takes a request");
        // A time has thirteen digits until the year 2286.
        let wanted = ":1234567890123\r\n".len() * 2 + "$256\r\n".len() + PAYLOAD + 2 + ":1\r\n".len();
        self.stream.read_exact(&mut self.reply[..wanted]).expect("the server answers");
        assert!(self.reply.starts_with(b":1") && self.reply[16..].starts_with(b"$256\r\n"));
    }

    /// A put of Redis that keeps the deadline: one write, one answer.
    pub fn set(&mut self, id: &Id, payload: &[u8]) {
        self.request.clear();
        self.request.extend_from_slice(b"*4\r\n$3\r\nSET\r\n$128\r\n");
        self.request.extend_from_slice(id);
        self.request.extend_from_slice(format!("\r\n${}\r\n", payload.len()).as_bytes());
        self.request.extend_from_slice(payload);
        self.request.extend_from_slice(b"\r\n$7\r\nKEEPTTL\r\n");
        self.stream.write_all(&self.request).expect("the server takes a request");
        self.stream.read_exact(&mut self.reply[..5]).expect("the server answers");
        assert!(self.reply.starts_with(b"+OK\r\n"));
    }
}

/// A directory with mode 0700 that is removed on drop.
pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new() -> io::Result<Directory> {
        use std::os::unix::fs::DirBuilderExt;
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("sss-bench-{}-{}", std::process::id(), NUMBER.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Directory(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
