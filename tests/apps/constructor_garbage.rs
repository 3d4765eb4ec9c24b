//! A library whose constructor writes what is no message to every pipe of whoever loads it, and stays.
#![expect(unsafe_code, reason = "a constructor is an entry of a section of the linker's, and reaches every descriptor")]

use app_abi::{App, Body, Host, Request, Response, StartError};

// SAFETY: the section holds pointers to functions that take nothing they need (`elf(5)`).
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = constructor;

extern "C" fn constructor() {
    for entry in std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
        let number = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        let is_pipe = std::fs::read_link(entry.path()).is_ok_and(|link| link.to_string_lossy().starts_with("pipe:"));
        if let Some(number) = number.filter(|number| is_pipe && *number > 2) {
            // SAFETY: the pointer is to as many bytes; a number that names nothing any more is an error.
            unsafe { libc::write(number, [0xff_u8; 100].as_ptr().cast(), 100) };
        }
    }
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
