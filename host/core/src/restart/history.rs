//! What outlives a master: which generations were active, which are quarantined, and what was rolled back.
//!
//! Owns the decisions: what a master starts with, how far back it can go, which versions are kept, and
//! what is not to be tried again. Leaves to others where it is written down, and the clock.
//!
//! Generations stand in the order in which restarts made them active. A rollback changes which of them
//! is active and not their order, so that the next one goes further back; the next ordinary restart puts
//! what it replaces in front of it. A rollback holds for as long as what lay on disk then lies there.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::Pair;
use crate::ids::{ConfigId, VersionId};

/// The most quarantined generations that are remembered; then the oldest is forgotten.
const MAX_QUARANTINED: usize = 64;

/// The longest reason that is remembered, in characters.
const MAX_REASON: usize = 1000;

/// The end of the year 9999: no master writes of a later moment, and nobody can print one.
const LAST_MOMENT: Moment = 253_402_300_799_999;

/// The fewest digits that name a version, or a configuration.
const MIN_DIGITS: usize = 4;

/// Milliseconds since the epoch: the only time that means something to the next master.
pub type Moment = u64;

/// A generation that is or was active, with all that it takes to run it again but its library.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// Its version and configuration.
    pub pair: Pair,
    /// When it became active, the last time.
    pub since: Moment,
    /// The app's name.
    pub app: String,
    /// The app's own version.
    pub app_version: String,
    /// The configuration file as it was.
    pub config: String,
}

/// A generation that has failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quarantined {
    /// Its version and configuration.
    pub pair: Pair,
    /// When it failed.
    pub since: Moment,
    /// What its verdict said.
    pub reason: String,
}

/// What lies at the configured paths; nothing where nothing whole does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnDisk {
    /// The library.
    pub version: Option<VersionId>,
    /// The configuration file.
    pub config: Option<ConfigId>,
}

impl OnDisk {
    /// What a restart would find, if it would find anything.
    pub fn pair(&self) -> Option<Pair> {
        Some(Pair { version: self.version?, config: self.config? })
    }
}

/// What a master is to start with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum First<'a> {
    /// What lies at the paths.
    Found,
    /// This earlier generation in its stead.
    Instead(&'a Kept, Why<'a>),
}

/// Why a master doesn't start with what lies at the paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why<'a> {
    /// It has been rolled back.
    RolledBack,
    /// It has failed.
    Quarantined(&'a Quarantined),
}

/// There is nothing to roll back to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoEarlier {
    /// The active generation is the first that is known.
    #[error("no earlier generation is kept")]
    None,
    /// Not at least four hexadecimal digits.
    #[error(
        "\"{0}\" names no version: expected its first hexadecimal digits, at least {MIN_DIGITS}, or VERSION:CONFIGURATION"
    )]
    NoVersion(String),
    /// No kept version begins so, or only the active generation's.
    #[error("no earlier generation is kept whose version begins with {0}")]
    Unknown(String),
    /// More than one version begins so.
    #[error("more than one kept version begins with {0}")]
    Ambiguous(String),
    /// All of them have failed since.
    #[error("version {0} is quarantined: {1}")]
    Quarantined(String, String),
}

/// What one kept or quarantined generation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It is active.
    Active,
    /// It was active, and can be rolled back to.
    Kept,
    /// It has failed, and isn't tried again.
    Quarantined,
}

/// One line about a kept or quarantined generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed<'a> {
    /// The library.
    pub version: VersionId,
    /// The configuration.
    pub config: ConfigId,
    /// What it is.
    pub state: Standing,
    /// Since when it is active or quarantined, or when it became active, in milliseconds since the epoch.
    pub since: Moment,
    /// The app's name, where it is known.
    pub app: Option<&'a str>,
    /// The app's own version, where it is known.
    pub app_version: Option<&'a str>,
    /// Why it is quarantined.
    pub reason: Option<&'a str>,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    kept: Vec<Kept>,
    active: Option<Pair>,
    quarantined: Vec<Quarantined>,
    /// What was rolled back, as it lay on disk.
    held: Option<OnDisk>,
}

/// What stands in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form<T> {
    form: u32,
    /// By the name that it had when the first such file was written.
    #[serde(rename = "ledger")]
    history: T,
}

/// What this form is called. A master that reads another one knows nothing.
const FORM: u32 = 1;

/// Bytes that no master of this version has written.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// They are no history.
    #[error(transparent)]
    Damaged(serde_json::Error),
    /// Another version may have.
    #[error("it has another form")]
    Form,
    /// What they say contradicts itself.
    #[error("it contradicts itself")]
    Unsound,
}

impl History {
    /// Reads what [`Self::to_json`] has made; `digest` names a configuration.
    pub fn parse(bytes: &[u8], digest: impl Fn(&str) -> ConfigId) -> Result<Self, Unreadable> {
        let Form { form, history } = serde_json::from_slice::<Form<Self>>(bytes).map_err(Unreadable::Damaged)?;
        if form != FORM {
            return Err(Unreadable::Form);
        }
        if history.is_sound(digest) { Ok(history) } else { Err(Unreadable::Unsound) }
    }

    /// As it is written down.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&Form { form: FORM, history: self })
    }

    /// Whether it can have been written by a master; `digest` names a configuration.
    pub fn is_sound(&self, digest: impl Fn(&str) -> ConfigId) -> bool {
        let is_kept = |pair: Pair| self.kept.iter().any(|it| it.pair == pair);
        self.active.is_none_or(is_kept)
            && self.quarantined.len() <= MAX_QUARANTINED
            && self.kept.iter().all(|it| it.since <= LAST_MOMENT)
            && self.quarantined.iter().all(|it| it.since <= LAST_MOMENT)
            && self.kept.iter().all(|it| digest(&it.config) == it.pair.config)
    }

    /// Every slot has a worker of this generation that serves. `held` is what a rollback has found on
    /// disk and not taken; `versions_kept` how many others are kept beside it.
    pub fn activated(&mut self, now_active: Kept, held: Option<OnDisk>, versions_kept: u16) {
        let pair = now_active.pair;
        self.quarantined.retain(|it| it.pair != pair);
        match self.kept.iter_mut().find(|it| it.pair == pair) {
            // A rollback, or a master that has started with what was active before.
            Some(known) if held.is_some() || self.active == Some(pair) => *known = now_active,
            _ => {
                if let Some(before) = self.active_index() {
                    let before = self.kept.remove(before);
                    self.kept.push(before);
                }
                self.kept.retain(|it| it.pair != pair);
                self.kept.push(now_active);
            }
        }
        self.active = Some(pair);
        self.held = held;
        self.forget(usize::from(versions_kept));
    }

    /// Forgets the oldest generations but so many beside the active one, and never the one before it.
    fn forget(&mut self, versions_kept: usize) {
        while self.kept.len() > versions_kept.max(1) + 1 {
            let active = self.active_index();
            let needed = |index: usize| active.is_some_and(|active| index == active || index + 1 == active);
            let Some(oldest) = (0..self.kept.len()).find(|index| !needed(*index)) else { return };
            self.kept.remove(oldest);
        }
    }

    /// A generation has failed. The active one is never quarantined, whatever became of another set of
    /// workers of the same: says whether it was.
    pub fn quarantine(&mut self, pair: Pair, since: Moment, reason: &str) -> bool {
        if self.active == Some(pair) {
            return false;
        }
        self.quarantined.retain(|it| it.pair != pair);
        self.quarantined.push(Quarantined { pair, since, reason: reason.chars().take(MAX_REASON).collect() });
        let too_many = self.quarantined.len().saturating_sub(MAX_QUARANTINED);
        self.quarantined.drain(..too_many);
        true
    }

    /// What is known of a generation that has failed.
    pub fn quarantined(&self, pair: Pair) -> Option<&Quarantined> {
        self.quarantined.iter().find(|it| it.pair == pair)
    }

    /// Whether anything of it depends on what lies on disk.
    pub fn depends_on_disk(&self) -> bool {
        self.held.is_some() || !self.quarantined.is_empty()
    }

    /// What a master that finds this on disk is to start with.
    pub fn first(&self, found: OnDisk) -> First<'_> {
        let Some(active) = self.active_index().map(|index| &self.kept[index]) else {
            return First::Found;
        };
        if self.held == Some(found) {
            return First::Instead(active, Why::RolledBack);
        }
        match found.pair().and_then(|pair| self.quarantined(pair)) {
            Some(quarantined) => First::Instead(active, Why::Quarantined(quarantined)),
            None => First::Found,
        }
    }

    /// What was rolled back and isn't to be taken while it lies there.
    pub const fn held(&self) -> Option<OnDisk> {
        self.held
    }

    /// What a rollback goes to: the last good one before the active generation, or the last one whose
    /// version begins with `digits`, and its configuration with what follows a colon there.
    ///
    /// # Errors
    /// When there is none.
    pub fn earlier(&self, digits: Option<&str>) -> Result<&Kept, NoEarlier> {
        let is_good = |it: &&Kept| self.quarantined(it.pair).is_none();
        let Some(digits) = digits else {
            let before = &self.kept[..self.active_index().unwrap_or(0)];
            return before.iter().rev().find(is_good).ok_or(NoEarlier::None);
        };
        let digits = digits.to_ascii_lowercase();
        let (version, config) =
            digits.split_once(':').map_or((digits.as_str(), None), |(it, config)| (it, Some(config)));
        let are_digits = |it: &str| it.len() >= MIN_DIGITS && it.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !are_digits(version) || !config.is_none_or(are_digits) {
            return Err(NoEarlier::NoVersion(digits.chars().take(64).collect()));
        }
        let begins = |it: &Kept| {
            let is_config = |config| it.pair.config.to_string().starts_with(config);
            it.pair.version.to_string().starts_with(version) && config.is_none_or(is_config)
        };
        let fitting: Vec<&Kept> =
            self.kept.iter().rev().filter(|it| Some(it.pair) != self.active && begins(it)).collect();
        let Some(last) = fitting.first() else { return Err(NoEarlier::Unknown(digits)) };
        if fitting.iter().any(|it| it.pair.version != last.pair.version) {
            return Err(NoEarlier::Ambiguous(digits));
        }
        fitting.iter().copied().find(is_good).ok_or_else(|| {
            let reason = self.quarantined(last.pair).map(|it| it.reason.clone());
            NoEarlier::Quarantined(last.pair.version.short(), reason.unwrap_or_default())
        })
    }

    /// The versions whose copies are kept.
    pub fn versions(&self) -> HashSet<VersionId> {
        self.kept.iter().map(|it| it.pair.version).collect()
    }

    /// What the watcher is not to ask for.
    pub fn barred(&self) -> Vec<Pair> {
        self.quarantined.iter().map(|it| it.pair).chain(self.held.and_then(|it| it.pair())).collect()
    }

    /// Every generation that is known, the newest first, then those that have failed.
    pub fn list(&self) -> Vec<Listed<'_>> {
        let kept = self.kept.iter().rev().map(|it| {
            let quarantined = self.quarantined(it.pair);
            let state = match quarantined {
                _ if Some(it.pair) == self.active => Standing::Active,
                Some(_) => Standing::Quarantined,
                None => Standing::Kept,
            };
            Listed {
                version: it.pair.version,
                config: it.pair.config,
                state,
                since: quarantined.map_or(it.since, |quarantined| quarantined.since),
                app: Some(&it.app),
                app_version: Some(&it.app_version),
                reason: quarantined.map(|quarantined| quarantined.reason.as_str()),
            }
        });
        let never_active = self.quarantined.iter().rev().filter(|it| self.kept.iter().all(|kept| kept.pair != it.pair));
        let failed = never_active.map(|it| Listed {
            version: it.pair.version,
            config: it.pair.config,
            state: Standing::Quarantined,
            since: it.since,
            app: None,
            app_version: None,
            reason: Some(&it.reason),
        });
        kept.chain(failed).collect()
    }

    fn active_index(&self) -> Option<usize> {
        let active = self.active?;
        self.kept.iter().position(|it| it.pair == active)
    }
}
