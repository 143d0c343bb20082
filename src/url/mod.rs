//! The store URL: one string selects the engine and sets every option. Parsing is strict: anything
//! that is not understood is an error. `message` decides what an error repeats of the URL, `value`
//! parses the values of options.

mod message;
mod redis;
mod value;

use std::{ffi::OsString, os::unix::ffi::OsStringExt, path::PathBuf};

pub(crate) use self::redis::{Host, Password, RedisUrl, Servers, Tls};

use crate::{error::Result, session::policy::PolicyOptions};
use message::{OPTIONS, no_value, unknown_option, unknown_scheme, url_error};
use value::{absolute_path, choice, decoded, duration, number, percent_decoded, size};

/// A parsed URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    pub engine: EngineUrl,
    pub policy: PolicyOptions,
    /// `clock=manual` is `Some(true)`.
    pub manual_clock: Option<bool>,
    /// `seal=on` is `Some(true)`.
    pub seal: Option<bool>,
    /// The file with the server's secrets.
    pub secret_file: Option<PathBuf>,
    /// `durability=power` is `true`: what was acknowledged survives a power cut.
    pub survives_power_cut: bool,
}

/// Which engine, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EngineUrl {
    /// `memory:NAME`; `None` is a store of its own.
    Memory(Option<String>),
    /// `lmdb:/dir`.
    Lmdb(PathBuf),
    /// `redis://host` and the other URLs of Redis.
    Redis(Box<RedisUrl>),
}

impl EngineUrl {
    fn parse(scheme: &str, rest: &str) -> Result<EngineUrl> {
        if scheme.eq_ignore_ascii_case("memory") {
            return Ok(EngineUrl::Memory(store_name(rest)?));
        }
        if scheme.eq_ignore_ascii_case("lmdb") {
            return Ok(EngineUrl::Lmdb(directory(rest)?));
        }
        if let Some(url) = RedisUrl::parse(scheme, rest)? {
            return Ok(EngineUrl::Redis(Box::new(url)));
        }
        Err(unknown_scheme(scheme, rest))
    }

    fn scheme(&self) -> &'static str {
        match self {
            EngineUrl::Memory(_) => "memory",
            EngineUrl::Lmdb(_) => "lmdb",
            EngineUrl::Redis(url) => url.scheme(),
        }
    }
}

impl Url {
    pub(crate) fn parse(text: &str) -> Result<Url> {
        if text.is_empty() {
            return Err(url_error("the URL is empty; the in-process store is 'memory:'"));
        }
        if text.ends_with(['\n', '\r']) {
            return Err(url_error("the URL ends with a line end, which is not part of it"));
        }
        if text.contains(char::is_control) {
            return Err(url_error("the URL contains a control character: percent-encode it"));
        }
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(url_error("the URL has no scheme; the in-process store is 'memory:'"));
        };
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query).filter(|query| !query.is_empty())),
            None => (rest, None),
        };
        let mut url = Url {
            engine: EngineUrl::parse(scheme, path)?,
            policy: PolicyOptions::default(),
            manual_clock: None,
            seal: None,
            secret_file: None,
            survives_power_cut: false,
        };
        let mut seen: Vec<&str> = Vec::new();
        // Text that is parsed as an option may be the rest of a password. Then the error does not
        // name it.
        let is_before_host =
            matches!(url.engine, EngineUrl::Redis(_)) && query.is_some_and(|query| query.contains('@'));
        for option in query.into_iter().flat_map(|query| query.split('&')) {
            let is_behind_password = seen.contains(&"sentinel_password");
            url.set_once(option, &mut seen).map_err(|error| {
                if is_before_host {
                    url_error("an option is wrong, and there is an '@' (is '?' in a password written as %3F?)")
                } else if is_behind_password {
                    url_error("an option behind 'sentinel_password' is wrong (is '&' in a password written as %26?)")
                } else {
                    error
                }
            })?;
        }
        if url.secret_file.is_some() && !url.seals() {
            return Err(url_error("'secret_file' has no effect with seal=off"));
        }
        if let EngineUrl::Redis(redis) = &url.engine {
            redis.check()?;
        }
        Ok(url)
    }

    /// Whether payloads are sealed: by default where others could read them.
    pub(crate) fn seals(&self) -> bool {
        self.seal.unwrap_or(!matches!(self.engine, EngineUrl::Memory(_)))
    }

    fn set_once<'a>(&mut self, option: &'a str, seen: &mut Vec<&'a str>) -> Result<()> {
        let (key, value) = option.split_once('=').ok_or_else(|| no_value(option))?;
        if !OPTIONS.contains(&key) {
            return Err(unknown_option(key, self.engine.scheme()));
        }
        if seen.contains(&key) {
            return Err(url_error(format!("the option '{key}' is given twice")));
        }
        seen.push(key);
        self.set(key, &decoded(key, value)?)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let in_lmdb = matches!(self.engine, EngineUrl::Lmdb(_));
        let in_redis = matches!(self.engine, EngineUrl::Redis(_));
        match key {
            "timeout" => self.policy.timeout = Some(duration(key, value)?),
            "idle_timeout" => self.policy.idle_timeout = Some(duration(key, value)?),
            "max_payload" => self.policy.max_payload = Some(size(key, value)?),
            "max_bytes" if in_lmdb && value == "infinity" => {
                return Err(url_error("'max_bytes' of lmdb: cannot be infinity, because its file is reserved in full"));
            }
            "max_bytes" | "max_sessions" if in_redis => {
                let scheme = self.engine.scheme();
                return Err(url_error(format!(
                    "the option '{key}' is not one of {scheme}: use the servers' own limit, 'maxmemory'"
                )));
            }
            "max_bytes" => self.policy.max_bytes = Some(size(key, value)?),
            "max_sessions" => self.policy.max_sessions = Some(number(key, value)?),
            "max_per_principal" => self.policy.max_per_principal = Some(number(key, value)?),
            "clock" => self.manual_clock = Some(choice(key, value, ["system", "manual"])? == "manual"),
            "seal" => self.seal = Some(choice(key, value, ["off", "on"])? == "on"),
            "secret_file" if in_lmdb || in_redis => self.secret_file = Some(absolute_path(key, value)?),
            "durability" if in_lmdb => {
                self.survives_power_cut = choice(key, value, ["process", "power"])? == "power";
            }
            _ => {
                if let EngineUrl::Redis(url) = &mut self.engine
                    && url.set(key, value)?
                {
                    return Ok(());
                }
                let scheme = self.engine.scheme();
                return Err(url_error(format!("the option '{key}' is not one of {scheme}:")));
            }
        }
        Ok(())
    }
}

fn store_name(path: &str) -> Result<Option<String>> {
    if path.is_empty() {
        return Ok(None);
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if !path.chars().all(allowed) {
        return Err(url_error("the name of a memory: store has only letters, digits, '.', '_' and '-'"));
    }
    Ok(Some(path.to_owned()))
}

/// The directory of an `lmdb:` store: `/dir` or `///dir`.
fn directory(path: &str) -> Result<PathBuf> {
    let path = match path.strip_prefix("//") {
        Some(local) if local.starts_with('/') => local,
        Some(_) => return Err(url_error("lmdb: has no host: write 'lmdb:/dir'")),
        None => path,
    };
    let bytes =
        percent_decoded(path).ok_or_else(|| url_error("the path has a '%' that is not followed by two hex digits"))?;
    if !bytes.starts_with(b"/") {
        // A server may change its working directory, and with it the meaning of a relative path.
        return Err(url_error("the path of an lmdb: store begins with '/'"));
    }
    if bytes.contains(&0) {
        return Err(url_error("the path of an lmdb: store contains a NUL byte"));
    }
    Ok(PathBuf::from(OsString::from_vec(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{error::ErrorKind, session::policy::FOREVER};

    fn refused(url: &str) -> String {
        let error = Url::parse(url).expect_err(url);
        assert_eq!(error.kind(), ErrorKind::Url, "{url}");
        error.to_string()
    }

    #[test]
    fn bare_durations_are_seconds() {
        for (text, ms) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("5m", 300_000),
            ("3h", 10_800_000),
            ("7d", 604_800_000),
            ("600", 600_000),
            ("infinity", FOREVER),
        ] {
            assert_eq!(Url::parse(&format!("memory:?timeout={text}")).unwrap().policy.timeout, Some(ms));
        }
    }

    #[test]
    fn bad_values_are_named_by_option() {
        for bad in
            ["", "0", "-1", "1.5s", "10x", "abc", "ms", "99999999999999999999", "9223372036854775807", "%zz", "%f"]
        {
            assert!(refused(&format!("memory:?idle_timeout={bad}")).contains("idle_timeout"), "{bad}");
            assert!(refused(&format!("memory:?max_sessions={bad}x")).contains("max_sessions"), "{bad}");
        }
        assert!(refused("memory:?max_bytes=99999999999GiB").contains("max_bytes"));
        assert!(refused("memory:?clock=fast").contains("system or manual"));
    }

    #[test]
    fn sizes_have_binary_units() {
        let url = Url::parse("memory:?max_bytes=2GiB&max_payload=64KiB&max_sessions=infinity").unwrap();
        assert_eq!(url.policy.max_bytes, Some(2 << 30));
        assert_eq!(url.policy.max_payload, Some(65_536));
        assert_eq!(url.policy.max_sessions, Some(u64::MAX));
    }

    #[test]
    fn errors_name_the_wrong_part() {
        for (url, named) in [
            ("", "empty"),
            ("memory", "no scheme"),
            ("momory:", "'momory'"),
            ("redis//h:6379", "'redis' is not followed by ':'"),
            ("memory:?timout=3", "'timout'"),
            ("redis://h?poll=3", "'poll'"),
            ("redis://u:p@h?poll=3", "'poll'"),
            ("memory:?timeout=3&timeout=3", "'timeout' is given twice"),
            ("memory:?timeout", "'timeout' has no value"),
            ("memory:?timeout:3h", "'timeout' is not followed by '='"),
            ("memory:?max_per_principal=x", "'max_per_principal'"),
            ("memory:?timeout=3&", "'name=value'"),
            ("memory:a/b", "letters, digits"),
            ("redis://u:6379?hunter2@h", "%3F"),
        ] {
            assert!(refused(url).contains(named), "{url}: {}", refused(url));
        }
    }

    #[test]
    fn line_ends_and_controls_are_named() {
        for url in ["lmdb:/d\n", "memory:\r\n", "redis://h?pool=3\n", "\n"] {
            assert!(refused(url).contains("ends with a line end"), "{url:?}");
        }
        for url in ["memory:?a\nb=1", "lmdb:/d\t", "redis://\u{1b}[2J"] {
            assert!(refused(url).contains("control character"), "{url:?}");
        }
        for c in ['\u{2028}', '\u{2029}', '\u{202e}', '\u{200b}', '\u{feff}', '\u{a0}'] {
            for url in
                ["{}:", "memory{}:", "memory:{}", "memory:?{}=1", "memory:?timeout={}", "memory:?timeout{}", "lmdb:{}"]
            {
                let url = url.replace("{}", &c.to_string());
                assert!(!refused(&url).contains(c), "{url:?}");
            }
        }
    }

    #[test]
    fn every_known_option_belongs_to_an_engine() {
        for option in OPTIONS {
            let lacking = ["memory:", "lmdb:/d", "rediss://h", "redis+unix:///s", "redis+sentinel://h/n?tls=on"]
                .into_iter()
                .filter(|url| {
                    let separator = if url.contains('?') { '&' } else { '?' };
                    Url::parse(&format!("{url}{separator}{option}=%zz"))
                        .unwrap_err()
                        .to_string()
                        .contains("is not one of")
                })
                .count();
            assert!(lacking < 5, "{option}");
        }
    }

    #[test]
    fn passwords_appear_in_no_message() {
        // The password is SECRET; separators are missing, mistyped, doubled or not percent-encoded.
        for url in [
            "redis//SECRET@host:6379/0",
            "redis//u:SECRET@host:6379/0",
            "redis;//u:SECRET@host",
            "redis:u:SECRET@host",
            "redis:/u:SECRET@host",
            "redis/u:SECRET@host",
            "redis:\\\\u:SECRET@host",
            "redis ://u:SECRET@host",
            " redis://u:SECRET@host",
            "reddis://u:SECRET@host",
            "http://u:SECRET@host",
            "u:SECRET@host",
            "SECRET@host:6379",
            "SECRET:6379@host",
            "://u:SECRET@host",
            ":SECRET@host",
            "memory:u:SECRET@host",
            "memory:SECRET@",
            "memroy://u:SECRET@host/",
            "lmdb://u:SECRET@host/",
            "lmdb:u:SECRET@host",
            "redis://u:SECRET@h:x",
            "redis://u:SECRET@",
            "redis://u:SECRET@h;6379",
            "redis://u:SECRET@h@h:x",
            "redis://u:SECRET#h",
            "redis://u;SECRET@h",
            "redis://u:h/SECRET@h",
            "redis://h:SECRET",
            "redis://u:SECRET%zz@h",
            "redis://u:SECRET@h/x",
            "redis://u:SECRET@h?pool=0",
            "redis://SECRET@h",
            "redis://h/SECRET",
            "redis://h,SECRET",
            "redis+cluster://u:SECRET@h1,,h2",
            "redis+cluster://u:SECRET@h1;h2",
            "redis+sentinel://u:SECRET@h1,h2",
            "redis+unix://u:SECRET@h/path",
            "redis://u:6379?SECRET@h",
            "redis://u:6379?SECRET=x@h",
            "redis://u:6379?pool=SECRET@h",
            "redis://u:6379?x&SECRET@h",
            "redis://u:6379/0?SECRET@h",
            "redis+unix:///s?db=SECRET@h",
            "redis://h?sentinel_password=SECRET",
            "redis://h?password=SECRET",
            "redis://h?SECRET",
            "redis://h?pool=SECRET",
            "redis://h?prefix=a*SECRET",
            "rediss://h?cafile=SECRET",
            "redis+sentinel://h/n?sentinel_password:SECRET",
            "redis+sentinel://h/n?sentinel_password;SECRET",
            "redis+sentinel://h/n?sentinel_password SECRET",
            "redis+sentinel://h/n?sentinel_passwordSECRET",
            "redis+sentinel://h/n?sentinel_passwordSECRET=",
            "redis+sentinel://h/n?sentinelpassword=SECRET",
            "redis+sentinel://h/n?Sentinel_Password=SECRET",
            "redis+sentinel://h/n?password:SECRET=x",
            "redis+sentinel://h/n?timeout=3h;sentinel_password=SECRET",
            "redis+sentinel://h/n?timeout=3h,sentinel_password=SECRET",
            "redis+sentinel://h/n?timeout=3h%26sentinel_password=SECRET",
            "redis+sentinel://h/n?timeout=3h?sentinel_password=SECRET",
            "redis+sentinel://h/n?timeout;sentinel_password=SECRET",
            "redis+sentinel://h/n?db=3;sentinel_password=SECRET",
            "redis+sentinel://h/n?tls=on;sentinel_password=SECRET",
            "redis+sentinel://h/n?deadline=1s;sentinel_password=SECRET",
            "redis+sentinel://h/n?secret_file=x;sentinel_password=SECRET",
            "redis+sentinel://h/n?sentinel_user=w&sentinel_password=",
            "redis+sentinel://h/n?sentinel_password=hun&SECRET",
            "redis+sentinel://h/n?sentinel_password=hun&SECRET=x",
            "redis+sentinel://h/n?sentinel_password=hun&pool=SECRET",
            "redis+sentinel://h/n?sentinel_password=SECRET&sentinel_password=SECRET",
            "redis+sentinel://h/n?sentinel_password=SECRET%zz",
            "redis+sentinel://h/n?sentinel_password=SECRET\n",
        ] {
            let message = refused(url);
            assert!(!message.contains("SECRET"), "{url}: {message}");
        }
        for url in ["redis://u:SECRET@h", "redis+sentinel://h/n?sentinel_password=SECRET"] {
            let url = Url::parse(url).unwrap();
            assert!(!format!("{url:?}").contains("SECRET"));
        }
    }

    #[test]
    fn redis_urls_name_servers_and_credentials() {
        let redis = |url: &str| match Url::parse(url).unwrap().engine {
            EngineUrl::Redis(redis) => redis,
            other => panic!("{other:?}"),
        };
        let url = redis("redis://al%40ice:p%2Fw@[::1]:7000/5?prefix=app:&deadline=2s&pool=3&wait=1");
        assert_eq!(url.servers, Servers::One(Host { name: "::1".to_owned(), port: 7000 }));
        assert_eq!((url.user.as_deref(), url.password.as_ref().map(|it| it.0.as_str())), (Some("al@ice"), Some("p/w")));
        assert_eq!((url.db, url.pool, url.wait, &url.prefix[..]), (5, 3, 1, "app:"));
        assert_eq!(url.deadline, std::time::Duration::from_secs(2));
        assert_eq!(redis("redis+unix:///run/a%20b?db=4").servers, Servers::Unix("/run/a b".into()));
        assert_eq!(redis("redis+unix:///s?db=4").db, 4);
        assert_eq!(redis("redis://:pw@h").user, None);
        let url = redis("redis+sentinel://a:b@h/n?sentinel_user=w%40&sentinel_password=p%26w");
        let password = url.sentinel_password.as_ref().map(|it| it.0.as_str());
        assert_eq!((url.sentinel_user.as_deref(), password), (Some("w@"), Some("p&w")));
    }

    #[test]
    fn memory_names_are_kept() {
        let engine = |url: &str| Url::parse(url).unwrap().engine;
        assert_eq!(engine("memory:app-1"), EngineUrl::Memory(Some("app-1".to_owned())));
        assert_eq!(engine("MEMORY:"), EngineUrl::Memory(None));
        assert_eq!(engine("memory:?"), EngineUrl::Memory(None));
    }

    #[test]
    fn lmdb_directories_are_absolute() {
        let url = Url::parse("lmdb:/var/lib/a%20b?durability=power&secret_file=/run/key").unwrap();
        assert_eq!(url.engine, EngineUrl::Lmdb("/var/lib/a b".into()));
        assert_eq!(url.secret_file, Some("/run/key".into()));
        assert!(url.survives_power_cut && url.seals());
        assert_eq!(Url::parse("lmdb:///dir").unwrap().engine, EngineUrl::Lmdb("/dir".into()));
        assert!(refused("lmdb:").contains("begins with '/'"));
        assert!(refused("lmdb:sessions").contains("begins with '/'"));
        assert!(refused("lmdb://host/dir").contains("no host"));
        assert!(refused("lmdb:/a%00b").contains("NUL"));
        assert!(refused("lmdb:/a%0").contains("hex"));
        assert!(refused("lmdb:/d?durability=maybe").contains("process or power"));
        assert!(refused("lmdb:/d?secret_file=key").contains("secret_file"));
        assert!(refused("lmdb:/d?secret_file=/key&seal=off").contains("secret_file"));
        assert!(refused("lmdb:/d?max_bytes=infinity").contains("max_bytes"));
        assert!(refused("memory:?durability=power").contains("durability"));
        assert!(refused("memory:?secret_file=/key").contains("secret_file"));
    }
}
