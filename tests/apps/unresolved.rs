//! An app that calls a function which no library has.
#![expect(unsafe_code, reason = "the function is foreign")]

use app_abi::{App, Body, Host, Request, Response, StartError};

unsafe extern "C" {
    fn no_library_has_this_function() -> u32;
}

struct Unresolved;

impl App for Unresolved {
    async fn start(_: Host) -> Result<Self, StartError> {
        Ok(Self)
    }

    async fn call(&self, _: Request<Body>) -> Response<Body> {
        // SAFETY: it is never reached, because the library can't be loaded.
        let number = unsafe { no_library_has_this_function() };
        Response::new(Body::from(number.to_string()))
    }
}

app_abi::export_app!(Unresolved);
