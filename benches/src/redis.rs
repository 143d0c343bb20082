//! R1 to R3: `redis:` against bare connections to the same server over the same Unix socket.

use std::time::Duration;

use sss::{Access, Options};

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
    let (mut connection, mut drawn) = (redis.connect().expect("a connection"), Batches::new(&ids, 9));
    race.runner("bare_commands", move || {
        redis.place(true);
        time_each(calls, &mut drawn, |id| connection.get_and_slide(id))
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
    race.runner("bare_commands", || {
        together(&ids, time, || {
            let mut connection = redis.connect().expect("a connection");
            move |id: &Id| connection.get_and_slide(id)
        })
    });
    let outcome = race.run(scale.rounds);
    facts.set_outcome("r3", "ns", &outcome);
    facts.set_middle("r3.throughput", outcome.compare("bare", "sss", |bare, sss| bare / sss));
}

/// R1: reads by the server per call. A put follows a get, as in a web server; a put of a session
/// that this process has not read costs one read more.
fn round_trips(facts: &mut Facts, redis: &Server, sss: &Filled<Sss>) {
    const CALLS: usize = 1000;
    let mut connection = redis.connect().expect("a connection");
    let (store, bytes) = (&sss.store.0, payload(PAYLOAD, 1));
    let create = || store.create(&bytes, &Options::default()).expect("a session is created").0;
    let put = |id: &Id| store.put(id, &bytes, &Options::default()).expect("a put");
    let get = |id: &Id| store.read::<_, sss::Error>(id, Access::Slide, |_, _| Ok(())).expect("a get");
    let mut created: Vec<_> = (0..CALLS).map(|_| create()).collect();
    let mut trips = |op: &mut dyn FnMut(&Id)| {
        let before = connection.reads();
        sss.ids.iter().take(CALLS).for_each(op);
        // Reading the count is a request too.
        (connection.reads() - before - 1) as f64 / CALLS as f64
    };
    let of_put_unseen = trips(&mut |id| {
        put(id);
    });
    let of_get = trips(&mut |id| get(id));
    let of_put = trips(&mut |id| {
        get(id);
        put(id);
    }) - of_get;
    let of_create = trips(&mut |_| drop(create()));
    let of_delete = trips(&mut |_| store.delete(created.pop().expect("one for each call")).expect("a delete"));
    let all = [("get", of_get), ("put", of_put), ("create", of_create), ("delete", of_delete)];
    for (op, trips) in all {
        facts.set(&format!("r1.{op}"), trips);
    }
    facts.set("r1.put_unseen", of_put_unseen);
    facts.set("r1.worst", all.iter().fold(0.0, |worst, (_, trips)| worst.max(*trips)));
}
