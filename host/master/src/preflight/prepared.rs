//! A generation that has passed its preflight: all that its workers are made of.

use std::sync::Arc;

use app_host_core::config::databank::Setup;
use app_host_core::config::{AppConfig, Config, Variables};
use app_host_core::ids::ConfigId;
use app_host_core::message::{Library, ListenerInfo, Server, TlsByListener};
use app_host_core::restart::Pair;
use app_host_core::restart::history::OnDisk;
use app_host_core::tls::CertificateInfo;
use app_host_platform::artifact::Version;
use app_host_platform::held::Directory;

use super::library;
use super::secrets::Secrets;
use crate::listeners::{AdminListener, Listeners};

/// A generation before it has a number: configuration, version and listeners.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub config: Arc<Config>,
    pub config_id: ConfigId,
    /// The configuration file as it was, for whoever goes back to this generation.
    pub text: Arc<str>,
    pub version: Version,
    pub listeners: Listeners,
    /// Where metrics and page are served.
    pub admin: Option<AdminListener>,
    /// Both with their secrets, as they were when the generation was prepared.
    pub databank: Arc<Setup>,
    pub app_config: Arc<AppConfig>,
    /// The variables of its children, as they were then.
    pub environment: Arc<Variables>,
    /// What its listeners' handshakes are made with, by their names.
    pub tls: Arc<TlsByListener>,
    /// Of each of those, its certificates.
    pub certificates: Arc<[Vec<CertificateInfo>]>,
    /// Where its workers and what looks at its library are: the directory of the configuration, wherever its path leads
    /// later.
    pub home: Arc<Directory>,
    /// What lay on disk and is not to be taken while it does, if this generation was gone back to.
    pub held: Option<OnDisk>,
}

impl Prepared {
    /// What makes it the same as another.
    pub fn pair(&self) -> Pair {
        Pair { version: self.version.id, config: self.config_id }
    }

    /// Whether workers of it are what workers of the other are.
    pub fn is_as(&self, other: &Self) -> bool {
        // A secret in a file of its own changes and the configuration doesn't.
        self.pair() == other.pair()
            && self.databank == other.databank
            && self.app_config == other.app_config
            && self.environment == other.environment
            && self.tls == other.tls
    }

    /// What workers are told of its listeners.
    pub fn listener_infos(&self) -> Vec<ListenerInfo> {
        let mut infos = self.listeners.infos();
        for (name, settings) in self.tls.iter() {
            for info in infos.iter_mut().filter(|info| info.server == Server::Worker && info.name == *name) {
                info.tls = Some(Arc::clone(settings));
            }
        }
        infos
    }

    /// What stands in files of its own.
    pub fn secrets(&self) -> Secrets {
        Secrets {
            databank: Arc::clone(&self.databank),
            app_config: Arc::clone(&self.app_config),
            environment: Arc::clone(&self.environment),
            tls: Arc::clone(&self.tls),
        }
    }

    /// What a child needs to load this version.
    pub fn library(&self) -> Library {
        library(&self.version)
    }
}
