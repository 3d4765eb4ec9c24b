//! Listeners and workers of a master, and connections to them.

use serde_json::Value;

use super::{Host, lock};
use crate::client::{Address, Connection};
use crate::restart::Serving;
use crate::{process, said};

impl Host {
    /// The address of the only listener, or of the first that is configured.
    pub fn address(&self) -> Address {
        let first = &self.config["listen"][0];
        let name = first["name"].as_str().or(first["address"].as_str()).or(first.as_str()).expect("a listener");
        self.address_of(name)
    }

    /// The address that a listener has in fact, as the log says it.
    pub fn address_of(&self, listener: &str) -> Address {
        self.wait(&format!("the address of listener {listener}"), || {
            let mut log = lock(&self.log);
            let line =
                log.lines().iter().rev().find(|line| line.msg() == said::LISTENING && line.str("listener") == listener);
            line.map(|line| {
                Address::parse(line.str("address")).unwrap_or_else(|| panic!("no address: {}", line.text()))
            })
        })
    }

    /// A new connection to the first listener.
    pub fn connect(&self) -> Connection {
        let address = self.address();
        Connection::connect(&address).unwrap_or_else(|error| panic!("connecting to {address:?}: {error}"))
    }

    /// A connection to the worker with this process id. The app must answer `/whoami` as for
    /// [`Self::assert_all_serve`].
    pub fn connect_to(&self, worker: u32) -> Connection {
        self.wait(&format!("a connection to worker {worker}"), || {
            // Connections opened together are spread over the workers.
            let connections: Vec<_> = (0..8).map(|_| self.connect()).collect();
            connections.into_iter().find_map(|mut connection| {
                assert_eq!(connection.get("/whoami").expect("an answer"), 200);
                let answer: Value = serde_json::from_slice(connection.body()).expect("whoami answers JSON");
                (answer["pid"].as_u64() == Some(u64::from(worker))).then_some(connection)
            })
        })
    }

    /// Asks on a connection of its own; the answer must be 200.
    pub fn get(&self, path: &str) -> String {
        let mut connection = self.connect();
        let status = connection.get(path).unwrap_or_else(|error| panic!("GET {path}: {error}"));
        assert_eq!(status, 200, "GET {path}: {}", connection.text());
        connection.text()
    }

    /// Blocks a serving thread for ever; the app must be [`Self::misbehaving`]. Returns its worker,
    /// once the app has said that it does it, and the connection of the request.
    pub fn block_a_thread(&self) -> (u32, Connection) {
        let mark = self.mark();
        let mut connection = self.connect();
        connection.ask("/block").expect("the request is taken");
        (self.wait_after(mark, "the app blocks a thread", |_| true).pid(), connection)
    }

    /// The worker processes that live: the master's children of that name.
    pub fn workers(&self) -> Vec<u32> {
        let is_worker =
            |pid: &u32| process::name(*pid) == "app-host" && process::command_line(*pid).contains(" internal-worker");
        process::children(self.master()).into_iter().filter(is_worker).collect()
    }

    /// The workers that serve, as the log tells it: ready, not ordered to drain, not gone. By slot,
    /// then by generation.
    pub fn serving(&self) -> Vec<u32> {
        let mut serving = Serving::default();
        for line in lock(&self.log).lines() {
            serving.see(line);
        }
        serving.pids()
    }

    /// Waits until each of these workers has answered a request. The app must answer `/whoami` with
    /// JSON that has its `pid`.
    pub fn assert_all_serve(&self, workers: &[u32]) {
        assert!(!workers.is_empty(), "some workers should serve");
        let mut silent: Vec<u32> = workers.to_vec();
        self.wait(&format!("answers of all of {workers:?}"), || {
            // Connections opened together are spread over the workers; one after the other they
            // may all go to the same.
            let mut connections: Vec<_> = (0..8).map(|_| self.connect()).collect();
            for connection in &mut connections {
                assert_eq!(connection.get("/whoami").expect("an answer"), 200);
                let answer: Value = serde_json::from_slice(connection.body()).expect("whoami answers JSON");
                silent.retain(|pid| answer["pid"].as_u64() != Some(u64::from(*pid)));
            }
            silent.is_empty().then_some(())
        });
    }
}
