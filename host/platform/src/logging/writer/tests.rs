use std::io::Read;

use super::*;

const LONG: Duration = Duration::from_secs(20);

fn writer(file: impl Into<OwnedFd>) -> LineWriter {
    LineWriter::open(Kind::Access, Some(file.into())).unwrap()
}

#[test]
fn lines_are_written_in_their_order_and_those_after_a_new_file_into_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name| std::fs::File::create(directory.path().join(name)).unwrap();
    let writer = writer(file("old"));
    for number in 0..100 {
        writer.write(Level::INFO, format!("{number}\n").as_bytes());
    }
    assert!(writer.flush(LONG));
    writer.redirect(file("new").into());
    for number in 100..200 {
        writer.write(Level::INFO, format!("{number}\n").as_bytes());
    }
    assert!(writer.flush(LONG));
    let read = |name| std::fs::read_to_string(directory.path().join(name)).unwrap();
    let expected = |from: u8, to: u8| (from..to).map(|number| number.to_string() + "\n").collect::<String>();
    assert_eq!((read("old"), read("new")), (expected(0, 100), expected(100, 200)));
}

#[test]
fn each_line_of_the_journal_has_its_priority_and_no_line_of_any_other_log() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name| OwnedFd::from(std::fs::File::create(directory.path().join(name)).unwrap());
    let read = |name| std::fs::read_to_string(directory.path().join(name)).unwrap();
    let writer = LineWriter::open_as(Kind::Access, Some(file("journal")), Form::Journal).unwrap();
    for (level, line) in [
        (Level::ERROR, "e\n"),
        (Level::WARN, "w\nof two lines\n"),
        (Level::INFO, "<3>i\n"),
        (Level::DEBUG, "d\n"),
        (Level::TRACE, "t\n"),
    ] {
        writer.write(level, line.as_bytes());
    }
    assert!(writer.flush(LONG));
    assert_eq!(read("journal"), "<3>e\n<4>w\n<4>of two lines\n<6><3>i\n<7>d\n<7>t\n");
    writer.redirect_as(file("plain"), Form::Plain);
    writer.write(Level::ERROR, b"<plain>\n");
    assert!(writer.flush(LONG));
    writer.redirect_as(file("again"), Form::Journal);
    writer.write_within(Level::ERROR, b"e\n", LONG);
    assert!(writer.flush(LONG));
    assert_eq!((read("plain").as_str(), read("again").as_str()), ("<plain>\n", "<3>e\n"));
}

#[test]
fn lines_that_wait_for_the_journal_go_without_priorities_where_the_log_becomes_a_file() {
    let (mut reader, pipe) = io::pipe().unwrap();
    let writer = LineWriter::open_as(Kind::Access, Some(pipe.into()), Form::Journal).unwrap();
    // What the pipe takes, and what the thread has in hand, stays the journal's.
    let line = [&[b'x'; 999][..], b"\n"].concat();
    for _ in 0..ROOM / line.len() {
        writer.write(Level::ERROR, &line);
    }
    writer.flush_unless_stalled(LONG);
    writer.write(Level::ERROR, b"waits\n");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    writer.redirect_as(std::fs::File::create(&path).unwrap().into(), Form::Plain);
    let mut first = vec![0; 2 * ROOM];
    while reader.read(&mut first).unwrap() > 0 && !writer.flush(Duration::from_millis(1)) {}
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.ends_with("waits\n") && !text.contains('<'), "{text:.100}");
}

#[test]
fn a_log_that_is_not_read_makes_nobody_wait_takes_no_more_than_its_room_and_loses_no_half_line() {
    let (mut reader, pipe) = io::pipe().unwrap();
    let writer = writer(pipe);
    let line = [&[b'x'; 999][..], b"\n"].concat();
    let all = 4 * ROOM;
    for _ in 0..all / line.len() {
        writer.write(Level::INFO, &line);
    }
    let began = Instant::now();
    assert!(!writer.flush(Duration::from_millis(10)));
    writer.flush_unless_stalled(LONG);
    writer.write_within(Level::INFO, &line, LONG);
    assert!(began.elapsed() < LONG, "a log that is stalled isn't waited for");
    assert!(writer.0.0.lock().lines.len() <= ROOM);
    let read = std::thread::spawn(move || {
        let mut text = Vec::new();
        reader.read_to_end(&mut text).unwrap();
        text
    });
    assert!(writer.flush(LONG));
    assert!(!writer.0.0.lock().stalled);
    drop(writer);
    let text = read.join().unwrap();
    assert!(text.chunks(line.len()).all(|piece| piece == line), "whole lines only");
    // One room full is with the thread, one waits, and a pipe's worth may have been written.
    assert!((ROOM / 2..=3 * ROOM).contains(&text.len()) && text.len() < all, "{}", text.len());
}

#[test]
fn who_can_wait_loses_nothing_to_a_slow_reader() {
    let (mut reader, pipe) = io::pipe().unwrap();
    let writer = writer(pipe);
    let line = [&[b'x'; 999][..], b"\n"].concat();
    let read = std::thread::spawn(move || {
        let mut text = Vec::new();
        reader.read_to_end(&mut text).unwrap();
        text.len()
    });
    for _ in 0..4 * ROOM / line.len() {
        writer.write_within(Level::INFO, &line, LONG);
    }
    drop(writer);
    assert_eq!(read.join().unwrap(), 4 * ROOM / line.len() * line.len());
}

#[test]
fn a_file_that_takes_nothing_is_no_end() {
    let writer = writer(std::fs::File::options().write(true).open("/dev/full").unwrap());
    writer.write(Level::INFO, b"lost\n");
    assert!(writer.flush(LONG));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    writer.redirect(std::fs::File::create(&path).unwrap().into());
    writer.write(Level::INFO, b"kept\n");
    assert!(writer.flush(LONG));
    assert_eq!(std::fs::read_to_string(path).unwrap(), "kept\n");
}
