//! The target table: each row's bound, the facts that decide it, and the figures reported beside
//! it.

use crate::facts::Facts;

/// The unit in which a number is shown.
#[derive(Clone, Copy)]
pub enum Unit {
    Ratio,
    /// A large ratio.
    Times,
    Ns,
    Us,
    Bytes,
    Mops,
    /// Of operations per second.
    Thousands,
    Percent,
    Count,
}

impl Unit {
    pub fn show(self, value: f64) -> String {
        match self {
            Unit::Ratio => format!("{value:.2}"),
            Unit::Times => format!("{value:.1} ×"),
            Unit::Ns if value.abs() < 0.1 => format!("{value:.4} ns"),
            Unit::Ns if value.abs() < 10.0 => format!("{value:.1} ns"),
            Unit::Ns if value < 10_000.0 => format!("{value:.0} ns"),
            Unit::Ns => Unit::Us.show(value / 1e3),
            Unit::Us if value >= 10_000.0 => format!("{:.1} ms", value / 1e3),
            Unit::Us if value >= 100.0 => format!("{value:.0} µs"),
            Unit::Us => format!("{value:.1} µs"),
            Unit::Bytes => format!("{value:.0} B"),
            Unit::Mops => format!("{value:.2} M/s"),
            Unit::Thousands => format!("{value:.1} k/s"),
            Unit::Percent => format!("{value:.2} %"),
            Unit::Count => format!("{value:.0}"),
        }
    }
}

pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
}
use Bound::{AtLeast, AtMost};

pub struct Target {
    pub id: &'static str,
    pub what: &'static str,
    pub target: &'static str,
    pub checks: &'static [(&'static str, Unit, Bound)],
    pub beside: &'static [(&'static str, &'static str, Unit)],
}

/// Whether a target was met.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    Miss,
    NotMeasured,
}

impl Target {
    pub fn measured(&self, facts: &Facts) -> (String, Verdict) {
        let mut shown = Vec::new();
        let mut verdict = Verdict::Pass;
        for (fact, unit, bound) in self.checks {
            let Some(value) = facts.get(fact) else {
                return ("not measured".into(), Verdict::NotMeasured);
            };
            shown.push(unit.show(value));
            let met = match bound {
                AtMost(most) => value <= *most,
                AtLeast(least) => value >= *least,
            };
            if !met {
                verdict = Verdict::Miss;
            }
        }
        match shown.is_empty() {
            true => ("not measured".into(), Verdict::NotMeasured),
            false => (shown.join(" · "), verdict),
        }
    }

    /// The range of the deciding facts over the rounds, and the further figures.
    pub fn figures(&self, facts: &Facts) -> String {
        let mut figures = Vec::new();
        for (fact, unit, _) in self.checks {
            if let (Some(min), Some(max)) = (facts.get(&format!("{fact}.min")), facts.get(&format!("{fact}.max"))) {
                figures.push(format!("[{}–{}]", unit.show(min), unit.show(max)));
            }
        }
        for (name, fact, unit) in self.beside {
            if let Some(value) = facts.get(fact) {
                figures.push(format!("{name} {}", unit.show(value)));
            }
        }
        figures.join(", ")
    }
}

pub const TARGETS: &[Target] = &[
    Target {
        id: "M1",
        what: "get, 1 thread, 256 B, against hashbrown · floor",
        target: "≤ 0.75 · ≤ 1.15",
        checks: &[("m1.ratio.lb", Unit::Ratio, AtMost(0.75)), ("m1.ratio.ideal", Unit::Ratio, AtMost(1.15))],
        beside: &[
            ("libsss", "m1.sss_ns", Unit::Ns),
            ("hashbrown", "m1.lb_ns", Unit::Ns),
            ("hashbrown behind a lock", "m1.locked_lb_ns", Unit::Ns),
            ("floor", "m1.ideal_ns", Unit::Ns),
            ("dashmap", "m1.dashmap_ns", Unit::Ns),
            ("papaya", "m1.papaya_ns", Unit::Ns),
            ("moka", "m1.moka_ns", Unit::Ns),
        ],
    },
    Target {
        id: "M2",
        what: "get, 1 KiB, against hashbrown",
        target: "≤ 0.80",
        checks: &[("m2.ratio.lb", Unit::Ratio, AtMost(0.80))],
        beside: &[
            ("libsss", "m2.sss_ns", Unit::Ns),
            ("hashbrown", "m2.lb_ns", Unit::Ns),
            ("hashbrown behind a lock", "m2.locked_lb_ns", Unit::Ns),
            ("floor", "m2.ideal_ns", Unit::Ns),
            ("dashmap", "m2.dashmap_ns", Unit::Ns),
            ("papaya", "m2.papaya_ns", Unit::Ns),
            ("moka", "m2.moka_ns", Unit::Ns),
        ],
    },
    Target {
        id: "M3",
        what: "put, same size, 256 B, against hashbrown",
        target: "≤ 0.90",
        checks: &[("m3.ratio.lb", Unit::Ratio, AtMost(0.90))],
        beside: &[
            ("libsss", "m3.sss_ns", Unit::Ns),
            ("hashbrown", "m3.lb_ns", Unit::Ns),
            ("hashbrown behind a lock", "m3.locked_lb_ns", Unit::Ns),
            ("floor", "m3.ideal_ns", Unit::Ns),
            ("dashmap", "m3.dashmap_ns", Unit::Ns),
            ("papaya", "m3.papaya_ns", Unit::Ns),
            ("moka", "m3.moka_ns", Unit::Ns),
        ],
    },
    Target {
        id: "M4",
        what: "get of an unknown id, against hashbrown",
        target: "≤ 1.5",
        checks: &[("m4.ratio.lb", Unit::Ratio, AtMost(1.5))],
        beside: &[
            ("libsss", "m4.sss_ns", Unit::Ns),
            ("hashbrown", "m4.lb_ns", Unit::Ns),
            ("hashbrown behind a lock", "m4.locked_lb_ns", Unit::Ns),
            ("floor", "m4.ideal_ns", Unit::Ns),
            ("dashmap", "m4.dashmap_ns", Unit::Ns),
            ("papaya", "m4.papaya_ns", Unit::Ns),
            ("moka", "m4.moka_ns", Unit::Ns),
        ],
    },
    Target {
        id: "M5",
        what: "create in a growing store, without generating the id, against hashbrown",
        target: "≤ 0.6",
        checks: &[("m5.ratio.lb", Unit::Ratio, AtMost(0.6))],
        beside: &[
            ("libsss", "m5.sss_ns", Unit::Ns),
            ("hashbrown", "m5.lb_ns", Unit::Ns),
            ("hashbrown with lock, limits, counter and id", "m5.shared_lb_ns", Unit::Ns),
            ("dashmap", "m5.dashmap_ns", Unit::Ns),
            ("generating an id", "m5.id_ns", Unit::Ns),
            ("in cache", "m5.cached.sss_ns", Unit::Ns),
            ("hashbrown in cache", "m5.cached.lb_ns", Unit::Ns),
            ("hashbrown with lock etc. in cache", "m5.cached.shared_lb_ns", Unit::Ns),
        ],
    },
    Target {
        id: "M6",
        what: "create in a growing store: p99.9 · p99.99",
        target: "≤ 5 µs · ≤ 300 µs",
        checks: &[("m6.sss.p99.9", Unit::Us, AtMost(5.0)), ("m6.sss.p99.99", Unit::Us, AtMost(300.0))],
        beside: &[
            ("longest", "m6.sss.max", Unit::Us),
            ("generating two ids instead: p99.9", "m6.machine.p99.9", Unit::Us),
            ("p99.99", "m6.machine.p99.99", Unit::Us),
            ("one call every 10 µs: p99.9", "m6.sss.corrected.p99.9", Unit::Us),
            ("hashbrown p99.99", "m6.lb.p99.99", Unit::Us),
            ("hashbrown longest", "m6.lb.max", Unit::Us),
            ("dashmap p99.99", "m6.dashmap.p99.99", Unit::Us),
            ("dashmap longest", "m6.dashmap.max", Unit::Us),
        ],
    },
    Target {
        id: "M7",
        what: "2 threads on one store, against two private stores: get · 90 % get, 10 % put",
        target: "≥ 0.95 · ≥ 0.95",
        checks: &[("m7.get_ratio", Unit::Ratio, AtLeast(0.95)), ("m7.mix_ratio", Unit::Ratio, AtLeast(0.95))],
        beside: &[
            ("get, 2 threads", "m7.get_sss_mops", Unit::Mops),
            ("against two half-size stores", "m7.get_ratio_halves", Unit::Ratio),
            ("against 1 thread", "m7.get_scaling", Unit::Ratio),
            ("against dashmap", "m7.get_ratio_dashmap", Unit::Ratio),
            ("mix, 2 threads", "m7.mix_sss_mops", Unit::Mops),
            ("against two half-size stores", "m7.mix_ratio_halves", Unit::Ratio),
            ("against 1 thread", "m7.mix_scaling", Unit::Ratio),
            ("against dashmap", "m7.mix_ratio_dashmap", Unit::Ratio),
        ],
    },
    Target {
        id: "M8",
        what: "cost of the C ABI over the Rust API, get 256 B",
        target: "≤ 40 ns",
        checks: &[("m8.get_cost_ns", Unit::Ns, AtMost(40.0))],
        beside: &[
            ("Rust", "m8.get_rust_ns", Unit::Ns),
            ("C", "m8.get_c_ns", Unit::Ns),
            ("bare call", "m8.call_ns", Unit::Ns),
            ("guard", "m8.guard_ns", Unit::Ns),
            ("handle", "m8.handle_ns", Unit::Ns),
            ("arguments and outputs", "m8.arguments_ns", Unit::Ns),
            ("fork check and rules, in both", "m8.context_ns", Unit::Ns),
            ("error path (NOT_FOUND)", "m8.error_ns", Unit::Ns),
            ("2 threads on one handle, against two", "m8.threads_ratio", Unit::Ratio),
        ],
    },
    Target {
        id: "M9",
        what: "faster than Redis over a Unix socket: one caller · 2 threads against 16 connections",
        target: "≥ 25 × · ≥ 35 ×",
        checks: &[("m9.redis_times", Unit::Times, AtLeast(25.0)), ("m9.redis_times_16", Unit::Times, AtLeast(35.0))],
        beside: &[
            ("libsss", "m9.sss_ns", Unit::Ns),
            ("Redis on the client's processor", "m9.redis_ns", Unit::Ns),
            ("placed by the kernel", "m9.redis_free_ns", Unit::Ns),
            ("memcached on the client's processor", "m9.memcached_ns", Unit::Ns),
            ("placed by the kernel", "m9.memcached_free_ns", Unit::Ns),
            ("2 threads", "m9.sss_2_ns", Unit::Ns),
            ("Redis 16", "m9.redis_16_ns", Unit::Ns),
            ("memcached 16", "m9.memcached_16_ns", Unit::Ns),
        ],
    },
    Target {
        id: "M10",
        what: "bytes per session beyond a 256 B payload: large store · 1000 sessions",
        target: "≤ 80 · ≤ 400",
        checks: &[("m10.sss_large", Unit::Bytes, AtMost(80.0)), ("m10.sss_1000", Unit::Bytes, AtMost(400.0))],
        beside: &[
            ("hashbrown", "m10.lb_large", Unit::Bytes),
            ("dashmap", "m10.dashmap_large", Unit::Bytes),
            ("papaya", "m10.papaya_large", Unit::Bytes),
            ("moka", "m10.moka_large", Unit::Bytes),
            ("Redis (a tenth of the sessions)", "m10.redis_large", Unit::Bytes),
            ("memcached (the same)", "m10.memcached_large", Unit::Bytes),
            ("dashmap at 1000", "m10.dashmap_1000", Unit::Bytes),
        ],
    },
    Target {
        id: "M11",
        what: "resident memory ÷ live payload after deleting 90 % at random and sweeping",
        target: "≤ 2.7",
        checks: &[("m11.sss_after", Unit::Ratio, AtMost(2.7))],
        beside: &[
            ("before the sweeps", "m11.sss_before", Unit::Ratio),
            ("steps of sweep", "m11.sss_steps", Unit::Count),
            ("hashbrown after malloc_trim", "m11.lb_after", Unit::Ratio),
            ("dashmap", "m11.dashmap_after", Unit::Ratio),
            ("papaya", "m11.papaya_after", Unit::Ratio),
            ("moka", "m11.moka_after", Unit::Ratio),
        ],
    },
    Target {
        id: "M12",
        what: "sweep, nothing due: time · growth per session",
        target: "≤ 5 µs · ≤ 0.01 ns",
        checks: &[("m12.sss_ns", Unit::Ns, AtMost(5000.0)), ("m12.slope_ns", Unit::Ns, AtMost(0.01))],
        beside: &[
            ("a tenth of the sessions", "m12.small_ns", Unit::Ns),
            ("dashmap.retain", "m12.dashmap_ns", Unit::Ns),
        ],
    },
    Target {
        id: "M13",
        what: "sweep, all expired, per session: at once · in steps of 1000",
        target: "≤ 70 ns · ≤ 130 ns",
        checks: &[("m13.full_ns", Unit::Ns, AtMost(70.0)), ("m13.bounded_ns", Unit::Ns, AtMost(130.0))],
        beside: &[
            ("dashmap.retain", "m13.dashmap_ns", Unit::Ns),
            ("wiping the same memory only", "m13.wiping_ns", Unit::Ns),
            ("wiping in the order of a sweep, with one index line each", "m13.with_table_ns", Unit::Ns),
        ],
    },
    Target {
        id: "M14",
        what: "get during a sweep: p99.9 · longest, against dashmap.retain",
        target: "≤ 10 µs · ≤ 0.05",
        checks: &[("m14.sss.p99.9", Unit::Us, AtMost(10.0)), ("m14.ratio_max", Unit::Ratio, AtMost(0.05))],
        beside: &[
            ("longest", "m14.sss.max", Unit::Us),
            ("without sweep p99.9", "m14.quiet.p99.9", Unit::Us),
            ("without sweep longest", "m14.quiet.max", Unit::Us),
            ("one call every 10 µs: p99.9", "m14.sss.corrected.p99.9", Unit::Us),
            ("dashmap p99.9", "m14.dashmap.corrected.p99.9", Unit::Us),
            ("dashmap longest", "m14.dashmap.max", Unit::Us),
            ("papaya longest", "m14.papaya.max", Unit::Us),
            ("hashbrown behind a lock longest", "m14.locked.max", Unit::Us),
        ],
    },
    Target {
        id: "L1",
        what: "lmdb: get (sealed, 256 B), faster than Redis over a Unix socket",
        target: "≥ 12 ×",
        checks: &[("l1.redis_times", Unit::Times, AtLeast(12.0))],
        beside: &[
            ("libsss", "l1.sss_ns", Unit::Ns),
            ("a thousandth of the sessions", "l1.small_ns", Unit::Ns),
            ("LMDB alone, same size", "l1.bare_ns", Unit::Ns),
            ("Redis on the client's processor", "l1.redis_ns", Unit::Ns),
            ("placed by the kernel", "l1.redis_free_ns", Unit::Ns),
            ("against it", "l1.redis_free_times", Unit::Times),
        ],
    },
    Target {
        id: "L2",
        what: "lmdb: put (sealed, indexed, `durability=process`), faster than Redis `SET`",
        target: "≥ 4 ×",
        checks: &[("l2.redis_times", Unit::Times, AtLeast(4.0))],
        beside: &[
            ("libsss", "l2.sss_ns", Unit::Ns),
            ("a thousandth of the sessions", "l2.small_ns", Unit::Ns),
            ("LMDB alone, same size", "l2.bare_ns", Unit::Ns),
            ("Redis on the client's processor", "l2.redis_ns", Unit::Ns),
            ("placed by the kernel", "l2.redis_free_ns", Unit::Ns),
            ("against it", "l2.redis_free_times", Unit::Times),
        ],
    },
    Target {
        id: "L3",
        what: "lmdb: `durability=power`, puts of 8 writers in 2 processes against one writer",
        target: "≥ 4 ×",
        checks: &[("l3.times", Unit::Times, AtLeast(4.0))],
        beside: &[("one, per second", "l3.one_kops", Unit::Thousands), ("eight", "l3.eight_kops", Unit::Thousands)],
    },
    Target {
        id: "L4",
        what: "lmdb: gets of 2 processes together against one",
        target: "≥ 1.7 ×",
        checks: &[("l4.times", Unit::Times, AtLeast(1.7))],
        beside: &[("one", "l4.one_mops", Unit::Mops), ("two", "l4.two_mops", Unit::Mops)],
    },
    Target {
        id: "L5",
        what: "lmdb: sweep, nothing due",
        target: "≤ 20 µs",
        checks: &[("l5.sss_ns", Unit::Ns, AtMost(20_000.0))],
        beside: &[],
    },
    Target {
        id: "L6",
        what: "lmdb: share of gets that write (one get per second and session, idle timeout 10 min): `process` · `power`",
        target: "≤ 2 %",
        checks: &[("l6.process_percent", Unit::Percent, AtMost(2.0)), ("l6.power_percent", Unit::Percent, AtMost(2.0))],
        beside: &[],
    },
    Target {
        id: "R1",
        what: "redis: round trips per get, put, create, delete: maximum",
        target: "1",
        checks: &[("r1.worst", Unit::Ratio, AtMost(1.01))],
        beside: &[
            ("get", "r1.get", Unit::Ratio),
            ("put", "r1.put", Unit::Ratio),
            ("put of a session not read before", "r1.put_unseen", Unit::Ratio),
            ("create", "r1.create", Unit::Ratio),
            ("delete", "r1.delete", Unit::Ratio),
        ],
    },
    Target {
        id: "R2",
        what: "redis: get against a bare `GETEX` on the same socket",
        target: "≤ 1.25 ×",
        checks: &[("r2.ratio.bare", Unit::Ratio, AtMost(1.25))],
        beside: &[
            ("libsss", "r2.sss_ns", Unit::Ns),
            ("bare", "r2.bare_ns", Unit::Ns),
            ("the commands of libsss on a bare connection", "r2.bare_commands_ns", Unit::Ns),
        ],
    },
    Target {
        id: "R3",
        what: "redis: 16 threads on one handle against 16 bare connections",
        target: "≥ 0.9 ×",
        checks: &[("r3.throughput", Unit::Ratio, AtLeast(0.9))],
        beside: &[
            ("libsss", "r3.sss_ns", Unit::Ns),
            ("bare", "r3.bare_ns", Unit::Ns),
            ("the commands of libsss on a bare connection", "r3.bare_commands_ns", Unit::Ns),
        ],
    },
    Target {
        id: "B1",
        what: "Python `Store.get`, 256 B, against `cachetools.TTLCache` with a lock",
        target: "≤ 1.0",
        checks: &[("b1.ratio", Unit::Ratio, AtMost(1.0))],
        beside: &[
            ("libsss", "b1.sss_ns", Unit::Ns),
            ("TTLCache", "b1.ttlcache_ns", Unit::Ns),
            ("TTLCache with sliding", "b1.ttlcache_slide_ns", Unit::Ns),
        ],
    },
    Target {
        id: "B2",
        what: "Python `Store.get` beside a busy thread, against its quiet rate",
        target: "≥ 0.25",
        checks: &[("b2.ratio", Unit::Ratio, AtLeast(0.25))],
        beside: &[("quiet", "b2.quiet_mops", Unit::Mops), ("beside a busy thread", "b2.busy_mops", Unit::Mops)],
    },
    Target {
        id: "B3",
        what: "Python, the session of a Flask request: `memory:` · `lmdb:`, against Flask-Session on Redis",
        target: "≥ 20 × · ≥ 8 ×",
        checks: &[
            ("b3.flask_memory_times", Unit::Times, AtLeast(20.0)),
            ("b3.flask_lmdb_times", Unit::Times, AtLeast(8.0)),
        ],
        beside: &[
            ("Flask on memory:", "b3.flask_memory_ns", Unit::Ns),
            ("on lmdb:", "b3.flask_lmdb_ns", Unit::Ns),
            ("on redis:", "b3.flask_redis_ns", Unit::Ns),
            ("Flask-Session on Redis", "b3.flask_session_ns", Unit::Ns),
            ("Django on memory:", "b3.django_memory_ns", Unit::Ns),
            ("on lmdb:", "b3.django_lmdb_ns", Unit::Ns),
            ("on redis:", "b3.django_redis_ns", Unit::Ns),
            ("Django cache on Redis", "b3.django_cache_ns", Unit::Ns),
            ("cached_db", "b3.django_cached_db_ns", Unit::Ns),
        ],
    },
    Target {
        id: "B4",
        what: "Elixir `SessionServerStore.get/3`, 1 KiB, against the Agent design: 1 process · 8 processes",
        target: "≥ 1.3 × · ≥ 5 ×",
        checks: &[("b4.times_1", Unit::Times, AtLeast(1.3)), ("b4.times_8", Unit::Times, AtLeast(5.0))],
        beside: &[
            ("libsss", "b4.sss_1_ns", Unit::Ns),
            ("Agent", "b4.agent_1_ns", Unit::Ns),
            ("libsss 8", "b4.sss_8_ns", Unit::Ns),
            ("Agent 8", "b4.agent_8_ns", Unit::Ns),
        ],
    },
    Target {
        id: "B5",
        what: "the same, against `Plug.Session.ETS`: 1 process · 8 processes",
        target: "≤ 2 · ≤ 2",
        checks: &[("b5.ratio_1", Unit::Ratio, AtMost(2.0)), ("b5.ratio_8", Unit::Ratio, AtMost(2.0))],
        beside: &[
            ("ETS", "b5.ets_1_ns", Unit::Ns),
            ("ETS 8", "b5.ets_8_ns", Unit::Ns),
            ("of which decoding the term", "b5.decode_ns", Unit::Ns),
            ("the native call", "b5.native_ns", Unit::Ns),
        ],
    },
];
