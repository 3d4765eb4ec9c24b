//! What is refused, with which words, and where they say that it is.

use super::*;

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
        ("[]", "invalid type: list, expected an object"),
        ("null", "host.json:1:4: invalid type: null, expected an object"),
        (r#"{"app": ["a"]}"#, "app: invalid type: list, expected an object"),
        (r#"{"app": {"library": "a"}, "databank": []}"#, "databank: invalid type: list, expected an object"),
        (
            r#"{"app": {"library": "a"}, "app_listeners": [["n", "unix:s"]]}"#,
            "app_listeners[0]: invalid type: list, expected an object",
        ),
        (
            r#"{"app": {"library": "a"}, "databank": {"driver": "mongodb", "uri": ["f"]}}"#,
            "databank.uri: expected a text or {\"file\": \"PATH\"}",
        ),
        (r#"{"app": {"library": "a"}, "restart": ["1s"]}"#, "restart: invalid type: list, expected an object"),
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
fn an_error_says_what_is_likely_meant_and_what_is_expected_in_words_of_json() {
    are_refused(&[
        (r#"{"app": {"library": "a"}, "worker": 2}"#, "worker: unknown field `worker`; did you mean `workers`?"),
        (r#"{"app": {"library": "a"}, "xyz": 2}"#, "xyz: unknown field `xyz`, expected one of `$schema`"),
        (r#"{"app": {"library": "a"}, "listen": "x"}"#, "listen: invalid type: string \"x\", expected a list"),
        (
            r#"{"app": {"library": "a"}, "restart": {"shutdown_timeout": 30}}"#,
            "restart.shutdown_timeout: invalid type: integer `30`, expected a duration with its unit, such as \"30s\"",
        ),
    ]);
}

#[test]
fn every_error_names_its_place_and_key() {
    are_refused(&[
        ("{\n  \"app\": }", "2:10: app: expected value"),
        (r#"{"workers": 2}"#, "missing field `app`"),
        (r#"{"app": {"library": "a", "libary": "b"}}"#, "app.libary: unknown field `libary`"),
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
            r#"{"app": {"library": "a"}, "restart": {"http2": "MOVE"}}"#,
            "restart.http2: unknown variant `MOVE`, expected `goaway` or `move`",
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
fn bytes_that_are_no_utf8_are_an_error_with_a_place() {
    let error = Config::parse(b"{\"app\": {\"library\": \"\xff\"}}", Path::new("/c.json")).unwrap_err();
    assert!(error.to_string().starts_with("/c.json:1:"), "{error}");
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
