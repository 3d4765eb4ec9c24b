//! Which request the app works on.

use std::fmt;

use super::MAX_ROUTE;

/// A method and a path, cut to [`MAX_ROUTE`] bytes, ready to be stored in the page.
#[derive(Clone)]
pub struct Route {
    pub(super) length: u8,
    pub(super) bytes: [u8; MAX_ROUTE],
}

impl Route {
    /// The route of a request.
    pub fn new(method: &str, path: &str) -> Self {
        let mut route = Self { length: 0, bytes: [0; MAX_ROUTE] };
        for part in [method, " ", path] {
            route.push(part.as_bytes());
        }
        route
    }

    fn push(&mut self, part: &[u8]) {
        let rest = &mut self.bytes[usize::from(self.length)..];
        let length = part.len().min(rest.len());
        rest[..length].copy_from_slice(&part[..length]);
        self.length += u8::try_from(length).expect("a route has at most 128 bytes");
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Route({})", String::from_utf8_lossy(&self.bytes[..usize::from(self.length)]))
    }
}

// A route's length is a byte.
const _: () = assert!(MAX_ROUTE <= u8::MAX as usize);
