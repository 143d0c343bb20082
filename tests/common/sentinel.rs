//! A master, its replica, and the Sentinels that watch them.

use std::{
    sync::OnceLock,
    thread::sleep,
    time::{Duration, Instant},
};

use super::redis::{Server, USER};

/// Three that watch this master, and know its replica.
///
/// A Sentinel sends its first PING to a new master a second after it has switched to it, or after
/// `down-after-milliseconds` if that is less: with a second or less it would take the new master
/// for dead before the answer, and name the old one again.
pub fn sentinels(master: u16) -> Vec<Server> {
    let config = format!(
        "sentinel monitor sessions 127.0.0.1 {master} 2\nsentinel down-after-milliseconds sessions 1500\n\
         sentinel failover-timeout sessions 3000\nsentinel parallel-syncs sessions 1"
    );
    let sentinels: Vec<Server> = (0..3).map(|_| Server::sentinel(&config)).collect();
    let begun = Instant::now();
    let all_known = |sentinel: &Server| {
        let info = sentinel.ask(&["INFO", "sentinel"]).unwrap_or_default();
        info.contains("slaves=1,sentinels=3")
    };
    while !sentinels.iter().all(all_known) {
        assert!(begun.elapsed() < Duration::from_secs(30), "the Sentinels do not come together");
        sleep(Duration::from_millis(50));
    }
    sentinels
}

pub fn url(sentinels: &[Server], options: &str) -> String {
    let hosts: Vec<String> = sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port)).collect();
    format!("redis+sentinel://{USER}:hunter2%2F%40@{}/sessions?{options}", hosts.join(","))
}

/// The URL of the ones that the tests of this process have in common, with these options. They end
/// with the process.
pub fn shared_url(options: &str) -> String {
    static SHARED: OnceLock<(Vec<Server>, Vec<Server>)> = OnceLock::new();
    let (_, sentinels) = SHARED.get_or_init(|| {
        let master = Server::start("repl-diskless-sync-delay 0");
        let replica = Server::start(&format!("repl-diskless-sync-delay 0\nreplicaof 127.0.0.1 {}", master.port));
        let sentinels = sentinels(master.port);
        (vec![master, replica], sentinels)
    });
    url(sentinels, options)
}
