//! Socket options as bytes, for whoever compares them and doesn't care what they mean.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;

/// As long as any option that is read here: `struct tcp_info` is the longest.
const LONGEST: usize = 512;

/// Whether connections are queued on a listening socket; so it is taken where the kernel can't say. Not `SO_ACCEPTCONN`
/// alone: a Unix socket that was shut down says that it listens.
pub fn is_open(socket: &impl AsFd) -> bool {
    let mut polled = [PollFd::new(socket, PollFlags::RDHUP)];
    let hung_up = poll(&mut polled, Some(&Timespec::default())).is_ok()
        && polled[0].revents().intersects(PollFlags::RDHUP | PollFlags::HUP);
    !hung_up && SockRef::from(&socket.as_fd()).is_listener().unwrap_or(true)
}

/// The value of a socket option (`getsockopt(2)`), whatever its type.
///
/// # Errors
/// Where the kernel, or this kind of socket, has no such option.
pub fn option(socket: &impl AsFd, level: i32, name: i32) -> io::Result<Vec<u8>> {
    let mut value = vec![0_u8; LONGEST];
    let length = get(socket, level, name, &mut value)?;
    value.truncate(length);
    Ok(value)
}

/// The supplementary groups of whoever is at the other end of a Unix socket, as they were when it connected
/// (`SO_PEERGROUPS`, `unix(7)`).
pub fn peer_groups(socket: &impl AsFd) -> io::Result<Vec<u32>> {
    const SIZE: usize = size_of::<libc::gid_t>();
    // As many as a process may have (`NGROUPS_MAX`), if there are so many.
    for most in [64, 1 << 16] {
        let mut value = vec![0_u8; most * SIZE];
        match get(socket, libc::SOL_SOCKET, libc::SO_PEERGROUPS, &mut value) {
            Err(error) if error.raw_os_error() == Some(libc::ERANGE) => {}
            length => {
                value.truncate(length?);
                let (groups, _) = value.as_chunks::<SIZE>();
                return Ok(groups.iter().copied().map(u32::from_ne_bytes).collect());
            }
        }
    }
    Err(io::Error::from_raw_os_error(libc::ERANGE))
}

/// How many instructions the classic filter of a socket has, 0 where it has none (`SO_GET_FILTER`; `sk_get_filter` in
/// net/core/filter.c).
///
/// # Errors
/// Where it has one that was loaded with `bpf(2)`.
pub fn filter_length(socket: &impl AsFd) -> io::Result<usize> {
    // Counted in instructions; with room for none only their number is told.
    get(socket, libc::SOL_SOCKET, libc::SO_GET_FILTER, &mut [])
}

fn get(socket: &impl AsFd, level: i32, name: i32, value: &mut [u8]) -> io::Result<usize> {
    let mut length = libc::socklen_t::try_from(value.len()).unwrap_or(0);
    #[expect(unsafe_code, reason = "options of any type have no safe wrapper")]
    // SAFETY: the kernel writes `length` bytes at most, for which there is room, and how many it wrote.
    let result = unsafe {
        libc::getsockopt(socket.as_fd().as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut length)
    };
    if result == 0 { Ok(usize::try_from(length).unwrap_or(0)) } else { Err(io::Error::last_os_error()) }
}

/// Sets a socket option to what [`option`] has read (`setsockopt(2)`).
///
/// # Errors
/// Where it can't be set to that, or not any more.
pub fn set_option(socket: &impl AsFd, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let length = libc::socklen_t::try_from(value.len()).unwrap_or(0);
    #[expect(unsafe_code, reason = "options of any type have no safe wrapper")]
    // SAFETY: the kernel reads `length` bytes, which are there.
    let result = unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, value.as_ptr().cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
