use super::*;

const FRAME: Frame<'_> = Frame { time: "2026-11-22T01:02:03.000004Z", hostname: "here", pid: 7, colours: false };

fn event<'a>(message: &'a str, fields: Vec<AppField<'a>>) -> AppEvent<'a> {
    AppEvent { level: Level::WARN, target: "shop::cart", message, fields, spans: Vec::new() }
}

fn line(format: LogFormat, event: &AppEvent<'_>) -> String {
    let text = String::from_utf8(render(format, FRAME, event)).unwrap();
    assert!(text.ends_with('\n') && text.lines().count() == 1, "{text:?}");
    text
}

#[test]
fn both_formats_keep_level_target_types_and_spans() {
    let fields = vec![
        ("order", AppValue::Uint(u64::MAX)),
        ("delta", AppValue::Int(-1)),
        ("paid", AppValue::Bool(true)),
        ("sum", AppValue::Float(1.5)),
        ("who", AppValue::Text("Ada \"L\"")),
    ];
    let mut event = event("sold", fields);
    event.spans = vec![("request", vec![("id", AppValue::Int(3)), ("name", AppValue::Text("n"))]), ("sale", vec![])];
    assert_eq!(
        line(LogFormat::Text, &event),
        "2026-11-22T01:02:03.000004Z  WARN request{id=3 name=\"n\"}:sale: shop::cart: sold \
             order=18446744073709551615 delta=-1 paid=true sum=1.5 who=\"Ada \\\"L\\\"\"\n"
    );
    let value: Value = serde_json::from_str(&line(LogFormat::Bunyan, &event)).unwrap();
    let expected = json!({
        "v": 0, "name": "app-host", "msg": "sold", "level": 40, "hostname": "here", "pid": 7,
        "time": "2026-11-22T01:02:03.000004Z", "target": "shop::cart",
        "order": u64::MAX, "delta": -1, "paid": true, "sum": 1.5, "who": "Ada \"L\"",
        "spans": [{ "name": "request", "id": 3, "name_": "n" }, { "name": "sale" }],
    });
    assert_eq!(value, expected);
}

#[test]
fn a_line_of_another_process_keeps_its_level() {
    for level in [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE] {
        for format in [LogFormat::Text, LogFormat::Bunyan] {
            let made = line(format, &AppEvent { level, ..event("m \"level\":10 ERROR", Vec::new()) });
            let (found, passed_on) = foreign(format, made.trim_end()).unwrap();
            assert_eq!((found, String::from_utf8(passed_on).unwrap()), (level, made), "{format:?}");
        }
    }
    let (level, _) = foreign(LogFormat::Text, "thread 'main' panicked").unwrap();
    assert_eq!(level, Level::INFO, "whatever it is");
    assert_eq!(foreign(LogFormat::Text, "2026-11-22T01:02:03Z 1 error").unwrap().0, Level::INFO);
}

#[test]
fn no_text_of_an_app_makes_a_second_line_or_moves_the_cursor() {
    let forged = "a\r\n2026-11-22T01:02:03Z ERROR forged\u{1b}[2J\u{2028}\u{202e}b\0\u{85}";
    let mut event = event(forged, vec![(forged, AppValue::Text(forged))]);
    event.target = forged;
    event.spans = vec![(forged, vec![(forged, AppValue::Text(forged))])];
    let text = line(LogFormat::Text, &event);
    assert!(!text.trim_end_matches('\n').chars().any(is_unsafe), "{text:?}");
    let json = line(LogFormat::Bunyan, &event);
    assert!(!json.trim_end_matches('\n').contains(char::is_control), "{json:?}");
    let value: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["msg"], forged, "JSON keeps it");
}

#[test]
fn a_field_called_like_one_of_the_logs_own_keeps_its_value() {
    let mut fields: Vec<_> = TAKEN.iter().map(|name| (*name, AppValue::Text("mine"))).collect();
    fields.push(("pid", AppValue::Int(2)));
    let value: Value = serde_json::from_str(&line(LogFormat::Bunyan, &event("m", fields))).unwrap();
    assert_eq!((&value["pid"], &value["pid_"], &value["pid__"]), (&json!(7), &json!("mine"), &json!(2)));
    assert_eq!(value["time_"], "mine");
}

#[test]
fn numbers_that_json_does_not_know_become_texts() {
    let fields = vec![("a", AppValue::Float(f64::NAN)), ("b", AppValue::Float(f64::NEG_INFINITY))];
    let value: Value = serde_json::from_str(&line(LogFormat::Bunyan, &event("m", fields))).unwrap();
    assert_eq!((&value["a"], &value["b"]), (&json!("NaN"), &json!("-inf")));
}

#[test]
fn a_line_is_bounded_whatever_is_long_and_says_what_was_cut() {
    let long = "\u{1}é".repeat(MAX_BYTES);
    let many: Vec<AppField<'_>> = (0..10_000).map(|_| ("same", AppValue::Text("x"))).collect();
    let spans = |name: &'static str| (0..10_000).map(|_| (name, vec![("f", AppValue::Text("x"))])).collect();
    let short = event("m", Vec::new());
    let leaked: &'static str = long.clone().leak();
    for event in [
        event(&long, Vec::new()),
        event("m", vec![("k", AppValue::Text(&long))]),
        event("m", vec![(&long, AppValue::Bool(true))]),
        event("m", many),
        AppEvent { spans: spans(leaked), ..short.clone() },
        AppEvent { spans: spans("s"), ..short.clone() },
        AppEvent { target: &long, ..short.clone() },
    ] {
        for format in [LogFormat::Text, LogFormat::Bunyan] {
            let line = line(format, &event);
            assert!(line.len() < MAX_BYTES + 20_000, "{}", line.len());
            assert!(line.contains("cut"), "{line:.200}");
        }
    }
    assert!(!line(LogFormat::Text, &short).contains("cut"));
}
