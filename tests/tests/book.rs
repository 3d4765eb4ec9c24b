//! The book in `docs` and the pages at the root: every page is found, every link leads somewhere, and what a page names in
//! the repository is there, so that a rename is noticed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use app_host_tests::build::workspace;

/// Beside the book.
const AT_THE_ROOT: [&str; 4] = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"];

/// The most bytes that a page of the book, and the README, may have.
const PAGE: usize = 8192;
const README: usize = 6144;

fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|it| it == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Those of the book and those at the root.
fn pages() -> Vec<PathBuf> {
    let root = AT_THE_ROOT.iter().map(|name| workspace().join(name));
    files(&workspace().join("docs"), "md").into_iter().chain(root).collect()
}

/// The text of a page without its blocks of code.
fn prose(page: &str) -> String {
    page.split("```").step_by(2).collect()
}

/// Where the links of a page lead, as they are written.
fn links(page: &str) -> Vec<String> {
    let targets = prose(page);
    let targets = targets.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://")).map(str::to_owned).collect()
}

/// A heading as its anchor, the way forges and mdbook make it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).flat_map(char::to_lowercase).collect()
}

fn anchors(page: &str) -> BTreeSet<String> {
    prose(page).lines().filter(|line| line.starts_with('#')).map(|line| anchor(line.trim_start_matches('#'))).collect()
}

/// What stands between backticks.
fn quoted(page: &str) -> Vec<String> {
    prose(page).split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_page_of_the_book_is_in_its_summary_once() {
    let docs = workspace().join("docs");
    let mut listed = links(&read(&docs.join("SUMMARY.md")));
    let count = listed.len();
    listed.sort();
    listed.dedup();
    assert_eq!(listed.len(), count, "a page stands twice in the summary");
    let there = files(&docs, "md").into_iter().filter(|path| !path.ends_with("SUMMARY.md"));
    let there: Vec<_> = there.map(|path| path.strip_prefix(&docs).unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(listed, there, "SUMMARY.md (left) and the files that there are (right)");
}

#[test]
fn pages_stay_short() {
    let long: Vec<_> = pages()
        .into_iter()
        .map(|path| (fs::metadata(&path).unwrap().len(), path))
        .filter(|(length, path)| *length > if path.ends_with("README.md") { README } else { PAGE } as u64)
        .collect();
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn every_link_leads_to_a_file_and_to_a_heading_that_is_there() {
    let mut wrong = Vec::new();
    let mut followed = 0;
    for page in pages() {
        let text = read(&page);
        for link in links(&text) {
            let (file, heading) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            let leads = target.exists() && (heading.is_empty() || anchors(&read(&target)).contains(heading));
            if !leads {
                wrong.push(format!("{}: {link}", page.display()));
            }
            followed += 1;
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(followed > 100, "{followed}");
}

/// The pages that tell where things are.
fn maps() -> Vec<PathBuf> {
    let root = ["ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"].map(|name| workspace().join(name));
    files(&workspace().join("docs/design"), "md").into_iter().chain(root).collect()
}

#[test]
fn every_path_that_the_maps_name_exists() {
    let is_path = |word: &str| {
        let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
        let ends = [".rs", ".md", ".toml", ".json", ".sh", "/"].iter().any(|end| word.ends_with(end));
        plain && !word.starts_with('/') && (ends || word.contains('/')) && !word.starts_with("target/")
    };
    let mut missing = Vec::new();
    let mut looked = 0;
    for page in maps() {
        for word in quoted(&read(&page)).into_iter().filter(|word| is_path(word)) {
            looked += 1;
            if !workspace().join(&word).exists() {
                missing.push(format!("{}: {word}", page.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(looked > 60, "{looked}");
}

#[test]
fn every_test_function_and_type_that_the_maps_name_exists() {
    let mut sources = String::new();
    for directory in ["app-abi", "example-app", "host", "tests"] {
        for path in files(&workspace().join(directory), "rs") {
            sources.push_str(&read(&path));
        }
    }
    let mut missing = Vec::new();
    let mut looked = 0;
    for page in maps() {
        for word in quoted(&read(&page)) {
            let Some((_, name)) = word.rsplit_once("::") else { continue };
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                continue;
            }
            looked += 1;
            let defined = ["fn ", "struct ", "enum ", "trait ", "const ", "mod ", "type "].iter().any(|kind| {
                let begin = format!("{kind}{name}");
                sources.match_indices(&begin).any(|(at, _)| {
                    !sources[at + begin.len()..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
                })
            });
            if !defined {
                missing.push(format!("{}: {word}", page.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(looked > 30, "{looked}");
}

#[test]
fn every_fault_that_a_comment_cites_is_on_the_page_of_faults_and_each_is_cited() {
    let page = read(&workspace().join("docs/design/faults.md"));
    let listed = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse::<u32>().ok());
    let listed: BTreeSet<u32> = listed.collect();
    let mut cited = BTreeSet::new();
    for path in ["host", "tests/tests"].iter().flat_map(|it| files(&workspace().join(it), "rs")) {
        for rest in read(&path).split("FAULTS ").skip(1) {
            let numbers: String = rest.chars().take_while(|c| c.is_ascii_digit() || ", ".contains(*c)).collect();
            cited.extend(numbers.split([',', ' ']).filter_map(|number| number.parse::<u32>().ok()));
        }
    }
    assert_eq!(listed, cited, "on the page (left), in comments (right)");
}
