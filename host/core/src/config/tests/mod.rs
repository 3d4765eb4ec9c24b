//! The configuration as a whole: what is enough, and what is refused with which words.

mod errors;

use super::*;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text.as_bytes(), Path::new("/etc/app/host.json")).map_err(|error| error.to_string())
}

#[test]
fn a_library_is_enough() {
    let config = parse(r#"{"app": {"library": "libapp.so"}}"#).unwrap();
    assert_eq!(config.app.library, Path::new("/etc/app/libapp.so"));
    assert_eq!(config.app.config.get(), "{}");
    assert_eq!(config.listen[0].address.to_string(), "127.0.0.1:8080");
    assert_eq!((config.workers, config.threads), (2, 1));
    assert_eq!(config.pid_file, Path::new("/etc/app/state/app-host.pid"));
    assert_eq!(config.restart.shutdown_timeout, Duration::from_secs(30));
    assert_eq!((config.restart.parallel, config.restart.while_draining), (1, false));
    assert_eq!(config.shutdown_delay, Duration::ZERO);
    assert_eq!(config.restart.probation, Duration::from_millis(250));
    assert_eq!(config.environment, Environment { inherit: Inherit::All, file: None });
}

#[test]
fn the_app_gets_its_configuration_as_it_was_written() {
    let config = parse(r#"{"app": {"library": "a", "config": {"b":  [1, 1e400, "é"]}}}"#).unwrap();
    assert_eq!(config.app.config.get(), r#"{"b":  [1, 1e400, "é"]}"#);
}

/// Checks that each text is refused, with its place and these words.
fn are_refused(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        let error = parse(text).unwrap_err();
        assert!(error.starts_with("/etc/app/host.json:"), "{text}: {error}");
        assert!(error.contains(expected), "{text}: {error}");
        // Not that of a key that has no name, but that of what is asked about.
        assert!(!error.replace("`?", "").contains('?') && !error.contains("struct "), "{text}: {error}");
    }
}

#[test]
fn an_address_that_may_come_later_is_one_where_it_is_asked_for() {
    let config = parse(
        r#"{"app": {"library": "a"}, "listen": [{"address": "192.0.2.1:80", "freebind": true}, "192.0.2.1:81"],
            "app_listeners": [{"name": "smtp", "address": "[2001:db8::1]:25", "freebind": true}],
            "admin": {"address": "192.0.2.1:82", "freebind": false}}"#,
    )
    .unwrap();
    let all = config.listen.iter().chain(&config.app_listeners).chain(&config.admin);
    assert_eq!(all.map(|listen| listen.freebind).collect::<Vec<_>>(), [true, false, true, false]);
}

#[test]
fn workers_are_told_what_becomes_of_http_2_connections() {
    for (restart, expected) in [
        ("", Http2Restart::Goaway),
        (r#", "restart": {"http2": "goaway"}"#, Http2Restart::Goaway),
        (r#", "restart": {"http2": "move"}"#, Http2Restart::Move),
    ] {
        let limits = parse(&format!(r#"{{"app": {{"library": "a"}}{restart}}}"#)).unwrap().client_limits();
        assert_eq!(limits.http2, expected, "{restart}");
        let sent = serde_json::to_string(&limits).unwrap();
        assert_eq!(serde_json::from_str::<ClientLimits>(&sent).unwrap(), limits, "{sent}");
    }
}

#[test]
fn nothing_is_watched_unless_it_is_asked_for() {
    for (watch, library, config, certificates) in [
        ("", false, false, false),
        (r#", "watch": false"#, false, false, false),
        (r#", "watch": true"#, true, false, false),
        (r#", "watch": {}"#, true, false, false),
        (r#", "watch": {"config": true}"#, true, true, false),
        (r#", "watch": {"library": false, "config": true}"#, false, true, false),
        (r#", "watch": {"library": false, "certificates": true}"#, false, false, true),
    ] {
        let parsed = parse(&format!(r#"{{"app": {{"library": "a"}}{watch}}}"#)).unwrap();
        assert_eq!(parsed.watch, Watched { library, config, certificates }, "{watch}");
    }
}

#[test]
fn what_cannot_change_is_named() {
    let running = parse(r#"{"app": {"library": "a"}}"#).unwrap();
    let changed = parse(r#"{"app": {"library": "a"}, "user": "www"}"#).unwrap();
    assert_eq!(changed.fixed_difference(&running), Some("user"));
    let moved = parse(r#"{"app": {"library": "b"}, "workers": 4}"#).unwrap();
    assert_eq!(moved.fixed_difference(&running), None);
}

#[test]
fn control_socket_has_a_path_and_rights() {
    let control = |more: &str| parse(&format!(r#"{{"app": {{"library": "a"}}{more}}}"#)).map(|it| it.control_socket);
    let running = control("").unwrap();
    assert_eq!((running.path.as_path(), running.rights.mode), (Path::new("/etc/app/state/control.sock"), Some(0o600)));
    let moved = control(r#", "control_socket": "/run/c.sock""#).unwrap();
    assert_eq!((moved.path.as_path(), &moved.rights), (Path::new("/run/c.sock"), &running.rights));
    let shared = control(r#", "control_socket": {"group": "deploy", "owner": 7}"#).unwrap();
    assert_eq!((shared.path, shared.rights.mode), (running.path, Some(0o660)));
    assert_eq!(shared.rights.group, Some(Account::Name("deploy".to_owned())));
    assert_eq!(shared.rights.owner, Some(Account::Id(7)));
    let narrow = control(r#", "control_socket": {"path": "../c", "group": "g", "mode": "620"}"#).unwrap();
    assert_eq!((narrow.path.as_path(), narrow.rights.mode), (Path::new("/etc/app/../c"), Some(0o620)));
    for (value, expected) in [
        (r#"{"mode": "666"}"#, "lets everybody command the master"),
        (r#"{"mode": "9"}"#, "expected octal digits"),
        (r#"{"group": ""}"#, "control_socket.group: invalid value: string \"\", expected a name, or a number"),
        (r#"{"socket": "a"}"#, "control_socket.socket: unknown field `socket`"),
        ("7", "expected a path or an object"),
    ] {
        let error = control(&format!(r#", "control_socket": {value}"#)).unwrap_err();
        assert!(error.contains("control_socket") && error.contains(expected), "{value}: {error}");
    }
    let text = |more: &str| parse(&format!(r#"{{"app": {{"library": "a"}}{more}}}"#)).unwrap();
    for more in [r#", "control_socket": "/run/c""#, r#", "control_socket": {"mode": "660"}"#] {
        assert_eq!(text(more).fixed_difference(&text("")), Some("control_socket"), "{more}");
    }
}

#[test]
fn environment_is_inherited_as_far_as_it_is_named_and_has_a_file() {
    let parse = |value: &str| {
        parse(&format!(r#"{{"app": {{"library": "a"}}, "environment": {value}}}"#))
            .map(|config| (config.environment, config.core_dumps))
    };
    let only = |names: &[&str]| Inherit::Only(names.iter().map(|name| (*name).to_owned()).collect());
    for (value, inherit, file) in [
        (r#""all""#, Inherit::All, None),
        (r#"["PATH"]"#, only(&["PATH"]), None),
        (r#"{"file": "env"}"#, Inherit::All, Some("env")),
        (r#"{"inherit": [], "file": "/run/env"}"#, only(&[]), Some("/run/env")),
        (r#"{"inherit": ["A", "B"]}"#, only(&["A", "B"]), None),
        ("{}", Inherit::All, None),
    ] {
        let (environment, core_dumps) = parse(value).unwrap();
        assert_eq!(environment, Environment { inherit, file: file.map(PathBuf::from) }, "{value}");
        assert_eq!(core_dumps, file.is_none(), "{value}: a file has secrets");
    }
    for (value, expected) in [
        (r#"{"file": ""}"#, "environment: file: expected a path, and it is empty"),
        (r#"{"file": 7}"#, "environment"),
        (r#"{"path": "env"}"#, "unknown field `path`"),
        (r#"{"inherit": {"file": "a"}}"#, "inherit: expected \"all\" or a list of names"),
        (r#"{"inherit": {}}"#, "inherit: expected \"all\" or a list of names"),
        (r#"{"inherit": ["A=B"]}"#, "the name of a variable"),
        ("7", "expected \"all\", a list of names of variables, or an object"),
    ] {
        let error = parse(value).unwrap_err();
        assert!(error.contains(expected) && error.contains("environment"), "{value}: {error}");
    }
}

#[test]
fn processors_are_named_once_each_or_chosen() {
    let parse = |value: &str| parse(&format!(r#"{{"app": {{"library": "a"}}, "cpus": {value}}}"#)).map(|it| it.cpus);
    for (value, expected) in [("null", Cpus::Any), (r#""auto""#, Cpus::Auto), ("[3, 0]", Cpus::These(vec![3, 0]))] {
        assert_eq!(parse(value).unwrap(), expected, "{value}");
    }
    for (value, expected) in [
        ("[]", "at least one processor"),
        ("[1, 2, 1]", "processor 1 is there twice"),
        ("[1024]", "from 0 to 1023"),
        ("[-1]", "cpus"),
        (r#""all""#, "null, \"auto\" or a list"),
        ("2", "null, \"auto\" or a list"),
    ] {
        let error = parse(value).unwrap_err();
        assert!(error.contains(expected) && error.contains("cpus"), "{value}: {error}");
    }
}

#[test]
fn users_and_groups_are_names_or_numbers() {
    let parse = |more: &str| parse(&format!(r#"{{"app": {{"library": "a"}}{more}}}"#));
    let config = parse(r#", "user": 1000, "group": "www", "groups": ["cert", 12]"#).unwrap();
    assert_eq!((config.user, config.group), (Some(Account::Id(1000)), Some(Account::Name("www".to_owned()))));
    assert_eq!(config.groups, Some(vec![Account::Name("cert".to_owned()), Account::Id(12)]));
    assert_eq!(parse("").unwrap().groups, None);
    for (more, key) in [
        (r#", "user": -1"#, "user: "),
        (r#", "user": """#, "user: "),
        (r#", "user": "a:b""#, "user: "),
        (r#", "user": 4294967295"#, "user: "),
        (r#", "group": 1.5"#, "group: "),
        (r#", "groups": "www""#, "groups: "),
        (r#", "groups": [true]"#, "groups[0]: "),
    ] {
        let error = parse(more).map(drop).unwrap_err();
        assert!(error.contains(key), "{more}: {error}");
    }
    let many = format!(r#", "groups": {:?}"#, vec![1; 1025]);
    assert!(parse(&many).map(drop).unwrap_err().contains("at most 1024 groups"));
    assert_eq!(
        ["7", "+7", "seven", "4294967295"].map(|it| Account::Name(it.to_owned()).id()),
        [Some(7), None, None, None]
    );
    let running = parse("").unwrap();
    assert_eq!(parse(r#", "groups": []"#).unwrap().fixed_difference(&running), Some("groups"));
}

#[test]
fn core_dumps_are_allowed_unless_there_is_a_secret_or_somebody_forbids_them() {
    let core_dumps = |text: &str| parse(&format!(r#"{{"app": {{"library": "a"}}{text}}}"#)).map(|it| it.core_dumps);
    let mongodb =
        |uri: &str, more: &str| core_dumps(&format!(r#", "databank": {{"driver": "mongodb", "uri": {uri}}}{more}"#));
    assert_eq!(core_dumps(""), Ok(true));
    assert_eq!(core_dumps(r#", "core_dumps": false"#), Ok(false));
    for (config, expected) in [(r#"{"key": {"file": "k"}}"#, false), (r#"{"key": "file"}"#, true)] {
        let text = format!(r#"{{"app": {{"library": "a", "config": {config}}}}}"#);
        assert_eq!(parse(&text).unwrap().core_dumps, expected, "{config}");
    }
    assert_eq!(mongodb(r#""mongodb://a""#, ""), Ok(true));
    for secret in [
        r#""mongodb://user:word@a""#,
        r#"{"file": "uri"}"#,
        r#""mongodb://a/?tls=true&tlsCertificateKeyFilePassword=x""#,
        r#""mongodb://a/?authMechanismProperties=AWS_SESSION_TOKEN:x""#,
    ] {
        assert_eq!(mongodb(secret, ""), Ok(false), "{secret}");
        assert_eq!(mongodb(secret, r#", "core_dumps": true"#), Ok(true), "{secret}");
    }
    let tls = r#", "listen": [{"address": "1.2.3.4:1", "tls": {"certificates": [{"certificate": "a", "key": "b"}]}}]"#;
    assert_eq!(core_dumps(tls), Ok(false));
    assert_eq!(core_dumps(&format!(r#"{tls}, "core_dumps": true"#)), Ok(true));
    assert!(core_dumps(r#", "core_dumps": "no""#).unwrap_err().contains("core_dumps: "));
}

#[test]
fn hanging_is_noticed_after_a_minute_unless_another_time_or_none_is_said() {
    let hang_timeout = |text: &str| parse(&format!(r#"{{"app": {{"library": "a"}}{text}}}"#)).map(|it| it.hang_timeout);
    assert_eq!(hang_timeout(""), Ok(Some(Duration::from_mins(1))));
    assert_eq!(hang_timeout(r#", "hang_timeout": "90s""#), Ok(Some(Duration::from_secs(90))));
    assert_eq!(hang_timeout(r#", "hang_timeout": null"#), Ok(None));
    for text in ["\"0s\"", "\"999ms\"", "\"2days\"", "\"soon\"", "60", "false"] {
        let error = hang_timeout(&format!(r#", "hang_timeout": {text}"#)).unwrap_err();
        assert!(error.contains("hang_timeout: invalid"), "{text}: {error}");
    }
    let error = hang_timeout(r#", "hang_timeout": "0s""#).unwrap_err();
    assert!(error.contains("expected null, or a duration from a second to a day"), "{error}");
}

#[test]
fn metrics_are_served_where_the_configuration_says_and_nowhere_else() {
    let admin = |text: &str| {
        let config = parse(&format!(r#"{{"app": {{"library": "a"}}, "listen": ["127.0.0.1:0"], {text}}}"#)).unwrap();
        config.admin.map(|admin| (admin.address.to_string(), admin.rights.mode))
    };
    assert_eq!(parse(r#"{"app": {"library": "a"}}"#).unwrap().admin, None);
    assert_eq!(admin(r#""admin": null"#), None);
    assert_eq!(admin(r#""admin": "[::1]:9090""#), Some(("[::1]:9090".to_owned(), None)));
    assert_eq!(admin(r#""admin": {"address": "127.0.0.1:0"}"#), Some(("127.0.0.1:0".to_owned(), None)));
    let unix = r#""admin": {"address": "unix:admin.sock", "mode": "660"}"#;
    assert_eq!(admin(unix), Some(("unix:/etc/app/admin.sock".to_owned(), Some(0o660))));
}
