//! Lets each system call of a restart fail once, in each way that it can, one restart each, and says what became of
//! them: `inject` for all of them (some minutes), `inject CALL …` for some calls. Needs strace.

use std::collections::BTreeMap;

use app_host_tests::inject::Injected;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let injected = Injected::start();
    let faults = injected.faults();
    let faults: Vec<_> = faults.into_iter().filter(|it| wanted.is_empty() || wanted.contains(&it.call)).collect();
    println!("{} faults", faults.len());
    let mut verdicts: BTreeMap<(String, String), usize> = BTreeMap::new();
    for fault in &faults {
        let verdict = injected.trial(fault);
        if verdict != "complete" {
            println!("{fault}: {verdict}");
        }
        *verdicts.entry((fault.call.clone(), verdict)).or_default() += 1;
    }
    injected.end();
    for ((call, verdict), count) in verdicts {
        println!("{call:16} {count:4}  {verdict}");
    }
}
