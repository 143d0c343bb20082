//! Real Redis servers for the tests: started on loopback with a free port and a socket of their
//! own, in a directory that goes with them. A server ends when its `Server` is dropped, and if this
//! process is killed: a shell waits for the end of its pipe. SSS_TEST_REDIS_SERVER in the
//! environment is the program to start instead of redis-server, such as valkey-server.

use std::{
    env, fs,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// The user whom the tests' stores are, and what docs/redis.md permits it.
pub const USER: &str = "sss";
pub const PASSWORD: &str = "hunter2/@";
/// The file by which shifted_clock.c makes a server's clock wrong.
const CLOCK_ERROR: &str = "clock_error";
const PATIENCE: Duration = Duration::from_secs(20);

/// Ends the server when a line arrives, or when the pipe is closed because this process has ended.
const WATCH: &str =
    r#"exec 3<&0; "$@" </dev/null & server=$!; read -r _ <&3; kill -9 $server 2>/dev/null; wait $server 2>/dev/null"#;

pub struct Server {
    child: Child,
    pub port: u16,
    directory: PathBuf,
    is_owner: bool,
}

/// What a server is started as.
enum Role<'a> {
    Server(&'a str),
    Sentinel(&'a str),
}

impl Server {
    /// A server with these lines in its configuration besides the usual ones.
    pub fn start(config: &str) -> Server {
        Server::with_port(free_port(), &directory(), true, Role::Server(config))
    }

    /// The same with a wall clock that `set_clock_error` changes.
    pub fn with_shifted_clock(config: &str) -> Server {
        let directory = directory();
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(CLOCK_ERROR), 0_i64.to_le_bytes()).unwrap();
        Server::with_port(free_port(), &directory, true, Role::Server(config))
    }

    pub fn set_clock_error(&self, ms: i64) {
        // In place: the server has mapped the file.
        let mut file = fs::OpenOptions::new().write(true).open(self.directory.join(CLOCK_ERROR)).unwrap();
        file.write_all(&ms.to_le_bytes()).unwrap();
    }

    pub fn sentinel(config: &str) -> Server {
        Server::with_port(free_port(), &directory(), true, Role::Sentinel(config))
    }

    fn with_port(port: u16, directory: &Path, is_owner: bool, role: Role) -> Server {
        let program = env::var("SSS_TEST_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        fs::create_dir_all(directory).unwrap();
        let file = directory.join("redis.conf");
        let place = directory.to_str().unwrap();
        let (config, flag) = match role {
            Role::Server(config) => {
                (format!("save \"\"\nuser {USER} on >{PASSWORD} {}\n{config}", permissions()), "--daemonize no")
            }
            Role::Sentinel(config) => (config.to_owned(), "--sentinel"),
        };
        let text = format!(
            "bind 127.0.0.1\nport {port}\nunixsocket {place}/socket\ndir {place}\nlogfile {place}/log\n{config}\n"
        );
        fs::write(&file, text).unwrap();
        let clock_error = directory.join(CLOCK_ERROR);
        let mut environment = Vec::new();
        if clock_error.exists() {
            environment.push(format!("SSS_CLOCK_FILE={}", clock_error.to_str().unwrap()));
            environment.push(format!("LD_PRELOAD={}", shifted_clock().to_str().unwrap()));
        }
        let child = Command::new("sh")
            .args(["-c", WATCH, "sh", "env"])
            .args(&environment)
            .args([&program, file.to_str().unwrap()])
            .args(flag.split(' '))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let server = Server { child, port, directory: directory.to_owned(), is_owner };
        let begun = Instant::now();
        // With a password of its own it answers that it wants one.
        while !server.ask(&["PING"]).is_some_and(|answer| answer.starts_with("+PONG") || answer.starts_with("-NOAUTH"))
        {
            assert!(
                begun.elapsed() < PATIENCE,
                "{program} does not begin (tests/setup.sh installs it): see {place}/log"
            );
            thread::sleep(Duration::from_millis(5));
        }
        server
    }

    /// Begins again after it was killed, on the same port and with the same directory.
    pub fn revive(&mut self, config: &str) {
        let is_owner = std::mem::replace(&mut self.is_owner, false);
        let revived = Server::with_port(self.port, &self.directory, is_owner, Role::Server(config));
        *self = revived;
    }

    pub fn kill(&self) {
        let status = Command::new("kill").args(["-9", &self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.join("socket")
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The URL over TCP, as the user with few permissions.
    pub fn url(&self, options: &str) -> String {
        format!("redis://{USER}:hunter2%2F%40@127.0.0.1:{}?{options}", self.port)
    }

    pub fn unix_url(&self, options: &str) -> String {
        format!("redis+unix://{USER}:hunter2%2F%40@{}?{options}", self.socket().to_str().unwrap())
    }

    /// The server's reply to the user that may do everything, verbatim. `None`: it cannot be
    /// reached.
    pub fn ask(&self, command: &[&str]) -> Option<String> {
        let mut stream = UnixStream::connect(self.socket()).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let mut text = format!("*{}\r\n", command.len());
        for part in command {
            text.push_str(&format!("${}\r\n{part}\r\n", part.len()));
        }
        stream.write_all(text.as_bytes()).ok()?;
        // It answers, and then closes as well.
        stream.shutdown(Shutdown::Write).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        Some(String::from_utf8_lossy(&answer).into_owned()).filter(|answer| !answer.is_empty())
    }

    pub fn pid(&self) -> i32 {
        let info = self.ask(&["INFO", "server"]).unwrap();
        info.lines().find_map(|line| line.strip_prefix("process_id:")).unwrap().trim().parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The end of the pipe is the word.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
        if self.is_owner {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

/// The one server that the tests of this process have in common. It ends with the process.
pub fn shared() -> &'static Server {
    static SHARED: OnceLock<Server> = OnceLock::new();
    SHARED.get_or_init(|| Server::start(""))
}

/// The permissions that docs/redis.md tells an operator to give.
pub fn permissions() -> String {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/redis.md")).unwrap();
    let line =
        page.lines().find(|line| line.trim_start().starts_with("~sss:*")).expect("the permissions in docs/redis.md");
    // The tests' stores have prefixes of their own.
    line.trim().replace("~sss:*", "~*")
}

/// A port that stays free until a server takes it: below those that the kernel gives to
/// connections, and no port twice in a row. Each process begins at another one.
pub fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 22_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(7919);
    (0..COUNT)
        .map(|_| FIRST + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT)
        .filter_map(|port| u16::try_from(port).ok())
        .find(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok())
        .expect("a free port")
}

pub fn connect(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).unwrap()
}

/// shifted_clock.c as a library.
fn shifted_clock() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/shifted_clock.c");
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("shifted_clock-{}.so", std::process::id()));
        let built = Command::new("cc")
            .args(["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"])
            .args([&library, &source])
            .status()
            .unwrap();
        assert!(built.success(), "shifted_clock.c");
        library
    })
}

fn directory() -> PathBuf {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let name = format!("sss-redis-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    std::env::temp_dir().join(name)
}
