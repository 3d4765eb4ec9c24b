//! Commands of the control protocol and of the command line, and the codes that those exit with.

use std::collections::BTreeSet;
use std::process::Command;

use app_host_core::command;
use app_host_tests::App;

use super::{named, read, rows, section, sources, texts_behind};

/// Every text among the arguments of a call, whose name and bracket are before this.
fn texts_of_call(rest: &str) -> Vec<String> {
    let mut depth = 1;
    let mut texts = Vec::new();
    for (at, part) in rest.split('"').enumerate() {
        if at % 2 == 1 {
            texts.push(part.to_owned());
            continue;
        }
        for c in part.chars() {
            depth += i32::from(c == '(') - i32::from(c == ')');
            if depth == 0 {
                return texts;
            }
        }
    }
    texts
}

#[test]
fn every_command_of_the_control_protocol_and_every_answer_to_a_bad_one_stands_on_its_page() {
    let page = read("reference/control-protocol.md");
    let commands: BTreeSet<_> = command::names().split(' ').map(str::to_owned).collect();
    let shown: BTreeSet<_> = named(section(&page, "## Commands"))
        .iter()
        .map(|line| line.split(' ').next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(shown, commands, "on the page (left), in the code (right)");
    let source = sources("host/master/src");
    let mut reasons: BTreeSet<_> = source.split("nack(").skip(1).flat_map(texts_of_call).collect();
    reasons.extend(texts_behind(&source, &["TOO_LONG: &str ="]));
    reasons.extend([command::Misunderstood::Unknown, command::Misunderstood::Invalid].map(|it| it.reason().to_owned()));
    reasons.insert(command::NOT_ALLOWED.to_owned());
    assert!(reasons.len() > 6, "{reasons:?}");
    let shown =
        named(section(&page, "## Answers")).into_iter().filter(|it| !it.starts_with("ACK")).collect::<BTreeSet<_>>();
    assert_eq!(shown, reasons, "on the page (left), in the code (right)");
}

/// What a help of clap's lists as commands.
fn commands_of(help: &[&str]) -> BTreeSet<String> {
    let output = Command::new(App::build().host()).args(help).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let lines =
        help.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   ") && !line.starts_with("  -"));
    lines.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn every_command_and_option_of_the_command_line_stands_on_its_page() {
    let page = read("reference/cli.md");
    let word = |line: &String, at: usize| line.split(' ').nth(at).unwrap_or_default().to_owned();
    let (commands, orders) = page.split_once("## Orders of `ctl`").unwrap();
    let shown: BTreeSet<_> = named(commands).iter().map(|line| word(line, 1)).collect();
    let there = commands_of(&["--help"]);
    assert_eq!(shown, there, "on the page (left), in the code (right)");
    let mut there = commands_of(&["ctl", "--help"]);
    there.remove("help");
    let shown: BTreeSet<_> =
        named(orders).iter().map(|line| word(line, 0)).filter(|it| !it.starts_with("--")).collect();
    assert_eq!(shown, there, "on the page (left), in the code (right)");

    // Options: those of each command in its row, and none that it doesn't have.
    let options = |text: &str| -> BTreeSet<String> {
        let words = text.split(|c: char| c.is_whitespace() || "[]`,".contains(c)).filter(|it| it.starts_with("--"));
        words.map(str::to_owned).collect()
    };
    let general: BTreeSet<String> = ["--config", "--help", "--json", "--socket"].map(str::to_owned).into();
    let lines = named(commands).into_iter().map(|line| (vec![word(&line, 1)], line));
    let lines = lines.chain(named(orders).into_iter().map(|line| (vec!["ctl".to_owned(), word(&line, 0)], line)));
    let mut compared = 0;
    for (command, line) in lines.filter(|(command, _)| !command.iter().any(|it| it.starts_with("--"))) {
        let output = Command::new(App::build().host()).args(&command).arg("--help").output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        let listed = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
        let mut has: BTreeSet<String> = listed.flat_map(&options).collect();
        let is_of_ctl = command[0] == "ctl";
        has.retain(|option| !general.contains(option) || (!is_of_ctl && option == "--json"));
        assert_eq!(options(&line), has, "{command:?}: on the page (left), in the code (right)");
        compared += 1;
    }
    assert!(compared > 15, "{compared}");
}

#[test]
fn every_exit_code_stands_on_its_page() {
    let page = read("reference/exit-codes.md");
    let codes = |heading: &str| -> BTreeSet<u8> {
        rows(section(&page, heading)).iter().filter_map(|row| row[0].trim().parse().ok()).collect()
    };
    let numbers_behind = |source: &str, begin: &str| -> BTreeSet<u8> {
        let digits = |rest: &str| rest.trim_start().chars().take_while(char::is_ascii_digit).collect::<String>();
        source.split(begin).skip(1).filter_map(|rest| digits(rest).parse().ok()).collect()
    };
    // 2 is the command line's own (clap), 0 and 1 those of any program.
    let ctl = sources("host/src/ctl");
    let outcome =
        ctl.split("enum Outcome {").nth(1).and_then(|rest| rest.split('}').next()).expect("the outcomes of ctl");
    let mut of_ctl = numbers_behind(outcome, " = ");
    of_ctl.insert(2);
    assert_eq!(codes("## Of `ctl`"), of_ctl, "on the page (left), in the code (right)");
    let mut of_run = numbers_behind(&sources("host/master/src"), "EXIT_LOCKED_AND_EMPTY: u8 =");
    assert_eq!(of_run.len(), 1);
    of_run.extend([0, 1, 2]);
    assert_eq!(codes("## Of `run`"), of_run, "on the page (left), in the code (right)");
}
