//! The head of a request on its way to the app, for whoever plays the host.
//!
//! Owns the encoding that [`FfiHead`] and [`FfiSpan`] describe; `request` reads it.
#![expect(unsafe_code, reason = "fills the app's buffers")]

use crate::abi::{FfiHead, FfiSpan};
use crate::arena::SENSITIVE;
use http::{Method, Version, request::Parts};
use std::ptr;

/// The texts of a head that come before its headers. A method that has a code needs none.
fn texts(parts: &Parts) -> [&[u8]; 4] {
    let uri = &parts.uri;
    let method = if method_code(&parts.method) == 0 { parts.method.as_str() } else { "" };
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    [method, uri.scheme_str().unwrap_or_default(), authority, path].map(str::as_bytes)
}

/// The length of a text of a head. Servers bound a whole head far below 4 GiB.
fn len(text: &[u8]) -> u32 {
    u32::try_from(text.len()).unwrap_or(u32::MAX)
}

/// How much room a head needs, and what needs none.
#[must_use]
pub fn describe(parts: &Parts, ended: bool) -> FfiHead {
    let texts = texts(parts);
    let [method_len, scheme_len, authority_len, path_len] = texts.map(len);
    let headers: usize = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    FfiHead {
        method: method_code(&parts.method),
        version: version_code(parts.version),
        ended,
        method_len,
        scheme_len,
        authority_len,
        path_len,
        header_count: u32::try_from(parts.headers.len()).unwrap_or(u32::MAX),
        text_len: texts.iter().map(|text| text.len()).sum::<usize>() + headers,
    }
}

/// Lays the texts of a head and its headers down.
///
/// # Safety
/// `buffer` has room for as many bytes, and `spans` for as many spans, as [`describe`] has said of the
/// same parts.
pub unsafe fn fill(parts: &Parts, buffer: *mut u8, spans: *mut FfiSpan) {
    let mut at = buffer;
    let mut put = |text: &[u8]| {
        // SAFETY: the caller's promise; all texts together have as many bytes, and are put down once each.
        unsafe {
            ptr::copy_nonoverlapping(text.as_ptr(), at, text.len());
            at = at.add(text.len());
        }
    };
    texts(parts).into_iter().for_each(&mut put);
    for (index, (name, value)) in parts.headers.iter().enumerate() {
        let flag = if value.is_sensitive() { SENSITIVE } else { 0 };
        let name = name.as_str().as_bytes();
        put(name);
        put(value.as_bytes());
        let span = FfiSpan { name_len: len(name), value_len: len(value.as_bytes()) | flag };
        // SAFETY: the caller's promise.
        unsafe { spans.add(index).write(span) }
    }
}

fn method_code(method: &Method) -> u8 {
    match *method {
        Method::GET => 1,
        Method::HEAD => 2,
        Method::POST => 3,
        Method::PUT => 4,
        Method::DELETE => 5,
        Method::OPTIONS => 6,
        Method::PATCH => 7,
        Method::CONNECT => 8,
        Method::TRACE => 9,
        _ => 0,
    }
}

fn version_code(version: Version) -> u8 {
    match version {
        Version::HTTP_09 => 9,
        Version::HTTP_10 => 10,
        Version::HTTP_2 => 20,
        Version::HTTP_3 => 30,
        _ => 11,
    }
}
