//! Claims about what outlives a master, one a test.

use std::collections::HashSet;

use super::super::Pair;
use super::super::history::{First, History, Kept, NoEarlier, OnDisk, Quarantined, Standing, Why};
use crate::ids::{ConfigId, VersionId};

const fn pair(version: u8, config: u8) -> Pair {
    Pair { version: VersionId::from_digest([version; 32]), config: ConfigId::from_digest([config; 32]) }
}

const fn found(version: u8, config: u8) -> OnDisk {
    let Pair { version, config } = pair(version, config);
    OnDisk { version: Some(version), config: Some(config) }
}

fn kept(pair: Pair) -> Kept {
    Kept { pair, since: 7, app: "app".to_owned(), app_version: "1".to_owned(), config: "{}".to_owned() }
}

/// Versions 1 to `count` with configuration 0 have been active in turn.
fn after(count: u8, versions_kept: u16) -> History {
    let mut history = History::default();
    for version in 1..=count {
        history.activated(kept(pair(version, 0)), None, versions_kept);
    }
    history
}

fn rolled_back(history: &mut History, digits: Option<&str>, on_disk: OnDisk) -> Pair {
    let target = history.earlier(digits).unwrap().clone();
    let pair = target.pair;
    history.activated(target, Some(on_disk), 5);
    pair
}

/// The kept versions by their first byte, the newest first; the active one is negative.
fn kept_versions(history: &History) -> Vec<i16> {
    let number = |version: VersionId| i16::from(u8::from_str_radix(&version.to_string()[..2], 16).unwrap());
    let listed = history.list();
    let kept = listed.iter().filter(|it| it.app.is_some());
    kept.map(|it| number(it.version) * if it.state == Standing::Active { -1 } else { 1 }).collect()
}

#[test]
fn as_many_are_kept_beside_the_active_one_as_configured() {
    for (count, versions_kept, expected) in [
        (1, 5, vec![-1]),
        (6, 5, vec![-6, 5, 4, 3, 2, 1]),
        (9, 5, vec![-9, 8, 7, 6, 5, 4]),
        (9, 1, vec![-9, 8]),
        // The one before is kept in any case.
        (9, 0, vec![-9, 8]),
    ] {
        let history = after(count, versions_kept);
        assert_eq!(kept_versions(&history), expected);
        let kept: HashSet<VersionId> = history.list().iter().map(|it| it.version).collect();
        assert_eq!(history.versions(), kept);
    }
}

#[test]
fn what_becomes_active_again_is_kept_once() {
    let mut history = after(3, 5);
    history.activated(kept(pair(1, 0)), None, 5);
    assert_eq!(kept_versions(&history), [-1, 3, 2]);
    history.activated(kept(pair(1, 0)), None, 5);
    assert_eq!(kept_versions(&history), [-1, 3, 2], "new workers of the same");
    history.activated(kept(pair(1, 1)), None, 5);
    assert_eq!(kept_versions(&history), [-1, 1, 3, 2], "another configuration is another generation");
}

#[test]
fn rollbacks_go_further_back_and_a_restart_begins_anew() {
    let mut history = after(4, 5);
    assert_eq!(rolled_back(&mut history, None, found(4, 0)), pair(3, 0));
    assert_eq!(rolled_back(&mut history, None, found(4, 0)), pair(2, 0));
    assert_eq!(kept_versions(&history), [4, 3, -2, 1]);
    history.activated(kept(pair(5, 0)), None, 5);
    assert_eq!(kept_versions(&history), [-5, 2, 4, 3, 1]);
    assert_eq!(history.earlier(None).unwrap().pair, pair(2, 0), "what served before, not what was given up");
    let mut first = after(1, 5);
    assert_eq!(first.earlier(None), Err(NoEarlier::None));
    first.activated(kept(pair(2, 0)), None, 5);
    rolled_back(&mut first, None, found(2, 0));
    assert_eq!(first.earlier(None), Err(NoEarlier::None));
    assert_eq!(History::default().earlier(None), Err(NoEarlier::None));
}

#[test]
fn a_rollback_keeps_what_is_before_it_when_room_is_short() {
    let mut history = after(4, 5);
    rolled_back(&mut history, None, found(4, 0));
    rolled_back(&mut history, None, found(4, 0));
    let active = history.earlier(Some("0303")).unwrap().clone();
    history.activated(active, Some(found(4, 0)), 1);
    assert_eq!(kept_versions(&history), [-3, 2]);
}

#[test]
fn a_version_is_named_by_its_first_digits() {
    let mut history = after(3, 5);
    assert_eq!(history.earlier(Some("0101")).unwrap().pair, pair(1, 0));
    assert_eq!(history.earlier(Some(&"02".repeat(32))).unwrap().pair, pair(2, 0));
    for (digits, error) in [
        ("", NoEarlier::NoVersion(String::new())),
        ("010", NoEarlier::NoVersion("010".to_owned())),
        ("wxyz", NoEarlier::NoVersion("wxyz".to_owned())),
        ("0303", NoEarlier::Unknown("0303".to_owned())),
        ("FFFF", NoEarlier::Unknown("ffff".to_owned())),
    ] {
        assert_eq!(history.earlier(Some(digits)), Err(error), "{digits}");
    }
    let like_two = {
        let mut digest = [2; 32];
        digest[31] = 9;
        Pair { version: VersionId::from_digest(digest), ..pair(2, 0) }
    };
    history.activated(kept(like_two), None, 5);
    history.activated(kept(pair(4, 0)), None, 5);
    assert_eq!(history.earlier(Some("0202")), Err(NoEarlier::Ambiguous("0202".to_owned())));
    // The last of several configurations of one version.
    history.activated(kept(pair(1, 1)), None, 5);
    history.activated(kept(pair(5, 0)), None, 5);
    assert_eq!(history.earlier(Some("0101")).unwrap().pair, pair(1, 1));
    // Which configuration may be said as well.
    let mut history = after(1, 5);
    history.activated(kept(pair(1, 1)), None, 5);
    history.activated(kept(pair(2, 1)), None, 5);
    for number in [0, 1] {
        let config = pair(1, number).config.to_string();
        assert_eq!(history.earlier(Some(&format!("0101:{}", &config[..12]))).unwrap().pair, pair(1, number));
    }
    assert_eq!(history.earlier(Some("0101:ffff")), Err(NoEarlier::Unknown("0101:ffff".to_owned())));
    assert_eq!(history.earlier(Some("0101:")), Err(NoEarlier::NoVersion("0101:".to_owned())));
}

#[test]
fn what_has_failed_is_not_gone_back_to() {
    let mut history = after(3, 5);
    assert!(history.quarantine(pair(2, 0), 9, "worker died"));
    assert_eq!(history.earlier(None).unwrap().pair, pair(1, 0));
    let error = history.earlier(Some("0202")).unwrap_err();
    assert_eq!(error, NoEarlier::Quarantined("020202020202".to_owned(), "worker died".to_owned()));
}

#[test]
fn a_master_starts_with_what_it_finds_unless_that_has_failed_or_was_rolled_back() {
    let mut history = after(2, 5);
    assert_eq!(history.first(found(9, 9)), First::Found);
    assert!(history.quarantine(pair(3, 0), 9, "worker died"));
    let failed = Quarantined { pair: pair(3, 0), since: 9, reason: "worker died".to_owned() };
    assert_eq!(history.first(found(3, 0)), First::Instead(&kept(pair(2, 0)), Why::Quarantined(&failed)));
    assert_eq!(history.first(found(3, 1)), First::Found, "another configuration");
    assert_eq!(history.first(found(4, 0)), First::Found, "another library");
    rolled_back(&mut history, None, found(2, 0));
    assert_eq!(history.first(found(2, 0)), First::Instead(&kept(pair(1, 0)), Why::RolledBack));
    assert_eq!(history.first(found(2, 1)), First::Found, "the configuration has changed since");
    // A master that has started so still holds to it.
    history.activated(kept(pair(1, 0)), history.held(), 5);
    assert_eq!(history.first(found(2, 0)), First::Instead(&kept(pair(1, 0)), Why::RolledBack));
    history.activated(kept(pair(2, 0)), None, 5);
    assert_eq!(history.first(found(2, 0)), First::Found, "a restart has brought it in again");
    let mut unknown = History::default();
    unknown.quarantine(pair(1, 0), 9, "worker died");
    assert_eq!(unknown.first(found(1, 0)), First::Found, "there is nothing else");
}

#[test]
fn a_rollback_holds_also_where_nothing_lay_on_disk() {
    let nothing = OnDisk { version: None, ..found(0, 0) };
    let mut history = after(2, 5);
    rolled_back(&mut history, None, nothing);
    assert_eq!(history.first(nothing), First::Instead(&kept(pair(1, 0)), Why::RolledBack));
    assert_eq!(history.barred(), [], "nothing is seen there that could be asked for");
}

#[test]
fn the_active_generation_is_never_quarantined_and_what_becomes_active_no_more() {
    let mut history = after(2, 5);
    assert!(!history.quarantine(pair(2, 0), 9, "worker died"));
    assert_eq!(history.quarantined(pair(2, 0)), None);
    assert!(history.quarantine(pair(3, 0), 9, "worker died"));
    history.activated(kept(pair(3, 0)), None, 5);
    assert_eq!(history.quarantined(pair(3, 0)), None);
}

#[test]
fn what_is_quarantined_is_bounded_and_each_is_there_once() {
    let mut history = after(1, 5);
    for number in 2..=99 {
        for reason in ["first", "ü".repeat(5000).as_str()] {
            assert!(history.quarantine(pair(number, 0), number.into(), reason));
        }
    }
    assert_eq!(history.barred().len(), 64);
    assert_eq!(history.quarantined(pair(35, 0)), None, "the oldest are forgotten");
    assert_eq!(history.quarantined(pair(36, 0)).unwrap().reason.chars().count(), 1000);
}

#[test]
fn the_watcher_is_told_what_is_quarantined_and_what_was_rolled_back() {
    let mut history = after(2, 5);
    history.quarantine(pair(3, 0), 9, "worker died");
    assert!(history.depends_on_disk());
    rolled_back(&mut history, None, found(2, 0));
    assert_eq!(history.barred(), [pair(3, 0), pair(2, 0)]);
}

#[test]
fn a_list_tells_what_each_is() {
    let mut history = after(3, 5);
    history.quarantine(pair(2, 0), 8, "once good");
    history.quarantine(pair(4, 0), 9, "worker died");
    let listed = history.list();
    let seen: Vec<_> = listed.iter().map(|it| (it.version, it.state, it.since, it.reason)).collect();
    let version = |number| pair(number, 0).version;
    assert_eq!(
        seen,
        [
            (version(3), Standing::Active, 7, None),
            (version(2), Standing::Quarantined, 8, Some("once good")),
            (version(1), Standing::Kept, 7, None),
            (version(4), Standing::Quarantined, 9, Some("worker died")),
        ]
    );
}

#[test]
fn a_history_that_no_master_can_have_written_is_not_sound() {
    let digest = |_: &str| pair(0, 0).config;
    let history = after(2, 5);
    assert!(history.is_sound(digest));
    let mut never = history.clone();
    never.quarantine(pair(3, 0), u64::MAX, "worker died");
    assert!(!never.is_sound(digest), "a moment that can't be printed");
    assert!(!history.is_sound(|_| pair(0, 1).config), "a configuration isn't what its name says");
    let text = serde_json::to_string(&history).unwrap();
    assert_eq!(serde_json::from_str::<History>(&text).unwrap(), history);
    let elsewhere = text.replace("\"active\":{\"version\":\"02", "\"active\":{\"version\":\"07");
    assert_ne!(elsewhere, text);
    assert!(!serde_json::from_str::<History>(&elsewhere).unwrap().is_sound(digest));
}
