use std::io::Read;
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use app_host_core::config::Config;

use super::*;

fn config(text: &str) -> Config {
    let text = format!(r#"{{"app": {{"library": "a"}}, {text}}}"#);
    Config::parse(text.as_bytes(), Path::new("/c.json")).unwrap()
}

fn shut_down(listeners: &Listeners) {
    for socket in listeners.descriptors() {
        // A duplicate, as a worker has one.
        let theirs = socket2::Socket::from(socket.try_clone_to_owned().unwrap());
        theirs.shutdown(Shutdown::Both).unwrap();
    }
}

#[test]
fn a_tcp_listener_is_revived_on_its_port_as_often_as_it_is_shut_down() {
    let config = config(r#""listen": ["127.0.0.1:0"]"#);
    let listeners = Listeners::for_config(&config, &Listeners::default()).unwrap();
    let address = listeners.addresses().next().unwrap().1;
    assert_eq!(listeners.heal(), []);
    for _ in 0..3 {
        shut_down(&listeners);
        assert!(TcpStream::connect(&address).is_err());
        assert_eq!(listeners.harmed().count(), 1);
        let healed = listeners.heal();
        assert_eq!((&healed[0].address, &healed[0].remedy), (&address, &Remedy::Revived));
        assert_eq!(listeners.harmed().count(), 0);
        assert!(TcpStream::connect(&address).is_ok());
    }
}

#[test]
fn connections_of_a_revived_listener_live_however_often_it_was_shut_down_before() {
    let config = config(r#""listen": ["127.0.0.1:0"]"#);
    let listeners = Listeners::for_config(&config, &Listeners::default()).unwrap();
    let address = listeners.addresses().next().unwrap().1;
    shut_down(&listeners);
    let theirs = socket2::Socket::from(listeners.descriptors().next().unwrap().try_clone_to_owned().unwrap());
    // That it isn't connected any more doesn't keep the kernel from marking it.
    assert!(theirs.shutdown(Shutdown::Both).is_err());
    listeners.heal();
    let mut client = TcpStream::connect(&address).unwrap();
    theirs.set_nonblocking(false).unwrap();
    let (accepted, _) = theirs.accept().unwrap();
    accepted.send(b"x").expect("it can be written to");
    client.read_exact(&mut [0]).expect("what was written arrives");
}

#[test]
fn the_last_close_of_a_listener_waits_for_no_peer_that_somebody_has_connected_it_to() {
    let config = config(r#""listen": ["127.0.0.1:0"]"#);
    let listeners = Listeners::for_config(&config, &Listeners::default()).unwrap();
    let sink = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    {
        let theirs = socket2::Socket::from(listeners.descriptors().next().unwrap().try_clone_to_owned().unwrap());
        theirs.shutdown(Shutdown::Both).unwrap();
        theirs.set_nonblocking(false).unwrap();
        theirs.connect(&sink.local_addr().unwrap().into()).unwrap();
        theirs.set_nonblocking(true).unwrap();
        while theirs.send(&[0; 8192]).is_ok() {}
        theirs.set_linger(Some(Duration::from_mins(1))).unwrap();
    }
    let began = Instant::now();
    drop(listeners);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn a_unix_listener_is_replaced_by_the_next_generation_and_keeps_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let config = config(&format!(r#""listen": ["unix:{}"]"#, path.display()));
    let first = Listeners::for_config(&config, &Listeners::default()).unwrap();
    shut_down(&first);
    assert!(UnixStream::connect(&path).is_err());
    assert_eq!(first.heal()[0].remedy, Remedy::NewWorkers);
    assert_eq!(first.harmed().count(), 1);
    let second = Listeners::for_config(&config, &first).unwrap();
    assert_eq!((second.harmed().count(), second.without(&first).harmed().count()), (0, 0));
    assert_eq!(second.without(&first).addresses().count(), 1);
    drop(first);
    assert!(UnixStream::connect(&path).is_ok());
}

#[test]
fn an_apps_listener_is_revived_and_wants_new_workers() {
    let config = config(r#""app_listeners": [{"name": "smtp", "address": "127.0.0.1:0"}]"#);
    let listeners = Listeners::for_config(&config, &Listeners::default()).unwrap();
    let second = listeners.descriptors().nth(1).unwrap().try_clone_to_owned().unwrap();
    socket2::Socket::from(second).shutdown(Shutdown::Read).unwrap();
    let healed = listeners.heal();
    assert_eq!(healed.len(), 1);
    assert_eq!((healed[0].name.as_str(), &healed[0].remedy), ("smtp", &Remedy::NewWorkers));
    assert_eq!(listeners.harmed().count(), 0);
}

#[test]
fn a_tcp_socket_that_was_connected_elsewhere_listens_again_on_its_port_and_is_replaced() {
    let config = config(r#""listen": ["127.0.0.1:0"]"#);
    let first = Listeners::for_config(&config, &Listeners::default()).unwrap();
    let address = first.addresses().next().unwrap().1;
    let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    shut_down(&first);
    let theirs = socket2::Socket::from(first.descriptors().next().unwrap().try_clone_to_owned().unwrap());
    theirs.set_nonblocking(false).unwrap();
    let _ = theirs.bind(&address.parse::<std::net::SocketAddr>().unwrap().into());
    theirs.connect(&elsewhere.local_addr().unwrap().into()).unwrap();
    assert_eq!(first.heal()[0].harm, Harm::ShutDown);
    assert_eq!(first.addresses().next().unwrap().1, address);
    assert!(TcpStream::connect(&address).is_ok());
    // The connection has left it with a send buffer of another size.
    let second = Listeners::for_config(&config, &first).unwrap();
    assert_eq!(second.heal(), []);
    drop(first);
    assert!(TcpStream::connect(&address).is_ok());
}

/// A duplicate of the first listener, as a worker has one.
fn theirs(listeners: &Listeners) -> socket2::Socket {
    socket2::Socket::from(listeners.descriptors().next().unwrap().try_clone_to_owned().unwrap())
}

#[test]
fn options_that_turn_clients_away_are_put_back_and_where_that_cannot_be_another_takes_the_port() {
    let config = config(r#""listen": ["127.0.0.1:0"]"#);
    let first = Listeners::for_config(&config, &Listeners::default()).unwrap();
    let address = first.addresses().next().unwrap().1;
    let nothing = [socket2::SockFilter::new(6, 0, 0, 0)];
    theirs(&first).attach_filter(&nothing).unwrap();
    theirs(&first).listen(0).unwrap();
    let healed = first.heal();
    assert_eq!(healed[0].harm, Harm::Changed(vec!["SO_ATTACH_FILTER", "backlog"]));
    assert_eq!(healed[0].remedy, Remedy::Revived);
    assert_eq!(first.heal(), []);
    assert!(TcpStream::connect(&address).is_ok());

    theirs(&first).attach_filter(&nothing).unwrap();
    theirs(&first).set_recv_buffer_size(1).unwrap();
    theirs(&first).set_reuse_address(false).unwrap();
    app_host_platform::sys::socket::set_option(&theirs(&first), libc::SOL_SOCKET, libc::SO_LOCK_FILTER, &[1, 0, 0, 0])
        .unwrap();
    assert_eq!(first.heal()[0].remedy, Remedy::NewWorkers);
    let kept = theirs(&first);
    let second = Listeners::for_config(&config, &first).unwrap();
    assert_eq!((second.addresses().next().unwrap().1, second.heal()), (address.clone(), vec![]));
    assert!(TcpStream::connect(&address).is_ok());
    // The one that replaces it guards the port as well.
    drop(first);
    theirs(&second).shutdown(Shutdown::Both).unwrap();
    let thief = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    thief.set_reuse_address(true).unwrap();
    assert!(thief.bind(&address.parse::<SocketAddr>().unwrap().into()).is_err());
    assert_eq!(second.heal()[0].remedy, Remedy::Revived);
    drop(kept);
}

#[test]
fn a_listener_that_was_moved_to_another_port_comes_back() {
    let config = config(r#""listen": ["127.0.0.1:0"]"#);
    let listeners = Listeners::for_config(&config, &Listeners::default()).unwrap();
    let address = listeners.addresses().next().unwrap().1;
    theirs(&listeners).shutdown(Shutdown::Both).unwrap();
    connect_unspec(theirs(&listeners)).unwrap();
    theirs(&listeners).listen(1).unwrap();
    assert_ne!(theirs(&listeners).local_addr().unwrap().as_socket().unwrap().to_string(), address);
    assert_eq!(listeners.heal()[0].harm, Harm::ShutDown);
    assert!(TcpStream::connect(&address).is_ok());
}

#[test]
fn the_options_of_an_apps_own_listener_are_the_apps() {
    let config = config(r#""app_listeners": [{"name": "smtp", "address": "127.0.0.1:0"}]"#);
    let listeners = Listeners::for_config(&config, &Listeners::default()).unwrap();
    let second = listeners.descriptors().nth(1).unwrap().try_clone_to_owned().unwrap();
    socket2::Socket::from(second).set_recv_buffer_size(1 << 20).unwrap();
    assert_eq!(listeners.heal(), []);
}

#[test]
fn a_unix_listener_whose_options_cannot_be_put_back_is_replaced_under_its_own_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let config = config(&format!(r#""listen": ["unix:{}"]"#, path.display()));
    let first = Listeners::for_config(&config, &Listeners::default()).unwrap();
    let in_worker = first.descriptors().next().unwrap().try_clone_to_owned().unwrap();
    socket2::Socket::from(in_worker).set_recv_buffer_size(1).unwrap();
    let found = first.heal();
    assert!(matches!(&found[0].harm, Harm::Changed(options) if options.contains(&"SO_RCVBUF")), "{found:?}");
    assert_eq!(found[0].remedy, Remedy::NewWorkers);
    // It listens all the while, and a client that has connected to it is served by it.
    let early = UnixStream::connect(&path).unwrap();
    let second = first.healed().unwrap();
    assert_eq!(second.heal(), []);
    drop(first);
    assert!(UnixStream::connect(&path).is_ok(), "the file is the new one's");
    drop(early);
    // So does a restart that an operator asks for.
    let in_worker = second.descriptors().next().unwrap().try_clone_to_owned().unwrap();
    socket2::Socket::from(in_worker).set_recv_buffer_size(1).unwrap();
    assert_eq!(Listeners::for_config(&config, &second).unwrap().heal(), []);
}

#[test]
fn a_unix_listener_whose_file_was_removed_is_replaced_by_the_next_generation() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let config = config(&format!(r#""listen": ["unix:{}"]"#, path.display()));
    let first = Listeners::for_config(&config, &Listeners::default()).unwrap();
    std::fs::remove_file(&path).unwrap();
    let healed = first.heal();
    assert_eq!((&healed[0].harm, &healed[0].remedy), (&Harm::FileGone, &Remedy::NewWorkers));
    // Somebody else's file is left alone. It keeps nobody from a restart, but it can't be healed.
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(first.healed(), Err(BindError::NoSocket { .. })));
    let hidden = Listeners::for_config(&config, &first).unwrap();
    assert_eq!((hidden.without(&first).addresses().count(), hidden.heal()[0].harm.clone()), (0, Harm::FileGone));
    std::fs::remove_file(&path).unwrap();
    let second = first.healed().unwrap();
    assert_eq!(second.heal(), []);
    drop((first, hidden));
    assert!(UnixStream::connect(&path).is_ok());
}
