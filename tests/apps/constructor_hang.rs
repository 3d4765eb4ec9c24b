//! A library whose constructor never returns: whoever loads it runs it.
#![expect(unsafe_code, reason = "a constructor is an entry of a section of the linker's")]

use app_abi::{App, Body, Host, Request, Response, StartError};

// SAFETY: the section holds pointers to functions that take nothing they need (`elf(5)`).
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = constructor;

extern "C" fn constructor() {
    loop {
        std::thread::park();
    }
}

struct Never;

impl App for Never {
    async fn start(_: Host) -> Result<Self, StartError> {
        Ok(Self)
    }

    async fn call(&self, _: Request<Body>) -> Response<Body> {
        Response::new(Body::empty())
    }
}

app_abi::export_app!(Never);
