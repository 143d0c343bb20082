//! A Cluster of three masters with a replica each, on loopback.

use std::{
    process::{Command, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use super::redis::{Server, USER, free_port};

const PATIENCE: Duration = Duration::from_secs(30);
const SIZE: usize = 6;

pub struct Cluster {
    pub servers: Vec<Server>,
    configs: Vec<String>,
}

impl Cluster {
    pub fn start() -> Cluster {
        // A bus port of its own: the usual one is the port plus 10000, which may be none.
        let config = |_| {
            format!(
                "cluster-enabled yes\ncluster-port {}\ncluster-node-timeout 1000\nappendonly yes\n\
                 cluster-allow-replica-migration no\nrepl-diskless-sync-delay 0\n",
                free_port()
            )
        };
        let configs: Vec<String> = (0..SIZE).map(config).collect();
        let cluster = Cluster { servers: configs.iter().map(|config| Server::start(config)).collect(), configs };
        let nodes = cluster.servers.iter().map(|server| format!("127.0.0.1:{}", server.port));
        let create = ["--cluster".to_owned(), "create".to_owned()].into_iter().chain(nodes);
        let created = Command::new("redis-cli")
            .args(create.chain(["--cluster-replicas", "1", "--cluster-yes"].map(str::to_owned)))
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(created.success(), "redis-cli --cluster create");
        cluster.wait_until_whole();
        cluster
    }

    /// Until all agree that all slots are served, and each master has its replica.
    pub fn wait_until_whole(&self) {
        let begun = Instant::now();
        let is_whole = |server: &Server| {
            let info = server.ask(&["CLUSTER", "INFO"]).unwrap_or_default();
            let replication = server.ask(&["INFO", "replication"]).unwrap_or_default();
            let has_peer = replication.contains("master_link_status:up") || replication.contains("state=online");
            info.contains("cluster_state:ok") && info.contains("cluster_slots_ok:16384") && has_peer
        };
        while !self.servers.iter().all(is_whole) {
            assert!(begun.elapsed() < PATIENCE, "the cluster does not come together");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The URL, with two of the servers in it: the others are found.
    pub fn url(&self, options: &str) -> String {
        let [a, b] = [self.servers[0].port, self.servers[4].port];
        format!("redis+cluster://{USER}:hunter2%2F%40@127.0.0.1:{a},127.0.0.1:{b}?{options}")
    }

    pub fn is_master(&self, i: usize) -> bool {
        self.servers[i].ask(&["ROLE"]).is_some_and(|role| role.contains("master\r\n"))
    }

    pub fn id(&self, i: usize) -> String {
        let answer = self.servers[i].ask(&["CLUSTER", "MYID"]).unwrap();
        answer.lines().nth(1).unwrap().to_owned()
    }

    pub fn revive(&mut self, i: usize) {
        let config = self.configs[i].clone();
        self.servers[i].revive(&config);
    }
}

/// The one that the tests of this process have in common. It ends with the process.
pub fn shared() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(Cluster::start)
}
