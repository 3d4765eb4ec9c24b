//! The reference pages of the book say what there is: each name of the code's own lists stands on its page, and each name
//! of a page's table is one of the code's.
//!
//! Tables behind a comment `<!-- made by … -->` are written by these tests: `UPDATE_DOCS=1 cargo test --release -p
//! app-host-tests --test promises -- reference`.

mod commands;
mod configuration;
mod log;
mod metrics;
mod reasons;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use app_host_tests::build::workspace;

fn path(page: &str) -> PathBuf {
    workspace().join("docs").join(page)
}

fn read(page: &str) -> String {
    fs::read_to_string(path(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// The rows of all tables, as cells.
fn rows(text: &str) -> Vec<Vec<String>> {
    let lines = text.lines().filter(|line| line.starts_with('|') && !line.starts_with("|---"));
    lines.map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The section of a page under this heading.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no heading {heading:?}"));
    rest.split("\n## ").next().unwrap_or_default()
}

/// The first names between backticks in the first cells of all tables.
fn named(text: &str) -> BTreeSet<String> {
    rows(text).iter().filter_map(|row| quoted(&row[0]).next().map(str::to_owned)).collect()
}

/// Holds the tables that a page has behind `<!-- made by {maker}: … -->` to what `make` makes of the words there, or
/// writes them. Returns all of those words.
fn hold(page: &str, maker: &str, make: impl Fn(&[&str]) -> String) -> Vec<String> {
    let text = read(page);
    let begin = format!("<!-- made by {maker}: ");
    let mut held = String::new();
    let mut words = Vec::new();
    let mut rest = text.as_str();
    while let Some((before, behind)) = rest.split_once(&begin) {
        let (these, behind) = behind.split_once(" -->\n").expect("the comment ends its line");
        let these: Vec<&str> = these.split(' ').collect();
        let _ = write!(held, "{before}{begin}{} -->\n\n{}", these.join(" "), make(&these));
        words.extend(these.into_iter().map(str::to_owned));
        // What is there is a table, or nothing yet.
        let table = behind.trim_start().split_inclusive('\n').take_while(|line| line.starts_with('|'));
        rest = behind.trim_start()[table.map(str::len).sum()..].trim_start();
        if !rest.is_empty() {
            held.push('\n');
        }
    }
    held.push_str(rest);
    if held != text && std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(path(page), held).unwrap();
    } else {
        assert!(held == text, "{page} isn't what the code says; UPDATE_DOCS=1 writes it. Expected:\n{held}");
    }
    words
}

/// All sources of a crate of the host, without its tests.
fn sources(directory: &str) -> String {
    let mut text = String::new();
    let mut left = vec![workspace().join(directory)];
    while let Some(path) = left.pop() {
        if path.is_dir() && !path.ends_with("tests") {
            left.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|it| it == "rs") && !path.ends_with("tests.rs") {
            let source = fs::read_to_string(&path).unwrap();
            text.push_str(source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default());
        }
    }
    text
}

/// Every text that stands behind one of these in the source.
fn texts_behind(source: &str, begins: &[&str]) -> BTreeSet<String> {
    let behind = begins.iter().flat_map(|begin| source.split(begin).skip(1));
    behind.filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next()).map(str::to_owned).collect()
}
