use super::*;
use crate::abi::FfiAddress;

#[test]
fn a_value_that_is_no_utf8_is_kept_and_no_text() {
    let bytes = bytes::Bytes::from_static(b"caf\xe9 \xff\x80\t");
    let checked = HeaderValue::from_maybe_shared(bytes.clone()).expect("opaque bytes are a value");
    // SAFETY: the bytes were checked just now.
    let value = unsafe { HeaderValue::from_maybe_shared_unchecked(bytes.clone()) };
    assert_eq!(value, checked);
    assert_eq!((value.as_bytes(), value.as_bytes().as_ptr()), (&bytes[..], bytes.as_ptr()), "nothing is copied");
    assert!(value.to_str().is_err());
    assert_eq!(format!("{value:?}"), format!("{checked:?}"));
}

#[test]
fn addresses_survive_the_line() {
    for text in ["127.0.0.1:80", "[2001:db8::1]:65535", "[fe80::1%7]:1"] {
        let address = Address::Tcp(text.parse().unwrap());
        assert_eq!(Address::from(FfiAddress::from(address)), address);
    }
    assert_eq!(Address::from(FfiAddress::from(Address::Unix)), Address::Unix);
}

#[test]
fn a_connection_among_the_extensions_is_found() {
    let info =
        ConnectionInfo { peer: Address::Unix, local: Address::Unix, listener: "unix:/run/app.sock", scheme: "http" };
    let mut request = Request::new(Body::empty());
    assert_eq!(request.connection(), None);
    request.extensions_mut().insert(info);
    assert_eq!(request.connection(), Some(info));
}
