//! A library whose constructor ends the process with 0: whoever loads it runs it.
#![expect(unsafe_code, reason = "a constructor is an entry of a section of the linker's")]
#![expect(clippy::disallowed_methods, reason = "to end the process is what it is for")]

use app_abi::{App, Body, Host, Request, Response, StartError};

// SAFETY: the section holds pointers to functions that take nothing they need (`elf(5)`).
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = constructor;

extern "C" fn constructor() {
    std::process::exit(0)
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
