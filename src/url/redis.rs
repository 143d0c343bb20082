//! The URLs of `redis:`: servers, credentials and time limits. No message shows any part of the
//! credentials or the hosts.
//!
//! ```text
//! redis://[user:password@]host[:port][/db]      rediss://… the same over TLS
//! redis+unix://[user:password@]/path            db=N is an option
//! redis+cluster://[user:password@]host[:port],…
//! redis+sentinel://[user:password@]host[:port],…/name[/db]        user and password are for the master, sentinel_user=
//!                                                                 and sentinel_password= for the Sentinels
//! ```

use std::{ffi::OsString, fmt, os::unix::ffi::OsStringExt, path::PathBuf, time::Duration};

use zeroize::Zeroizing;

use super::{
    message::{bad_value, url_error},
    value::{absolute_path, choice, duration, number, percent_decoded, split_number},
};
use crate::error::Result;

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
const DEADLINE: Duration = Duration::from_millis(500);
/// The upper limit of `deadline=`. Cleaning an index relies on it: no call is in progress for much
/// longer.
const MAX_DEADLINE: Duration = Duration::from_secs(60);
const POOL: usize = 32;
const MAX_POOL: u64 = 1024;
const MAX_WAIT: u64 = 100;
const PREFIX: &str = "sss:";
const MAX_PREFIX_LEN: usize = 64;

/// The servers that hold the sessions, and how to connect to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RedisUrl {
    pub servers: Servers,
    pub user: Option<String>,
    pub password: Option<Password>,
    pub sentinel_user: Option<String>,
    pub sentinel_password: Option<Password>,
    pub db: u32,
    /// The prefix of all keys.
    pub prefix: String,
    /// The time limit of a call, including connecting and retries.
    pub deadline: Duration,
    /// The limit of connections from this process to one server.
    pub pool: usize,
    /// The number of replicas that a write waits for.
    pub wait: u32,
    pub tls: Option<Tls>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Servers {
    One(Host),
    Unix(PathBuf),
    Cluster(Vec<Host>),
    Sentinel(Vec<Host>, String),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Host {
    pub name: String,
    pub port: u16,
}

/// The files of `rediss://`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tls {
    pub cafile: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

/// Never shown; wiped on drop.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Password(pub Zeroizing<String>);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]:{}", self.name, self.port)
        } else {
            write!(f, "{}:{}", self.name, self.port)
        }
    }
}

impl RedisUrl {
    /// `None` if the scheme is not one of Redis.
    pub(super) fn parse(scheme: &str, rest: &str) -> Result<Option<RedisUrl>> {
        let scheme = scheme.to_ascii_lowercase();
        if !matches!(&scheme[..], "redis" | "rediss" | "redis+unix" | "redis+cluster" | "redis+sentinel") {
            return Ok(None);
        }
        let rest = rest.strip_prefix("//").ok_or_else(|| url_error(format!("{scheme}: is followed by '//'")))?;
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (user_info, hosts) = authority.rsplit_once('@').map_or((None, authority), |(info, at)| (Some(info), at));
        let (user, password) = user_info.map_or(Ok((None, None)), login)?;
        let (servers, db) = match &scheme[..] {
            "redis+unix" => (Servers::Unix(socket(hosts, path)?), ""),
            "redis+cluster" if !matches!(path, "" | "/" | "/0") => {
                return Err(url_error("a cluster has no database but 0"));
            }
            "redis+cluster" => (Servers::Cluster(hosts_of(hosts, PORT)?), ""),
            "redis+sentinel" => {
                let (name, db) = path[path.len().min(1)..].split_once('/').unwrap_or((&path[path.len().min(1)..], ""));
                if name.is_empty() {
                    return Err(url_error(
                        "redis+sentinel: lacks the name of the master: 'redis+sentinel://h1,h2/name'",
                    ));
                }
                (Servers::Sentinel(hosts_of(hosts, SENTINEL_PORT)?, name.to_owned()), db)
            }
            _ => {
                let [host] = <[Host; 1]>::try_from(hosts_of(hosts, PORT)?)
                    .map_err(|_| url_error(format!("{scheme}: has one host; several are 'redis+cluster://h1,h2'")))?;
                (Servers::One(host), &path[path.len().min(1)..])
            }
        };
        let db = match db {
            "" => 0,
            db => db.parse().map_err(|_| url_error("the database is not a number: 'redis://host:port/0'"))?,
        };
        Ok(Some(RedisUrl {
            servers,
            user,
            password,
            sentinel_user: None,
            sentinel_password: None,
            db,
            prefix: PREFIX.to_owned(),
            deadline: DEADLINE,
            pool: POOL,
            wait: 0,
            tls: (scheme == "rediss").then(Tls::default),
        }))
    }

    pub(super) fn scheme(&self) -> &'static str {
        match self.servers {
            Servers::One(_) if self.tls.is_some() => "rediss",
            Servers::One(_) => "redis",
            Servers::Unix(_) => "redis+unix",
            Servers::Cluster(_) => "redis+cluster",
            Servers::Sentinel(..) => "redis+sentinel",
        }
    }

    /// Sets an option. False if `redis:` does not have it.
    pub(super) fn set(&mut self, key: &str, value: &str) -> Result<bool> {
        let up_to = |max| match number(key, value)? {
            n if n <= max => Ok(n),
            _ => Err(bad_value(key, &format!("a number from 1 to {max}"))),
        };
        match (key, &mut self.tls) {
            ("prefix", _) => self.prefix = prefix(key, value)?,
            ("deadline", _) => {
                let deadline = Duration::from_millis(duration(key, value)?.unsigned_abs());
                if deadline > MAX_DEADLINE {
                    return Err(bad_value(key, "a duration of at most 60s"));
                }
                self.deadline = deadline;
            }
            ("pool", _) => self.pool = up_to(MAX_POOL)? as usize,
            ("wait", _) => self.wait = up_to(MAX_WAIT)? as u32,
            ("db", _) if matches!(self.servers, Servers::Unix(_)) => {
                self.db = value.parse().map_err(|_| bad_value(key, "the number of a database"))?;
            }
            ("sentinel_user", _) if matches!(self.servers, Servers::Sentinel(..)) => {
                self.sentinel_user = Some(value.to_owned());
            }
            ("sentinel_password", _) if matches!(self.servers, Servers::Sentinel(..)) => {
                self.sentinel_password = Some(Password(Zeroizing::new(value.to_owned())));
            }
            ("tls", tls) if matches!(self.servers, Servers::Cluster(_) | Servers::Sentinel(..)) => {
                *tls = (choice(key, value, ["off", "on"])? == "on").then(Tls::default);
            }
            ("cafile", Some(tls)) => tls.cafile = Some(absolute_path(key, value)?),
            ("cert", Some(tls)) => tls.cert = Some(absolute_path(key, value)?),
            ("key", Some(tls)) => tls.key = Some(absolute_path(key, value)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Checks that involve more than one option.
    pub(super) fn check(&self) -> Result<()> {
        let no_password = self.sentinel_password.as_ref().is_none_or(|password| password.0.is_empty());
        if no_password && (self.sentinel_user.is_some() || self.sentinel_password.is_some()) {
            return Err(url_error("'sentinel_password' is missing or empty"));
        }
        match &self.tls {
            Some(tls) if tls.cert.is_some() != tls.key.is_some() => {
                Err(url_error("'cert' and 'key' are given together or not at all"))
            }
            _ => Ok(()),
        }
    }
}

/// `user:password` or `:password`, percent-encoded.
fn login(user_info: &str) -> Result<(Option<String>, Option<Password>)> {
    let decoded = |text: &str| {
        percent_decoded(text).and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(|| {
            url_error("the user or the password is not valid percent-encoded UTF-8: '%' is followed by two hex digits")
        })
    };
    let (user, password) = match user_info.split_once(':') {
        Some((user, password)) => (user, Some(Password(Zeroizing::new(decoded(password)?)))),
        None => return Err(url_error("a user without a password: write 'user:password@' or ':password@'")),
    };
    Ok((Some(decoded(user)?).filter(|user| !user.is_empty()), password))
}

fn hosts_of(text: &str, port: u16) -> Result<Vec<Host>> {
    text.split(',').map(|text| host(text, port)).collect()
}

/// `name`, `name:port`, `[IPv6]` or `[IPv6]:port`.
fn host(text: &str, port: u16) -> Result<Host> {
    let (name, rest) = match text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        Some((name, rest)) => (name, rest),
        None => text.find(':').map_or((text, ""), |at| text.split_at(at)),
    };
    // No message has the text: after an unescaped '/' or '@' in a password, the rest of the
    // password is here.
    const ENCODED: &str = "(is '/' or '@' in a password written as %2F, %40?)";
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    if name.is_empty() || !name.chars().all(plain) || !(rest.is_empty() || rest.starts_with(':')) {
        return Err(url_error(format!("a host is missing or is not 'name', 'name:port' or '[IPv6]:port' {ENCODED}")));
    }
    let port = match rest.strip_prefix(':').map(split_number) {
        None => port,
        Some((Some(port @ 1..=65535), "")) => port as u16,
        Some(_) => return Err(url_error(format!("the port of a host is not a number from 1 to 65535 {ENCODED}"))),
    };
    Ok(Host { name: name.to_owned(), port })
}

fn socket(host: &str, path: &str) -> Result<PathBuf> {
    if !host.is_empty() {
        return Err(url_error("redis+unix: has no host: write 'redis+unix:///path'"));
    }
    match percent_decoded(path) {
        Some(bytes) if bytes.len() > 1 && !bytes.contains(&0) => Ok(PathBuf::from(OsString::from_vec(bytes))),
        _ => Err(url_error("redis+unix: lacks the path of the socket: 'redis+unix:///path'")),
    }
}

/// Characters without a meaning in a pattern of SCAN or in the hash tag of a Cluster.
fn prefix(key: &str, value: &str) -> Result<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '/');
    if value.len() <= MAX_PREFIX_LEN && value.chars().all(plain) {
        Ok(value.to_owned())
    } else {
        Err(bad_value(key, "up to 64 letters, digits, '.', '_', '-', ':' and '/'"))
    }
}
