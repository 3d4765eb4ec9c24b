//! HTTPS: whose certificate a client gets, what the app sees, what is refused, and connections that stay.

mod certificates;
mod connections;
mod reloading;

use std::path::Path;

use app_host_tests::tls::{Authority, Files};
use app_host_tests::{Address, Connection, Host};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

/// A host that is about to listen for HTTPS, with an authority that writes to its directory.
fn site(certificates: impl FnOnce(&Authority) -> Value) -> (Host, Authority) {
    let host = Host::misbehaving().with("/restart/probation", "0s").with("/access_log", json!({}));
    let authority = Authority::new(host.directory());
    let tls = certificates(&authority);
    let listen = json!(["127.0.0.1:0", { "address": "127.0.0.2:0", "name": "https", "tls": tls }]);
    (host.with("/listen", listen), authority)
}

fn one(files: &Files) -> Value {
    json!({ "certificates": [files.config()] })
}

fn usual() -> (Host, Authority) {
    site(|authority| one(&authority.localhost()))
}

fn https(host: &Host, authority: &Authority) -> Address {
    Address::Tls(host.address_of("https").tcp(), authority.trust("localhost"))
}

fn get(connection: &mut Connection, path: &str) -> String {
    assert_eq!(connection.get(path).unwrap(), 200);
    connection.text()
}

fn pid(connection: &mut Connection) -> u32 {
    let answer: Value = serde_json::from_str(&get(connection, "/whoami")).unwrap();
    u32::try_from(answer["pid"].as_u64().unwrap()).unwrap()
}

fn shows(connection: &Connection) -> Vec<u8> {
    connection.tls().peer_certificates().unwrap()[0].to_vec()
}

/// The certificate in a file, as it is shown.
fn der(path: &Path) -> Vec<u8> {
    CertificateDer::from_pem_file(path).unwrap().to_vec()
}
