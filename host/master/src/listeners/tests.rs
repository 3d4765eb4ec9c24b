use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;

use socket2::{Domain, SockAddr, Type};

use super::*;

fn config(listen: &str) -> Config {
    let text = format!(r#"{{"app": {{"library": "a"}}, "listen": {listen}}}"#);
    Config::parse(text.as_bytes(), Path::new("/c.json")).unwrap()
}

#[test]
fn a_listener_that_stays_keeps_its_socket_and_a_removed_one_closes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let both = config(&format!(r#"["127.0.0.1:0", "unix:{}"]"#, path.display()));
    let first = Listeners::for_config(&both, &Listeners::default()).unwrap();
    let second = Listeners::for_config(&config(r#"["127.0.0.1:0"]"#), &first).unwrap();
    assert_eq!(first.addresses().next().unwrap().1, second.addresses().next().unwrap().1);
    assert!(second.without(&first).configured.is_empty());
    assert!(UnixStream::connect(&path).is_ok());
    drop(first);
    assert!(!path.exists());
}

#[test]
fn a_listener_of_the_apps_is_kept_in_the_same_way_and_told_apart() {
    let app = |listeners: &str| {
        let text =
            format!(r#"{{"app": {{"library": "a"}}, "listen": ["127.0.0.1:0"], "app_listeners": [{listeners}]}}"#);
        Config::parse(text.as_bytes(), Path::new("/c.json")).unwrap()
    };
    let smtp = r#"{"name": "smtp", "address": "127.0.0.2:0"}"#;
    let first = Listeners::for_config(&app(smtp), &Listeners::default()).unwrap();
    let servers: Vec<_> = first.infos().into_iter().map(|info| (info.name, info.server)).collect();
    assert_eq!(servers, [("127.0.0.1:0".to_owned(), Server::Worker), ("smtp".to_owned(), Server::App)]);
    let renamed = app(r#"{"name": "mail", "address": "127.0.0.2:0"}"#);
    let second = Listeners::for_config(&renamed, &first).unwrap();
    assert!(second.without(&first).configured.is_empty());
    assert_eq!(first.addresses().nth(1).unwrap().1, second.addresses().nth(1).unwrap().1);
    let third = Listeners::for_config(&app(""), &second).unwrap();
    let address = second.addresses().nth(1).unwrap().1;
    drop((first, second));
    assert_eq!(third.infos().len(), 1);
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn listener_for_metrics_stays_while_its_address_does() {
    let admin = |text: &str| {
        let text = format!(r#"{{"app": {{"library": "a"}}, "admin": {text}}}"#);
        Config::parse(text.as_bytes(), Path::new("/c.json")).unwrap()
    };
    let first = AdminListener::for_config(&admin(r#""127.0.0.1:0""#), None).unwrap().unwrap();
    let object = admin(r#"{"address": "127.0.0.1:0"}"#);
    let second = AdminListener::for_config(&object, Some(&first)).unwrap().unwrap();
    assert!(second.is(&first));
    assert_eq!(second.local_address(), first.local_address());
    let moved = AdminListener::for_config(&admin(r#""127.0.0.2:0""#), Some(&first)).unwrap().unwrap();
    assert!(!moved.is(&first));
    assert!(AdminListener::for_config(&admin("null"), Some(&first)).unwrap().is_none());
    let taken = admin(&format!(r#""{}""#, first.local_address()));
    assert!(AdminListener::for_config(&taken, Some(&moved)).unwrap_err().is_in_use());
}

#[test]
fn a_stale_socket_file_is_replaced_and_a_live_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let listen = config(&format!(r#"["unix:{}"]"#, path.display()));
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let live = Listeners::for_config(&listen, &Listeners::default()).unwrap();
    let error = Listeners::for_config(&listen, &Listeners::default()).unwrap_err();
    assert!(matches!(error, BindError::Live { .. }), "{error}");
    // Also when its queue is full, where connect(2) would wait.
    socket2::SockRef::from(&live.descriptors().next().unwrap()).listen(0).unwrap();
    let _queued: Vec<_> = (0..8)
        .map(|_| {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            (socket.connect(&SockAddr::unix(&path).unwrap()), socket)
        })
        .collect();
    let error = Listeners::for_config(&listen, &Listeners::default()).unwrap_err();
    assert!(matches!(error, BindError::Live { .. }), "{error}");
    drop(live);
    fs::write(&path, "precious").unwrap();
    let error = Listeners::for_config(&listen, &Listeners::default()).unwrap_err();
    assert!(matches!(error, BindError::NoSocket { .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[test]
fn an_address_in_use_is_told_from_one_that_is_not_ours() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = config(&format!(r#"["{}"]"#, taken.local_addr().unwrap()));
    assert!(Listeners::for_config(&listen, &Listeners::default()).unwrap_err().is_in_use());
    let error = Listeners::for_config(&listen, &Listeners::default()).unwrap_err().explained(listen.addresses());
    assert!(error.is_in_use());
    let hint = format!("hint: ss -ltnp 'sport = :{}' shows by whom", taken.local_addr().unwrap().port());
    assert!(error.to_string().contains(&hint), "{error}");
    let denied = BindError::Bind {
        address: listen.listen[0].address.clone(),
        source: io::Error::from(io::ErrorKind::PermissionDenied),
    };
    let error = denied.explained(listen.addresses());
    assert!(error.to_string().contains("needs CAP_NET_BIND_SERVICE, or a socket unit"), "{error}");
    let foreign = config(r#"["203.0.113.1:80"]"#);
    assert!(!Listeners::for_config(&foreign, &Listeners::default()).unwrap_err().is_in_use());
}
