//! Sockets that the service manager has bound and passed on (`sd_listen_fds(3)`).
//!
//! Owns what the environment says of them, what kind they must be, and which listener gets which: the one
//! of its name; where no listener has its name, the one on its address. What is configured of such a
//! listener besides, address, backlog and mode, is the manager's to say. The sockets stay the manager's:
//! they are not bound here, never shut down, and their files are not ours to remove.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::{env, fmt, io};

use nix::errno::Errno;
use socket2::{Domain, Socket, Type};

use app_host_core::config::{Address, Config, Family, Listen, MAX_APP_LISTENERS, MAX_LISTENERS};
use app_host_core::message::Origin;
use app_host_platform::sys;

use super::options::Options;
use super::{Bound, watch_clients};

/// The first descriptor that is passed (`SD_LISTEN_FDS_START`).
const FIRST: usize = 3;

/// As many as can be configured.
const MOST: usize = MAX_LISTENERS + MAX_APP_LISTENERS;

/// Sockets that can't be used as they were passed.
#[derive(Debug, thiserror::Error)]
pub enum PassedError {
    #[error("LISTEN_FDS is \"{0}\", expected a number of at most {MOST}")]
    Number(String),
    #[error("LISTEN_FDNAMES has {found} names, and LISTEN_FDS says {expected}")]
    Names { found: usize, expected: usize },
    #[error("the passed descriptors can't be taken")]
    Take(#[source] io::Error),
    #[error("the passed descriptor {descriptor} (\"{name}\") {what}")]
    Unfit { descriptor: usize, name: String, what: &'static str },
    #[error("the passed descriptor {descriptor} (\"{name}\") can't be used")]
    Socket { descriptor: usize, name: String, source: io::Error },
}

/// A socket that was passed.
#[derive(Debug)]
pub(super) struct PassedSocket {
    descriptor: usize,
    name: String,
    pub(super) bound: Rc<Bound>,
}

impl fmt::Display for PassedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "descriptor {} (\"{}\", {})", self.descriptor, self.name, self.bound.address)
    }
}

/// All of them. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Passed(Rc<[PassedSocket]>);

impl Passed {
    /// Takes what our environment says was passed to this process. To be called before anything else in
    /// it opens a descriptor.
    ///
    /// # Errors
    /// When the environment contradicts itself, or a descriptor is no listening stream socket.
    pub fn from_environment() -> Result<Self, PassedError> {
        // What was meant for another process, a parent perhaps, is none of our business.
        if env::var("LISTEN_PID").ok().and_then(|pid| pid.parse().ok()) != Some(std::process::id()) {
            return Ok(Self::default());
        }
        let Ok(number) = env::var("LISTEN_FDS") else { return Ok(Self::default()) };
        let names = names(&number, env::var("LISTEN_FDNAMES").ok().as_deref())?;
        let descriptors = sys::take_inherited(FIRST, names.len()).map_err(PassedError::Take)?;
        Self::new(descriptors, names)
    }

    fn new(descriptors: Vec<OwnedFd>, names: Vec<String>) -> Result<Self, PassedError> {
        let sockets = descriptors.into_iter().zip(names).enumerate().map(|(place, (descriptor, name))| {
            let bound = Rc::new(bound(descriptor, FIRST + place, &name)?);
            Ok(PassedSocket { descriptor: FIRST + place, name, bound })
        });
        sockets.collect::<Result<_, _>>().map(Self)
    }

    /// The sockets for one of the listeners of `config`.
    pub(super) fn of(&self, listen: &Listen, config: &Config) -> Vec<Rc<Bound>> {
        let sockets = self.0.iter().filter(|socket| self.taker(socket, config) == Some(listen));
        let sockets = sockets.map(|socket| Rc::clone(&socket.bound));
        let several = matches!(listen.address, Address::Localhost(_) | Address::Everywhere(_));
        // What the app serves itself it gets as one.
        let most = if several && config.listen.contains(listen) { usize::MAX } else { 1 };
        sockets.take(most).collect()
    }

    /// Those that are for none of the listeners of `config`, in words.
    pub(super) fn left_over(&self, config: &Config) -> Vec<String> {
        let all = config.listen.iter().chain(&config.app_listeners);
        let taken: Vec<_> = all.flat_map(|listen| self.of(listen, config)).collect();
        let is_left = |socket: &&PassedSocket| !taken.iter().any(|bound| Rc::ptr_eq(bound, &socket.bound));
        self.0.iter().filter(is_left).map(ToString::to_string).collect()
    }

    /// Which listener of `config` a socket is for.
    fn taker<'c>(&self, socket: &PassedSocket, config: &'c Config) -> Option<&'c Listen> {
        let mut all = config.listen.iter().chain(&config.app_listeners);
        let on_its_address = |listen: &&Listen| listen.address.is_met_by(&socket.bound.address);
        match all.clone().find(|listen| listen.name == socket.name) {
            // All sockets of one unit may have the same name.
            Some(named) if self.0.iter().filter(|other| other.name == socket.name).count() == 1 => Some(named),
            Some(named) => Some(named).filter(on_its_address),
            None => all.find(on_its_address),
        }
    }
}

/// The name of each socket.
fn names(number: &str, names: Option<&str>) -> Result<Vec<String>, PassedError> {
    let expected: usize = number
        .parse()
        .ok()
        .filter(|expected| *expected <= MOST)
        .ok_or_else(|| PassedError::Number(number.to_owned()))?;
    match names {
        // Older managers name none.
        None => Ok(vec!["unknown".to_owned(); expected]),
        Some(names) => {
            let names: Vec<_> = names.split(':').filter(|_| expected > 0).map(str::to_owned).collect();
            match names.len() {
                found if found == expected => Ok(names),
                found => Err(PassedError::Names { found, expected }),
            }
        }
    }
}

fn bound(descriptor: OwnedFd, number: usize, name: &str) -> Result<Bound, PassedError> {
    let unfit = |what| PassedError::Unfit { descriptor: number, name: name.to_owned(), what };
    let failed = |source: io::Error| match source.raw_os_error() {
        Some(code) if code == Errno::ENOTSOCK as i32 => unfit("is no socket"),
        _ => PassedError::Socket { descriptor: number, name: name.to_owned(), source },
    };
    let socket = Socket::from(descriptor);
    if socket.r#type().map_err(failed)? != Type::STREAM {
        return Err(unfit("is no stream socket: say ListenStream= in its unit"));
    }
    if !socket.is_listener().map_err(failed)? {
        return Err(unfit("doesn't listen: say Accept=no in its unit"));
    }
    let local = socket.local_addr().map_err(failed)?.as_socket();
    let address = match socket.domain().map_err(failed)? {
        Domain::UNIX => Address::Unix(unix_path(&socket).map_err(failed)?),
        Domain::IPV4 | Domain::IPV6 => {
            watch_clients(&socket).map_err(failed)?;
            Address::Tcp(local.ok_or_else(|| unfit("has no address"))?)
        }
        _ => return Err(unfit("is of a family that HTTP isn't spoken on here")),
    };
    socket.set_nonblocking(true).map_err(failed)?;
    let (family, options) = (Family::System, RefCell::new(Some(Options::of(&socket))));
    Ok(Bound {
        address,
        family,
        socket: socket.into(),
        local,
        file: None,
        origin: Origin::Passed,
        guard: None,
        options,
    })
}

/// The path of a Unix socket, as a configuration would give it; of one without a file, its name after an `@`.
fn unix_path(socket: &Socket) -> io::Result<PathBuf> {
    let address = socket.local_addr()?;
    if let Some(path) = address.as_pathname() {
        return Ok(path.to_owned());
    }
    let name = String::from_utf8_lossy(address.as_abstract_namespace().unwrap_or_default()).into_owned();
    Ok(Path::new(&format!("@{name}")).to_owned())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::os::fd::AsFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::super::{Listeners, Remedy};
    use super::*;

    fn config(listen: &str) -> Config {
        let text = format!(r#"{{"app": {{"library": "a"}}, {listen}}}"#);
        Config::parse(text.as_bytes(), Path::new("/c.json")).unwrap()
    }

    fn passed(sockets: Vec<(&str, OwnedFd)>) -> Result<Passed, PassedError> {
        let (names, descriptors) = sockets.into_iter().map(|(name, socket)| (name.to_owned(), socket)).unzip();
        Passed::new(descriptors, names)
    }

    fn tcp() -> (OwnedFd, String) {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap().to_string();
        (socket.into(), address)
    }

    #[test]
    fn a_socket_is_for_the_listener_of_its_name_or_else_for_the_one_on_its_address() {
        let ((web, web_at), (other, other_at), (smtp, smtp_at)) = (tcp(), tcp(), tcp());
        let passed = passed(vec![("web", web), ("unit.socket", other), ("smtp", smtp)]).unwrap();
        let config = config(&format!(
            r#""listen": [{{"address": "127.0.0.1:1", "name": "web"}}, "{other_at}", "127.0.0.1:0"],
               "app_listeners": [{{"address": "127.0.0.1:2", "name": "smtp"}}]"#
        ));
        let listeners = Listeners::for_config(&config, &Listeners::with_passed(passed)).unwrap();
        let addresses: Vec<_> = listeners.addresses().map(|(_, address)| address).collect();
        assert_eq!([&addresses[0], &addresses[1], &addresses[3]], [&web_at, &other_at, &smtp_at]);
        assert_eq!(
            listeners.infos().iter().map(|info| info.origin).collect::<Vec<_>>(),
            [Origin::Passed, Origin::Passed, Origin::Bound, Origin::Passed]
        );
        assert_eq!(listeners.left_over(&config), [""; 0]);
    }

    #[test]
    fn a_socket_is_kept_by_later_generations_and_comes_back_to_the_listener_that_is_named_so_again() {
        let ((web, web_at), (_, elsewhere)) = (tcp(), tcp());
        let named = config(r#""listen": [{"address": "127.0.0.1:0", "name": "web"}]"#);
        let first =
            Listeners::for_config(&named, &Listeners::with_passed(passed(vec![("web", web)]).unwrap())).unwrap();
        let second = Listeners::for_config(&named, &first).unwrap();
        assert_eq!(second.without(&first).addresses().count(), 0);
        drop(first);
        // The address of the configuration isn't the socket's: another listener may have it.
        let renamed = config(r#""listen": [{"address": "127.0.0.1:0", "name": "www"}]"#);
        let third = Listeners::for_config(&renamed, &second).unwrap();
        assert_ne!(third.addresses().next().unwrap().1, web_at);
        assert_eq!(third.without(&second).addresses().count(), 1);
        assert_eq!(third.left_over(&renamed), [format!("descriptor 3 (\"web\", {web_at})")]);
        drop(second);
        // Nobody accepts on it, but it is still there: clients wait.
        assert!(std::net::TcpStream::connect(&web_at).is_ok());
        let fourth = Listeners::for_config(&named, &third).unwrap();
        assert_eq!(fourth.addresses().next().unwrap().1, web_at);
        assert_ne!(web_at, elsewhere);
    }

    #[test]
    fn sockets_that_share_a_name_are_told_apart_by_their_addresses() {
        let ((one, one_at), (two, two_at)) = (tcp(), tcp());
        let passed = passed(vec![("web", one), ("web", two)]).unwrap();
        let by_address = config(&format!(r#""listen": ["{two_at}", "{one_at}"]"#));
        let listeners = Listeners::for_config(&by_address, &Listeners::with_passed(passed.clone())).unwrap();
        assert!(listeners.infos().iter().all(|info| info.origin == Origin::Passed));
        let ambiguous = config(r#""listen": [{"address": "127.0.0.1:0", "name": "web"}]"#);
        assert_eq!(passed.left_over(&ambiguous).len(), 2, "which of them, nobody can say");
    }

    #[test]
    fn a_listener_of_several_addresses_takes_all_that_were_passed_for_it_and_binds_none() {
        let (four, at) = tcp();
        let port = at.rsplit_once(':').unwrap().1.to_owned();
        let six = || Some(TcpListener::bind(format!("[::1]:{port}")).ok()?.into());
        let Some(six) = six() else { return };
        let passed = passed(vec![("web", four), ("web", six)]).unwrap();
        for address in
            [format!(r#""localhost:{port}""#), format!(r#"{{"address": "localhost:{port}", "name": "web"}}"#)]
        {
            let config = config(&format!(r#""listen": [{address}]"#));
            let listeners = Listeners::for_config(&config, &Listeners::with_passed(passed.clone())).unwrap();
            let found: Vec<_> = listeners.infos().into_iter().map(|info| info.origin).collect();
            assert_eq!(found, [Origin::Passed, Origin::Passed], "{address}");
            assert_eq!(listeners.left_over(&config), [""; 0], "{address}");
        }
        // One socket of its name is all of it, wherever that listens.
        let (other, other_at) = tcp();
        let one = self::passed(vec![("web", other)]).unwrap();
        let config = config(r#""listen": [{"address": "localhost:1", "name": "web"}]"#);
        let listeners = Listeners::for_config(&config, &Listeners::with_passed(one)).unwrap();
        assert_eq!(listeners.addresses().collect::<Vec<_>>(), [("web", other_at)]);
    }

    #[test]
    fn what_the_app_serves_itself_is_one_socket_and_a_second_one_is_left_over() {
        let both = || {
            let four = TcpListener::bind("0.0.0.0:0").ok()?;
            let port = four.local_addr().ok()?.port();
            let six = Socket::new(Domain::IPV6, Type::STREAM, None).ok()?;
            six.set_only_v6(true).ok()?;
            six.bind(&std::net::SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port)).into()).ok()?;
            six.listen(1).ok()?;
            Some((port, four.into(), six.into()))
        };
        let Some((port, four, six)) = both() else { return };
        let sockets = passed(vec![("a", four), ("b", six)]).unwrap();
        let served = config(&format!(r#""listen": [":{port}"]"#));
        let listeners = Listeners::for_config(&served, &Listeners::with_passed(sockets.clone())).unwrap();
        assert_eq!((listeners.infos().len(), listeners.left_over(&served).len()), (2, 0));
        let apps =
            config(&format!(r#""app_listeners": [{{"name": "smtp", "address": ":{port}"}}], "listen": ["unix:/s"]"#));
        assert_eq!(sockets.left_over(&apps).len(), 1);
    }

    #[test]
    fn whether_a_passed_socket_may_have_an_address_that_is_missing_is_its_units_to_say() {
        let (web, _) = tcp();
        let freebind = config(r#""listen": [{"address": "127.0.0.1:0", "name": "web", "freebind": true}]"#);
        let passed = Listeners::with_passed(passed(vec![("web", web)]).unwrap());
        let error = Listeners::for_config(&freebind, &passed).unwrap_err().to_string();
        assert!(error.starts_with("listener \"web\": \"freebind\"") && error.contains("say FreeBind=yes"), "{error}");
        let without = config(r#""listen": [{"address": "127.0.0.1:0", "name": "web"}]"#);
        assert_eq!(Listeners::for_config(&without, &passed).unwrap().infos()[0].origin, Origin::Passed);
    }

    #[test]
    fn a_unix_socket_is_served_and_its_file_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let socket = UnixListener::bind(&path).unwrap();
        let config = config(&format!(r#""listen": ["unix:{}"]"#, path.display()));
        let passed = passed(vec![("unknown", socket.into())]).unwrap();
        let listeners = Listeners::for_config(&config, &Listeners::with_passed(passed)).unwrap();
        assert!(listeners.infos()[0].unix);
        listeners.apply_settings();
        assert!(UnixStream::connect(&path).is_ok());
        drop(listeners);
        assert!(path.exists());
    }

    #[test]
    fn a_passed_socket_that_was_shut_down_is_revived_if_it_is_tcp_and_else_said_to_be_its_managers() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let (web, web_at) = tcp();
        let local = UnixListener::bind(&path).unwrap();
        let config = config(&format!(r#""listen": ["{web_at}", "unix:{}"]"#, path.display()));
        let passed = passed(vec![("web", web), ("local", local.into())]).unwrap();
        let listeners = Listeners::for_config(&config, &Listeners::with_passed(passed)).unwrap();
        for socket in listeners.descriptors() {
            socket2::SockRef::from(&socket).shutdown(std::net::Shutdown::Both).unwrap();
        }
        let remedies: Vec<_> = listeners.heal().into_iter().map(|found| found.remedy).collect();
        assert_eq!(remedies, [Remedy::Revived, Remedy::Manager]);
        assert!(std::net::TcpStream::connect(&web_at).is_ok());
        assert_eq!(listeners.harmed().count(), 1);
        let error = Listeners::for_config(&config, &listeners).unwrap_err();
        assert!(error.to_string().ends_with("restart its socket unit"), "{error}");
    }

    #[test]
    fn what_is_no_listening_stream_socket_is_refused_and_named() {
        let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let datagram = OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap());
        let (pair, _other) = UnixStream::pair().unwrap();
        for (descriptor, what) in [
            (file, "is no socket"),
            (datagram, "is no stream socket: say ListenStream= in its unit"),
            (pair.into(), "doesn't listen: say Accept=no in its unit"),
        ] {
            let (good, _) = tcp();
            let error = passed(vec![("web", good), ("odd", descriptor)]).unwrap_err();
            assert_eq!(error.to_string(), format!("the passed descriptor 4 (\"odd\") {what}"));
        }
    }

    #[test]
    fn an_environment_that_contradicts_itself_is_refused() {
        assert_eq!(names("2", Some("web:")).unwrap(), ["web", ""]);
        assert_eq!(names("2", None).unwrap(), ["unknown", "unknown"]);
        assert_eq!(names("0", Some("")).unwrap(), [""; 0]);
        for number in ["", "-1", "two", "193", "18446744073709551616"] {
            assert!(matches!(names(number, None), Err(PassedError::Number(_))), "{number}");
        }
        let error = names("3", Some("web:smtp")).unwrap_err().to_string();
        assert_eq!(error, "LISTEN_FDNAMES has 2 names, and LISTEN_FDS says 3");
    }

    #[test]
    fn clients_that_vanish_are_noticed_on_a_passed_socket_too() {
        let (web, _) = tcp();
        let passed = passed(vec![("web", web)]).unwrap();
        let socket = socket2::SockRef::from(&passed.0[0].bound.socket.as_fd()).keepalive().unwrap();
        assert!(socket);
    }
}
