//! The app's own listeners across the line.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use app_abi::AppListener as Taken;

use app_host_core::message::Origin;

use super::*;

struct Taker(Host);

impl App for Taker {
    async fn start(host: Host) -> Result<Self, StartError> {
        Ok(Self(host))
    }

    async fn call(&self, request: Request<AppSideBody>) -> Response<AppSideBody> {
        let answer = match self.0.listener(&request.uri().path()[1..]) {
            Ok(Taken::Tcp(listener)) => format!("tcp {}", listener.local_addr().unwrap()),
            Ok(Taken::Unix(listener)) => format!("unix {:?}", listener.local_addr().unwrap().as_pathname()),
            Err(error) => format!("{error:?}"),
        };
        Response::new(answer.into())
    }
}

async fn taker(listeners: &AppListeners) -> LoadedApp {
    static HEADER: LibHeader = export::header::<Taker, export::Plain>();
    let library = check(&HEADER).expect("an app of this very build fits");
    library.start(HostInfo { listeners: listeners.clone(), ..info("") }).await.expect("the app starts")
}

async fn take(app: &LoadedApp, name: &str) -> String {
    text(app.call(get(&format!("/{name}")), connection(), Offers::default()).await.unwrap()).await
}

#[tokio::test]
async fn a_listener_is_taken_by_its_name_once_and_the_first_refusal_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let unix = UnixListener::bind(&path).unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    let origin = Origin::Bound;
    let listener = |name: &str, unix, socket| AppListener { name: name.to_owned(), unix, origin, socket };
    let listeners = AppListeners::new(vec![
        listener("smtp", false, tcp.into()),
        listener("local", true, unix.into()),
        listener("broken", false, null.into()),
    ]);
    let app = taker(&listeners).await;
    assert_eq!(take(&app, "smtp").await, format!("tcp {address}"));
    assert_eq!(take(&app, "local").await, format!("unix {:?}", Some(&path)));
    assert_eq!(listeners.refused(), None);
    assert_eq!(listeners.untaken(), ["broken"]);
    let broken = "listener \"broken\" can't be taken: the descriptor is no listening socket";
    assert_eq!(take(&app, "broken").await, format!("Unusable({broken:?})"));
    assert_eq!(take(&app, "smtp").await, "Taken(\"listener \\\"smtp\\\" was taken before\")");
    let unknown = "there is no listener \"pop\" in app_listeners, which has \"smtp\", \"local\", \"broken\"";
    assert_eq!(take(&app, "pop").await, format!("Unknown({unknown:?})"));
    assert_eq!(listeners.refused().unwrap(), broken);
}

#[tokio::test]
async fn a_shut_listener_refuses_clients_although_the_app_holds_it() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let taken = tcp.try_clone().unwrap();
    let (name, origin) = ("smtp".to_owned(), Origin::Bound);
    let listeners = AppListeners::new(vec![AppListener { name, unix: false, origin, socket: tcp.into() }]);
    assert!(listeners.shut_down().is_empty());
    assert!(std::net::TcpStream::connect(address).is_err());
    assert_eq!(taken.accept().unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    let app = taker(&listeners).await;
    assert!(take(&app, "smtp").await.contains("closed already"));
}

#[test]
fn a_passed_listener_is_only_closed() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let managers = tcp.try_clone().unwrap();
    let (name, origin) = ("smtp".to_owned(), Origin::Passed);
    let listeners = AppListeners::new(vec![AppListener { name, unix: false, origin, socket: tcp.into() }]);
    assert!(listeners.shut_down().is_empty());
    let _client = std::net::TcpStream::connect(address).unwrap();
    assert!(managers.accept().is_ok(), "a client that came after the stop has waited");
}
