//! What a listener answers by itself, before the app is asked: challenges of ACME servers, and redirects to HTTPS.
//!
//! [`OwnAnswers::step`] decides, purely, by a request's head; reading a challenge's file is the one effect.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use app_host_core::config::{Front, Redirect};
use app_host_services::loader::AppBody;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HOST, HeaderValue, LOCATION};
use http::uri::Authority;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};

/// Where challenges are asked for (RFC 8555, section 8.3).
const CHALLENGES: &str = "/.well-known/acme-challenge/";

/// The most bytes of a challenge's name and of its file. A token has 22 at least, and its file that and 44 more.
const MAX_NAME: usize = 255;
const MAX_CHALLENGE: u64 = 4096;

/// What one listener answers by itself, and adds to the app's answers.
#[derive(Clone, Debug)]
pub struct OwnAnswers {
    settings: Front,
    /// The value of `Strict-Transport-Security` in responses over TLS.
    pub hsts: Option<HeaderValue>,
}

impl OwnAnswers {
    /// `None` if the app answers everything, and nothing is added.
    pub fn new(settings: &Front) -> Option<Self> {
        let hsts = settings.hsts.as_deref().and_then(|value| HeaderValue::from_str(value).ok());
        (*settings != Front::default()).then(|| Self { settings: settings.clone(), hsts })
    }

    /// Says how a request is answered, unless the app is to answer it. `encrypted` is whether its client speaks TLS, to us or to a trusted proxy.
    pub fn step<B>(&self, request: &Request<B>, encrypted: bool) -> Option<Step> {
        step(&self.settings, request, encrypted)
    }
}

/// How a request is answered that the app isn't asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is sent there, with this status.
    Redirect(StatusCode, HeaderValue),
    /// The file of this path is the answer.
    Challenge(PathBuf),
    /// It is answered by a status alone.
    Refuse(StatusCode),
}

fn step<B>(front: &Front, request: &Request<B>, encrypted: bool) -> Option<Step> {
    let path = request.uri().path();
    if let Some(directory) = &front.acme_challenges
        && let Some(name) = path.strip_prefix(CHALLENGES)
    {
        return Some(match *request.method() {
            Method::GET | Method::HEAD if is_token(name) => Step::Challenge(directory.join(name)),
            Method::GET | Method::HEAD => Step::Refuse(StatusCode::NOT_FOUND),
            _ => Step::Refuse(StatusCode::METHOD_NOT_ALLOWED),
        });
    }
    let redirect = front.redirect.filter(|_| !encrypted)?;
    Some(redirected(redirect, request.method(), request.uri(), request.headers()))
}

/// A name of base64url's alphabet (RFC 8555, section 8.3): no path, no dot, nothing hidden.
fn is_token(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// The same target at HTTPS.
///
/// GET and HEAD get 301, which every client knows. Other methods get 308, for which no client turns a POST into a GET (RFC
/// 9110, section 15.4.9).
fn redirected(to: Redirect, method: &Method, uri: &Uri, headers: &HeaderMap) -> Step {
    let target = (*method != Method::CONNECT).then(|| host(uri, headers)).flatten().and_then(|host| {
        let port = to.port.filter(|port| *port != 443).map(|port| format!(":{port}")).unwrap_or_default();
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        // `OPTIONS *`
        let path = if path.starts_with('/') { path } else { "/" };
        HeaderValue::from_str(&format!("https://{host}{port}{path}")).ok()
    });
    let Some(target) = target else { return Step::Refuse(StatusCode::BAD_REQUEST) };
    let unchanged = matches!(*method, Method::GET | Method::HEAD);
    Step::Redirect(if unchanged { StatusCode::MOVED_PERMANENTLY } else { StatusCode::PERMANENT_REDIRECT }, target)
}

/// The one host that a request is for, without its port.
fn host(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let mut named = headers.get_all(HOST).iter();
    let authority = match (uri.authority(), named.next(), named.next()) {
        (Some(authority), ..) => authority.clone(),
        (None, Some(value), None) => value.to_str().ok()?.parse::<Authority>().ok()?,
        _ => return None,
    };
    let host = authority.host();
    (!host.is_empty() && !authority.as_str().contains('@')).then(|| host.to_owned())
}

/// Does what was decided.
pub async fn answer(step: Step) -> Response<AppBody> {
    match step {
        Step::Refuse(code) => {
            let mut response = status(code);
            if code == StatusCode::METHOD_NOT_ALLOWED {
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            }
            response
        }
        Step::Redirect(code, location) => {
            let mut response = status(code);
            response.headers_mut().insert(LOCATION, location);
            response
        }
        Step::Challenge(path) => {
            // On a thread that may wait for a disk.
            let read = tokio::task::spawn_blocking(move || (read(&path), path)).await;
            match read {
                Ok((Ok(text), _)) => {
                    let mut response = Response::new(AppBody::from(Bytes::from(text)));
                    let octets = HeaderValue::from_static("application/octet-stream");
                    response.headers_mut().insert(CONTENT_TYPE, octets);
                    response
                }
                Ok((Err(error), path)) => {
                    if error.kind() != io::ErrorKind::NotFound {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(path = %path.display(), error, "an ACME challenge can't be read");
                    }
                    status(StatusCode::NOT_FOUND)
                }
                // The runtime ends.
                Err(_) => status(StatusCode::SERVICE_UNAVAILABLE),
            }
        }
    }
}

fn status(code: StatusCode) -> Response<AppBody> {
    let mut response = Response::new(AppBody::from(Bytes::new()));
    *response.status_mut() = code;
    response
}

/// What is in a challenge's file: a regular one, not reached by a link, and short. Nothing else is opened for longer than
/// it takes to see what it is.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let invalid = |what| io::Error::new(io::ErrorKind::InvalidData, what);
    // A FIFO's open would wait for a writer.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(invalid("it is no regular file"));
    }
    let mut text = Vec::new();
    file.take(MAX_CHALLENGE + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_CHALLENGE {
        return Err(invalid("it has more than 4096 bytes"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn front(port: Option<u16>) -> Front {
        let acme_challenges = Some("/challenges".into());
        Front { redirect: Some(Redirect { port }), acme_challenges, hsts: None }
    }

    fn ask(method: &str, uri: &str, hosts: &[&str], port: Option<u16>) -> Option<Step> {
        let mut request = Request::builder().method(method).uri(uri).body(()).unwrap();
        for host in hosts {
            request.headers_mut().append(HOST, HeaderValue::from_str(host).unwrap());
        }
        step(&front(port), &request, false)
    }

    #[test]
    fn whoever_comes_without_tls_is_sent_to_the_same_place_with_it() {
        let to = |code: u16, location: &'static str| {
            Some(Step::Redirect(StatusCode::from_u16(code).unwrap(), HeaderValue::from_static(location)))
        };
        let bad = || Some(Step::Refuse(StatusCode::BAD_REQUEST));
        for (method, uri, hosts, port, expected) in [
            ("GET", "/a?b=c", &["shop.example"][..], None, to(301, "https://shop.example/a?b=c")),
            ("HEAD", "/", &["shop.example:80"], None, to(301, "https://shop.example/")),
            ("POST", "/a", &["shop.example"], Some(443), to(308, "https://shop.example/a")),
            ("PROPFIND", "/", &["shop.example:8080"], Some(8443), to(308, "https://shop.example:8443/")),
            ("GET", "/", &["[2001:db8::1]:80"], Some(1), to(301, "https://[2001:db8::1]:1/")),
            ("GET", "http://shop.example:80/x", &["other"], None, to(301, "https://shop.example/x")),
            ("OPTIONS", "*", &["shop.example"], None, to(308, "https://shop.example/")),
            ("GET", "/", &[], None, bad()),
            ("GET", "/", &["a", "b"], None, bad()),
            ("GET", "/", &[""], None, bad()),
            ("GET", "/", &["a b"], None, bad()),
            ("GET", "/", &["a@b"], None, bad()),
            ("GET", "/", &["a/b"], None, bad()),
            ("CONNECT", "shop.example:443", &["shop.example"], None, bad()),
        ] {
            assert_eq!(ask(method, uri, hosts, port), expected, "{method} {uri} {hosts:?}");
        }
        let request = Request::get("/").header(HOST, "a").body(()).unwrap();
        assert_eq!(step(&front(None), &request, true), None, "its client speaks TLS, with a proxy");
        assert_eq!(step(&Front::default(), &request, false), None);
    }

    #[test]
    fn challenges_come_first_and_are_names_and_no_paths() {
        let token = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr_oA";
        let expected = Some(Step::Challenge(Path::new("/challenges").join(token)));
        assert_eq!(ask("GET", &format!("{CHALLENGES}{token}"), &[], None), expected);
        assert_eq!(ask("HEAD", &format!("{CHALLENGES}{token}?x"), &[], None), expected);
        let refused = |code| Some(Step::Refuse(code));
        assert_eq!(ask("POST", &format!("{CHALLENGES}{token}"), &[], None), refused(StatusCode::METHOD_NOT_ALLOWED));
        for name in ["", ".", "..", "a/b", "a.b", "../a", "%2e%2e", ".a", "a%00", &"a".repeat(MAX_NAME + 1)] {
            assert_eq!(ask("GET", &format!("{CHALLENGES}{name}"), &[], None), refused(StatusCode::NOT_FOUND), "{name}");
        }
        assert!(matches!(ask("GET", "/.well-known/acme-challenge", &["a"], None), Some(Step::Redirect(..))));
    }

    #[test]
    fn a_challenge_is_a_short_regular_file_and_nothing_else_is_read() {
        let directory = std::env::temp_dir().join(format!("app-host-acme-{}", std::process::id()));
        std::fs::create_dir_all(directory.join("inside")).unwrap();
        let path = |name: &str| directory.join(name);
        std::fs::write(path("short"), "token.key").unwrap();
        std::fs::write(path("longest"), [b'a'; 4096]).unwrap();
        std::fs::write(path("long"), [b'a'; 4097]).unwrap();
        let _ = std::os::unix::fs::symlink(path("short"), path("link"));
        assert_eq!(read(&path("short")).unwrap(), b"token.key");
        assert_eq!(read(&path("longest")).unwrap().len(), 4096);
        for name in ["long", "link", "inside", "none"] {
            assert!(read(&path(name)).is_err(), "{name}");
        }
        std::fs::remove_dir_all(directory).unwrap();
    }
}
