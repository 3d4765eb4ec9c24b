use super::*;

fn setup(uri: &str) -> Setup {
    let uri = Secret::new(uri.to_owned());
    Setup { store: Store::Mongodb { uri, database: "d".to_owned(), indexes: Vec::new() }, timeout: TIMEOUT }
}

#[test]
fn the_servers_are_the_identity_and_the_login_is_not() {
    let running = setup("mongodb://u:p@b,A:27017/d?w=1");
    for same in ["mongodb://a,b:27017", "mongodb://x:y%40z@b,a/other", "mongodb://b:27017,a?w=2"] {
        assert_eq!(setup(same).difference(&running), None, "{same}");
    }
    for other in ["mongodb://a", "mongodb://a,b:27018", "mongodb+srv://a,b", "mongodb://a,c"] {
        assert_eq!(setup(other).difference(&running), Some("databank.uri"), "{other}");
    }
    let sqlite = Setup { store: Store::Sqlite { path: "/a".into() }, timeout: TIMEOUT };
    assert_eq!(sqlite.difference(&running), Some("databank.driver"));
    let moved = Setup { store: Store::Sqlite { path: "/b".into() }, timeout: TIMEOUT };
    assert_eq!(moved.difference(&sqlite), Some("databank.path"));
}

#[test]
fn the_place_is_the_servers_and_the_database_and_no_secret() {
    for (uri, shown) in [
        ("mongodb://u:p@b:1,A/d?w=1", "mongodb://b:1,A/d"),
        ("mongodb+srv://h", "mongodb+srv://h/d"),
        ("mongodb://h/?tlsCertificateKeyFilePassword=p", "mongodb://h/d"),
        ("mongodb://u:p q@h", "mongodb://h/d"),
        ("mongodb://u:12/p@h", "mongodb://(secret)/d"),
        ("mongodb://u:12?p@h/x", "mongodb://(secret)/d"),
    ] {
        let place = setup(uri).place();
        assert_eq!((place.driver.as_str(), place.place.as_deref()), ("mongodb", Some(shown)), "{uri}");
    }
    let sqlite = Setup { store: Store::Sqlite { path: "/a\nb".into() }, timeout: TIMEOUT };
    assert_eq!(sqlite.place().place.as_deref(), Some("/a\\nb"));
    let memory = Setup { store: Store::Memory, timeout: TIMEOUT };
    assert_eq!(memory.place(), Place { driver: "memory".to_owned(), place: None });
}

#[test]
fn no_secret_is_shown() {
    let setup = setup("mongodb://user:hunter2@h");
    assert!(!format!("{setup:?}").contains("hunter2"));
}
