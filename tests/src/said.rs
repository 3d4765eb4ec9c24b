//! What the host's log says, for the tests that wait for it or count it.
//!
//! A message is the contract that operators match on: one that changes is changed here and in the
//! CHANGELOG, and nowhere else.

#![expect(missing_docs, reason = "the text of a constant is its meaning")]

pub const SERVING: &str = "serving";
pub const STOPPING: &str = "stopping";
pub const STOPPED: &str = "stopped";
pub const STOP_DELAYED: &str = "stop delayed";
pub const START_FAILED: &str = "could not start";
pub const EARLIER_GENERATION_STARTED: &str = "an earlier generation is started";
pub const DATABANK_CREATED: &str = "databank created";
pub const DATABANK_IN_USE: &str = "databank in use";
pub const LISTENING: &str = "listening";
pub const ADMIN_LISTENING: &str = "admin listening";
pub const LIBRARY_SEEN: &str = "library seen";
pub const RESTART_REQUESTED: &str = "restart requested";
pub const RESTART_REFUSED: &str = "zero-downtime restart refused";
pub const ROLL_STARTED: &str = "restart roll started";
pub const PROBATION_STARTED: &str = "restart probation started";
pub const RESTART_COMPLETE: &str = "zero-downtime restart complete";
pub const WORKER_SPAWNED: &str = "worker spawned";
pub const WORKER_READY: &str = "worker ready";
pub const WORKER_DRAINS: &str = "worker ordered to drain";
pub const WORKER_EXITED: &str = "worker exited";
pub const WORKER_KILLED: &str = "worker killed";
pub const WORKER_HUNG: &str = "worker hung, and is aborted";
pub const WORKER_UNABLE: &str = "worker can't serve";
pub const WORKER_MISBEHAVES: &str = "worker breaks its protocol, and is killed";
pub const HANDS_ON_NOTHING: &str = "worker hands on nothing in time";
pub const STATE_LEFT: &str = "the app's state is handed on";
pub const STATE_NOT_LEFT: &str = "the app's state is not handed on";
pub const STATE_INHERITED: &str = "the app has inherited state";
pub const STARTS_COLD: &str = "the app starts cold: it has inherited no state";
pub const RESPAWN_SCHEDULED: &str = "worker respawn scheduled";
pub const APP_PANICKED: &str = "app panicked";
pub const APP_STOP_TOO_LONG: &str = "the app's stop did not end in time";
pub const SIGNAL_LEFT: &str = "signal left to the master";
pub const WAITING_FOR_MASTER: &str = "waiting for a master that is stopping";
pub const LOGS_REOPENED: &str = "log files reopened";
pub const STRANGER_CLOSED: &str = "control connection of somebody else closed";
pub const LOCKS_WAIT: &str = "workers of an earlier master still drain: until they have gone no lock is granted";
pub const HISTORY_LOST: &str = "the history of generations is lost";
pub const WORKER_COUNT_DEFERRED: &str = "the number of workers changes later";
pub const PREFLIGHT_WAITS: &str = "the preflight waits";
pub const LIBRARY_OLD: &str = "the library is an old one";
pub const NOTHING_WATCHED: &str = "nothing is watched any more";
pub const CONNECTION_PARKED: &str = "connection parked";
