//! The options of a listening socket, and who has changed them.
//!
//! A listening socket is one for all processes that have it, and any of them can change what it lets pass: by a filter,
//! a short queue, a smallest TTL, a network interface. Its clients are turned away and nobody else sees it. So the
//! options are compared with those that the master gave it, and put back where that is possible.
//!
//! Not seen is what the kernel doesn't tell: keys for signed segments (`TCP_MD5SIG`, `TCP_AO_ADD_KEY`).

use std::io;
use std::os::fd::AsFd;

use socket2::Socket;

use app_host_platform::sys::socket::{filter_length, option, set_option};

/// What is compared, by its name in the log (`socket(7)`, `ip(7)`, `ipv6(7)`, `tcp(7)`).
const COMPARED: [(&str, i32, i32); 40] = [
    ("SO_LOCK_FILTER", libc::SOL_SOCKET, libc::SO_LOCK_FILTER),
    ("SO_BINDTODEVICE", libc::SOL_SOCKET, libc::SO_BINDTODEVICE),
    ("SO_DONTROUTE", libc::SOL_SOCKET, libc::SO_DONTROUTE),
    ("SO_KEEPALIVE", libc::SOL_SOCKET, libc::SO_KEEPALIVE),
    ("SO_LINGER", libc::SOL_SOCKET, libc::SO_LINGER),
    ("SO_MARK", libc::SOL_SOCKET, libc::SO_MARK),
    ("SO_MAX_PACING_RATE", libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE),
    ("SO_OOBINLINE", libc::SOL_SOCKET, libc::SO_OOBINLINE),
    ("SO_PRIORITY", libc::SOL_SOCKET, libc::SO_PRIORITY),
    ("SO_RCVBUF", libc::SOL_SOCKET, libc::SO_RCVBUF),
    ("SO_RCVLOWAT", libc::SOL_SOCKET, libc::SO_RCVLOWAT),
    ("SO_REUSEADDR", libc::SOL_SOCKET, libc::SO_REUSEADDR),
    ("SO_REUSEPORT", libc::SOL_SOCKET, libc::SO_REUSEPORT),
    ("SO_SNDBUF", libc::SOL_SOCKET, libc::SO_SNDBUF),
    ("SO_TIMESTAMP", libc::SOL_SOCKET, libc::SO_TIMESTAMP),
    ("IP_FREEBIND", libc::IPPROTO_IP, libc::IP_FREEBIND),
    ("IP_MINTTL", libc::IPPROTO_IP, libc::IP_MINTTL),
    ("IP_MTU_DISCOVER", libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
    ("IP_OPTIONS", libc::IPPROTO_IP, libc::IP_OPTIONS),
    ("IP_TOS", libc::IPPROTO_IP, libc::IP_TOS),
    ("IP_TTL", libc::IPPROTO_IP, libc::IP_TTL),
    ("IPV6_DSTOPTS", libc::IPPROTO_IPV6, libc::IPV6_DSTOPTS),
    ("IPV6_FREEBIND", libc::IPPROTO_IPV6, libc::IPV6_FREEBIND),
    ("IPV6_HOPOPTS", libc::IPPROTO_IPV6, libc::IPV6_HOPOPTS),
    ("IPV6_MINHOPCOUNT", libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT),
    ("IPV6_MTU_DISCOVER", libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
    ("IPV6_RTHDR", libc::IPPROTO_IPV6, libc::IPV6_RTHDR),
    ("IPV6_TCLASS", libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
    ("IPV6_UNICAST_HOPS", libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS),
    ("TCP_CONGESTION", libc::IPPROTO_TCP, libc::TCP_CONGESTION),
    ("TCP_CORK", libc::IPPROTO_TCP, libc::TCP_CORK),
    ("TCP_DEFER_ACCEPT", libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT),
    ("TCP_FASTOPEN", libc::IPPROTO_TCP, libc::TCP_FASTOPEN),
    ("TCP_KEEPCNT", libc::IPPROTO_TCP, libc::TCP_KEEPCNT),
    ("TCP_KEEPIDLE", libc::IPPROTO_TCP, libc::TCP_KEEPIDLE),
    ("TCP_KEEPINTVL", libc::IPPROTO_TCP, libc::TCP_KEEPINTVL),
    ("TCP_MAXSEG", libc::IPPROTO_TCP, libc::TCP_MAXSEG),
    ("TCP_NODELAY", libc::IPPROTO_TCP, libc::TCP_NODELAY),
    ("TCP_USER_TIMEOUT", libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT),
    ("TCP_WINDOW_CLAMP", libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP),
];

/// Where `struct tcp_info` says how long the queue of a socket that listens may be: `tcpi_sacked`
/// (`tcp_get_info` in net/ipv4/tcp.c).
const BACKLOG: std::ops::Range<usize> = 28..32;

/// The options of one socket at one time. Without a value is what this kernel, or this kind of socket, doesn't know and
/// what could not be asked just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Options {
    values: Vec<Option<Vec<u8>>>,
    filter: Option<usize>,
    /// Only a TCP socket tells.
    backlog: Option<Vec<u8>>,
}

impl Options {
    pub(super) fn of(socket: &Socket) -> Self {
        let info = option(socket, libc::IPPROTO_TCP, libc::TCP_INFO).ok();
        Self {
            values: COMPARED.iter().map(|(_, level, name)| option(socket, *level, *name).ok()).collect(),
            filter: filter_length(socket).ok(),
            backlog: info.and_then(|info| info.get(BACKLOG).map(<[u8]>::to_vec)),
        }
    }

    /// The names of those that are no longer so. What has no value before or now is none of them: taken for a change, it
    /// would have a listener replaced whose clients are queued.
    pub(super) fn changed(&self, now: &Self) -> Vec<&'static str> {
        let compared = COMPARED.iter().zip(self.values.iter().zip(&now.values));
        let mut changed: Vec<_> = compared
            .filter(|(_, (before, now))| differ(before.as_ref(), now.as_ref()))
            .map(|((name, ..), _)| *name)
            .collect();
        changed.extend(differ(self.filter, now.filter).then_some("SO_ATTACH_FILTER"));
        changed.extend(differ(self.backlog.as_ref(), now.backlog.as_ref()).then_some("backlog"));
        changed
    }

    /// Takes for right what the socket has now of that which a configuration may change while it is open: the backlog, and
    /// whether the address may be one that the machine doesn't have.
    pub(super) fn expect_settings_of(&mut self, socket: &Socket) {
        let Self { values, filter: _, backlog } = Self::of(socket);
        self.backlog = backlog;
        for ((name, ..), (expected, now)) in COMPARED.iter().zip(self.values.iter_mut().zip(values)) {
            if matches!(*name, "IP_FREEBIND" | "IPV6_FREEBIND") {
                // Where it can't be asked, what was expected may be wrong from now on.
                *expected = now;
            }
        }
    }

    /// Puts back what can be put back; whether that was all is told by [`changed`](Self::changed).
    pub(super) fn restore(&self, socket: &Socket) {
        let now = Self::of(socket);
        if differ(self.filter, now.filter) {
            let _ = detach_filter(socket);
        }
        if let Some(Ok(backlog)) = self.backlog.as_deref().map(<[u8; 4]>::try_from)
            && differ(self.backlog.as_ref(), now.backlog.as_ref())
        {
            let _ = socket.listen(i32::from_ne_bytes(backlog));
        }
        for ((_, level, name), (before, now)) in COMPARED.iter().zip(self.values.iter().zip(&now.values)) {
            if let (Some(before), Some(now)) = (before, now)
                && before != now
            {
                let _ = set_option(socket, *level, *name, before);
            }
        }
    }
}

fn differ<T: PartialEq>(before: Option<T>, now: Option<T>) -> bool {
    before.zip(now).is_some_and(|(before, now)| before != now)
}

fn detach_filter(socket: &impl AsFd) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, &0_i32.to_ne_bytes())
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, Type};

    use super::*;

    fn listening() -> Socket {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
        socket.listen(77).unwrap();
        socket
    }

    #[test]
    fn what_is_changed_is_named_and_put_back() {
        let socket = listening();
        let before = Options::of(&socket);
        assert_eq!(before.changed(&Options::of(&socket)), [""; 0]);
        socket.listen(1).unwrap();
        socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
        set_option(&socket, libc::IPPROTO_IP, libc::IP_MINTTL, &255_i32.to_ne_bytes()).unwrap();
        set_option(&socket, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, &60_i32.to_ne_bytes()).unwrap();
        socket2::SockRef::from(&socket).attach_filter(&[socket2::SockFilter::new(6, 0, 0, 0)]).unwrap();
        let changed = before.changed(&Options::of(&socket));
        assert_eq!(changed, ["SO_LINGER", "IP_MINTTL", "TCP_DEFER_ACCEPT", "SO_ATTACH_FILTER", "backlog"]);
        before.restore(&socket);
        assert_eq!(before.changed(&Options::of(&socket)), [""; 0]);
    }

    #[test]
    fn what_could_not_be_asked_is_no_change() {
        let socket = listening();
        let known = Options::of(&socket);
        let unknown = Options { values: vec![None; COMPARED.len()], filter: None, backlog: None };
        socket.listen(1).unwrap();
        let now = Options::of(&socket);
        assert_eq!(known.changed(&now), ["backlog"]);
        assert_eq!((unknown.changed(&now), known.changed(&unknown)), (vec![], vec![]));
        unknown.restore(&socket);
        assert_eq!(Options::of(&socket), now);
    }

    #[test]
    fn what_cannot_be_put_back_stays_named() {
        let socket = listening();
        let before = Options::of(&socket);
        socket2::SockRef::from(&socket).attach_filter(&[socket2::SockFilter::new(6, 0, 0, 0)]).unwrap();
        set_option(&socket, libc::SOL_SOCKET, libc::SO_LOCK_FILTER, &1_i32.to_ne_bytes()).unwrap();
        socket.set_recv_buffer_size(1).unwrap();
        before.restore(&socket);
        assert_eq!(before.changed(&Options::of(&socket)), ["SO_LOCK_FILTER", "SO_RCVBUF", "SO_ATTACH_FILTER"]);
    }
}
