//! Clients that are refused below the app: why hyper has refused one, and the answer to one that the host refuses.
//!
//! hyper answers 400, 414 and 431 itself and then fails; h2 sends GOAWAY and fails. What a client gets whose time is over
//! is decided by the connection's [state](super::state) and written here, because hyper has no way to say it.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use app_host_core::refused::Refused;

use super::driver::Failure;

/// How long the answer and the lingering close behind it may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why the client is refused whose connection has failed like that; `None` if it has only gone, or if the fault is ours.
pub(super) fn of(failure: &Failure) -> Option<Refused> {
    match failure {
        Failure::Http1(error) => of_http1(error),
        Failure::Http2(error) => match error.reason().filter(|_| error.is_go_away() && error.is_library())? {
            h2::Reason::NO_ERROR | h2::Reason::INTERNAL_ERROR => None,
            h2::Reason::ENHANCE_YOUR_CALM => Some(Refused::Flood),
            _ => Some(Refused::Malformed),
        },
        Failure::Unanswered => None,
    }
}

fn of_http1(error: &hyper::Error) -> Option<Refused> {
    if error.is_parse_too_large() {
        // hyper has no other way to tell which of the two it is; a test holds the words.
        let is_uri = error.to_string() == "URI too long";
        return Some(if is_uri { Refused::UriTooLong } else { Refused::HeadTooLarge });
    }
    (error.is_parse() && !error.is_parse_version_h2()).then_some(Refused::Malformed)
}

/// What exactly was wrong, where no error says it.
pub(super) const fn detail(why: Refused) -> &'static str {
    match why {
        Refused::HeadTimedOut => "a head has begun and did not end in time",
        Refused::BodyTimedOut => "the app waits for more of a body than came in time",
        Refused::Flood => "it sends frames that carry nothing",
        Refused::ResponseTimedOut => "it takes the response too slowly",
        Refused::Stalled => "it took or gave nothing while its worker drained",
        _ => "",
    }
}

/// The status line of the answer to a client that the host refuses on an open connection of HTTP/1.
const fn status(why: Refused) -> Option<&'static str> {
    match why {
        Refused::HeadTimedOut | Refused::BodyTimedOut | Refused::Stalled => Some("408 Request Timeout"),
        _ => None,
    }
}

/// Answers a client of HTTP/1 that is refused, and closes the connection. Nothing else may have been written since the
/// last whole response.
pub(super) async fn answer<T: AsyncRead + AsyncWrite + Unpin>(transport: T, why: Refused) {
    let Some(status) = status(why) else { return };
    let date = httpdate::fmt_http_date(SystemTime::now());
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\ndate: {date}\r\n\r\n");
    say(transport, head.as_bytes()).await;
}

/// Says the last words to a client, and closes the connection. Whether it takes them changes nothing.
pub(super) async fn say<T: AsyncRead + AsyncWrite + Unpin>(mut transport: T, words: &[u8]) {
    let _ = timeout(LAST_WORDS, async {
        transport.write_all(words).await?;
        transport.flush().await?;
        poll_fn(|cx| Pin::new(&mut transport).poll_shutdown(cx)).await?;
        Ok::<_, io::Error>(())
    })
    .await;
}
