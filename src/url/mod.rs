//! The store URL: one string picks the engine and sets every option. Strict: whatever is not understood is an error
//! that names it. Messages never repeat user info, nor the value of an option that is not known.

mod redis;

use std::{ffi::OsString, os::unix::ffi::OsStringExt, path::PathBuf};

pub(crate) use self::redis::{Host, Password, RedisUrl, Servers, Tls};

use crate::{
    error::{Error, ErrorKind, Result},
    session::policy::{FOREVER, PolicyOptions},
};

/// A URL, taken apart.
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
    /// `redis://host` and its kin.
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
        Err(bad(format!("the scheme '{}' is not known", shown(scheme))))
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
            return Err(bad("the URL is empty; the in-process store is 'memory:'"));
        }
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(bad("the URL has no scheme; the in-process store is 'memory:'"));
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
        // What is taken for options may be the rest of a password: then what is wrong with them is not shown.
        let is_before_host =
            matches!(url.engine, EngineUrl::Redis(_)) && query.is_some_and(|query| query.contains('@'));
        for option in query.into_iter().flat_map(|query| query.split('&')) {
            let is_behind_password = seen.contains(&"sentinel_password");
            url.set_once(option, &mut seen).map_err(|error| match (is_before_host, is_behind_password) {
                (true, _) => bad("an option is wrong, and there is an '@' (is '?' in a password written as %3F?)"),
                (_, true) => {
                    bad("an option behind 'sentinel_password' is wrong (is '&' in a password written as %26?)")
                }
                _ => error,
            })?;
        }
        if url.secret_file.is_some() && !url.seals() {
            return Err(bad("'secret_file' is of no use with seal=off"));
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
        let (key, value) =
            option.split_once('=').ok_or_else(|| bad(format!("the option '{}' has no value", shown(option))))?;
        if seen.contains(&key) {
            return Err(bad(format!("the option '{}' is given twice", shown(key))));
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
                return Err(bad(
                    "the value 'infinity' of 'max_bytes' is not a size: the file of lmdb: is reserved as a whole",
                ));
            }
            "max_bytes" | "max_sessions" if in_redis => {
                let scheme = self.engine.scheme();
                return Err(bad(format!(
                    "the option '{key}' is not one of {scheme}: no server counts for all the others; Redis's own \
                     'maxmemory' is the limit"
                )));
            }
            "max_bytes" => self.policy.max_bytes = Some(size(key, value)?),
            "max_sessions" => self.policy.max_sessions = Some(number(key, value)?),
            "max_per_principal" => self.policy.max_per_principal = Some(number(key, value)?),
            "clock" => self.manual_clock = Some(choice(key, value, ["system", "manual"])? == "manual"),
            "seal" => self.seal = Some(choice(key, value, ["off", "on"])? == "on"),
            "secret_file" if in_lmdb || in_redis => self.secret_file = Some(absolute(key, value)?),
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
                return Err(bad(format!("the option '{}' is not one of {scheme}:", shown(key))));
            }
        }
        Ok(())
    }
}

/// Milliseconds of `500ms`, `10s`, `5m`, `3h`, `7d`, a bare number of seconds, or `infinity`.
fn duration(key: &str, value: &str) -> Result<i64> {
    if value == "infinity" {
        return Ok(FOREVER);
    }
    let (number, unit) = split_number(value);
    let unit_ms = match unit {
        "ms" => 1,
        "s" | "" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => 0,
    };
    match number.and_then(|n| i64::try_from(n).ok()).and_then(|n| n.checked_mul(unit_ms)) {
        Some(ms) if ms > 0 => Ok(ms),
        _ => Err(bad_value(
            key,
            value,
            "a duration above zero such as 500ms, 10s, 5m, 3h, 7d, 600 (seconds) or infinity",
        )),
    }
}

/// Bytes: `1048576`, `64KiB`, `1MiB`, `2GiB` or `infinity`.
fn size(key: &str, value: &str) -> Result<u64> {
    let (number, unit) = split_number(value);
    let shift = match unit {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => u32::MAX,
    };
    match number.and_then(|n| n.checked_mul(1_u64.checked_shl(shift)?)) {
        Some(bytes) if bytes > 0 => Ok(bytes),
        _ if value == "infinity" => Ok(u64::MAX),
        _ => Err(bad_value(key, value, "a size above zero such as 65536, 64KiB, 1MiB, 2GiB or infinity")),
    }
}

fn number(key: &str, value: &str) -> Result<u64> {
    match split_number(value) {
        (Some(n), "") if n > 0 => Ok(n),
        _ if value == "infinity" => Ok(u64::MAX),
        _ => Err(bad_value(key, value, "a whole number above zero, or infinity")),
    }
}

fn choice(key: &str, value: &str, choices: [&'static str; 2]) -> Result<&'static str> {
    let found = choices.into_iter().find(|choice| *choice == value);
    found.ok_or_else(|| bad_value(key, value, &choices.join(" or ")))
}

/// Leading digits, and what follows them.
fn split_number(value: &str) -> (Option<u64>, &str) {
    let digits = value.bytes().take_while(u8::is_ascii_digit).count();
    (value[..digits].parse().ok(), &value[digits..])
}

fn store_name(path: &str) -> Result<Option<String>> {
    if path.is_empty() {
        return Ok(None);
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if let Some(wrong) = path.chars().find(|&c| !allowed(c)) {
        // Not the whole name: whoever takes this for another URL may have written a password into it.
        let wrong = shown(wrong.encode_utf8(&mut [0; 4]));
        let message = format!("the name of a memory: store may hold letters, digits, '.', '_' and '-', not '{wrong}'");
        return Err(bad(message));
    }
    Ok(Some(path.to_owned()))
}

/// The directory of an `lmdb:` store: `/dir` or `///dir`.
fn directory(path: &str) -> Result<PathBuf> {
    let path = match path.strip_prefix("//") {
        Some(local) if local.starts_with('/') => local,
        Some(_) => return Err(bad("lmdb: has no host: write 'lmdb:/dir'")),
        None => path,
    };
    let bytes =
        percent_decoded(path).ok_or_else(|| bad("the path has a '%' that is not followed by two hex digits"))?;
    if !bytes.starts_with(b"/") {
        // A server changes its directory: a relative path would name another one there.
        return Err(bad("the path of an lmdb: store begins with '/'"));
    }
    if bytes.contains(&0) {
        return Err(bad("the path of an lmdb: store has a NUL in it"));
    }
    Ok(PathBuf::from(OsString::from_vec(bytes)))
}

fn absolute(key: &str, value: &str) -> Result<PathBuf> {
    match value.starts_with('/') && !value.contains('\0') {
        true => Ok(PathBuf::from(value)),
        false => Err(bad(format!("the value of '{key}' is not a path that begins with '/'"))),
    }
}

/// The value of an option, decoded.
fn decoded(key: &str, value: &str) -> Result<String> {
    percent_decoded(value).and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(|| {
        bad(format!("the value of '{}' has a '%' that is not followed by two hex digits of UTF-8", shown(key)))
    })
}

/// Percent-decoding (RFC 3986 section 2.1).
fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut hex = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        bytes.push((hex()? * 16 + hex()?) as u8);
    }
    Some(bytes)
}

/// Text from the URL as a message may show it: short, and on one line.
fn shown(text: &str) -> String {
    const LONGEST: usize = 40;
    let mut shown: String = text.chars().take(LONGEST).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push_str("...");
    }
    shown
}

fn bad_value(key: &str, value: &str, expected: &str) -> Error {
    bad(format!("the value '{}' of '{key}' is not {expected}", shown(value)))
}

fn bad(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Url, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        let error = Url::parse(url).expect_err(url);
        assert_eq!(error.kind(), ErrorKind::Url, "{url}");
        error.to_string()
    }

    #[test]
    fn durations_have_units_and_bare_numbers_are_seconds() {
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
    fn a_bad_value_is_named() {
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
    fn what_is_not_understood_is_named_and_secrets_are_not_repeated() {
        assert!(refused("").contains("empty"));
        assert!(refused("memory").contains("scheme"));
        assert!(refused("momory:").contains("momory"));
        assert!(refused("memory:?timout=3").contains("timout"));
        assert!(!refused("memory:?password=hunter2").contains("hunter2"));
        assert!(!refused("memroy://user:hunter2@host/").contains("hunter2"));
        assert!(refused("memory:?timeout=3&timeout=3").contains("twice"));
        assert!(refused("memory:?timeout").contains("no value"));
        assert!(refused("memory:?timeout=3&").contains("no value"));
        assert!(refused("memory:a/b").contains("not '/'"));
        assert!(!refused("memory:user:hunter2@host").contains("hunter2"));
        assert!(!refused("memory:?a\nb=1").contains('\n'));
    }

    #[test]
    fn a_password_is_in_no_message_and_in_no_debug() {
        for url in [
            "redis://u:hunter2@h:x",
            "redis://u:hunter2@",
            "redis://u:hun/ter2@h",
            "redis://hunter2",
            "redis://u:hunter2%zz@h",
            "redis://u:hunter2@h/x",
            "redis://u:hunter2@h?pool=0",
            "redis+unix://u:hunter2@h/path",
            "redis+sentinel://h/n?sentinel_password=hun&ter2",
            "redis+sentinel://h/n?sentinel_password=hun&ter2=x",
            "redis+sentinel://h/n?sentinel_password=hun&pool=hunter2",
            "redis+sentinel://h/n?sentinel_password=hunter2&sentinel_password=hunter2",
            "redis+sentinel://h/n?sentinel_password=hunter2%zz",
            "redis://h?sentinel_password=hunter2",
            "redis://u:6379?hunter2@h",
            "redis://u:6379?hunter2=x@h",
            "redis://u:6379?pool=hunter2@h",
            "redis://u:6379?x&hunter2@h",
            "redis://u:6379/0?hunter2@h",
            "redis+unix:///s?db=hunter2@h",
        ] {
            if let Err(error) = Url::parse(url) {
                assert!(!error.to_string().contains("hunter2") && !error.to_string().contains("ter2"), "{error}");
            }
        }
        let refused = |url| Url::parse(url).unwrap_err().to_string();
        assert!(refused("redis://u:6379?hunter2@h").contains("%3F"));
        assert!(refused("redis://h?poll=3").contains("poll"), "a wrong option is named as ever");
        for url in ["redis://u:hunter2@h", "redis+sentinel://h/n?sentinel_password=hunter2"] {
            let url = Url::parse(url).unwrap();
            assert!(!format!("{url:?}").contains("hunter2"));
        }
    }

    #[test]
    fn a_redis_url_says_who_is_asked_as_whom() {
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
    fn a_name_is_kept() {
        let engine = |url: &str| Url::parse(url).unwrap().engine;
        assert_eq!(engine("memory:app-1"), EngineUrl::Memory(Some("app-1".to_owned())));
        assert_eq!(engine("MEMORY:"), EngineUrl::Memory(None));
        assert_eq!(engine("memory:?"), EngineUrl::Memory(None));
    }

    #[test]
    fn the_directory_of_lmdb_is_absolute() {
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
