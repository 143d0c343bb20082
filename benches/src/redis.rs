//! R1 to R3: `redis:` beside bare connections to the same server, over the same unix socket.

use sss::{Access, Options};
use std::time::Duration;

use crate::{
    competitors::{Sessions, Sss},
    facts::Facts,
    remote::{CONNECTIONS, Directory, Server, time_each, together},
    speed::Filled,
    workload::{Batches, Id, Race, Rng, Scale, payload},
};

const PAYLOAD: usize = 256;

pub fn beside_bare_connections(scale: Scale, facts: &mut Facts) {
    let directory = Directory::new().expect("a directory for the socket");
    let redis = match Server::redis(&directory.0) {
        Ok(redis) => redis,
        Err(error) => return eprintln!("R1 to R3 need redis-server: {error}"),
    };
    let ids = Rng::new(9).ids((scale.n / 10).max(1000));
    redis.fill(&ids).expect("the server takes the sessions");
    let url = format!("redis+unix://{}?pool={CONNECTIONS}", redis.socket.display());
    let sss = Filled::new(Sss::open_url(&url), &ids, PAYLOAD);
    round_trips(facts, &redis, &sss);

    let calls = if scale.quick { 1000 } else { 4000 };
    let mut race = Race::default();
    let (mut store, mut drawn) = (sss.store.clone(), Batches::new(&sss.ids, 9));
    let (mut out, redis) = ([0; PAYLOAD], &redis);
    race.runner("sss", move || {
        redis.place(true);
        time_each(calls, &mut drawn, |id| assert!(store.get(id, &mut out).is_some()))
    });
    let (mut connection, mut drawn) = (redis.connect().expect("a connection"), Batches::new(&ids, 9));
    race.runner("bare", move || {
        redis.place(true);
        time_each(calls, &mut drawn, |id| connection.get(id))
    });
    let outcome = race.run(scale.rounds);
    redis.place(false);
    facts.set_outcome("r2", "ns", &outcome);

    let time = Duration::from_millis(if scale.quick { 150 } else { 500 });
    let mut race = Race::default();
    race.runner("sss", || {
        together(&sss.ids, time, || {
            let (mut store, mut out) = (sss.store.clone(), [0; PAYLOAD]);
            move |id: &Id| assert!(store.get(id, &mut out).is_some())
        })
    });
    race.runner("bare", || {
        together(&ids, time, || {
            let mut connection = redis.connect().expect("a connection");
            move |id: &Id| connection.get(id)
        })
    });
    let outcome = race.run(scale.rounds);
    facts.set_outcome("r3", "ns", &outcome);
    facts.set_middle("r3.throughput", outcome.compare("bare", "sss", |bare, sss| bare / sss));
}

/// R1: how often the server had something to read, per call.
fn round_trips(facts: &mut Facts, redis: &Server, sss: &Filled<Sss>) {
    const CALLS: usize = 1000;
    let mut connection = redis.connect().expect("a connection");
    let store = &sss.store.0;
    let bytes = payload(PAYLOAD, 1);
    let created = store.create(&bytes, &Options::default()).expect("a session is created");
    let mut victims: Vec<_> = (0..CALLS).map(|_| store.create(&bytes, &Options::default()).unwrap().0).collect();
    let mut worst = 0.0_f64;
    for op in ["get", "put", "create", "delete"] {
        let before = connection.reads();
        for id in sss.ids.iter().take(CALLS) {
            match op {
                "get" => store.read(id, Access::Slide, |_, _| Ok(())).expect("a get"),
                "put" => drop(store.put(id, &bytes, &Options::default()).expect("a put")),
                "create" => drop(store.create(&bytes, &Options::default()).expect("a create")),
                _ => store.delete(victims.pop().expect("one for each call")).expect("a delete"),
            }
        }
        // The count is read by a request of its own.
        let trips = (connection.reads() - before - 1) as f64 / CALLS as f64;
        facts.set(&format!("r1.{op}"), trips);
        worst = worst.max(trips);
    }
    facts.set("r1.worst", worst);
    drop(created);
}
