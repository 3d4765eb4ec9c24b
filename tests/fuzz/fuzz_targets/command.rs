//! The language of the control socket under arbitrary bytes: whatever a client says, a line is a command or
//! it isn't, and whatever is answered is one line that reads back.
//!
//! ```sh
//! cd tests/fuzz
//! cargo run --release --bin command -- -max_total_time=600 -dict=command.dict -artifact_prefix=target/
//! ```
//! Stable Rust and a C++ compiler are enough (`.cargo/config.toml` has the flags). The parser has no `unsafe`,
//! so no sanitizer is needed.
#![no_main]

use app_host_core::command::{self, Answer, Misunderstood};

libfuzzer_sys::fuzz_target!(|line: &[u8]| {
    let parsed = command::parse(line);
    let is_blank = line.iter().all(u8::is_ascii_whitespace);
    assert_eq!(parsed.is_none(), is_blank, "blank lines alone get no answer");
    if let Some(parsed) = &parsed {
        // Case and the space around it don't matter.
        let loud = [b" \t", line.to_ascii_uppercase().as_slice(), b"\r"].concat();
        match (parsed, command::parse(&loud)) {
            (Ok(command), Some(again)) => assert_eq!(Ok(command.clone()), again),
            (Err(one), Some(Err(other))) => assert_eq!(*one, other),
            (_, again) => panic!("{parsed:?} became {again:?}"),
        }
        let known = std::str::from_utf8(line).is_ok_and(|line| {
            let name = line.split_ascii_whitespace().next().unwrap_or_default();
            command::names().split(' ').any(|known| known.eq_ignore_ascii_case(name))
        });
        assert_eq!(known, *parsed != Err(Misunderstood::Unknown));
    }
    let text = String::from_utf8_lossy(line);
    for answer in [Answer::Data(text.clone().into_owned()), Answer::Nack(text.clone().into_owned())] {
        let said = answer.to_string();
        assert!(!said.contains(['\n', '\r', '\0']));
        assert!(Answer::parse(&said).is_some());
        if !text.contains(['\n', '\r', '\0']) {
            assert_eq!(Answer::parse(&said), Some(answer));
        }
    }
    // A client may be told anything.
    let _ = Answer::parse(&text);
});
