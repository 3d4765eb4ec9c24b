//! One request of a connection: hints, the response, its body or a tunnel.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{
    CONNECTION, CONTENT_LENGTH, DATE, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{Response, StatusCode};
use http_body::Body;

use super::super::interim::Interim;
use super::super::request::is_bare;
use super::super::tunnel::carry_stream;
use super::super::upgrade::PendingUpgrade;
use super::upgraded::Upgraded;

/// Why a stream ended before its response did. Nobody needs to be told: it was the client, or is in the log already.
#[derive(Debug, thiserror::Error)]
enum Unfinished {
    #[error("the client has reset the stream: {0}")]
    Reset(Reason),
    #[error(transparent)]
    Broken(#[from] h2::Error),
    #[error("the stream is over")]
    Over,
    #[error("the response's body failed")]
    BodyFailed,
}

/// Serves one request to its end. A client that resets the stream ends it.
pub(super) async fn serve<F, B>(
    answer: F,
    mut reply: SendResponse<Bytes>,
    interim: Arc<Interim>,
    head_only: bool,
    tunnel: Option<(RecvStream, PendingUpgrade)>,
) where
    F: Future<Output = Result<Response<B>, Infallible>>,
    B: Body<Data = Bytes> + Unpin,
{
    let served = async {
        let (head, body) = answered(answer, &mut reply, &interim).await?.into_parts();
        let mut head = Response::from_parts(head, ());
        strip(head.headers_mut());
        head.headers_mut().entry(DATE).or_insert_with(date);
        if let Some((receive, pending)) = tunnel
            && let Some(granted) = pending.take()
        {
            // RFC 9110, section 9.3.6.
            head.headers_mut().remove(CONTENT_LENGTH);
            let send = respond(&mut reply, head, false)?;
            carry_stream(Upgraded::new(send, receive), granted).await;
            return Ok(());
        }
        let is_empty = body.is_end_stream() || is_bare(head.status());
        if let Some(length) = body.size_hint().exact().filter(|_| !is_empty) {
            head.headers_mut().entry(CONTENT_LENGTH).or_insert(length.into());
        }
        let has_none = is_empty || head_only;
        let mut send = respond(&mut reply, head, has_none)?;
        if has_none { Ok(()) } else { send_body(body, &mut send).await }
    };
    if let Err(why) = served.await {
        tracing::debug!(error = &why as &dyn std::error::Error, "a stream ended early");
    }
}

/// Waits for the response, and sends what goes before it.
async fn answered<F, B>(
    answer: F,
    reply: &mut SendResponse<Bytes>,
    interim: &Interim,
) -> Result<Response<B>, Unfinished>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
{
    let mut answer = pin!(answer);
    let answered = poll_fn(|cx| {
        // Before the queue is looked at, so that nothing is queued unseen.
        interim.set_waker(cx.waker());
        let polled = answer.as_mut().poll(cx);
        // h2 would send hints on a stream that is reset.
        if let Poll::Ready(reason) = reply.poll_reset(cx)? {
            return Poll::Ready(Err(Unfinished::Reset(reason)));
        }
        for fields in interim.take() {
            let mut hints = Response::new(());
            *hints.status_mut() = StatusCode::EARLY_HINTS;
            *hints.headers_mut() = fields;
            reply.send_informational(hints)?;
        }
        polled.map(|answered| answered.map_err(|never| match never {}))
    });
    let answered = answered.await;
    interim.end();
    answered
}

fn respond(reply: &mut SendResponse<Bytes>, head: Response<()>, is_all: bool) -> Result<SendStream<Bytes>, h2::Error> {
    reply.send_response(head, is_all).inspect_err(|_| reply.send_reset(Reason::INTERNAL_ERROR))
}

async fn send_body<B>(mut body: B, send: &mut SendStream<Bytes>) -> Result<(), Unfinished>
where
    B: Body<Data = Bytes> + Unpin,
{
    loop {
        let frame = poll_fn(|cx| {
            if let Poll::Ready(reason) = send.poll_reset(cx)? {
                return Poll::Ready(Err(Unfinished::Reset(reason)));
            }
            Pin::new(&mut body).poll_frame(cx).map(Ok)
        });
        let frame = match frame.await? {
            Some(Ok(frame)) => frame,
            Some(Err(_)) => {
                send.send_reset(Reason::INTERNAL_ERROR);
                return Err(Unfinished::BodyFailed);
            }
            None => return Ok(send.send_data(Bytes::new(), true)?),
        };
        match frame.into_data() {
            Ok(data) => {
                let is_last = body.is_end_stream();
                if !data.is_empty() {
                    // Only when there is something to send, and not for all of it: what is claimed of the connection's
                    // window is not there for other streams. h2 claims the rest with the data.
                    send.reserve_capacity(1);
                    poll_fn(|cx| poll_claim(send, cx)).await.ok_or(Unfinished::Over)??;
                }
                send.send_data(data, is_last)?;
                if is_last {
                    return Ok(());
                }
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    send.reserve_capacity(0);
                    return Ok(send.send_trailers(trailers)?);
                }
            }
        }
    }
}

/// Waits for a part of the client's window. `None` if the stream is over.
pub(super) fn poll_claim(send: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> Poll<Option<Result<(), h2::Error>>> {
    // What was assigned before is there without a notice.
    while send.capacity() == 0 {
        match ready!(send.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => return Poll::Ready(None),
        }
    }
    Poll::Ready(Some(Ok(())))
}

/// Removes what is about a connection of HTTP/1 and must not be sent (RFC 9113, section 8.2.2).
fn strip(headers: &mut HeaderMap) {
    let is_about_it = |name: &HeaderName| {
        [CONNECTION, TRANSFER_ENCODING, UPGRADE, TE].contains(name)
            || *name == HeaderName::from_static("keep-alive")
            || *name == HeaderName::from_static("proxy-connection")
    };
    // Most responses have few fields, and none of these.
    let named: Vec<HeaderName> = headers.keys().filter(|name| is_about_it(name)).cloned().collect();
    if named.is_empty() {
        return;
    }
    let listed: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|option| HeaderName::from_bytes(option.trim_ascii()).ok())
        .collect();
    for name in named.iter().chain(&listed) {
        headers.remove(name);
    }
}

fn date() -> HeaderValue {
    date_at(SystemTime::now())
}

/// The value of `Date`, which is made once a second and thread.
fn date_at(now: SystemTime) -> HeaderValue {
    thread_local! {
        static LAST: RefCell<Option<(u64, HeaderValue)>> = const { RefCell::new(None) };
    }
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    LAST.with_borrow_mut(|last| match last {
        Some((made, value)) if *made == second => value.clone(),
        _ => {
            let value = HeaderValue::from_str(&httpdate::fmt_http_date(now));
            let value = value.unwrap_or_else(|_| HeaderValue::from_static(""));
            *last = Some((second, value.clone()));
            value
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_about_a_connection_of_http_1_is_removed_with_what_it_names() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "x-hop, keep-alive"),
            ("connection", "x-too"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("te", "gzip"),
            ("x-hop", "1"),
            ("x-too", "2"),
            ("x-kept", "3"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-kept"]);
        strip(&mut headers);
        assert_eq!(headers.len(), 1);
    }

    #[test]
    fn a_date_is_that_of_its_second() {
        let at = |millis| UNIX_EPOCH + std::time::Duration::from_millis(millis);
        for (millis, expected) in [
            (784_111_777_000, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (784_111_777_999, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (784_111_778_000, "Sun, 06 Nov 1994 08:49:38 GMT"),
            (784_111_777_000, "Sun, 06 Nov 1994 08:49:37 GMT"),
        ] {
            assert_eq!(date_at(at(millis)), expected);
        }
        assert!(httpdate::parse_http_date(date().to_str().unwrap()).is_ok());
    }
}
