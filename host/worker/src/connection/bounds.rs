//! What a request's head must not exceed, where hyper doesn't say so itself. Pure.

use http::uri::{Authority, PathAndQuery};
use http::{Request, StatusCode, Version};
use http_body::Body;

use app_host_core::config::Http;
use app_host_core::refused::Refused;

use super::rules::Objection;

/// The requests of a serving thread, and how many it may have.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct InFlightNow {
    pub(super) requests: u64,
    pub(super) most: Option<u64>,
}

/// Checks a request that has been [judged](super::rules::judge): its cookies are one line.
///
/// # Errors
/// The first limit that it exceeds.
pub(super) fn check<B: Body>(request: &Request<B>, limits: &Http, in_flight: InFlightNow) -> Result<(), Objection> {
    if in_flight.most.is_some_and(|most| in_flight.requests >= most) {
        let detail = format!("{} requests are in flight", in_flight.requests);
        return Err(Objection {
            why: Refused::TooManyInFlight,
            status: StatusCode::SERVICE_UNAVAILABLE,
            detail: detail.into(),
        });
    }
    let uri = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    if uri > usize::from(limits.max_uri) {
        let detail = format!("{uri} bytes of path and query");
        return Err(Objection { why: Refused::UriTooLong, status: StatusCode::URI_TOO_LONG, detail: detail.into() });
    }
    // HTTP/2 counts no lines.
    let lines = request.headers().len();
    if lines > usize::from(limits.max_headers) {
        let detail = format!("{lines} header lines");
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(Objection { why: Refused::HeadTooLarge, status, detail: detail.into() });
    }
    // HTTP/1's heads have been measured by hyper.
    let size = if request.version() >= Version::HTTP_2 { size(request) } else { 0 };
    if size > u64::from(limits.max_head) {
        let detail = format!("{size} bytes of fields");
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(Objection { why: Refused::HeadTooLarge, status, detail: detail.into() });
    }
    let least = request.body().size_hint().lower();
    if limits.max_body.is_some_and(|most| least > most) {
        let detail = format!("{least} bytes of body");
        return Err(Objection {
            why: Refused::BodyTooLarge,
            status: StatusCode::PAYLOAD_TOO_LARGE,
            detail: detail.into(),
        });
    }
    Ok(())
}

/// The size of a head as `SETTINGS_MAX_HEADER_LIST_SIZE` counts it (RFC 9113, section 10.5.1).
fn size<B>(request: &Request<B>) -> u64 {
    const OF_EACH: usize = 32;
    let uri = request.uri();
    let pseudo = [
        (":method", Some(request.method().as_str())),
        (":scheme", uri.scheme_str()),
        (":authority", uri.authority().map(Authority::as_str)),
        (":path", uri.path_and_query().map(PathAndQuery::as_str)),
    ];
    let pseudo = pseudo.into_iter().filter_map(|(name, value)| Some(name.len() + value?.len() + OF_EACH));
    let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + OF_EACH);
    pseudo.chain(fields).map(|size| size as u64).sum()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Full;

    use super::*;

    #[test]
    fn each_limit_is_kept_to_the_byte() {
        let limits = Http { max_uri: 300, max_headers: 3, max_body: Some(5), ..Http::DEFAULT };
        let request = |uri: usize, lines: usize, body: usize| {
            let mut request = Request::get(format!("/{}?x", "a".repeat(uri - 3)));
            for _ in 0..lines {
                request = request.header("x", "y");
            }
            let request = request.body(Full::<Bytes>::from(vec![0_u8; body])).unwrap();
            check(&request, &limits, InFlightNow::default()).map_err(|objection| objection.why)
        };
        assert_eq!(request(300, 3, 5), Ok(()));
        assert_eq!(request(301, 3, 5), Err(Refused::UriTooLong));
        assert_eq!(request(300, 4, 5), Err(Refused::HeadTooLarge));
        assert_eq!(request(300, 3, 6), Err(Refused::BodyTooLarge));
        // By hand: 7 + 3, 7 + 4, 10 + 1, 5 + 1 and 1 + 1000, each with 32.
        let request = |value: usize| {
            let request = Request::get("http://a/").version(Version::HTTP_2).header("x", "y".repeat(value));
            let request = request.body(Full::<Bytes>::default()).unwrap();
            check(&request, &Http { max_head: 1199, ..Http::DEFAULT }, InFlightNow::default())
                .map_err(|error| error.why)
        };
        assert_eq!((request(1000), request(1001)), (Ok(()), Err(Refused::HeadTooLarge)));
        let any = Http { max_body: None, ..limits };
        let any_body = Request::new(Full::<Bytes>::from(vec![0_u8; 9]));
        assert_eq!(check(&any_body, &any, InFlightNow::default()), Ok(()));
        for (requests, refused) in [(0, false), (1, false), (2, true), (3, true)] {
            let found = check(&any_body, &any, InFlightNow { requests, most: Some(2) });
            assert_eq!(found.is_err_and(|objection| objection.why == Refused::TooManyInFlight), refused, "{requests}");
        }
    }
}
