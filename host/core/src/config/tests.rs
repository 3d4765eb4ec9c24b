//! The configuration as a whole: what is enough, and what is refused with which words.

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
        assert!(!error.contains('?') && !error.contains("struct "), "{text}: {error}");
    }
}

#[test]
fn what_is_wrong_above_the_first_key_has_a_place_as_well() {
    are_refused(&[
        ("", "host.json:1:1: EOF while parsing a value"),
        ("{", "host.json:1:1: EOF while parsing an object"),
        ("\n{workers: 3}", "host.json:2:2: key must be a string"),
        (r#"{"app": {"library": "a"},}"#, "host.json:1:26: trailing comma"),
        (r#"{"app": {"library": "a"} "workers": 2}"#, "host.json:1:26: expected `,` or `}`"),
        (r#"{"app": {"library": "a", }}"#, "host.json:1:26: app: trailing comma"),
        ("\u{feff}{}", "host.json:1:1: it begins with a byte order mark"),
        ("[]", "invalid type: sequence, expected an object"),
        ("null", "host.json:1:4: invalid type: null, expected an object"),
        (r#"{"app": ["a"]}"#, "app: invalid type: sequence, expected an object"),
        (r#"{"app": {"library": "a"}, "databank": []}"#, "databank: invalid type: sequence, expected an object"),
        (
            r#"{"app": {"library": "a"}, "app_listeners": [["n", "unix:s"]]}"#,
            "app_listeners[0]: invalid type: sequence, expected an object",
        ),
        (
            r#"{"app": {"library": "a"}, "databank": {"driver": "mongodb", "uri": ["f"]}}"#,
            "databank.uri: expected a text or {\"file\": \"PATH\"}",
        ),
        (r#"{"app": {"library": "a"}, "restart": ["1s"]}"#, "restart: invalid type: sequence, expected an object"),
        (r#"{"app": {"library": "a"}, "log": "x"}"#, "log: invalid type: string \"x\", expected an object"),
    ]);
}

#[test]
fn an_address_that_is_none_is_told_what_would_be_one() {
    are_refused(&[
        (r#"{"app": {"library": "a"}, "listen": ["localhost"]}"#, "listen: listener \"localhost\" is neither"),
        (
            r#"{"app": {"library": "a"}, "listen": ["[::1]:80", "[0:0::1]:80"]}"#,
            "listen: listener [::1]:80 is there twice",
        ),
        (
            r#"{"app": {"library": "a"}, "app_listeners": [{"name": "s", "address": "smtp"}]}"#,
            "app_listeners: listener \"smtp\" is neither",
        ),
        (
            r#"{"app": {"library": "a"}, "admin": 909090}"#,
            "admin: invalid value: integer `909090`, expected null, \"IP:PORT\", \":PORT\", a port, \"unix:PATH\" or an object",
        ),
        (r#"{"app": {"library": "a"}, "admin": "x"}"#, "admin: listener \"x\" is neither"),
        (r#"{"app": {"library": "a"}, "admin": "localhost:9090"}"#, "say \"127.0.0.1:9090\" or \"[::1]:9090\""),
        (
            r#"{"app": {"library": "a"}, "app_listeners": [{"name": "s", "address": "localhost:25"}]}"#,
            "app_listeners: \"localhost\" is two addresses",
        ),
        (r#"{"app": {"library": "a"}, "listen": ["*:80"]}"#, "for all addresses say \":80\""),
        (r#"{"app": {"library": "a"}, "listen": ["::1:80"]}"#, "in brackets: \"[::1]:80\""),
        (r#"{"app": {"library": "a"}, "listen": ["example.com:80"]}"#, "no name but localhost is resolved"),
        (r#"{"app": {"library": "a"}, "listen": ["localhost:65536"]}"#, "listener \"localhost:65536\" is neither"),
        (r#"{"app": {"library": "a"}, "listen": [":+80"]}"#, "listener \":+80\" is neither"),
        (
            r#"{"app": {"library": "a"}, "listen": [65536]}"#,
            "listen[0]: invalid value: integer `65536`, expected \"IP:PORT\"",
        ),
        (r#"{"app": {"library": "a"}, "listen": [""]}"#, "listener \"\" is neither"),
        (r#"{"app": {"library": "a"}, "listen": [":80", 80]}"#, "listener :80 is there twice"),
        (r#"{"app": {"library": "a"}, "listen": [":80", "127.0.0.1:80"]}"#, "listeners :80 and 127.0.0.1:80 overlap"),
        (
            r#"{"app": {"library": "a"}, "listen": ["[::]:80", "localhost:80"]}"#,
            "listeners [::]:80 and localhost:80 overlap",
        ),
        (
            r#"{"app": {"library": "a"}, "listen": [":80"], "admin": "127.0.0.1:80"}"#,
            "admin: the address 127.0.0.1:80 overlaps :80, which is in \"listen\" already",
        ),
    ]);
}

#[test]
fn every_error_names_its_place_and_key() {
    are_refused(&[
        ("{\n  \"app\": }", "2:10: app: expected value"),
        (r#"{"workers": 2}"#, "missing field `app`"),
        (r#"{"app": {"library": "a", "libary": "b"}}"#, "app.libary: unknown field `libary`"),
        (r#"{"app": {"library": "a"}, "worker": 2}"#, "worker: unknown field `worker`"),
        (r#"{"app": {"library": 1}}"#, "app.library: invalid type: integer `1`, expected path string"),
        (
            r#"{"app": {"library": "a"}, "restart": {"probation": "soon"}}"#,
            "restart.probation: invalid value: string \"soon\"",
        ),
        (r#"{"app": {"library": "a"}, "restart": {"start_timeout": "0s"}}"#, "restart.start_timeout: invalid value"),
        (
            r#"{"app": {"library": "a"}, "restart": {"on_failure": "pray"}}"#,
            "restart.on_failure: unknown variant `pray`",
        ),
        (
            r#"{"app": {"library": "a"}, "restart": {"while_draining": "yes"}}"#,
            "restart.while_draining: invalid type: string \"yes\", expected a boolean",
        ),
        (r#"{"app": {"library": "a"}, "directory": ""}"#, "directory: invalid value: string \"\", expected null, or"),
        (r#"{"app": {"library": "a"}, "shutdown_delay": "2d"}"#, "shutdown_delay: invalid value: string \"2d\""),
        (r#"{"app": {"library": "a"}, "listen": []}"#, "listen: invalid length 0"),
        (r#"{"app": {"library": "a"}, "listen": [{"address": "unix:s", "mode": "999"}]}"#, "\"mode\" is \"999\""),
        (
            r#"{"app": {"library": "a"}, "watch": "yes"}"#,
            "watch: invalid type: string \"yes\", expected true, false or",
        ),
        (
            r#"{"app": {"library": "a"}, "environment": "none"}"#,
            "1:47: environment: invalid value: string \"none\", expected \"all\", a list of names of variables, or an \
             object with the keys inherit, file",
        ),
        (
            r#"{"app": {"library": "a"}, "environment": ["A", "B=C"]}"#,
            "environment: invalid value: string \"B=C\", expected the name of a variable",
        ),
        (r#"{"app": {"library": "a"}, "watch": {"confg": true}}"#, "watch.confg: unknown field `confg`"),
        (
            r#"{"app": {"library": "a"}, "access_log": "yes"}"#,
            "access_log: invalid type: string \"yes\", expected true, false or",
        ),
        (r#"{"app": {"library": "a"}, "access_log": {"fil": "f"}}"#, "access_log.fil: unknown field `fil`"),
        (
            r#"{"app": {"library": "a"}, "access_log": {"trusted_peers": ["10.0.0.0/33"]}}"#,
            "access_log.trusted_peers: \"10.0.0.0/33\" is no peer: expected an address",
        ),
        (r#"{"app": {"library": "a"}, "watch": {"config": 1}}"#, "watch.config: invalid type: integer `1`"),
        (r#"{"app": {"library": "a"}, "app_listeners": ["127.0.0.1:25"]}"#, "app_listeners[0]: invalid type: string"),
        (
            r#"{"app": {"library": "a"}, "app_listeners": [{"address": "127.0.0.1:25"}]}"#,
            "app_listeners[0]: missing field `name`",
        ),
        (
            r#"{"app": {"library": "a"}, "app_listeners": [{"name": "s", "address": "127.0.0.1:25", "tls": 1}]}"#,
            "app_listeners[0].tls: unknown field `tls`",
        ),
        (
            r#"{"app": {"library": "a"}, "app_listeners": [{"name": "", "address": "127.0.0.1:25"}]}"#,
            "app_listeners: a listener's \"name\" must have from 1 to 255 bytes",
        ),
        (r#"{"app": {"library": "a"}, "admin": {"address": "127.0.0.1:1", "mode": "600"}}"#, "\"mode\" is for Unix"),
        (
            r#"{"app": {"library": "a"}, "listen": [{"address": "unix:s", "freebind": true}]}"#,
            "listen: \"freebind\" is for IP addresses, and unix:/s is a Unix socket",
        ),
        (
            r#"{"app": {"library": "a"}, "app_listeners": [{"name": "s", "address": "unix:s", "freebind": true}]}"#,
            "app_listeners: \"freebind\" is for IP addresses",
        ),
        (
            r#"{"app": {"library": "a"}, "app_listeners": [{"name": "s", "address": "127.0.0.1:25", "freebind": 1}]}"#,
            "app_listeners[0].freebind: invalid type: integer `1`, expected a boolean",
        ),
        (
            r#"{"app": {"library": "a"}, "admin": {"address": "unix:s", "freebind": true}}"#,
            "admin: \"freebind\" is for IP addresses",
        ),
        (
            r#"{"app": {"library": "a"}, "listen": [{"address": "127.0.0.1:1", "freebind": 1}]}"#,
            "listen[0].freebind: invalid type: integer `1`, expected a boolean",
        ),
        (
            r#"{"app": {"library": "a"}, "admin": {"address": "127.0.0.1:1", "freebind": "yes"}}"#,
            "admin.freebind: invalid type: string \"yes\", expected a boolean",
        ),
        (r#"{"app": {"library": "a"}, "listen": [{"address": ":1", "group": "www"}]}"#, "\"group\" is for Unix"),
        (r#"{"app": {"library": "a"}, "listen": [{"address": "localhost:1", "owner": 0}]}"#, "\"owner\" is for Unix"),
        (r#"{"app": {"library": "a"}, "admin": {"adress": "127.0.0.1:1"}}"#, "admin.adress: unknown field `adress`"),
        (
            r#"{"app": {"library": "a"}, "admin": "127.0.0.1:8080"}"#,
            "admin: the address 127.0.0.1:8080 is in \"listen\" already",
        ),
        (r#"{"app": {"library": "a"}, "app": {"library": "a"}}"#, "duplicate field `app`"),
        (r#"{"app": {"library": "a"}} x"#, "1:27: trailing characters"),
    ]);
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
fn nothing_is_watched_unless_it_is_asked_for() {
    for (watch, library, config) in [
        ("", false, false),
        (r#", "watch": false"#, false, false),
        (r#", "watch": true"#, true, false),
        (r#", "watch": {}"#, true, false),
        (r#", "watch": {"config": true}"#, true, true),
        (r#", "watch": {"library": false, "config": true}"#, false, true),
    ] {
        let parsed = parse(&format!(r#"{{"app": {{"library": "a"}}{watch}}}"#)).unwrap();
        assert_eq!(parsed.watch, Watched { library, config }, "{watch}");
    }
}

#[test]
fn a_listener_of_the_apps_that_is_there_already_is_named_with_its_place() {
    let text = |second: &str| {
        format!(
            "{{\"app\": {{\"library\": \"é\"}},\n \"listen\": [{{\"address\": \"127.0.0.1:80\", \"name\": \"web\"}}],\n \
             \"app_listeners\": [{{\"name\": \"smtp\", \"address\": \"unix:s\"}},\n  {second}]}}"
        )
    };
    for (second, message) in [
        (r#"{"name": "x", "address": "127.0.0.1:80"}"#, r#"the address 127.0.0.1:80 is in "listen" already"#),
        (r#"{"name": "web", "address": "127.0.0.1:25"}"#, r#"the name "web" is in "listen" already"#),
        (
            r#"{"name": "x", "address": "unix:/etc/app/s"}"#,
            r#"the address unix:/etc/app/s is in "app_listeners" already"#,
        ),
        (r#"{"name": "smtp", "address": "127.0.0.1:25"}"#, r#"the name "smtp" is in "app_listeners" already"#),
    ] {
        assert_eq!(parse(&text(second)).unwrap_err(), format!("/etc/app/host.json:4:3: app_listeners[1]: {message}"));
    }
    let config = parse(&text(r#"{"name": "x", "address": "127.0.0.1:25", "backlog": 7}"#)).unwrap();
    assert_eq!((config.app_listeners[1].name.as_str(), config.app_listeners[1].backlog), ("x", 7));
    assert!(parse(r#"{"app": {"library": "a"}}"#).unwrap().app_listeners.is_empty());
}

#[test]
fn bytes_that_are_no_utf8_are_an_error_with_a_place() {
    let error = Config::parse(b"{\"app\": {\"library\": \"\xff\"}}", Path::new("/c.json")).unwrap_err();
    assert!(error.to_string().starts_with("/c.json:1:"), "{error}");
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
        (r#"{"mode": "666"}"#, "lets everybody steer the master"),
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
fn core_dumps_are_allowed_unless_there_is_a_password_or_somebody_forbids_them() {
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

#[test]
fn a_number_that_is_none_is_told_its_bounds() {
    are_refused(&[
        (
            r#"{"app": {"library": "a"}, "workers": "x"}"#,
            "workers: invalid type: string \"x\", expected a number from 1 to 512",
        ),
        (
            r#"{"app": {"library": "a"}, "restart": {"parallel": null}}"#,
            "restart.parallel: invalid type: null, expected a number from 1 to 512",
        ),
        (
            r#"{"app": {"library": "a"}, "restart": {"parallel": 0}}"#,
            "restart.parallel: invalid value: integer `0`, expected a number from 1 to 512",
        ),
        (
            r#"{"app": {"library": "a"}, "workers": 0}"#,
            "workers: invalid value: integer `0`, expected a number from 1 to 512",
        ),
        (
            r#"{"app": {"library": "a"}, "threads": -1}"#,
            "threads: invalid type: integer `-1`, expected a number from 1 to 64",
        ),
    ]);
}
