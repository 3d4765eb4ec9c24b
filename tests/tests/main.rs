//! What app-host promises, held against the real binary: one module a promise, all in one binary, because each
//! would have to be linked with all that the tests use.
//!
//! They run beside each other, but for those in `alone`. Those that need root or
//! tools of the system, the second ring (`system`, `browser`), are ignored unless they are asked for: `-- --ignored`.

mod access;
mod activation;
mod admin;
mod alone;
mod app_listeners;
mod app_logs;
mod architecture;
mod book;
mod browser;
mod cli;
mod compromised;
mod container;
mod control;
mod crashes;
mod ctl;
mod databank;
mod databank_refusals;
mod databank_restarts;
mod dev;
mod dispatch;
mod distrust;
mod draining;
mod environment;
mod example;
mod examples;
mod failures;
mod first_start;
mod full_disk;
mod handover;
mod hang;
mod init;
mod inject;
mod inspect;
mod journal;
mod last_moment;
mod logs;
mod new;
mod notify;
mod only_one;
mod operator;
mod orphans;
mod privilege;
mod recycle;
mod reference;
mod refusals;
mod resources;
mod restart;
mod rights;
mod rollback;
mod rotation;
mod scale;
mod second_copy;
mod serving;
mod signals;
mod stalled_log;
mod stop_wait;
mod stopping;
mod subscribers;
mod system;
mod tower;
mod versions;
mod watcher;
