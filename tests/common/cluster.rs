//! A Cluster of three masters on loopback, with a replica each or with none.

use std::{
    process::{Command, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use super::redis::{Server, USER, free_port};

const PATIENCE: Duration = Duration::from_secs(30);
const MASTERS: usize = 3;

pub struct Cluster {
    pub servers: Vec<Server>,
    configs: Vec<String>,
    replicas: usize,
}

impl Cluster {
    pub fn start() -> Cluster {
        Cluster::start_with(1, "")
    }

    /// Of masters that no replica takes over from: while one is down, the others serve their part.
    pub fn without_replicas() -> Cluster {
        Cluster::start_with(0, "cluster-require-full-coverage no\n")
    }

    /// With so many replicas for each master, and these lines in the configuration.
    fn start_with(replicas: usize, more: &str) -> Cluster {
        // A bus port of its own: the usual one is the port plus 10000, which may be none.
        let config = |_| {
            format!(
                "cluster-enabled yes\ncluster-port {}\ncluster-node-timeout 1000\nappendonly yes\n\
                 cluster-allow-replica-migration no\nrepl-diskless-sync-delay 0\n{more}",
                free_port()
            )
        };
        let configs: Vec<String> = (0..MASTERS * (1 + replicas)).map(config).collect();
        let servers = configs.iter().map(|config| Server::start(config)).collect();
        let cluster = Cluster { servers, configs, replicas };
        let nodes = cluster.servers.iter().map(|server| format!("127.0.0.1:{}", server.port));
        let create = ["--cluster".to_owned(), "create".to_owned()].into_iter().chain(nodes);
        let replicas = replicas.to_string();
        let created = Command::new("redis-cli")
            .args(create.chain(["--cluster-replicas", &replicas, "--cluster-yes"].map(str::to_owned)))
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
            let has_peer = self.replicas == 0
                || replication.contains("master_link_status:up")
                || replication.contains("state=online");
            info.contains("cluster_state:ok") && info.contains("cluster_slots_ok:16384") && has_peer
        };
        while !self.servers.iter().all(is_whole) {
            assert!(begun.elapsed() < PATIENCE, "the cluster does not come together");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The URL, with two of the servers in it: the others are found.
    pub fn url(&self, options: &str) -> String {
        let [a, b] = [self.servers[0].port, self.servers[(self.servers.len() - 1).min(4)].port];
        format!("redis+cluster://{USER}:hunter2%2F%40@127.0.0.1:{a},127.0.0.1:{b}?{options}")
    }

    /// How often a replica has taken over, by the servers' logs.
    pub fn failovers(&self) -> usize {
        let logs = self.servers.iter().map(|server| std::fs::read_to_string(server.directory().join("log")).unwrap());
        logs.map(|log| log.matches("Failover election won").count()).sum()
    }

    pub fn is_master(&self, i: usize) -> bool {
        self.servers[i].ask(&["ROLE"]).is_some_and(|role| role.contains("master\r\n"))
    }

    pub fn id(&self, i: usize) -> String {
        let answer = self.servers[i].ask(&["CLUSTER", "MYID"]).unwrap();
        answer.lines().nth(1).unwrap().to_owned()
    }

    /// The server that has the key; none if it is down.
    pub fn server_of(&self, key: &str) -> Option<usize> {
        let slot: u64 = self.any().ask(&["CLUSTER", "KEYSLOT", key]).unwrap()[1..].trim().parse().unwrap();
        let has_slot = |server: &Server| {
            let nodes = server.ask(&["CLUSTER", "NODES"]).unwrap_or_default();
            let line = nodes.lines().find(|line| line.contains("myself,master")).unwrap_or_default().to_owned();
            let in_range = |range: &str| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let bounds = first.parse::<u64>().ok().zip(last.parse::<u64>().ok());
                bounds.is_some_and(|(first, last)| (first..=last).contains(&slot))
            };
            line.split(' ').skip(8).any(in_range)
        };
        self.servers.iter().position(has_slot)
    }

    /// Any server that is up.
    fn any(&self) -> &Server {
        self.servers.iter().find(|server| server.ask(&["PING"]).is_some()).unwrap()
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
