//! What the app sees of a request.

use app_abi::{Address, Body, Request, RequestExt};

/// What is known of a request's TLS: the version, the name that was asked for, and how long the client's certificate is.
pub(crate) fn tls(request: &Request<Body>) -> String {
    let scheme = request.connection().map_or("", |connection| connection.scheme);
    let Some(tls) = request.tls() else { return scheme.to_owned() };
    let certificate = tls.client_certificate.map_or(0, |certificate| certificate.len());
    format!("{scheme} {} {} {certificate}", tls.version, tls.server_name.unwrap_or_default())
}

/// Who is asking: address, scheme, host, and what was told of its TLS.
pub(crate) fn client(request: &Request<Body>) -> String {
    let Some(client) = request.client() else { return "nobody".to_owned() };
    let address = match client.address {
        Address::Tcp(address) => address.to_string(),
        Address::Unix => "unix".to_owned(),
    };
    let known = format!("{address} {} {}", client.scheme, client.host.unwrap_or_default());
    let Some(tls) = client.tls else { return known.trim_end().to_owned() };
    let version = tls.version.map(|version| version.to_string()).unwrap_or_default();
    let (server, name) = (tls.server_name.unwrap_or_default(), tls.client_name.unwrap_or_default());
    let alpn = tls.alpn.unwrap_or_default();
    format!("{known} {version} {server} {} {name}", String::from_utf8_lossy(&alpn)).trim_end().to_owned()
}
