//! The state of one conformance scenario, and its steps: each one is translated to one call of the
//! safe Rust API, and its answer compared. It must not know what the right answer is.

use std::{collections::HashMap, time::Duration};

use sss::{Access, Entry, Error, ErrorKind, Meta, Ref, Stats, Store};

use super::words::{Opts, brief, bytes, counter, duration, name};
use crate::common::{FOREVER, TemporaryStore, ToPlain};

/// The state of one scenario.
pub struct World {
    stores: HashMap<String, Store>,
    /// Ids and references.
    values: HashMap<String, Vec<u8>>,
    advanced_ms: i64,
    origin_ms: Option<i64>,
    // Last: dropping it removes what the stores are in.
    place: TemporaryStore,
}

/// What a successful call returned.
#[derive(Default)]
struct Got {
    data: Option<Vec<u8>>,
    meta: Option<Meta>,
    count: Option<u64>,
    entries: Option<Vec<Entry>>,
    stats: Option<Stats>,
}

/// `Err` is a scenario that cannot be understood; `Ok(Err)` is the library's answer.
type Outcome = Result<Result<Got, Error>, String>;

impl World {
    pub fn new() -> World {
        World {
            stores: HashMap::new(),
            values: HashMap::new(),
            advanced_ms: 0,
            origin_ms: None,
            place: TemporaryStore::new(),
        }
    }

    pub fn step(&mut self, step: &str) -> Result<(), String> {
        let (left, right) = step.split_once(" -> ").unwrap_or((step, ""));
        let words: Vec<&str> = left.split(' ').collect();
        let (verb, args) = (words[0], &words[1..]);
        if matches!(verb, "status" | "different" | "same") {
            return if right.is_empty() { self.statement(verb, args) } else { Err("takes no `->`".into()) };
        }
        let (expected, checks) = match right.split_once(' ') {
            Some((status, checks)) => (status, checks.split(' ').collect()),
            None if right.is_empty() && !matches!(verb, "open" | "close" | "advance") => {
                return Err("lacks `-> STATUS`".into());
            }
            None if right.is_empty() => ("ok", Vec::new()),
            None => (right, Vec::new()),
        };
        match self.call(verb, args)? {
            Ok(got) if expected == "ok" => checks.iter().try_for_each(|check| self.check(check, &got)),
            Ok(_) => Err(format!("expected {expected}, got ok")),
            Err(error) if name(error.kind()) == expected => {
                checks.iter().try_for_each(|check| match check.split_once('~') {
                    Some(("message", word)) if error.to_string().contains(word) => Ok(()),
                    Some(("message", word)) => Err(format!("expected a message with {word}, got: {error}")),
                    _ => Err(format!("unknown check of a failure: {check}")),
                })
            }
            Err(error) => Err(format!("expected {expected}, got {}: {error}", name(error.kind()))),
        }
    }

    fn statement(&self, verb: &str, args: &[&str]) -> Result<(), String> {
        let [a, b] = args else { return Err("takes two arguments".into()) };
        if verb == "status" {
            let code: i32 = b.parse().map_err(|_| "bad number")?;
            let kind = ErrorKind::from_code(code);
            return match kind {
                None if *a == "ok" && code == 0 => Ok(()),
                Some(kind) if name(kind) == *a && !kind.text().is_empty() => Ok(()),
                _ => Err(format!("expected {a}, got {kind:?}")),
            };
        }
        let equal = self.value(a)? == self.value(b)?;
        if equal == (verb == "same") {
            Ok(())
        } else {
            Err(format!("the values are {}", if equal { "equal" } else { "different" }))
        }
    }

    fn call(&mut self, verb: &str, args: &[&str]) -> Outcome {
        if verb == "url" {
            let [text] = args else { return Err("takes one text".into()) };
            let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).ok_or("the text lacks quotes")?;
            return Ok(Store::open(text).map(|_| Got::default()));
        }
        let (&handle, args) = args.split_first().ok_or("lacks a handle")?;
        if verb == "open" {
            return self.open(handle, args);
        }
        if verb == "close" && args.is_empty() {
            return self
                .stores
                .remove(handle)
                .map(|_| Ok(Got::default()))
                .ok_or_else(|| format!("{handle} is not open"));
        }
        let store = self.stores.get(handle).ok_or_else(|| format!("{handle} is not open"))?.clone();
        match (verb, args) {
            ("advance", [time]) => {
                let ms = duration(time)?;
                Ok(store.advance_clock(ms).map(|()| {
                    self.advanced_ms += ms;
                    Got::default()
                }))
            }
            ("create", [sid, data, opts @ ..]) => {
                let opts = Opts::parse(opts)?;
                let data = bytes(data)?;
                Ok(opts.get().and_then(|options| store.create(&data, &options)).map(|(new, meta)| {
                    self.origin_ms.get_or_insert(meta.plain().created_ms - self.advanced_ms);
                    self.values.insert(sid.to_string(), new.as_ref().to_vec());
                    Got::meta(meta)
                }))
            }
            ("get" | "peek", [sid]) => {
                let access = if verb == "get" { Access::Slide } else { Access::Peek };
                Ok(store.get(self.sid(sid)?, access).map(|(data, meta)| Got { data: Some(data), ..Got::meta(meta) }))
            }
            ("put", [sid, data, opts @ ..]) => {
                let (sid, data, opts) = (self.sid(sid)?, bytes(data)?, Opts::parse(opts)?);
                Ok(opts.get().and_then(|options| store.put(sid, &data, &options)).map(Got::meta))
            }
            ("put_if", [sid, version, data, opts @ ..]) => {
                let version = version.parse().map_err(|_| "bad version")?;
                let (sid, data, opts) = (self.sid(sid)?, bytes(data)?, Opts::parse(opts)?);
                Ok(opts.get().and_then(|options| store.put_if(sid, version, &data, &options)).map(Got::meta))
            }
            ("touch", [sid]) => Ok(store.touch(self.sid(sid)?).map(Got::meta)),
            ("renew", [sid, to, opts @ ..]) => {
                let opts = Opts::parse(opts)?;
                let sid = self.sid(sid)?;
                let renewed = opts.get().and_then(|options| store.renew(sid, opts.data.as_deref(), &options));
                Ok(renewed.map(|(new, meta)| {
                    self.values.insert(to.to_string(), new.as_ref().to_vec());
                    Got::meta(meta)
                }))
            }
            ("delete", [sid]) => Ok(store.delete(self.sid(sid)?).map(|()| Got::default())),
            ("ref", [sid, to]) => Ok(store.reference(self.sid(sid)?).map(|reference| {
                self.values.insert(to.to_string(), reference.0.to_vec());
                Got::default()
            })),
            ("touch_ref", [reference]) => {
                Ok(store.touch_ref(&self.reference(reference)?, Access::Slide).map(Got::meta))
            }
            ("peek_ref", [reference]) => Ok(store.touch_ref(&self.reference(reference)?, Access::Peek).map(Got::meta)),
            ("delete_ref", [reference]) => {
                Ok(store.delete_ref(&self.reference(reference)?, None).map(|()| Got::default()))
            }
            ("delete_ref", [reference, principal]) => {
                let principal = bytes(principal.strip_prefix("principal=").ok_or("expected principal=")?)?;
                Ok(store.delete_ref(&self.reference(reference)?, Some(&principal)).map(|()| Got::default()))
            }
            ("sweep", [max]) => Ok(store.sweep(max.parse().map_err(|_| "bad number")?).map(Got::count)),
            ("list", [principal]) => Ok(store
                .list(&bytes(principal)?)
                .map(|entries| Got { entries: Some(entries.clone()), ..Got::count(entries.len() as u64) })),
            ("revoke", [principal]) => Ok(store.revoke(&bytes(principal)?, None).map(Got::count)),
            ("revoke", [principal, except]) => {
                let except = except.strip_prefix("except=").ok_or("expected except=")?;
                Ok(store.revoke(&bytes(principal)?, Some(&self.sid(except)?)).map(Got::count))
            }
            ("revoke_all", []) => Ok(store.revoke_all().map(Got::count)),
            ("stats", []) => Ok(store.stats().map(|stats| Got { stats: Some(stats), ..Got::default() })),
            _ => Err("unknown verb, or wrong number of arguments".into()),
        }
    }

    fn open(&mut self, handle: &str, options: &[&str]) -> Outcome {
        let mut options: Vec<&str> = options.to_vec();
        if !options.iter().any(|option| option.starts_with("clock=")) {
            options.push("clock=manual");
        }
        Ok(Store::open(&self.place.url(&options.join("&"))).map(|store| {
            self.stores.insert(handle.to_owned(), store);
            Got::default()
        }))
    }

    fn value(&self, name: &str) -> Result<&[u8], String> {
        self.values.get(name).map(Vec::as_slice).ok_or_else(|| format!("{name} has no value"))
    }

    fn sid(&self, word: &str) -> Result<Vec<u8>, String> {
        match word.strip_prefix("malformed:") {
            Some(text) => Ok(text.as_bytes().to_vec()),
            None if word == "unknown" => Ok(vec![b'A'; 128]),
            None => self.value(word).map(<[u8]>::to_vec),
        }
    }

    fn reference(&self, word: &str) -> Result<Ref, String> {
        let bytes = if word == "unknown_ref" { vec![0xaa; 32] } else { self.value(word)?.to_vec() };
        Ok(Ref(bytes.try_into().map_err(|_| "not a reference")?))
    }

    fn check(&self, check: &str, got: &Got) -> Result<(), String> {
        let (key, want) = check.split_once('=').ok_or_else(|| format!("unknown check: {check}"))?;
        let lacks = || format!("nothing here to check {key} of");
        let actual = match key {
            "data" => {
                let (data, want) = (got.data.as_ref().ok_or_else(lacks)?, bytes(want)?);
                return if *data == want {
                    Ok(())
                } else {
                    Err(format!("expected {}, got {}", brief(&want), brief(data)))
                };
            }
            "created" | "seen" | "expires" | "authenticated" if got.stats.is_none() => {
                return self.check_time(key, want, &got.meta.ok_or_else(lacks)?);
            }
            "timeout" => return check_timeout(key, want, got.meta.ok_or_else(lacks)?.timeout()),
            "idle_timeout" => return check_timeout(key, want, got.meta.ok_or_else(lacks)?.idle_timeout()),
            "labels" => {
                let wanted = want.split(',').map(|word| if word == "none" { Ok(None) } else { bytes(word).map(Some) });
                let wanted: Vec<_> = wanted.collect::<Result<_, _>>()?;
                let labels: Vec<_> = got.entries.as_ref().ok_or_else(lacks)?.iter().map(|entry| &entry.label).collect();
                let equal = labels.iter().copied().eq(&wanted);
                return if equal { Ok(()) } else { Err(format!("expected {check}, got {labels:?}")) };
            }
            "authentications" => {
                let entries = got.entries.as_ref().ok_or_else(lacks)?;
                let wanted: Vec<&str> = want.split(',').collect();
                if wanted.len() != entries.len() {
                    return Err(format!("expected {check}, got {} entries", entries.len()));
                }
                let mut pairs = wanted.into_iter().zip(entries);
                return pairs.try_for_each(|(want, entry)| self.check_time("authenticated", want, &entry.meta));
            }
            "len" => got.data.as_ref().ok_or_else(lacks)?.len().to_string(),
            "version" => got.meta.ok_or_else(lacks)?.version().to_string(),
            "count" => got.count.ok_or_else(lacks)?.to_string(),
            "versions" => joined(got.entries.as_ref().ok_or_else(lacks)?, |entry| entry.meta.version().to_string()),
            "lens" => joined(got.entries.as_ref().ok_or_else(lacks)?, |entry| entry.payload_len.to_string()),
            "refs" => {
                let name = |entry: &Entry| {
                    let known =
                        want.split(',').find(|name| self.values.get(*name).is_some_and(|v| *v == entry.reference.0));
                    known.unwrap_or("another").to_owned()
                };
                joined(got.entries.as_ref().ok_or_else(lacks)?, name)
            }
            _ => {
                let stats = got.stats.ok_or_else(|| format!("unknown check: {check}"))?;
                counter(&stats, key).ok_or_else(|| format!("unknown counter: {key}"))?.to_string()
            }
        };
        if actual == want { Ok(()) } else { Err(format!("expected {check}, got {key}={actual}")) }
    }

    fn check_time(&self, key: &str, want: &str, meta: &Meta) -> Result<(), String> {
        let origin = self.origin_ms.ok_or("no session was created yet")?;
        let actual = match key {
            "created" => meta.plain().created_ms,
            "seen" => meta.plain().last_seen_ms,
            "authenticated" => match meta.plain().authenticated_ms {
                None if want == "never" => return Ok(()),
                Some(at) if want != "never" => at,
                at => return Err(format!("expected {key}={want}, got {at:?}")),
            },
            _ => meta.plain().expires_ms,
        };
        let want_ms = if want == "infinity" { FOREVER } else { origin + duration(want)? };
        match actual {
            _ if actual == want_ms => Ok(()),
            FOREVER => Err(format!("expected {key}={want}, got infinity")),
            _ => Err(format!("expected {key}={want}, got {}ms", actual.wrapping_sub(origin))),
        }
    }
}

impl Got {
    fn meta(meta: Meta) -> Got {
        Got { meta: Some(meta), ..Got::default() }
    }

    fn count(count: u64) -> Got {
        Got { count: Some(count), ..Got::default() }
    }
}

fn check_timeout(key: &str, want: &str, timeout: Option<Duration>) -> Result<(), String> {
    let want = if want == "infinity" { None } else { Some(Duration::from_millis(duration(want)? as u64)) };
    if timeout == want { Ok(()) } else { Err(format!("expected {key} of {want:?}, got {timeout:?}")) }
}

fn joined(entries: &[Entry], text: impl Fn(&Entry) -> String) -> String {
    entries.iter().map(text).collect::<Vec<_>>().join(",")
}
