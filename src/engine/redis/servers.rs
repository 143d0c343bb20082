//! Which server a key is on, and calls to it: a call ends in time, and is sent again only where that does no harm.

use std::{
    collections::HashMap,
    fmt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, RwLock};
use rustls::ClientConfig;

use super::{
    cluster::{self, Map},
    connection::{self, Connection},
    failure::{self, Detour, Failure, Fate},
    pool::Pool,
    resp::{self, Reply},
    script::Script,
    stream, tls,
};
use crate::{
    error::{Error, ErrorKind, Result},
    url::{self, Host, Password, RedisUrl},
};

/// How often a call is sent at the most, if no server sends it on to another one.
const ATTEMPTS: u32 = 2;
/// How often a call is sent on.
const DETOURS: u32 = 40;
/// Between two attempts of which the first was asked to wait.
const PAUSE: Duration = Duration::from_millis(10);
/// Nobody is asked more often who has what.
const TURN_MS: u64 = 100;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Address {
    Tcp(Host),
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(host) => host.fmt(f),
            Address::Unix(path) => path.display().fmt(f),
        }
    }
}

/// As whom a connection is made, and to which database.
pub(super) struct Login {
    pub user: Option<String>,
    pub password: Option<Password>,
    pub db: u32,
    pub tls: Option<Arc<ClientConfig>>,
    /// False for a Sentinel, which does not tell the time.
    pub keeps_sessions: bool,
}

/// What a call is to its fate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// May be sent again when its answer was lost, and waits for no replica.
    Read,
    /// The same, but it writes: doing it twice is as doing it once.
    Write,
    /// Writes, and must not be done twice.
    Once,
}

pub(super) struct Servers {
    login: Login,
    wait: u32,
    size: usize,
    pools: Mutex<HashMap<Address, Arc<Pool>>>,
    layout: Layout,
}

enum Layout {
    One(Arc<Pool>),
    Cluster {
        seeds: Vec<Address>,
        map: Map,
        turn: Turn,
    },
    /// The one that the Sentinels call the master of this name.
    Sentinel {
        seeds: Vec<Address>,
        name: String,
        login: Login,
        /// Or why it is not known.
        master: RwLock<Result<Address>>,
        turn: Turn,
    },
}

/// Lets one call in a while ask who has what.
struct Turn {
    began: Instant,
    next_ms: AtomicU64,
}

impl Turn {
    fn new() -> Turn {
        Turn { began: Instant::now(), next_ms: AtomicU64::new(0) }
    }

    fn comes(&self) -> bool {
        let (now_ms, next_ms) = (self.began.elapsed().as_millis() as u64, self.next_ms.load(Ordering::Relaxed));
        let taken = |next| self.next_ms.compare_exchange(next_ms, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        now_ms >= next_ms && taken(now_ms + TURN_MS)
    }
}

impl Servers {
    pub(super) fn new(url: &RedisUrl) -> Result<Servers> {
        let one = |address| Layout::One(Arc::new(Pool::new(address, url.pool)));
        let addresses = |hosts: &[Host]| hosts.iter().cloned().map(Address::Tcp).collect();
        let tls = url.tls.as_ref().map(tls::config).transpose()?;
        let layout = match &url.servers {
            url::Servers::Unix(path) => one(Address::Unix(path.clone())),
            url::Servers::One(host) => one(Address::Tcp(host.clone())),
            url::Servers::Cluster(hosts) => {
                Layout::Cluster { seeds: addresses(hosts), map: Map::new(), turn: Turn::new() }
            }
            url::Servers::Sentinel(hosts, name) => {
                let (user, password) = (url.sentinel_user.clone(), url.sentinel_password.clone());
                Layout::Sentinel {
                    seeds: addresses(hosts),
                    name: name.clone(),
                    login: Login { user, password, db: 0, tls: tls.clone(), keeps_sessions: false },
                    master: RwLock::new(Err(Error::fixed(ErrorKind::Unavailable, "no Sentinel has been asked yet"))),
                    turn: Turn::new(),
                }
            }
        };
        let login =
            Login { user: url.user.clone(), password: url.password.clone(), db: url.db, tls, keeps_sessions: true };
        Ok(Servers { login, wait: url.wait, size: url.pool, pools: Mutex::default(), layout })
    }

    /// Whether two keys may be on different servers.
    pub(super) fn are_many(&self) -> bool {
        matches!(self.layout, Layout::Cluster { .. })
    }

    /// About what the clock of the server says that has the key.
    pub(super) fn now_ms(&self, key: &[u8], until: Instant) -> Result<i64> {
        let pool = self.pool(key, until)?;
        if let Some(now_ms) = pool.now_ms() {
            return Ok(now_ms);
        }
        // Whoever connects is told.
        self.run(key, Kind::Read, until, |_| Ok(()))?;
        Ok(self.pool(key, until)?.now_ms().unwrap_or_default())
    }

    /// Runs a script where its keys are, and returns what it returns; the first of it is the server's time.
    pub(super) fn script(
        &self,
        script: &Script,
        kind: Kind,
        keys: &[&[u8]],
        args: &[&[u8]],
        until: Instant,
    ) -> Result<Vec<Reply>> {
        let count = keys.len().to_string();
        let tail = || [count.as_bytes()].into_iter().chain(keys.iter().copied()).chain(args.iter().copied());
        let known: Vec<&[u8]> = [&b"EVALSHA"[..], script.digest().as_bytes()].into_iter().chain(tail()).collect();
        self.run(keys[0], kind, until, |connection| {
            let mut reply = self.written(connection, kind, &known, until)?;
            if reply.error().is_some_and(|answer| answer.starts_with("NOSCRIPT")) {
                let whole: Vec<&[u8]> = [&b"EVAL"[..], script.source.as_bytes()].into_iter().chain(tail()).collect();
                reply = self.written(connection, kind, &whole, until)?;
            }
            match reply {
                Reply::Array(items) => {
                    if let Some(server_ms) = items.first().and_then(Reply::int) {
                        connection.tell(server_ms);
                    }
                    Ok(items)
                }
                Reply::Error(answer) => Err(failure::refused(&answer, connection.server())),
                _ => Err(failure::nonsense(connection.server())),
            }
        })
    }

    /// Runs commands that may be sent again on the server that has the key, in one trip, and returns its answer to each.
    pub(super) fn pipeline(&self, key: &[u8], commands: &[&[&[u8]]], until: Instant) -> Result<Vec<Reply>> {
        self.run(key, Kind::Read, until, |connection| connection.call(commands, until))
    }

    /// Runs one command on the server that has the key.
    pub(super) fn command(&self, key: &[u8], kind: Kind, parts: &[&[u8]], until: Instant) -> Result<Reply> {
        self.run(key, kind, until, |connection| match self.written(connection, kind, parts, until)? {
            Reply::Error(answer) => Err(failure::refused(&answer, connection.server())),
            reply => Ok(reply),
        })
    }

    /// Calls `visit` with the names of all keys that match the pattern and the replies to what is asked of each, for as long
    /// as it says so. What comes and goes meanwhile may be met, and what stays may be met twice.
    pub(super) fn walk(
        &self,
        pattern: &[u8],
        asks: &[&[&[u8]]],
        until: Instant,
        mut visit: impl FnMut(&[u8], &[Reply]) -> Result<bool>,
    ) -> Result<()> {
        for pool in self.all(until)? {
            let mut cursor = b"0".to_vec();
            loop {
                let step = pool.with(&self.login, until, |connection| {
                    let (next, names) = scanned(connection, &cursor, pattern, until)?;
                    let commands: Vec<Vec<&[u8]>> = names
                        .iter()
                        .flat_map(|name| asks.iter().map(|ask| [&ask[..1], &[name], &ask[1..]].concat()))
                        .collect();
                    let commands: Vec<&[&[u8]]> = commands.iter().map(Vec::as_slice).collect();
                    let replies = connection.call(&commands, until)?;
                    // What a Cluster is just moving is met where it arrives, or not at all.
                    let is_moving = |answer: &&str| answer.starts_with("ASK") || answer.starts_with("MOVED");
                    match replies.iter().filter_map(Reply::error).find(|answer| !is_moving(answer)) {
                        Some(answer) => Err(failure::refused(answer, connection.server())),
                        None => Ok((next, names, replies)),
                    }
                });
                let (next, names, replies) = step.map_err(|failure| failure.error)?;
                for (name, replies) in names.iter().zip(replies.chunks(asks.len().max(1))) {
                    if !visit(name, replies)? {
                        return Ok(());
                    }
                }
                if next == b"0" {
                    break;
                }
                cursor = next;
            }
        }
        Ok(())
    }

    /// One command, and where it writes, how many replicas have it.
    fn written(
        &self,
        connection: &mut Connection,
        kind: Kind,
        parts: &[&[u8]],
        until: Instant,
    ) -> Result<Reply, Failure> {
        let reply = one(connection.call(&[parts], until)?);
        if kind == Kind::Read || self.wait == 0 || reply.error().is_some() {
            return Ok(reply);
        }
        // It has happened: what comes now is not to have it done again.
        let unknown = |failure: Failure| Failure { fate: Fate::Unknown, ..failure };
        let left = stream::left(until).map_err(|error| failure::io(Fate::Unknown, &error, connection.server()))?;
        let (wait, ms) = (resp::text(self.wait), connection::wait_ms(left));
        let answer = one(connection.call(&[&[b"WAIT", &wait, ms.as_bytes()]], until).map_err(unknown)?);
        match (answer.int(), answer.error()) {
            (Some(replicas), _) if replicas >= i64::from(self.wait) => Ok(reply),
            (Some(replicas), _) => {
                let server = connection.server();
                let message =
                    format!("written, but only {replicas} of {} replicas (wait=) of {server} have it", self.wait);
                Err(Failure::new(Fate::Refused, Error::new(ErrorKind::Unavailable, message)))
            }
            (None, Some(answer)) => Err(failure::refused(answer, connection.server())),
            (None, None) => Err(failure::nonsense(connection.server())),
        }
    }

    fn run<T>(
        &self,
        key: &[u8],
        kind: Kind,
        until: Instant,
        mut call: impl FnMut(&mut Connection) -> Result<T, Failure>,
    ) -> Result<T> {
        let (mut attempts, mut detours, mut asked) = (0, 0, None);
        loop {
            let is_asked = asked.is_some();
            let pool = match asked.take() {
                Some(address) => self.pool_at(&address),
                None => self.pool(key, until)?,
            };
            let done = pool.with(&self.login, until, |connection| {
                if is_asked {
                    connection.call(&[&[b"ASKING"]], until)?;
                }
                call(connection)
            });
            let failure = match done {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
            // Whoever is to wait does so as long as there is time.
            detours += u32::from(!matches!(failure.detour, Some(Detour::Later)));
            if detours < DETOURS && stream::left(until).is_ok_and(|left| left > PAUSE) {
                match self.detour(key, &failure, until) {
                    Some(Way::Again) => continue,
                    Some(Way::Asking(address)) => {
                        asked = Some(address);
                        continue;
                    }
                    None => {}
                }
            }
            let again = match failure.fate {
                Fate::NotSent => true,
                Fate::Unknown => kind != Kind::Once && failure.error.kind() != ErrorKind::Timeout,
                Fate::NotConnected | Fate::Refused => false,
            };
            attempts += 1;
            if !again || attempts == ATTEMPTS {
                return Err(failure.error);
            }
        }
    }

    /// Where a call goes on that was not done where it was sent.
    fn detour(&self, key: &[u8], failure: &Failure, until: Instant) -> Option<Way> {
        match (&self.layout, &failure.detour) {
            (Layout::One(_), _) => None,
            (Layout::Cluster { map, .. }, Some(Detour::Moved(slot, address))) => {
                map.learn(*slot, address.clone());
                Some(Way::Again)
            }
            (Layout::Cluster { .. }, Some(Detour::Ask(address))) => Some(Way::Asking(address.clone())),
            (Layout::Cluster { .. }, Some(Detour::Later)) => {
                thread::sleep(PAUSE);
                Some(Way::Again)
            }
            // Another one may have taken its place.
            (Layout::Cluster { map, .. }, None) if failure.fate == Fate::NotConnected => {
                let before = map.address(cluster::slot(key));
                self.learn_map(until);
                (map.address(cluster::slot(key)) != before).then_some(Way::Again)
            }
            (Layout::Sentinel { master, .. }, detour)
                if failure.fate != Fate::Refused || matches!(detour, Some(Detour::Elsewhere)) =>
            {
                let before = master.read().clone();
                self.learn_master(until);
                let is_done = !matches!(failure.fate, Fate::NotConnected | Fate::Refused);
                (!is_done && *master.read() != before).then_some(Way::Again)
            }
            _ => None,
        }
    }

    /// The server that has a key.
    fn pool(&self, key: &[u8], until: Instant) -> Result<Arc<Pool>> {
        match &self.layout {
            Layout::One(pool) => Ok(Arc::clone(pool)),
            Layout::Cluster { map, seeds, .. } => {
                let slot = cluster::slot(key);
                let known = map.address(slot).or_else(|| {
                    self.learn_map(until);
                    map.address(slot)
                });
                // Whoever is asked may know.
                Ok(self.pool_at(known.as_ref().unwrap_or(&seeds[usize::from(slot) % seeds.len()])))
            }
            Layout::Sentinel { master, .. } => {
                let mut known = master.read().clone();
                if known.is_err() {
                    self.learn_master(until);
                    known = master.read().clone();
                }
                known.map(|address| self.pool_at(&address))
            }
        }
    }

    /// All servers that have keys.
    fn all(&self, until: Instant) -> Result<Vec<Arc<Pool>>> {
        match &self.layout {
            Layout::One(_) | Layout::Sentinel { .. } => Ok(vec![self.pool(b"", until)?]),
            Layout::Cluster { map, .. } => {
                self.learn_map(until);
                let addresses = map.addresses();
                match addresses.is_empty() {
                    true => Err(Error::fixed(ErrorKind::Unavailable, "no server of the cluster can be reached")),
                    false => Ok(addresses.iter().map(|address| self.pool_at(address)).collect()),
                }
            }
        }
    }

    fn pool_at(&self, address: &Address) -> Arc<Pool> {
        let mut pools = self.pools.lock();
        if let Some(pool) = pools.get(address) {
            return Arc::clone(pool);
        }
        let pool = Arc::new(Pool::new(address.clone(), self.size));
        pools.insert(address.clone(), Arc::clone(&pool));
        pool
    }

    /// Asks the servers of a Cluster, one after the other, until one knows which of them has what; unless that was done just now.
    fn learn_map(&self, until: Instant) {
        let Layout::Cluster { seeds, map, turn } = &self.layout else { return };
        if !turn.comes() {
            return;
        }
        for address in map.addresses().iter().chain(seeds) {
            // No single one may take all the time.
            let soon = Instant::now() + until.saturating_duration_since(Instant::now()) / 3;
            let answer = self
                .pool_at(address)
                .with(&self.login, soon, |connection| Ok(one(connection.call(&[&[b"CLUSTER", b"SLOTS"]], soon)?)));
            if answer.is_ok_and(|answer| map.learn_all(&answer, address)) {
                return;
            }
        }
    }

    /// Asks the Sentinels, one after the other, until one knows the master; unless that was done just now.
    fn learn_master(&self, until: Instant) {
        let Layout::Sentinel { seeds, name, login, master, turn } = &self.layout else { return };
        if !turn.comes() {
            return;
        }
        let mut failures = Vec::new();
        for sentinel in seeds {
            let soon = Instant::now() + until.saturating_duration_since(Instant::now()) / 3;
            match self.pool_at(sentinel).with(login, soon, |connection| master_at(connection, name, soon)) {
                Ok(address) => {
                    *master.write() = Ok(address);
                    return;
                }
                Err(failure) => failures.push(failure.error.to_string()),
            }
        }
        let how = if login.password.is_some() { "with" } else { "without" };
        let message =
            format!("no Sentinel, asked {how} sentinel_password=, knows the master '{name}': {}", failures.join("; "));
        // Who was the master may still be it.
        let mut master = master.write();
        if master.is_err() {
            *master = Err(Error::new(ErrorKind::Unavailable, message));
        }
    }
}

/// What a Sentinel says who the master of this name is.
fn master_at(connection: &mut Connection, name: &str, until: Instant) -> Result<Address, Failure> {
    let reply = one(connection.call(&[&[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name.as_bytes()]], until)?);
    let sentinel = connection.server();
    match (&reply, reply.array()) {
        (Reply::Error(answer), _) => Err(failure::refused(answer, sentinel)),
        (Reply::Nil, _) => {
            let message = format!("the server {sentinel} knows no master '{name}'");
            Err(Failure::new(Fate::Refused, Error::new(ErrorKind::Unavailable, message)))
        }
        (_, Some([host, port])) => {
            cluster::address(host.bytes(), port_in(port), sentinel).ok_or_else(|| failure::nonsense(sentinel))
        }
        _ => Err(failure::nonsense(sentinel)),
    }
}

fn port_in(text: &Reply) -> Option<i64> {
    std::str::from_utf8(text.bytes()?).ok()?.parse().ok()
}

/// Where a call goes on.
enum Way {
    Again,
    Asking(Address),
}

fn one(mut replies: Vec<Reply>) -> Reply {
    replies.pop().unwrap_or(Reply::Nil)
}

/// One step of SCAN: where the next one goes on, and the names.
fn scanned(
    connection: &mut Connection,
    cursor: &[u8],
    pattern: &[u8],
    until: Instant,
) -> Result<(Vec<u8>, Vec<Vec<u8>>), Failure> {
    let reply = one(connection.call(&[&[b"SCAN", cursor, b"MATCH", pattern, b"COUNT", b"512"]], until)?);
    if let Some(answer) = reply.error() {
        return Err(failure::refused(answer, connection.server()));
    }
    let parts = match reply.array() {
        Some([next, names]) => next.bytes().zip(names.array()),
        _ => None,
    };
    let (next, names) = parts.ok_or_else(|| failure::nonsense(connection.server()))?;
    Ok((next.to_vec(), names.iter().filter_map(Reply::bytes).map(<[u8]>::to_vec).collect()))
}
