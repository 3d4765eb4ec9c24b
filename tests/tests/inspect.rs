//! `app-host inspect`: what a library says of itself, and what a master would say of it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use app_host_tests::{App, Host};
use serde_json::Value;

fn inspect(path: &Path, form: &[&str]) -> Output {
    Command::new(App::build().host()).arg("inspect").args(form).arg(path).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(path: &Path) -> Value {
    let output = inspect(path, &["--json"]);
    let value: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(output.status.code(), Some(i32::from(value["fits"] != true)), "{value:#}");
    value
}

#[test]
fn a_library_that_fits_shows_all_of_its_manifest() {
    let library = App::build().app("epoch_two");
    let output = inspect(&library, &[]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for line in
        ["app-host-tests 0.1.0", "00000001_00000002 (ABI 1, epoch 2)", "abi_stable  0.11.3", "compiler    rustc 1."]
    {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(text.lines().last().unwrap().starts_with("fits: "), "{text}");

    let value = json(&library);
    let manifest = &value["manifest"];
    assert_eq!(
        (&manifest["magic"], &manifest["abi"], &manifest["epoch"]),
        (&"00000001_00000002".into(), &1.into(), &2.into())
    );
    assert_eq!(manifest["host_minor_needed"], value["host"]["abi_minor"]);
    for key in ["app_name", "app_version", "abi_minor", "flags", "app_abi", "abi_stable", "async_ffi", "rustc"] {
        assert!(!manifest[key].is_null(), "{key}: {value:#}");
    }
    assert_eq!(value["version"].as_str().unwrap().len(), 64);
    assert!(value["reason"].is_null() && value["detail"].is_null());
}

#[test]
fn nothing_of_the_library_runs() {
    // Their constructors would abort, exit with 0, or hang.
    for app in ["constructor_abort", "constructor_exit", "constructor_hang", "unresolved"] {
        assert_eq!(json(&App::build().app(app))["fits"], true, "{app}");
    }
}

/// Where bytes lie that must be there once.
fn find(bytes: &[u8], what: &[u8]) -> usize {
    let at = bytes.windows(what.len()).position(|window| window == what);
    at.unwrap_or_else(|| panic!("no {what:?}"))
}

#[test]
fn what_is_no_library_is_refused_for_what_it_is_in_the_words_of_a_master() {
    // FAULTS 20, and 18 for a half-written library.
    let good = fs::read(App::build().app("misbehaving")).unwrap();
    let changed = |at: usize, bytes: &[u8]| {
        let mut changed = good.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    // The note: its description begins with its length and the cookie, then the two halves of the magic.
    let cookie = find(&good, b"apph\x01\0\0\0\x01\0\0\0");
    let host = Host::misbehaving();
    let cases: [(&[u8], &str, &str); 12] = [
        (&good[..good.len() / 2], "bad artifact", "truncated"),
        (&good[..good.len() - 1], "bad artifact", "truncated"),
        (b"", "bad artifact", "no ELF file"),
        (b"#!/bin/sh\nexit 0\n", "bad artifact", "no ELF file"),
        (&changed(18, &[0x28, 0]), "bad artifact", "another architecture: machine 40"),
        (&changed(16, &[2, 0]), "bad artifact", "it is an executable, no shared library"),
        (&fs::read(App::build().app("no_manifest")).unwrap(), "bad artifact", "no app-abi manifest"),
        (&changed(cookie, b"nope"), "bad artifact", "field `cookie`"),
        (&changed(cookie - 4, &[1, 0, 0, 0]), "bad artifact", "field `length` is 1"),
        (&changed(cookie + 4, &[9]), "bad artifact", "it contradicts itself: APP_ABI_MAGIC is 00000001_00000001"),
        (&changed(cookie + 16, &[99]), "incompatibility", "`host_minor_needed` is 99"),
        (&changed(cookie + 24, &[7]), "incompatibility", "`app_abi` is version 7.1.0"),
    ];
    for (bytes, reason, expected) in cases {
        host.install_bytes(bytes);
        let value = json(&host.library_path());
        let detail = value["detail"].as_str().unwrap_or_default();
        assert_eq!(value["reason"], reason, "{expected}: {value:#}");
        assert!(detail.starts_with(&format!("{reason}: ")) && detail.contains(expected), "{expected}: {detail}");
        assert_eq!(value["manifest"].is_null(), reason == "bad artifact");
        let output = inspect(&host.library_path(), &[]);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(stdout(&output).lines().last().unwrap(), format!("refused: {detail}"));
    }
}

#[test]
fn what_is_no_file_is_refused_and_nothing_hangs_on_it() {
    // FAULTS 20
    let host = Host::misbehaving();
    let path = |name: &str| host.path(name);
    fs::create_dir(path("directory")).unwrap();
    nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    symlink(path("loop"), path("loop")).unwrap();
    for (name, expected) in [
        ("missing", "No such file"),
        ("directory", "is a directory"),
        ("fifo", "a special file"),
        ("loop", "symbolic links"),
    ] {
        let value = json(&path(name));
        assert_eq!(value["reason"], "bad artifact");
        assert!(value["detail"].as_str().unwrap().contains(expected), "{expected}: {value:#}");
    }
}
