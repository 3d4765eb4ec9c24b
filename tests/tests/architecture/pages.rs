//! Sentences of the book that name a test which holds them: each such test exists.

use std::collections::BTreeSet;
use std::fs;

use app_host_tests::build::workspace;

use super::sources;

/// The page, one entry for each sentence that begins an item of a list.
fn sentences(page: &str) -> Vec<String> {
    let mut sentences: Vec<String> = Vec::new();
    let mut within = false;
    for line in page.lines() {
        if line.starts_with("- ") {
            sentences.push(String::new());
            within = true;
        }
        within &= !line.is_empty() && !line.starts_with('#');
        if within && let Some(sentence) = sentences.last_mut() {
            sentence.push_str(line.trim());
            sentence.push(' ');
        }
    }
    sentences
}

/// Checks that behind each item of a page's lists a test is named that exists.
fn assert_held_by_tests(page: &str, least: usize) {
    let page = fs::read_to_string(workspace().join(page)).unwrap();
    let mut sources = String::new();
    let mut left = vec![workspace().join("host"), workspace().join("tests/tests")];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push_str(&fs::read_to_string(path).unwrap());
        }
    }
    let sentences = sentences(&page);
    assert!(sentences.len() > least, "{}", sentences.len());
    for sentence in sentences {
        let named: Vec<&str> = sentence.split('`').filter(|word| word.contains("::")).collect();
        let refers = sentence.trim_end().ends_with("as above;");
        assert!(refers || !named.is_empty(), "no test holds this: {sentence}");
        for name in named {
            let function = name.rsplit("::").next().unwrap_or_default();
            assert!(sources.contains(&format!("fn {function}(")), "no such test: {name}");
        }
    }
}

#[test]
fn every_test_that_the_page_on_systemd_names_exists() {
    let page = |name: &str| fs::read_to_string(workspace().join("docs/operate").join(name)).unwrap();
    let (systemd, rotation) = (page("../design/invariants.md"), page("rotate-logs.md"));
    let (_, systemd) = systemd.split_once("\n## Under systemd\n").expect("the section");
    assert!(page("systemd.md").contains("(../design/invariants.md#under-systemd)"));
    let directory = workspace().join("tests/systemd");
    let mut found = BTreeSet::new();
    for path in sources(&directory) {
        let text = fs::read_to_string(&path).unwrap();
        let file = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let tests = text.split("#[test]\nfn ").skip(1).map(|rest| rest.split('(').next().unwrap_or_default());
        found.extend(tests.map(|test| format!("{file}::{test}")));
    }
    assert!(found.len() > 20, "{found:?}");
    let policy = fs::read_to_string(workspace().join("host/master/src/systemd/deadlines.rs")).unwrap();
    let named: BTreeSet<&str> = systemd.split('`').filter(|word| word.contains("::") && !word.contains(' ')).collect();
    assert!(named.len() > 20, "{named:?}");
    for name in &named {
        let in_policy = name.strip_prefix("deadlines::").is_some_and(|test| policy.contains(&format!("fn {test}(")));
        assert!(in_policy || found.contains(*name), "no such test: {name}");
    }
    // The other page names the file.
    assert!(rotation.contains("`tests/systemd/rotation.rs`"));
}

#[test]
fn every_sentence_about_trust_names_a_test_that_exists() {
    assert_held_by_tests("docs/operate/trust.md", 8);
    assert_held_by_tests("docs/operate/trust-of-workers.md", 15);
}

#[test]
fn every_item_about_load_balancers_names_a_test_that_exists() {
    assert_held_by_tests("docs/operate/load-balancer.md", 4);
}

#[test]
fn every_item_about_containers_names_a_test_that_exists() {
    assert_held_by_tests("docs/operate/container.md", 15);
}
