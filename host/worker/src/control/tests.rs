//! The control thread without its process: its inputs, and the last call.

use std::io;
use std::os::fd::AsFd;

use app_host_core::config::Peers;
use app_host_core::message::Origin;
use app_host_platform::channel::{PIPE, one_way};
use app_host_platform::sys::packet;
use app_host_platform::sys::stats::StatsPage;

use super::*;
use crate::accept::UnservedConnection;
use crate::context::ListenerRules;

/// The master's socket, and a worker's end whose messages are never read.
fn child() -> (OwnedFd, Channel) {
    let (ours, theirs) = one_way().unwrap();
    let (_, writer) = io::pipe().unwrap();
    packet::send(ours.as_fd(), &[PIPE], &[writer.as_fd()]).unwrap();
    (ours, Channel::from_owned_fd(theirs).unwrap())
}

fn inputs(channel: &Channel) -> ControlInputs<'_> {
    let (app_state, handed_on) = AppState::new(watch::channel(None).1, "1.0.0", 1, AppConfig::empty());
    ControlInputs {
        channel,
        master: Master::Connected,
        terminate: signals::terminate().unwrap(),
        terminated: false,
        events: mpsc::unbounded_channel().1,
        log: ChildLog::nowhere(),
        access: None,
        tickets: Arc::new(app_host_tls::Tickets::new(&[])),
        servers: Vec::new(),
        drain: connection::drain_signal().0,
        shutdown_timeout: Duration::from_secs(30),
        app_state,
        handed_on,
    }
}

#[tokio::test]
async fn only_the_masters_end_closes_the_listeners_for_all() {
    let (master, channel) = child();
    let mut inputs = inputs(&channel);
    // Longer than any packet of the master's.
    packet::send(master.as_fd(), &vec![b'i'; 100_000], &[]).unwrap();
    let Input::Drain(order) = inputs.recv().await else { panic!("a event") };
    assert!(order.successor && inputs.master == Master::Lost);

    inputs.master = Master::Connected;
    drop(master);
    let Input::Drain(order) = inputs.recv().await else { panic!("a event") };
    assert!(!order.successor && inputs.master == Master::Gone);
}

fn control(channel: &Channel, listeners: Vec<Listener>) -> Control<'_> {
    let (intake, _) = watch::channel(Intake::Waiting);
    let (stop, _) = watch::channel(false);
    let held = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let (_, dispatch) = packet::pair().unwrap();
    Control {
        inputs: inputs(channel),
        outputs: Arc::default(),
        access: None,
        stats: &[],
        listeners: Some(listeners.into()),
        app_listeners: AppListeners::new(Vec::new()),
        dispatch: Dispatch::open(dispatch).unwrap(),
        intake,
        unserved: Arc::default(),
        drain: connection::drain_signal().0,
        transfer: transfer::channel().0,
        stop,
        app_config: AppConfig::empty(),
        idle_linger: Duration::from_secs(5),
        _held: held(),
    }
}

#[tokio::test]
async fn what_waits_at_the_last_call_is_taken_although_no_thread_answers() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let clients: Vec<_> = (0..3).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    let (_master, channel) = child();
    let rules = ListenerRules { name: "test", unix: false, tls: None, peers: Peers::default(), own: None };
    let listener = Listener { socket: listener.into(), origin: Origin::Bound, rules: Arc::new(rules) };
    let mut control = control(&channel, vec![listener]);
    control.last_call(1);
    control.shut_listeners_down();
    let mut taken = Vec::new();
    while let Some(UnservedConnection { socket, .. }) = control.unserved.take() {
        taken.push(socket.peer_addr().unwrap().as_socket().unwrap());
    }
    taken.sort_unstable();
    let mut expected: Vec<_> = clients.iter().map(|client| client.local_addr().unwrap()).collect();
    expected.sort_unstable();
    assert_eq!(taken, expected);
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[tokio::test]
async fn no_thread_accepts_before_all_of_them_can() {
    let (_master, channel) = child();
    let mut control = control(&channel, Vec::new());
    let (events, received) = mpsc::unbounded_channel();
    control.inputs.events = received;
    control.stats = &StatsPage::open(&StatsPage::create().unwrap().1).unwrap().into_threads()[..2];
    events.send(ThreadEvent::Prepared).unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(50), control.accept()).await.is_err());
    assert_eq!(*control.intake.borrow(), Intake::Waiting);
    // Counted anew, because the first wait was given up.
    events.send(ThreadEvent::Prepared).unwrap();
    events.send(ThreadEvent::Prepared).unwrap();
    control.accept().await.unwrap();
    assert_eq!(*control.intake.borrow(), Intake::Open);
}
